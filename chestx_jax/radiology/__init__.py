"""What a chest X-ray text claims: text to findings, findings to labels, agreement between findings. Pure
Python."""

from chestx_jax.radiology.agreement import (
    Agreement,
    Match,
    assertions,
    contradictions,
    match_findings,
    relation,
)
from chestx_jax.radiology.findings import Finding, extract_findings
from chestx_jax.radiology.labels import label_findings, label_report
from chestx_jax.radiology.ontology import LABELS, Concept, Ontology, OntologyError, Place, load

__all__ = [
    "LABELS",
    "Agreement",
    "Concept",
    "Finding",
    "Match",
    "Ontology",
    "OntologyError",
    "Place",
    "assertions",
    "contradictions",
    "extract_findings",
    "label_findings",
    "label_report",
    "load",
    "match_findings",
    "relation",
]
