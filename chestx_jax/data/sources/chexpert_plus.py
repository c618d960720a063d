"""CheXpert Plus (Chambon et al., arXiv 2405.19538): CheXpert's studies with their reports.

Layout: `df_chexpert_plus_240401.csv[.gz]` (path_to_image, frontal_lateral, deid_patient_id, section_findings,
section_impression, split, ..), one row an image, the report repeated for each; the labels of
chexbert_labels.zip, `report_fixed.json` (one JSON object a line: path_to_image and 14 labels), beside the table, in
`chexbert_labels/` or in `CheXpert_Labels/`; images `PNG/train/patient00001/study1/view1_frontal.png`, where
the column says .jpg, or as .jpg without `PNG/`.

report_fixed.json labels the whole report. The release's findings_fixed.json is not used: where a report has no
findings section, its labels are "no finding".
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected, SourceError
from chestx_jax.data.sources.image_files import usable
from chestx_jax.data.sources.label_columns import COLUMNS, labels_of
from chestx_jax.data.sources.tables import find_tables, rows, told_already

TABLE, LABELS = "df_chexpert_plus_240401.csv", "report_fixed.json"
_COLUMNS = (
    "path_to_image",
    "frontal_lateral",
    "deid_patient_id",
    "section_findings",
    "section_impression",
    "split",
)
_SPLITS = {"train": "train", "valid": "validation"}
_IMAGE_FOLDERS = ("PNG", "PNG/PNG", ".")


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every study with findings or impression, labels and an image, frontal views first.

    Rejected: a missing or unreadable image; a study without image, report section or labels, or with a split
    that the release does not know.

    Raises:
      SourceError: the table, the labels or a column are missing.
    """
    (table,) = find_tables("CheXpert Plus", root, [root], [TABLE])
    homes = [root, root / "chexbert_labels", root / "CheXpert_Labels"]
    (labels,) = find_tables("CheXpert Plus", root, homes, [LABELS])
    places = [root / folder for folder in _IMAGE_FOLDERS if (root / folder).is_dir()]
    return _studies(table, labels, places, rows(table, _COLUMNS, reject), reject)


def _studies(
    table: Path, label_file: Path, places: list[Path], listed: Iterator[dict[str, str]], reject: Reject
) -> Iterator[Study]:
    labels = _labels(label_file, reject)
    views = _views(table)
    for row in listed:
        folder = row["path_to_image"].rpartition("/")[0]
        shown = views.pop(folder, None)
        if shown is None:
            continue  # another view of a study that was read
        record = f"{table.name}: {folder}"
        if not (row["section_findings"] or row["section_impression"]):
            reject(Rejected(record, "neither section_findings nor section_impression"))
        elif row["split"] not in _SPLITS:
            reject(Rejected(record, f"split is {row['split']!r}, none of {', '.join(_SPLITS)}"))
        elif (values := next((labels[path] for path in shown if path in labels), None)) is None:
            reject(Rejected(record, f"no usable labels in {label_file.name}"))
        elif images := usable(table.name, [_find(places, path) for path in shown], reject):
            yield Study(
                id="_".join(folder.split("/")[-2:]),
                source="chexpert_plus",
                images=images,
                findings=" ".join(row["section_findings"].split()),
                impression=" ".join(row["section_impression"].split()),
                patient=row["deid_patient_id"],
                split=_SPLITS[row["split"]],
                labels=labels_of(dict(zip(COLUMNS, values, strict=True))),
            )
        else:
            reject(Rejected(record, "no image"))


def _views(table: Path) -> dict[str, list[str]]:
    """study's folder -> the paths of its views, frontal ones first. The rows are in no order."""
    views: dict[str, list[str]] = defaultdict(list)
    for row in rows(table, ("path_to_image",), reject=told_already):
        views[row["path_to_image"].rpartition("/")[0]].append(row["path_to_image"])
    for paths in views.values():
        paths.sort(key=lambda path: ("lateral" in path.rpartition("/")[2], path))
    return views


def _labels(path: Path, reject: Reject) -> dict[str, tuple[str, ...]]:
    """path_to_image -> the values of COLUMNS as text, for `labels_of`."""
    labels: dict[str, tuple[str, ...]] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # few combinations occur: each is kept once
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                values = tuple("" if record[name] is None else str(record[name]) for name in COLUMNS)
                labels_of(dict(zip(COLUMNS, values, strict=True)))
                labels[record["path_to_image"]] = known.setdefault(values, values)
            except (ValueError, TypeError, KeyError) as error:
                reject(Rejected(f"{path.name}: line {number}", f"not an image's labels: {error!r}"))
    if not labels:
        raise SourceError(f"{path}: not one line with path_to_image and the 14 labels")
    return labels


def _find(places: list[Path], path: str) -> Path:
    """Where an image is, or would be."""
    stem = path.removesuffix(".jpg").removesuffix(".png")
    candidates = [place / f"{stem}{suffix}" for place in places for suffix in (".png", ".jpg")]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
