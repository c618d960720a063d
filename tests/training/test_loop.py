"""What the loop saves when its input fails, and what it writes down; without a model."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chestx_jax.data.pipeline import PipelineError
from chestx_jax.training.loop import Hooks, train
from chestx_jax.training.metrics import MetricWriter
from chestx_jax.training.sft import make_evaluate
from chestx_jax.training.state import TrainingError


class Batches:
    """Batches 1, 2, ..; the one called `broken` cannot be made."""

    def __init__(self, broken: int):
        self.taken, self._broken = 0, broken

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.taken + 1 == self._broken:
            raise PipelineError("samples.jsonl: sample 's', field images[0]: torn")
        self.taken += 1
        return SimpleNamespace(ids=(f"s{self.taken}",))

    def get_state(self) -> dict[str, Any]:
        return {"next_step": self.taken}


def saved_by(tmp_path: Path, *, start: int, broken: int, nan_at: int = 0) -> list[tuple[int, int, int]]:
    """(step, updates in the state, next batch) of every save of a run that ends with an error."""
    saves: list[tuple[int, int, int]] = []

    def step(state: Any, batch: Any) -> tuple[Any, dict[str, float]]:
        loss = float("nan") if state + 1 == nan_at else 1.0
        return state + 1, {"loss": loss, "grad_norm": 1.0, "tokens": 8.0}

    hooks = Hooks(
        train_step=step,
        save=lambda step, state, data, evaluated: saves.append((step, state, data["next_step"])),
        evaluate=lambda step, state: {},
    )
    batches, writer = Batches(broken), MetricWriter(tmp_path, start)
    batches.taken = start
    try:
        with pytest.raises(TrainingError if nan_at else PipelineError):
            train(start, batches, hooks, start=start, steps=9, save_every=2, eval_every=9, writer=writer)
    finally:
        writer.close()
    return saves


def test_what_was_done_before_a_broken_batch_is_saved(tmp_path: Path) -> None:
    assert saved_by(tmp_path, start=0, broken=4) == [(2, 2, 2), (3, 3, 3)]


def test_nothing_is_saved_where_nothing_was_done(tmp_path: Path) -> None:
    assert saved_by(tmp_path, start=4, broken=5) == []


def test_a_broken_batch_behind_a_loss_that_is_not_finite_saves_nothing(tmp_path: Path) -> None:
    assert saved_by(tmp_path, start=0, broken=4, nan_at=3) == [(2, 2, 2)]


def test_without_validation_samples_no_figure_is_written(tmp_path: Path) -> None:
    """A mean over nothing would be a NaN, which is no JSON."""
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, make_evaluate(None, None, [], 8)(1, None))
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
