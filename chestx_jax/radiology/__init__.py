"""What a chest X-ray text claims: text to findings, findings to labels, agreement between findings. Pure Python."""

from chestx_jax.radiology.findings import Finding, extract_findings
from chestx_jax.radiology.labels import label_findings, label_report
from chestx_jax.radiology.ontology import LABELS, Concept, Ontology, OntologyError, Place, load

__all__ = [
    "LABELS",
    "Concept",
    "Finding",
    "Ontology",
    "OntologyError",
    "Place",
    "extract_findings",
    "label_findings",
    "label_report",
    "load",
]
