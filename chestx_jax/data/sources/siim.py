"""SIIM-ACR Pneumothorax Segmentation (Kaggle 2019): answer-only.

Layout: `train-rle.csv` (ImageId, EncodedPixels: a mask as run lengths, or -1; a row a mask; some copies have
a blank before the second name), images `dicom-images-train/<study>/<series>/<ImageId>.dcm`. Any mask is the
label "pneumothorax". The patient is the DICOM header's, where it names one. No official split is published
with labels.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected, SourceError
from chestx_jax.data.sources.tables import find_tables, rows

TABLE, IMAGES = "train-rle.csv", "dicom-images-train"


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every image of the table.

    Rejected: an image that is missing, not DICOM, or not in the table; a row without EncodedPixels.

    Raises:
      SourceError: the table, a column or the image directory is missing.
    """
    (table,) = find_tables("SIIM-ACR Pneumothorax", root, [root], [TABLE])
    if not (root / IMAGES).is_dir():
        raise SourceError(f"no SIIM-ACR Pneumothorax collection at {root}: not found: {IMAGES}")
    return _studies(root / IMAGES, rows(table, ("ImageId", "EncodedPixels"), reject), reject)


def _studies(folder: Path, masks: Iterator[dict[str, str]], reject: Reject) -> Iterator[Study]:
    files = {
        name.removesuffix(".dcm"): Path(where, name)
        for where, _, names in os.walk(folder)
        for name in names
        if name.endswith(".dcm")
    }
    seen: set[str] = set()
    for row in masks:
        name = row["ImageId"]
        record = f"{TABLE}: {name}"
        if name in seen:
            continue  # another mask
        seen.add(name)
        if not row["EncodedPixels"]:
            reject(Rejected(record, "EncodedPixels is blank"))
        elif name not in files:
            reject(Rejected(record, f"no such image below {IMAGES}"))
        else:
            try:
                header = pydicom.dcmread(files[name], specific_tags=["PatientID"], stop_before_pixels=True)
            except (OSError, InvalidDicomError) as error:
                reject(Rejected(f"{record}: {files[name]}", f"not a DICOM file: {error}"))
                continue
            yield Study(
                id=name,
                source="siim",
                images=(files[name],),
                patient=str(header.get("PatientID") or "") or None,
                labels={"pneumothorax": int(row["EncodedPixels"] != "-1")},
            )
    for name in sorted(files.keys() - seen):
        reject(Rejected(f"{IMAGES}: {name}", f"not in {TABLE}"))
