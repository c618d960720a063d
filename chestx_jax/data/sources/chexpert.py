"""CheXpert 1.0, full size or small (Irvin et al., AAAI 2019): labels without reports, so answer-only.

Layout: `train.csv` and `valid.csv` (Path, Sex, Age, Frontal/Lateral, AP/PA, 14 label columns), images
`train/patient00001/study1/view1_frontal.jpg`, with "CheXpert-v1.0/" or "CheXpert-v1.0-small/" before them in
the column Path. As the full-size archives unpack, the tables and `valid/` may lie in "CheXpert-v1.0 batch 1
(validate & csv)" and the patients in "CheXpert-v1.0 batch 2 (train 1)" to "batch 4 (train 3)".
The test set, where it is there: `test_labels.csv` (Path, label columns) or `groundtruth.csv` (Study, label
columns), images `test/patient64741/study1/view1_frontal.jpg`.

train.csv is labelled by the CheXpert labeller (-1 uncertain), valid.csv and the test set by radiologists.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected
from chestx_jax.data.sources.image_files import usable
from chestx_jax.data.sources.label_columns import COLUMNS, labels_of
from chestx_jax.data.sources.tables import columns_of, find_table, find_tables, rows, told_already

_CSV_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
_TRAIN_BATCHES = tuple(f"CheXpert-v1.0 batch {n} (train {n - 1})" for n in (2, 3, 4))


@dataclass(frozen=True)
class _Table:
    """One label table: its file, the column that names what a row is about, its split."""

    path: Path
    key: str
    split: str


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every study with an image: the rows of its views (which repeat its labels) make one, frontal ones first.

    Rejected: a missing or unreadable image, a study without any, a row with an unknown label value or path.

    Raises:
      SourceError: train.csv or valid.csv is missing, or a table lacks a column.
    """
    homes = [root, root / _CSV_BATCH]
    train, valid = find_tables("CheXpert", root, homes, ["train.csv", "valid.csv"])
    tables = [_Table(train, "Path", "train"), _Table(valid, "Path", "validation")]
    for name, key in (("test_labels.csv", "Path"), ("groundtruth.csv", "Study")):
        test = find_table(homes, name)
        if test and len(tables) == 2:
            tables.append(_Table(test, key, "test"))
    for table in tables:
        rows(table.path, _columns(table), reject)  # all headers are checked before the first study
    return _studies(root, tables, reject)


def _columns(table: _Table) -> tuple[str, ...]:
    """The expert tables of some releases have no "No Finding"; all other columns must be there."""
    header = columns_of(table.path)
    return (table.key, *(name for name in COLUMNS if name != "No Finding" or name in header))


def _studies(root: Path, tables: list[_Table], reject: Reject) -> Iterator[Study]:
    places = _places(root)
    for table in tables:
        views = _views(table) if table.key == "Path" else None
        seen: set[str] = set()
        for row in rows(table.path, _columns(table), reject):
            name = _inside(row.pop(table.key))
            folder = name if views is None else name.rpartition("/")[0]
            if folder in seen:
                continue  # another view of a study that was read
            seen.add(folder)
            if views is None:
                paths = sorted(_find(places, folder).glob("*.jpg"))
            else:
                paths = [_find(places, view) for view in views[folder]]
            record = f"{table.path.name}: {folder}"
            if folder.count("/") != 2:
                reject(Rejected(record, "not of the form train/patient00001/study1"))
                continue
            patient, study = folder.split("/")[1:]
            try:
                labels = labels_of(row)
            except ValueError as error:
                reject(Rejected(record, str(error)))
                continue
            paths.sort(key=lambda path: "lateral" in path.name)
            if images := usable(table.path.name, paths, reject):
                yield Study(
                    id=f"{patient}_{study}",
                    source="chexpert",
                    images=images,
                    patient=patient,
                    split=table.split,
                    labels=labels,
                )
            else:
                reject(Rejected(record, "no image"))


def _views(table: _Table) -> dict[str, list[str]]:
    """study's folder -> the paths of its views."""
    views: dict[str, list[str]] = defaultdict(list)
    for row in rows(table.path, ("Path",), reject=told_already):
        path = _inside(row["Path"])
        views[path.rpartition("/")[0]].append(path)
    return views


def _inside(path: str) -> str:
    """ "CheXpert-v1.0-small/train/patient00001/.." -> "train/patient00001/.."."""
    first, _, rest = path.partition("/")
    return rest if first.startswith("CheXpert-v1.0") else path


def _places(root: Path) -> dict[str, list[Path]]:
    """The directories in which a split's patients may lie; the first always, the others where they exist."""
    unpacked = {"train": [root / batch for batch in _TRAIN_BATCHES], "valid": [root / _CSV_BATCH / "valid"]}
    return {
        split: [root / split, *(place for place in unpacked.get(split, []) if place.is_dir())]
        for split in ("train", "valid", "test")
    }


def _find(places: dict[str, list[Path]], inside: str) -> Path:
    """Where a path of the tables is, or would be."""
    split, _, rest = inside.partition("/")
    candidates = [place / rest for place in places.get(split, [])] or [Path(inside)]
    return next((path for path in candidates if path.exists()), candidates[0])
