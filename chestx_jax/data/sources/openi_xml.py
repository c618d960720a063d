"""Open-i's Indiana University chest X-rays as first released: a report an XML file, PNG images.

Layout: `ecgen-radiology/<uid>.xml` (NLMCXR_reports.tgz) and `<image>.png` (NLMCXR_png.tgz) in `NLMCXR_png/`,
`images/` or `root` itself. A report has AbstractText elements labelled COMPARISON, INDICATION, FINDINGS and
IMPRESSION, its codes as MeSH/major, and a parentImage with the image's id for each view. The XML does not say
which view is frontal: they keep their order. Study ids and labels are those of the CSV release (`openi`).
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from chestx_jax.data.schema import Study
from chestx_jax.data.sources import Reject, Rejected, SourceError
from chestx_jax.data.sources.image_files import usable
from chestx_jax.data.sources.openi_codes import labels_of

REPORTS, IMAGE_FOLDERS = "ecgen-radiology", ("NLMCXR_png", "images", ".")


def read(root: Path, *, reject: Reject) -> Iterator[Study]:
    """Every report with findings or impression and an image, in the order of the uids.

    Rejected: a file that is not XML; a report without text or image; a missing or unreadable image.

    Raises:
      SourceError: `root` has no directory of reports, or none in it.
    """
    files = sorted((root / REPORTS).glob("*.xml"), key=lambda path: (len(path.stem), path.stem))
    if not files:
        raise SourceError(f"no Open-i collection at {root}: not found: {REPORTS}/*.xml")
    folder = next(root / name for name in IMAGE_FOLDERS if (root / name).is_dir())
    return _studies(files, folder, reject)


def _studies(files: list[Path], folder: Path, reject: Reject) -> Iterator[Study]:
    for file in files:
        record = f"{REPORTS}/{file.name}"
        try:
            report = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError) as error:
            reject(Rejected(record, f"not an XML file: {error}"))
            continue
        text = {
            (element.get("Label") or "").upper(): " ".join("".join(element.itertext()).split())
            for element in report.iter("AbstractText")
        }
        if not (text.get("FINDINGS") or text.get("IMPRESSION")):
            reject(Rejected(record, "neither findings nor impression"))
            continue
        ids = dict.fromkeys(image.get("id") or "" for image in report.iter("parentImage"))
        images = usable(record, [folder / f"{name}.png" for name in ids], reject)
        if not images:
            reject(Rejected(record, "no image"))
            continue
        codes = [code for element in report.iter("major") if (code := (element.text or "").strip())]
        yield Study(
            id=file.stem,
            source="openi",
            images=images,
            findings=text.get("FINDINGS", ""),
            impression=text.get("IMPRESSION", ""),
            labels=labels_of(codes),
            extra={
                "mesh": codes,
                "indication": text.get("INDICATION", ""),
                "comparison": text.get("COMPARISON", ""),
            },
        )
