"""Splits by patient, stable for good."""

import hashlib
from collections.abc import Mapping

from chestx_jax.data.schema import Study

SPLITS: Mapping[str, int] = {"train": 80, "validation": 10, "test": 10}
"""Split -> share of the patients in percent, where the collection has no official one."""


def split_of(study: Study) -> str:
    """The official split, else one drawn by a hash of the patient (of the study where patients are unknown).

    The hash takes neither the seed nor the other studies in, so a patient stays in the same split for good.
    """
    if study.split is not None:
        return study.split
    who = study.patient if study.patient is not None else f"study {study.id}"
    place = int.from_bytes(hashlib.sha256(f"{study.source}|{who}".encode()).digest()[:8], "big") % 100
    for split, share in SPLITS.items():
        place -= share
        if place < 0:
            return split
    raise AssertionError("the shares add up to 100")
