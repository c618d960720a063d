"""RSNA Pneumonia Detection Challenge, stage 2 (Shih et al., Radiology: AI 2019): answer-only.

Layout: `stage_2_train_labels.csv` (patientId, x, y, width, height, Target; a row a box),
`stage_2_detailed_class_info.csv` (patientId, class), images `stage_2_train_images/<patientId>.dcm`. The test
images of stage 2 have no published labels.

Target is the label "pneumonia" (lung opacity suspicious of it). The class "Normal" is "no finding". "No Lung
Opacity / Not Normal" says that something else is there, not what. No official split.

A "patientId" names one image of NIH ChestX-ray14, whose patients have several. Which image is whose tells RSNA's
`pneumonia-challenge-dataset-mappings_2018.json` (img_id "00000001_000.png": patient 00000001, subset_img_id:
the patientId): put it beside the tables, and splits are by patient; without it patients are unknown.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from chestx_jax.data.schema import NO_FINDING, Study
from chestx_jax.data.sources import Reject, Rejected, SourceError
from chestx_jax.data.sources.image_files import usable
from chestx_jax.data.sources.tables import find_tables, rows

TABLE, CLASSES, IMAGES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_TARGETS = {"Normal": "0", "No Lung Opacity / Not Normal": "0", "Lung Opacity": "1"}


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every image of the label table.

    Rejected: a missing or unreadable image, a row without a class, with an unknown one, or with one that
    contradicts Target; an image that the mapping, where it is there, does not have.

    Raises:
      SourceError: a table, a column or the image directory is missing, or the mapping is not what it should be.
    """
    table, classes = find_tables("RSNA Pneumonia", root, [root], [TABLE, CLASSES])
    if not (root / IMAGES).is_dir():
        raise SourceError(f"no RSNA Pneumonia collection at {root}: not found: {IMAGES}")
    return _studies(
        root / IMAGES,
        _patients(root / MAPPING) if (root / MAPPING).is_file() else None,
        rows(table, ("patientId", "Target"), reject),
        rows(classes, ("patientId", "class"), reject),
        reject,
    )


def _patients(path: Path) -> dict[str, str]:
    """patientId -> the patient of NIH ChestX-ray14."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {record["subset_img_id"]: record["img_id"].partition("_")[0] for record in records}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path}: not a list of objects with subset_img_id and img_id: {error!r}"
        ) from error


def _studies(
    folder: Path,
    patients: Mapping[str, str] | None,
    boxes: Iterator[dict[str, str]],
    classes: Iterator[dict[str, str]],
    reject: Reject,
) -> Iterator[Study]:
    kinds = {row["patientId"]: row["class"] for row in classes}
    seen: set[str] = set()
    for row in boxes:
        name, kind = row["patientId"], kinds.get(row["patientId"])
        if name in seen:
            continue  # another box
        seen.add(name)
        if kind not in _TARGETS:
            reject(Rejected(f"{CLASSES}: {name}", f"class is {kind!r}, none of {', '.join(_TARGETS)}"))
        elif row["Target"] != _TARGETS[kind]:
            reject(Rejected(f"{TABLE}: {name}", f"Target is {row['Target']!r}, but the class {kind!r}"))
        elif patients is not None and name not in patients:
            reject(Rejected(f"{TABLE}: {name}", f"not in {MAPPING}"))
        elif images := usable(TABLE, [folder / f"{name}.dcm"], reject):
            yield Study(
                id=name,
                source="rsna",
                images=images,
                patient=None if patients is None else patients[name],
                labels={"pneumonia": int(row["Target"]), NO_FINDING: int(kind == "Normal")},
                extra={"class": kind},
            )
    for name in sorted(kinds.keys() - seen):
        reject(Rejected(f"{CLASSES}: {name}", f"not in {TABLE}"))
