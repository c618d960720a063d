"""Findings to the 14 CheXpert labels."""

from __future__ import annotations

from collections.abc import Iterable

from chestx_jax.radiology.findings import Finding, extract_findings
from chestx_jax.radiology.ontology import LABELS, load


def label_report(text: str) -> dict[str, int | None]:
    """Each of the 14 labels (ontology.LABELS): 1 present, 0 absent, -1 uncertain, None not mentioned."""
    return label_findings(extract_findings(text))


def label_findings(findings: Iterable[Finding]) -> dict[str, int | None]:
    """The labels of findings, aggregated as in Irvin et al. 2019, section 2.2.3: present over uncertain over
    absent.

    A present concept carries its parents' labels with it (consolidation is a lung opacity, the tree of their
    figure 1); an absent one denies its children's ("the lungs are clear": no consolidation). "Unlikely"
    counts as absent. "no finding" is 1 when something is said and no other label but support devices is
    present or uncertain, else 0, and None for a text without findings.
    """
    ontology = load()
    values: dict[str, int | None] = dict.fromkeys(LABELS)
    spoken = False
    for finding in findings:
        if not finding.asserted:
            continue
        spoken = True
        present = finding.polarity == "present"
        related = ontology.ancestors if present else ontology.descendants
        value = (1 if finding.certainty == "definite" else -1) if present else 0
        for concept in related[finding.concept]:
            label = ontology.concepts[concept].label
            if label is not None and _rank(value) > _rank(values[label]):
                values[label] = value
    if spoken:
        quiet = all(values[label] in (0, None) for label in LABELS[1:] if label != "support devices")
        values["no finding"] = int(quiet)
    return values


def _rank(value: int | None) -> int:
    return (None, 0, -1, 1).index(value)
