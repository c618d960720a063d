"""The 14 columns of the CheXpert labeller, as CheXpert, MIMIC-CXR-JPG and CheXpert Plus publish them."""

from collections.abc import Mapping

from chestx_jax.data.schema import NO_FINDING

COLUMNS = (
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
)
_OTHER = "pleural other"
_VALUES: Mapping[str, int | None] = {
    "": None,
    "1": 1,
    "1.0": 1,
    "0": 0,
    "0.0": 0,
    "-1": -1,
    "-1.0": -1,
}


def labels_of(row: Mapping[str, str]) -> dict[str, int | None]:
    """Columns of `COLUMNS` -> labels of the schema, -1 kept, blank None.

    Raises:
      ValueError: a value that is none of 1, 0, -1 and blank; the message names the column.
    """
    labels: dict[str, int | None] = {}
    for column, value in row.items():
        if value not in _VALUES:
            raise ValueError(f"{column} is {value!r}, none of 1, 0, -1 and blank")
        labels[column.lower()] = _VALUES[value]
    return settled(labels)


def settled(labels: Mapping[str, int | None]) -> dict[str, int | None]:
    """The labeller's 14 labels as the schema's 13: "pleural other" goes, "no finding" is made to fit.

    The labeller's "no finding" overlooks support devices (Irvin et al., AAAI 2019, section 2.2), the schema's
    does not: with a device it is neither true nor false here. Nor is a film normal for want of other labels
    when the dropped one is present or uncertain.
    """
    kept = {label: value for label, value in labels.items() if label != _OTHER}
    if kept.get(NO_FINDING) == 1 and kept.get("support devices") in (1, -1):
        kept[NO_FINDING] = None
    elif kept.get(NO_FINDING) is None and labels.get(_OTHER) in (1, -1):
        kept[NO_FINDING] = 0
    found = any(value == 1 for label, value in kept.items() if label != NO_FINDING)
    if kept.get(NO_FINDING) == 1 and found:
        kept[NO_FINDING] = 0
    return kept
