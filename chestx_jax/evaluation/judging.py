"""RadRScore as a language model judges it, over the models of an evaluation: asked now, or read from records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from chestx_jax.evaluation.accuracy import Case
from chestx_jax.evaluation.offline_scores import Scored
from chestx_jax.evaluation.radrscore.aggregate import Judgment, RadRScore, aggregate, judgment
from chestx_jax.evaluation.radrscore.correlation import spearman
from chestx_jax.evaluation.radrscore.judge import estimate_judging, judge_cases
from chestx_jax.evaluation.records import RecordError, text_field
from chestx_jax.llm import Client, Estimate

Record = Mapping[str, Any]
"""One judged output, in the shape that `radrscore.aggregate` reads."""
Models = Mapping[str, Sequence[Case]]


class Judge(Protocol):
    """Who judges; `name` follows "RadRScore, " in headings."""

    @property
    def name(self) -> str: ...

    def judge(self, models: Models) -> list[Record]:
        """At most one record a case."""
        ...


@dataclass(frozen=True)
class LanguageModelJudge:
    """Asks `client`; cases without gold reasoning or report are left out."""

    client: Client
    prompts: Path | None = None

    @property
    def name(self) -> str:
        return f"judged by {self.client.endpoint.model}"

    def judge(self, models: Models) -> list[Record]:
        return [
            record
            for model, cases in models.items()
            for record in judge_cases(_judgeable(cases), model, self.client, self.prompts)
        ]

    def estimate(self, models: Models) -> Estimate:
        """A dry run; gold findings, asked once for all models, count for each."""
        estimates = [
            estimate_judging(_judgeable(cases), self.client, self.prompts) for cases in models.values()
        ]
        return reduce(add, estimates)


@dataclass(frozen=True)
class RecordedJudge:
    """Judgments that are there, in `file`."""

    file: str
    records: Sequence[Record]

    @property
    def name(self) -> str:
        return f"judgments of {self.file}"

    def judge(self, models: Models) -> list[Record]:
        known = {(r["model"], r["id"]): r for r in self.records}
        return [
            known[model, case.sample.id]
            for model, cases in models.items()
            for case in cases
            if (model, case.sample.id) in known
        ]


def _judgeable(cases: Iterable[Case]) -> list[Case]:
    """Those with gold reasoning and report, without which there is nothing to judge by."""
    return [case for case in cases if case.sample.reason_steps and case.sample.report]


def judged_models(records: Iterable[Record]) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """The outputs that were judged, as predictions: rows by sample id, by model.

    Raises:
      RecordError: a record without `pred`, or a sample that a model answers twice.
    """
    models: dict[str, dict[str, dict[str, str]]] = {}
    for record in records:
        model, identity = record["model"], record["id"]
        rows = models.setdefault(model, {})
        if identity in rows:
            raise RecordError(f"record {identity!r}: model {model!r} answers it twice")
        rows[identity] = {"id": identity, "prediction": text_field(record, "pred", f"record {identity!r}")}
    return {model: rows for model, rows in models.items()}


@dataclass(frozen=True)
class Agreement:
    """Spearman of other scores with the judge's RadRScore over `count` outputs that have both; None where a
    side is constant."""

    model: str
    count: int
    offline: float | None
    right: float | None  # of "the answer is right", the baseline that any judge must beat

    def sentence(self) -> str:
        """For the page and the terminal."""
        offline, right = ("–" if x is None else f"{x:.2f}" for x in (self.offline, self.right))
        return (
            f"{self.model}: rank correlation with the judge's RadRScore over {self.count} outputs {offline} for "
            f"the offline RadRScore, {right} for a right answer alone."
        )


@dataclass(frozen=True)
class Judged:
    """What a judge said of the models.

    Attributes:
      judge: its name.
      rows: RadRScore by task and model, "all" last where there are several tasks.
      records: by model, by sample id.
    """

    judge: str
    rows: list[RadRScore]
    agreement: list[Agreement]
    records: Mapping[str, Mapping[str, Record]]


def judge_models(
    judge: Judge, models: Models, scored: Mapping[str, Sequence[Scored | None]]
) -> Judged | None:
    """None where no case could be judged.

    Raises:
      AggregateError: all judgments of a model and task are malformed.
      LLMError, JudgeError: see `judge_cases`.
    """
    tasks = {case.sample.id: case.sample.task for cases in models.values() for case in cases}
    found = [{**record, "task": tasks[record["id"]]} for record in judge.judge(models)]
    if not found:
        return None
    order = [*dict.fromkeys(tasks.values()), "all"]
    rows = aggregate(found)
    if len({record["task"] for record in found}) > 1:
        rows += aggregate({**record, "task": "all"} for record in found)
    rows.sort(key=lambda row: order.index(row.task))
    records: dict[str, dict[str, Record]] = {}
    for record in found:
        records.setdefault(record["model"], {})[record["id"]] = record
    agreements = [_agreement(model, own, scored[model]) for model, own in records.items()]
    return Judged(judge.name, rows, [one for one in agreements if one], records)


def _agreement(
    model: str, records: Mapping[str, Record], scored: Sequence[Scored | None]
) -> Agreement | None:
    pairs = [
        (one, said)
        for one in scored
        if one is not None
        and one.case.sample.id in records
        and isinstance(said := judgment(records[one.case.sample.id]), Judgment)
    ]
    if not pairs:
        return None
    judged = np.array([said.score for _, said in pairs])
    offline = np.array([one.result.score for one, _ in pairs])
    right = np.array([one.case.correct for one, _ in pairs], dtype=np.float64)
    return Agreement(model, len(pairs), _correlation(offline, judged), _correlation(right, judged))


def _correlation(one: np.ndarray, two: np.ndarray) -> float | None:
    value = spearman(one, two)
    return None if np.isnan(value) else value
