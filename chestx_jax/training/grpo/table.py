"""A page of completions as training sees them: images, reasoning coloured by verdict, rewards, advantage."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from chestx_jax.data.jsonl import atomic_text
from chestx_jax.data.schema import Sample
from chestx_jax.evaluation.accuracy import judge
from chestx_jax.evaluation.offline_scores import score_offline
from chestx_jax.evaluation.page import Table, Text, render
from chestx_jax.evaluation.page.cases import items
from chestx_jax.evaluation.page.pictures import Album
from chestx_jax.rewards import Rewards
from chestx_jax.rollout import Completion


def write_table(
    path: Path,
    step: int,
    completion: Completion,
    rewards: Rewards,
    advantages: Float[np.ndarray, "R N"],
    *,
    group_size: int,
    prompts: int,
) -> None:
    """The first `prompts` groups of a step as a page at `path`, which is replaced as a whole.

    The advantage of a completion is the mean over its tokens.
    """
    shown = min(prompts, len(completion) // group_size)
    samples = _told_apart([completion.samples[p * group_size] for p in range(shown)])
    names = [f"completion {g + 1}" for g in range(group_size)]
    rows = {
        name: {
            sample.id: {
                "prediction": completion.texts[p * group_size + g],
                "finished": bool(completion.ended[p * group_size + g]),
            }
            for p, sample in enumerate(samples)
        }
        for g, name in enumerate(names)
    }
    cases = {name: judge(samples, rows[name]) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = items(cases, score_offline(cases), rows, Album(path.parent))
    means = advantages.sum(axis=1) / np.maximum(completion.lengths, 1)
    pages = [
        replace(
            item,
            texts=[
                _with_numbers(text, rewards, means, p * group_size + g) for g, text in enumerate(item.texts)
            ],
        )
        for p, item in enumerate(pages)
    ]
    html = render(f"Completions of step {step}", [_summary(rewards)], [], pages)
    with atomic_text(path) as file:
        file.write(html)


def _told_apart(samples: Sequence[Sample]) -> list[Sample]:
    """A sample that a step drew again, as it does from little data, as a case of its own."""
    drawn: Counter[str] = Counter()
    named = []
    for sample in samples:
        drawn[sample.id] += 1
        again = f" (draw {drawn[sample.id]})" if drawn[sample.id] > 1 else ""
        named.append(replace(sample, id=sample.id + again))
    return named


def _with_numbers(text: Text, rewards: Rewards, advantages: Float[np.ndarray, " R"], row: int) -> Text:
    each = {f"{name} reward": float(values[row]) for name, values in rewards.components.items()}
    numbers = {name: value for name, value in each.items() if not np.isnan(value)}
    numbers |= {"reward": float(rewards.total[row]), "advantage": float(advantages[row])}
    return replace(text, numbers=numbers)


def _summary(rewards: Rewards) -> Table:
    rows = [
        [name, f"{rewards.weights[name]:g}", f"{np.nanmean(values):.3f}", f"{np.nanstd(values):.3f}"]
        for name, values in rewards.components.items()
        if not np.isnan(values).all()
    ]
    rows.append(["sum", "", f"{rewards.total.mean():.3f}", f"{rewards.total.std():.3f}"])
    return Table("Rewards of this step", ("reward", "weight", "mean", "spread"), rows)
