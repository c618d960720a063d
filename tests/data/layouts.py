"""Small copies of the published layouts, for the tests of the readers."""

import csv
import gzip
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Rejected

LABEL_COLUMNS = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]


def table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any] | Mapping[str, Any]]) -> None:
    """A CSV table, gzipped where the name ends in .gz; rows are values or column -> value, others blank."""
    header = list(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([row.get(name, "") for name in header] if isinstance(row, Mapping) else row)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), 99).save(path)
    return path


def dicom(path: Path, patient: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.PatientID = patient
    data.Rows = data.Columns = 2
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.SamplesPerPixel, data.PixelRepresentation = 7, 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = np.zeros((2, 2), np.uint8).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def collect(read: Callable[..., Any], *args: Any) -> tuple[list[Study], dict[str, str]]:
    """All studies of a reader, and record -> reason."""
    rejected: list[Rejected] = []
    studies = list(read(*args, reject=rejected.append))
    reasons = {one.record: one.reason for one in rejected}
    assert len(reasons) == len(rejected), "one record, one reason"
    return studies, reasons
