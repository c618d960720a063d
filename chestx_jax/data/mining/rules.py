"""The rule miner: a report and an answer -> reasoning, offline and deterministic.

Form: what is asked; one step an option, label or region with what is seen there; the conclusion that names the
answer. Evidence comes from the report's findings (`radiology`); what the report does not mention is taken as
normal, as in the paper's mining (ChestX-Reasoner, arXiv 2504.20930), and told as an observation. Change since
an earlier film is left out where only one time is shown. Sentences come from `wording.toml`, each read back by
the findings room before it is used, so a step claims what the report or the answer says and nothing more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from chestx_jax.data.mining.closed import binary_steps, option_steps
from chestx_jax.data.mining.facts import Facts
from chestx_jax.data.mining.review import anomaly_steps
from chestx_jax.data.mining.sources import asked_label, is_normal
from chestx_jax.data.mining.teller import Teller
from chestx_jax.data.mining.temporal import temporal_steps
from chestx_jax.data.mining.wording import named
from chestx_jax.data.schema import Sample

_STEPS = {
    "binary": binary_steps,
    "single": option_steps,
    "multiple": option_steps,
    "anomaly": anomaly_steps,
    "temporal": temporal_steps,
}
_PROBLEM = {
    "binary": (
        "The question is whether this chest X-ray shows {label}.",
        "I have to decide whether {label} can be seen.",
        "Yes or no: can {label} be seen here?",
    ),
    "single": (
        "One of {count} findings has to be recognized.",
        "I have to find out which of {count} options fits this chest X-ray.",
        "There are {count} options, and one of them fits; I take them in turn.",
    ),
    "multiple": (
        "One of {count} sets of findings has to be recognized.",
        "I have to find out which of {count} combinations of findings fits this chest X-ray.",
        "There are {count} combinations, and all findings of one of them are there; I take them in turn.",
    ),
    "anomaly": (
        "I read this chest X-ray region by region.",
        "All findings of this chest X-ray are asked for, so I go through it systematically.",
    ),
    "temporal": (
        "Two images have to be compared for {label}.",
        "I compare the reference image and the new image for {label}.",
    ),
}
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_CONCLUSIONS = (
    "Therefore the answer is {}.",
    "So the answer is {}.",
    "Taken together, the answer is {}.",
    "In conclusion, the answer is {}.",
)
_ONE = (
    "Taken together, the finding is {}.",
    "In conclusion, there is one finding: {}.",
    "To sum up, I find {}.",
)
_OPEN = (
    "Taken together, the findings are {}.",
    "In conclusion, the findings are {}.",
    "To sum up, I find {}.",
)


def mine_rules(sample: Sample, seed: int) -> Sample:
    """The sample with `reason_steps` from its report and answer. Equal samples and seeds give equal steps.

    Raises:
      MiningError: a binary or temporal sample without `extra["label"]`.
    """
    rng = random.Random(f"{seed}|{sample.id}")
    teller = Teller(Facts.of(sample), rng)
    return replace(sample, reason_steps=tuple(_steps(sample, teller)))


def _steps(sample: Sample, teller: Teller) -> Iterator[str]:
    label = named(asked_label(sample)) if sample.task in ("binary", "temporal") else ""
    count = len(sample.options or ())
    problem = teller.rng.choice(_PROBLEM[sample.task])
    yield problem.format(label=label, count=_NUMBERS.get(count, str(count)))
    yield from _STEPS[sample.task](sample, teller)
    yield _conclusion(sample, label, teller.rng)


def _conclusion(sample: Sample, label: str, rng: random.Random) -> str:
    if sample.options is None:
        if is_normal(sample.answer_text):
            return "Taken together, there is no finding."
        forms = _OPEN if "," in sample.answer_text else _ONE
        return rng.choice(forms).format(sample.answer_text.rstrip(". "))
    if sample.task == "binary":
        shows = "shows" if sample.answer_text.lower() == "yes" else "does not show"
        meaning = f"{sample.answer_text}: this chest X-ray {shows} {label}"
    elif sample.task == "temporal":
        meaning = f"the {asked_label(sample)} is {sample.answer_text}"
    else:
        meaning = sample.answer_text.rstrip(". ")
    return rng.choice(_CONCLUSIONS).format(f"{sample.answer}, {meaning}")
