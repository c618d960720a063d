"""The MeSH codes of Open-i's reports -> labels.

The codes are those that human coders assigned to each report (Demner-Fushman et al., JAMIA 2016,
"Preparing a collection of radiology examinations for distribution and retrieval"). The coding is exhaustive:
every abnormality of a report has a code, and a report without any is coded "normal". So a label without a
code is 0, apart from the pairs of `_UNSETTLED`, whose code neither means the label nor rules it out, and from
borderline findings; those are left unlabelled (None) and no question is asked about them. Reports coded
"No Indexing" carry no labels at all.
"""

from collections.abc import Iterable, Mapping

from chestx_jax.data.schema import LABELS, NO_FINDING

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
