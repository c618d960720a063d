"""Fooling the process reward: every probe earns clearly less than the real outputs, the gold reasoning most."""

from pathlib import Path

import numpy as np
import pytest

from chestx_jax.evaluation.accuracy import bootstrap_interval
from chestx_jax.evaluation.radrscore import read_judged
from chestx_jax.evaluation.radrscore.judged import subjects_of
from chestx_jax.evaluation.radrscore.probes import PROBES, attempts
from chestx_jax.rewards.process import process_score
from chestx_jax.rewards.reading import read_steps

CLEARLY = 0.15
"""Of what the real outputs earn, about 0.23."""
EVENS = ("every option absent",)
"""Where the model was wrong, denying everything is often the better reasoning: half of the time in all."""


@pytest.fixture(scope="module")
def earned(shared_data: Path) -> dict[str, np.ndarray]:
    """Name of the probe -> rewards [N]."""
    records = read_judged(shared_data / "radrbench" / "openi_judged.jsonl.gz")
    return {
        name: np.array([process_score(read_steps(steps, answer), gold) for steps, answer, gold in tried])
        for name, tried in attempts(subjects_of(records)).items()
    }


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_earns_clearly_less(earned: dict[str, np.ndarray], name: str) -> None:
    real, gap = earned["real output"], earned["real output"] - earned[name]
    assert len(real) > 600
    assert gap.mean() > CLEARLY * real.mean()
    assert bootstrap_interval(gap, seed=0)[0] > 0
    assert (gap > 0).mean() > (0.48 if name in EVENS else 0.5)


@pytest.mark.parametrize("name", ["real output + filler", "real output twice", "no reasoning"])
def test_padding_never_pays(earned: dict[str, np.ndarray], name: str) -> None:
    assert (earned[name] <= earned["real output"]).all()


def test_the_gold_reasoning_earns_the_most(earned: dict[str, np.ndarray]) -> None:
    assert (earned["gold reasoning"] == 1).all()
    for name, values in earned.items():
        assert (values <= 1).all() and (name == "gold reasoning" or values.mean() < 0.4)
