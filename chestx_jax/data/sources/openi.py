"""Indiana University chest X-rays (Open-i) in the layout of the collection's widespread CSV release.

Layout: `indiana_reports.csv` (uid, MeSH, Problems, image, indication, comparison, findings, impression),
`indiana_projections.csv` (uid, filename, projection), `images/images_normalized/<filename>`. The tables name
.png files; JPEG copies under the same stem are taken as well.

Labels come from the MeSH codes that human coders assigned to each report (Demner-Fushman et al., JAMIA 2016,
"Preparing a collection of radiology examinations for distribution and retrieval"). The coding is exhaustive:
every abnormality of a report has a code, and a report without any is coded "normal". So a label without a
code is 0, apart from the pairs of `_UNSETTLED`, whose code neither means the label nor rules it out, and from
borderline findings; those are left unlabelled (None) and no question is asked about them. Reports coded
"No Indexing" carry no labels at all.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from chestx_jax.data.schema import LABELS, NO_FINDING, Study
from chestx_jax.data.sources import Reject, Rejected, SourceError

REPORTS, PROJECTIONS, IMAGES = "indiana_reports.csv", "indiana_projections.csv", "images/images_normalized"
_REPORT_COLUMNS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
_PROJECTION_COLUMNS = ("uid", "filename", "projection")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_ORDER = {"Frontal": 0, "Lateral": 1}

_PRESENT: Mapping[str, tuple[str, ...]] = {
    "cardiomegaly": ("cardiomegaly",),
    "cardiac shadow/enlarged": ("cardiomegaly",),
    "pleural effusion": ("pleural effusion",),
    "pneumothorax": ("pneumothorax",),
    "hemopneumothorax": ("pneumothorax", "pleural effusion"),
    "hydropneumothorax": ("pneumothorax", "pleural effusion"),
    "pulmonary atelectasis": ("atelectasis",),
    "consolidation": ("consolidation",),
    "pulmonary edema": ("edema",),
    "pneumonia": ("pneumonia",),
    "fractures, bone": ("fracture",),
    "nodule/lung": ("lung lesion",),
    "mass/lung": ("lung lesion",),
    "opacity/lung": ("lung opacity",),
    "opacity/retrocardiac": ("lung opacity",),
    "airspace disease": ("lung opacity",),
    "infiltrate": ("lung opacity",),
    "catheters, indwelling": ("support devices",),
    "tube, inserted": ("support devices",),
    "implanted medical device": ("support devices",),
    "medical device": ("support devices",),
    "stents": ("support devices",),
}
"""Code, or code and its first qualifier -> labels that are present. As in CheXpert's phrase lists (Irvin et
al., AAAI 2019), airspace disease and infiltrate are lung opacities, nodules and masses lung lesions. Heart
and mediastinum: no code says that the whole silhouette is enlarged, so "enlarged cardiomediastinum" is never
1 here."""

_UNSETTLED: Mapping[str, tuple[str, ...]] = {
    "pulmonary atelectasis": ("lung opacity",),
    "consolidation": ("lung opacity", "pneumonia"),
    "pneumonia": ("lung opacity", "consolidation"),
    "pulmonary edema": ("lung opacity",),
    "nodule": ("lung opacity", "lung lesion"),
    "mass": ("lung opacity", "lung lesion"),
    "opacity": ("lung opacity", "consolidation", "pneumonia", "atelectasis"),
    "airspace disease": ("consolidation", "pneumonia", "atelectasis"),
    "infiltrate": ("consolidation", "pneumonia"),
    "density": ("lung opacity", "lung lesion"),
    "markings": ("lung opacity", "edema"),
    "volume loss": ("atelectasis",),
    "cicatrix": ("lung opacity",),
    "pulmonary fibrosis": ("lung opacity",),
    "lung diseases, interstitial": ("lung opacity",),
    "cystic fibrosis": ("lung opacity",),
    "tuberculosis": ("lung opacity", "pneumonia"),
    "granuloma": ("lung lesion",),
    "calcified granuloma": ("lung lesion",),
    "granulomatous disease": ("lung lesion",),
    "calcinosis": ("lung lesion",),
    "cavitation": ("lung lesion", "lung opacity"),
    "cysts": ("lung lesion",),
    "pulmonary congestion": ("edema",),
    "heart failure": ("edema", "cardiomegaly"),
    "cardiomegaly": ("enlarged cardiomediastinum",),
    "cardiac shadow": ("cardiomegaly", "enlarged cardiomediastinum"),
    "heart": ("cardiomegaly", "enlarged cardiomediastinum"),
    "heart ventricles": ("cardiomegaly", "enlarged cardiomediastinum"),
    "heart atria": ("cardiomegaly", "enlarged cardiomediastinum"),
    "pericardial effusion": ("cardiomegaly", "enlarged cardiomediastinum"),
    "mediastinum": ("enlarged cardiomediastinum",),
    "aorta": ("enlarged cardiomediastinum",),
    "aorta, thoracic": ("enlarged cardiomediastinum",),
    "aortic aneurysm": ("enlarged cardiomediastinum",),
    "costophrenic angle": ("pleural effusion",),
    "thickening": ("pleural effusion",),
    "pleura": ("pleural effusion",),
    "sulcus": ("pleural effusion",),
    "deformity": ("fracture",),
    "surgical instruments": ("support devices",),
    "spinal fusion": ("support devices",),
    "sutures": ("support devices",),
    "foreign bodies": ("support devices",),
    "breast implants": ("support devices",),
}
"""Code -> labels that it neither means nor rules out, unless another code makes them present."""


def labels_of(codes: Iterable[str]) -> dict[str, int | None]:
    """MeSH codes of one report ("Opacity/lung/base/left", ..) -> label -> 1, 0 or None (see the top)."""
    lowered = [[part.strip().lower() for part in code.split("/")] for code in codes if code.strip()]
    heads = {parts[0] for parts in lowered}
    if not heads or "no indexing" in heads:
        return {}
    labels: dict[str, int | None] = dict.fromkeys((*LABELS, NO_FINDING), 0)
    for parts in lowered:
        labels.update(dict.fromkeys(_UNSETTLED.get(parts[0], ())))
        if "borderline" in parts:
            labels.update(dict.fromkeys(_meant(parts)))
    for parts in lowered:
        if "borderline" not in parts:
            labels.update(dict.fromkeys(_meant(parts), 1))
    if "normal" in heads:
        labels[NO_FINDING] = 1 if heads == {"normal"} else None
    return labels


def _meant(parts: list[str]) -> tuple[str, ...]:
    return _PRESENT.get(parts[0], ()) + _PRESENT.get("/".join(parts[:2]), ())


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every study with a report and at least one image: all views, frontal ones first.

    An image that is missing, or of an unknown projection, and a study without report or images are rejected.

    Raises:
      SourceError: `root` lacks one of the two tables or the image directory, or a table lacks a column.
    """
    missing = [name for name in (REPORTS, PROJECTIONS, IMAGES) if not (root / name).exists()]
    if missing:
        raise SourceError(f"no Open-i collection at {root}: not found: {', '.join(missing)}")
    return _read(root / REPORTS, root / PROJECTIONS, root / IMAGES, reject)


def _read(reports: Path, projections: Path, images: Path, reject: Reject) -> Iterator[Study]:
    rows = _rows(reports, _REPORT_COLUMNS)
    views = _views(_rows(projections, _PROJECTION_COLUMNS), images, {row["uid"] for row in rows}, reject)
    seen: set[str] = set()
    for row in rows:
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
    rows: list[dict[str, str]], images: Path, known: set[str], reject: Reject
) -> dict[str, list[tuple[str, Path]]]:
    """uid -> (projection, path), frontal views first, else in the table's order."""
    views: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for row in rows:
        record = f"{PROJECTIONS}: {row['filename']}"
        path = _find(images, row["filename"])
        if row["uid"] not in known:
            reject(Rejected(record, f"uid {row['uid']} has no report"))
        elif row["projection"] not in _ORDER:
            reject(Rejected(record, f"projection {row['projection']!r} is none of {', '.join(_ORDER)}"))
        elif path is None:
            reject(Rejected(record, f"no such image in {IMAGES}, with any of {', '.join(_SUFFIXES)}"))
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


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise SourceError(f"{path}: column missing: {', '.join(missing)}")
        return [{column: (row[column] or "").strip() for column in columns} for row in reader]
