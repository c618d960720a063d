"""MIMIC-CXR-JPG 2.x with the reports of MIMIC-CXR (Johnson et al., Scientific Data 2019; PhysioNet).

Layout: `mimic-cxr-2.0.0-metadata.csv[.gz]` (dicom_id, subject_id, study_id, ViewPosition, ..),
`mimic-cxr-2.0.0-split.csv[.gz]` (dicom_id, study_id, subject_id, split),
`mimic-cxr-2.0.0-chexpert.csv[.gz]` (subject_id, study_id, 14 label columns; where it is not there,
`mimic-cxr-2.0.0-negbio.csv[.gz]`), images `files/p10/p10000032/s50414267/<dicom_id>.jpg`, reports
`files/p10/p10000032/s50414267.txt`, also below `mimic-cxr-reports/`. `root` holds all of these, or is the
`files` directory of a PhysioNet download with `mimic-cxr-jpg/<version>/` and `mimic-cxr/<version>/` in it.

The label table is streamed; only which images belong to which study, and the studies' splits, are held.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected, SourceError
from chestx_jax.data.sources.image_files import usable
from chestx_jax.data.sources.label_columns import COLUMNS, labels_of
from chestx_jax.data.sources.report_sections import findings_and_impression
from chestx_jax.data.sources.tables import find_table, find_tables, rows

METADATA, SPLIT = "mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-split.csv"
LABELLERS = ("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.0.0-negbio.csv")
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_FRONTAL = re.compile(r"(AP|PA)\b")

View = tuple[str, str]
"""(dicom_id, ViewPosition); the position is "" for some."""


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every labelled study with a report and an image, in the label table's order, frontal views first.

    Rejected: a study without images, report text (neither section, no last paragraph) or a row in one of the
    tables; a missing or unreadable image; a row with a label or split that the release does not know.

    Raises:
      SourceError: a table is missing or lacks a column, or there is no `files` directory.
    """
    release = Release.find(root)
    return _studies(release, _label_table(release), reject)


@dataclass(frozen=True)
class Release:
    """Where the parts of a download lie.

    Attributes:
      reports: the directories in which a report may be, in this order.
    """

    metadata: Path
    splits: Path
    images: Path
    reports: tuple[Path, ...]

    @classmethod
    def find(cls, root: Path) -> "Release":
        """Raises SourceError naming the files that are not there."""
        jpg = physionet(root, "mimic-cxr-jpg")
        metadata, splits = find_tables("MIMIC-CXR-JPG", root, jpg, [METADATA, SPLIT])
        images = metadata.parent / "files"
        if not images.is_dir():
            raise SourceError(f"no MIMIC-CXR-JPG collection at {root}: not found: {images}")
        places = [
            home / folder
            for home in physionet(root, "mimic-cxr")
            for folder in ("files", "mimic-cxr-reports/files")
        ]
        return cls(metadata, splits, images, tuple(place for place in places if place.is_dir()))

    def image(self, patient: str, study: str, dicom: str) -> Path:
        return self.images / f"p{patient[:2]}/p{patient}/s{study}/{dicom}.jpg"

    def report(self, patient: str, study: str) -> tuple[str, str]:
        """Findings and impression.

        Raises:
          ValueError: no such file, not UTF-8, or nothing that reads like a report.
        """
        name = f"p{patient[:2]}/p{patient}/s{study}.txt"
        for place in self.reports:
            try:
                text = (place / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ValueError(f"report {name}: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise ValueError(f"report {name}: not UTF-8") from error
            sections = findings_and_impression(text)
            if not any(sections):
                raise ValueError(f"report {name}: neither findings nor impression")
            return sections
        raise ValueError(f"no report {name}")


def physionet(root: Path, release: str) -> list[Path]:
    """Where a PhysioNet release may lie: `root`, `root/release`, its version directories, newest first."""
    versions = sorted((root / release).glob("[0-9]*/"), reverse=True)
    return [root, root / release, *versions]


def _label_table(release: Release) -> Path:
    homes = [release.metadata.parent]
    found = [path for name in LABELLERS if (path := find_table(homes, name))]
    if not found:
        raise SourceError(f"{homes[0]}: neither {LABELLERS[0]}[.gz] nor {LABELLERS[1]}[.gz]")
    return found[0]


def _studies(release: Release, table: Path, reject: Reject) -> Iterator[Study]:
    labelled = rows(table, ("subject_id", "study_id", *COLUMNS), reject)
    views = _views(release.metadata, reject)
    splits = splits_of(release.splits, reject)
    for row in labelled:
        patient, study = row.pop("subject_id"), row.pop("study_id")
        record = f"{table.name}: study {study}"
        shown = views.pop(study, None)
        if shown is None:
            reject(Rejected(record, f"not in {release.metadata.name}, or listed before"))
            continue
        try:
            labels = labels_of(row)
            split = splits[study]
            findings, impression = release.report(patient, study)
        except KeyError:
            reject(Rejected(record, f"no usable row in {release.splits.name}"))
            continue
        except ValueError as error:
            reject(Rejected(record, str(error)))
            continue
        positions = {release.image(patient, study, dicom): view for dicom, view in frontal_first(shown)}
        images = usable(release.metadata.name, positions, reject)
        if not images:
            reject(Rejected(record, "no image"))
            continue
        yield Study(
            id=study,
            source="mimic_cxr",
            images=images,
            findings=findings,
            impression=impression,
            patient=patient,
            split=split,
            labels=labels,
            extra={"views": [positions[image] for image in images]},
        )
    for study in views:
        reject(Rejected(f"{release.metadata.name}: study {study}", f"no row in {table.name}"))


def frontal_first(views: Sequence[View]) -> list[View]:
    """AP and PA views, then those of unknown position, then all others; else in their order."""
    return sorted(views, key=lambda view: 0 if _FRONTAL.match(view[1]) else 1 if not view[1] else 2)


def splits_of(table: Path, reject: Reject) -> dict[str, str]:
    """study -> train, validation or test."""
    splits: dict[str, str] = {}
    for row in rows(table, ("study_id", "split"), reject):
        if row["split"] in _SPLITS:
            splits[row["study_id"]] = _SPLITS[row["split"]]
        else:
            expected = ", ".join(_SPLITS)
            reason = f"split is {row['split']!r}, none of {expected}"
            reject(Rejected(f"{table.name}: study {row['study_id']}", reason))
    return splits


def _views(table: Path, reject: Reject) -> dict[str, tuple[View, ...]]:
    """study -> its views; tuples, since there are hundreds of thousands."""
    views: dict[str, tuple[View, ...]] = {}
    for row in rows(table, ("dicom_id", "study_id", "ViewPosition"), reject):
        view = (row["dicom_id"], sys.intern(row["ViewPosition"]))
        views[row["study_id"]] = (*views.get(row["study_id"], ()), view)
    return views
