"""What a data card says of a collection: its name, its terms, where it is described, who labelled it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Collection:
    """Attributes:
    title: the published name.
    licence: the terms under which it may be used; they bind the benchmark too.
    reference: what to cite.
    labels: where they come from.
    """

    title: str
    licence: str
    reference: str
    labels: str


_PHYSIONET = "PhysioNet Credentialed Health Data License 1.5.0: no sharing, also not of what is made from it"
_STANFORD = "Stanford University Dataset Research Use Agreement: non-commercial research, no redistribution"
_KAGGLE = "rules of the Kaggle competition: non-commercial research and education"

COLLECTIONS: Mapping[str, Collection] = {
    "chexpert": Collection(
        "CheXpert",
        _STANFORD,
        "Irvin et al. 2019, arXiv 1901.07031",
        "train: from the reports, by the CheXpert labeller; valid and test: read from the images by radiologists",
    ),
    "chexpert_plus": Collection(
        "CheXpert Plus",
        _STANFORD,
        "Chambon et al. 2024, arXiv 2405.19538",
        "from the reports, by CheXbert as published",
    ),
    "folder": Collection(
        "a folder of the builder's own",
        "as its owner says",
        "none: name the origin before you publish",
        "the label columns of reports.csv; without any, read in the reports by rules (`chestx_jax.radiology`)",
    ),
    "mimic_cxr": Collection(
        "MIMIC-CXR and MIMIC-CXR-JPG",
        _PHYSIONET,
        "Johnson et al. 2019, arXiv 1901.07042",
        "from the reports, by the CheXpert or the NegBio labeller as published",
    ),
    "ms_cxr_t": Collection(
        "MS-CXR-T with MIMIC-CXR-JPG",
        _PHYSIONET,
        "Bannur et al. 2023, arXiv 2301.04558",
        "progressions read from the images by radiologists",
    ),
    "openi": Collection(
        "Indiana University chest X-rays (Open-i)",
        "CC BY-NC-ND 4.0: no commercial use, no republication of adapted images",
        "Demner-Fushman et al. 2016, JAMIA 23(2):304-310",
        "from the MeSH codes that coders gave the reports; what no code names counts as absent",
    ),
    "phantom": Collection(
        "phantoms drawn by chestx_jax", "Apache-2.0", "none: no patient is in it", "what was drawn"
    ),
    "rsna": Collection(
        "RSNA Pneumonia Detection Challenge",
        _KAGGLE,
        "Shih et al. 2019, Radiology AI 1(1)",
        "boxes drawn by radiologists",
    ),
    "serial": Collection(
        "COVID-19 Image Data Collection",
        "by image (column license of its metadata.csv, CC BY family); table CC BY-NC-SA 4.0",
        "Cohen et al. 2020, arXiv 2006.11988",
        "read in the notes by rules (`chestx_jax.radiology`)",
    ),
    "siim": Collection(
        "SIIM-ACR Pneumothorax Segmentation",
        _KAGGLE,
        "Zawacki et al. 2019, Kaggle",
        "masks that radiologists drew or corrected",
    ),
}

UNKNOWN = Collection("a collection that chestx_jax does not know", "not known", "not known", "not known")
