"""Fooling the offline RadRScore: every probe stays below the real outputs, the gold reasoning above."""

from pathlib import Path

import pytest

from chestx_jax.evaluation.radrscore import read_judged
from chestx_jax.evaluation.radrscore.judged import subjects_of
from chestx_jax.evaluation.radrscore.probes import PROBES, ProbeRow, probe_table

MARGIN = 0.05
CLEAR = (
    "ten normal statements",
    "real output + ten normals",
    "every option present",
    "every option hedged",
    "every option, none large",
    "generic filler",
    "another sample's output",
    "question repeated",
    "one true finding",
    "one true finding five times",
    "contradiction pairs",
    "real output + contradiction pairs",
    "every option absent",
    "no reasoning",
)
LOWER = ("real output + filler", "real output twice")


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> dict[str, ProbeRow]:
    records = read_judged(shared_data / "radrbench" / "openi_judged.jsonl.gz")
    return {row.name: row for row in probe_table(subjects_of(records))}


def test_every_probe_is_tried(rows: dict[str, ProbeRow]) -> None:
    assert {*CLEAR, *LOWER} == set(PROBES)
    assert set(rows) == {"gold reasoning", "real output", *PROBES}
    assert rows["real output"].count > 600


@pytest.mark.parametrize("name", CLEAR)
def test_a_probe_scores_clearly_lower(rows: dict[str, ProbeRow], name: str) -> None:
    assert rows[name].margin >= MARGIN
    assert rows[name].lower > 0.5


@pytest.mark.parametrize("name", LOWER)
def test_a_probe_scores_lower(rows: dict[str, ProbeRow], name: str) -> None:
    assert rows[name].margin > 0


@pytest.mark.parametrize("name", ["real output + filler", "real output twice", "no reasoning"])
def test_padding_never_pays(rows: dict[str, ProbeRow], name: str) -> None:
    assert rows[name].not_higher == 1


def test_the_gold_reasoning_scores_highest(rows: dict[str, ProbeRow]) -> None:
    assert rows["gold reasoning"].score == pytest.approx(1)
    assert max(row.score for name, row in rows.items() if name != "gold reasoning") < 0.5
