"""MS-CXR-T, the temporal image classification part (Bannur et al., CVPR 2023; PhysioNet), over MIMIC-CXR.

Layout: `MS_CXR_T_temporal_image_classification_v1.0.0.csv[.gz]` (dicom_id, previous_dicom_id, study_id,
subject_id, and consolidation_, edema_, pleural_effusion_, pneumonia_ and pneumothorax_progression with
improving, stable, worsening or blank) beside the files of `mimic_cxr`, or in `ms-cxr-t/<version>/` of a
PhysioNet download. The dicom columns hold "p10/p10000032/s50414267/<dicom_id>"; the id alone will do.

A study here is one row: the image and its predecessor, with the reports of both. Studies carry no labels, so
only temporal questions come of them: the other tasks ask about these films through `mimic_cxr`. The split is
MIMIC-CXR's own, so no patient is in two splits of the two sources.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from chestx_jax.data.schema import PROGRESSIONS, TEMPORAL_LABELS, Study
from chestx_jax.data.sources import Reject, Rejected
from chestx_jax.data.sources.image_files import problem_of
from chestx_jax.data.sources.mimic_cxr import Release, physionet, splits_of
from chestx_jax.data.sources.tables import find_tables, rows

TABLE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
_COLUMNS = {f"{label.replace(' ', '_')}_progression": label for label in TEMPORAL_LABELS}


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every row with a progression whose two images and two reports are there.

    Rejected: a row without them, with an unknown progression or none, or with an image that MIMIC-CXR-JPG's
    metadata does not know.

    Raises:
      SourceError: the table or a part of MIMIC-CXR-JPG is missing.
    """
    (table,) = find_tables("MS-CXR-T", root, physionet(root, "ms-cxr-t"), [TABLE])
    return _studies(Release.find(root), table, reject)


def _studies(release: Release, table: Path, reject: Reject) -> Iterator[Study]:
    pairs = list(rows(table, ("dicom_id", "previous_dicom_id", *_COLUMNS), reject))
    wanted = {row[column].rsplit("/", 1)[-1] for row in pairs for column in ("dicom_id", "previous_dicom_id")}
    known = {
        row["dicom_id"]: (row["subject_id"], row["study_id"])
        for row in rows(release.metadata, ("dicom_id", "subject_id", "study_id"), reject)
        if row["dicom_id"] in wanted
    }
    splits = splits_of(release.splits, reject)
    for row in pairs:
        try:
            yield _study(row, release, known, splits)
        except ValueError as error:
            reject(Rejected(f"{table.name}: {row['dicom_id']}", str(error)))


def _study(
    row: Mapping[str, str],
    release: Release,
    known: Mapping[str, tuple[str, str]],
    splits: Mapping[str, str],
) -> Study:
    progression = {label: row[column].lower() for column, label in _COLUMNS.items() if row[column]}
    for label, state in progression.items():
        if state not in PROGRESSIONS:
            raise ValueError(f"progression of {label} is {state!r}, none of {', '.join(PROGRESSIONS)}")
    if not progression:
        raise ValueError("no progression")
    now, before = (
        _film(row[column].rsplit("/", 1)[-1], release, known, splits)
        for column in ("dicom_id", "previous_dicom_id")
    )
    return replace(now, progression=progression, prior=before)


def _film(
    dicom: str, release: Release, known: Mapping[str, tuple[str, str]], splits: Mapping[str, str]
) -> Study:
    if dicom not in known:
        raise ValueError(f"image {dicom} is not in {release.metadata.name}")
    patient, study = known[dicom]
    if study not in splits:
        raise ValueError(f"study {study}: no usable row in {release.splits.name}")
    image = release.image(patient, study, dicom)
    if reason := problem_of(image):
        raise ValueError(f"{image}: {reason}")
    findings, impression = release.report(patient, study)
    return Study(
        id=f"{study}-{dicom[:8]}",  # a study may have several rows, each with another of its images
        source="ms_cxr_t",
        images=(image,),
        findings=findings,
        impression=impression,
        patient=patient,
        split=splits[study],
        extra={"study_id": study, "dicom_id": dicom},
    )
