"""Samples to labelled reasoning: gold steps, some of them made false, each with its label, kind and weight.

Labels: `SUPPORTED`, the step of the gold reasoning; `CONTRADICTED`, a rewriting of it that is known to be false;
`UNVERIFIABLE`, a step that claims no finding, or that gives the answer (the outcome reward judges that).

Weights: a model that sees no image can tell a false step from a true one where one claim is more often false than
true ("a fracture is present" mostly is, for fractures are rare). So each claim (concept, polarity) weighs as much
where it is false as where it is true: the larger side counts for less.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chestx_jax.data.chat import parse, target
from chestx_jax.data.perturbations.rewrite import KINDS, Donors, Gold, asserted, compares, rewrite
from chestx_jax.data.schema import Sample

log = logging.getLogger(__name__)

LABELS = ("supported", "contradicted", "not verifiable")
SUPPORTED, CONTRADICTED, UNVERIFIABLE = range(3)
FIELD = "labelled_steps"
UNTOUCHED = 0.2  # of the samples
FALSE_IF_AFFIRMED, FALSE_IF_DENIED = 0.5, 0.12
"""How often a step of a touched sample is made false. Most steps deny: one of them a reading."""


@dataclass(frozen=True)
class LabelledStep:
    """One step with its truth.

    Attributes:
      label: an index into `LABELS`.
      kind: one of `KINDS` where contradicted, else "gold".
      claim: what is claimed, as far as the weights tell claims apart: "edema present", "change", "".
      weight: 0 to 1.
    """

    text: str
    label: int
    kind: str
    claim: str
    weight: float = 1.0


def labelled_steps(sample: Sample) -> tuple[LabelledStep, ...]:
    """The steps of a sample that `label_samples` made."""
    return sample.extra[FIELD]


def label_samples(samples: Sequence[Sample], seed: int, copies: int = 1) -> tuple[Sample, ...]:
    """Samples whose reasoning holds false steps, with `labelled_steps`; the same for the same seed.

    Args:
      copies: versions of each sample, with other false steps each.

    Samples without reasoning, and those whose steps do not survive being joined and split, are left out; a log
    line tells how many.
    """
    gold = {sample.id: _gold_steps(sample) for sample in samples if sample.reason_steps}
    donors = Donors.of((sample.study, step) for sample in samples for step in gold.get(sample.id, ()))
    made = []
    for copy in range(copies):
        for sample in samples:
            steps = gold.get(sample.id, ())
            rng = random.Random(hashlib.sha256(f"{seed} {copy} {sample.id}".encode()).digest())
            labelled = _with_steps(sample, copy, _perturbed(sample, steps, donors, rng))
            if steps and parse(target(labelled, "reason")).steps == labelled.reason_steps:
                made.append(labelled)
    if len(made) < copies * len(samples):
        log.info("%d of %d samples have steps to judge", len(made), copies * len(samples))
    return _weighted(made)


def _gold_steps(sample: Sample) -> tuple[str, ...]:
    return parse(target(sample, "reason")).steps


def _perturbed(
    sample: Sample, steps: Sequence[str], donors: Donors, rng: random.Random
) -> list[LabelledStep]:
    gold = Gold.of(sample.study, [step for step in steps if not _gives_answer(step)], sample.report)
    untouched = rng.random() < UNTOUCHED
    labelled: list[LabelledStep] = []
    for step in steps:
        claims = asserted(step)
        if _gives_answer(step) or not claims:
            labelled.append(LabelledStep(step, UNVERIFIABLE, "gold", ""))
            continue
        often = FALSE_IF_AFFIRMED if any(c.polarity == "present" for c in claims) else FALSE_IF_DENIED
        often = FALSE_IF_AFFIRMED if compares(step) else often
        false = None if untouched or rng.random() >= often else _falsify(step, gold, donors, rng)
        text, kind = false or (step, "gold")
        label = CONTRADICTED if false else SUPPORTED
        labelled.append(LabelledStep(text, label, kind, _claim(text)))
    return labelled


def _falsify(step: str, gold: Gold, donors: Donors, rng: random.Random) -> tuple[str, str] | None:
    for kind in rng.sample(KINDS, len(KINDS)):
        if text := rewrite(step, kind, gold, donors, rng):
            return text, kind
    return None


def _gives_answer(step: str) -> bool:
    low = step.lower()
    return "answer" in low or " option " in low


def _claim(step: str) -> str:
    if compares(step):
        return "change"
    first = asserted(step)[0]
    return f"{first.concept} {first.polarity}"


def _with_steps(sample: Sample, copy: int, steps: Sequence[LabelledStep]) -> Sample:
    return replace(
        sample,
        id=f"{sample.id}~{copy}",
        reason_steps=tuple(step.text for step in steps),
        extra={**sample.extra, FIELD: tuple(steps)},
    )


def _weighted(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    counts = Counter((step.claim, step.label) for sample in samples for step in labelled_steps(sample))

    def weigh(step: LabelledStep) -> LabelledStep:
        if step.label == UNVERIFIABLE:
            return step
        own = counts[step.claim, step.label]
        other = counts[step.claim, SUPPORTED + CONTRADICTED - step.label]
        # plus one: a claim that is never false here still counts for something
        return replace(step, weight=(min(own, other) + 1) / (own + 1))

    return tuple(
        replace(sample, extra={**sample.extra, FIELD: tuple(map(weigh, labelled_steps(sample)))})
        for sample in samples
    )
