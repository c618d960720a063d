"""An embedded phantom collection: chest X-ray-like pictures with findings drawn in, reports, exact reasoning.

Seeded and deterministic: study i depends on (seed, i) and on nothing else. See `scene` for the labels'
conventions; pneumonia is not drawn (a picture alone does not decide it), so it is never 0 or 1 here.
"""

from chestx_jax.data.sources.phantom.collection import PhantomStudy, phantom, studies
from chestx_jax.data.sources.phantom.render import render
from chestx_jax.data.sources.phantom.scene import (
    LABELS,
    TEMPORAL_LABELS,
    Acquisition,
    Finding,
    Patient,
    Scene,
)

__all__ = [
    "LABELS",
    "TEMPORAL_LABELS",
    "Acquisition",
    "Finding",
    "Patient",
    "PhantomStudy",
    "Scene",
    "phantom",
    "render",
    "studies",
]
