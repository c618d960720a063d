"""Indiana University chest X-rays (Open-i): the collection's widespread CSV release, or the original one.

Layout of the CSV release: `indiana_reports.csv` (uid, MeSH, Problems, image, indication, comparison, findings,
impression), `indiana_projections.csv` (uid, filename, projection), `images/images_normalized/<filename>`. The
tables name .png files; JPEG copies under the same stem are taken as well. Without any of these, `root` is read
as the original release (`openi_xml`).

Labels: `openi_codes`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected, SourceError, openi_xml
from chestx_jax.data.sources.image_files import problem_of
from chestx_jax.data.sources.openi_codes import labels_of
from chestx_jax.data.sources.tables import rows

REPORTS, PROJECTIONS, IMAGES = "indiana_reports.csv", "indiana_projections.csv", "images/images_normalized"
_REPORT_COLUMNS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
_PROJECTION_COLUMNS = ("uid", "filename", "projection")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_ORDER = {"Frontal": 0, "Lateral": 1}


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every study with a report and at least one image: all views, frontal ones first.

    An image that is missing, or of an unknown projection, and a study without report or images are rejected.

    Raises:
      SourceError: `root` lacks one of the two tables or the image directory, or a table lacks a column.
    """
    missing = [name for name in (REPORTS, PROJECTIONS, IMAGES) if not (root / name).exists()]
    if len(missing) == 3 and (root / openi_xml.REPORTS).is_dir():
        return openi_xml.read(root, reject=reject)
    if missing:
        other = "" if len(missing) < 3 else f"; nor {openi_xml.REPORTS}/*.xml"
        raise SourceError(f"no Open-i collection at {root}: not found: {', '.join(missing)}{other}")
    return _read(root / REPORTS, root / PROJECTIONS, root / IMAGES, reject)


def _read(reports: Path, projections: Path, images: Path, reject: Reject) -> Iterator[Study]:
    listed = list(rows(reports, _REPORT_COLUMNS, reject))
    known = {row["uid"] for row in listed}
    views = _views(rows(projections, _PROJECTION_COLUMNS, reject), images, known, reject)
    seen: set[str] = set()
    for row in listed:
        record = f"{reports.name}: uid {row['uid']}"
        if row["uid"] in seen:
            reject(Rejected(record, "this uid was listed before"))
        elif not (row["findings"] or row["impression"]):
            reject(Rejected(record, "neither findings nor impression"))
        elif not views[row["uid"]]:
            reject(Rejected(record, "no image"))
        else:
            yield _study(row, views[row["uid"]])
        seen.add(row["uid"])


def _study(row: Mapping[str, str], views: list[tuple[str, Path]]) -> Study:
    codes = [code.strip() for code in row["MeSH"].split(";") if code.strip()]
    return Study(
        id=row["uid"],
        source="openi",
        images=tuple(path for _, path in views),
        findings=row["findings"],
        impression=row["impression"],
        labels=labels_of(codes),
        extra={
            "mesh": codes,
            "projections": [projection for projection, _ in views],
            "indication": row["indication"],
            "comparison": row["comparison"],
        },
    )


def _views(
    listed: Iterable[dict[str, str]], images: Path, known: set[str], reject: Reject
) -> dict[str, list[tuple[str, Path]]]:
    """uid -> (projection, path), frontal views first, else in the table's order."""
    views: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for row in listed:
        record = f"{PROJECTIONS}: {row['filename']}"
        path = _find(images, row["filename"])
        if row["uid"] not in known:
            reject(Rejected(record, f"uid {row['uid']} has no report"))
        elif row["projection"] not in _ORDER:
            reject(Rejected(record, f"projection {row['projection']!r} is none of {', '.join(_ORDER)}"))
        elif path is None:
            reject(Rejected(record, f"no such image in {IMAGES}, with any of {', '.join(_SUFFIXES)}"))
        elif reason := problem_of(path):
            reject(Rejected(record, reason))
        else:
            views[row["uid"]].append((row["projection"], path))
    for found in views.values():
        found.sort(key=lambda view: _ORDER[view[0]])
    return views


def _find(images: Path, filename: str) -> Path | None:
    named = images / filename
    stem = named.name.removesuffix(named.suffix) if named.suffix in _SUFFIXES else named.name
    candidates = [named, *(images / f"{stem}{suffix}" for suffix in _SUFFIXES)]
    return next((path for path in candidates if path.is_file()), None) if filename else None
