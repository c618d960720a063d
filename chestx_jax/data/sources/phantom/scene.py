"""What a phantom study holds: the patient, the findings and how both are drawn by lot.

Labels. Eleven of the twelve binary labels are drawn. **Pneumonia is not**: it is a clinical diagnosis, and a
picture alone (a consolidation) does not decide it, so it is never 0 or 1 here. Parents follow their children,
as in CheXpert's tree (Irvin et al. 2019, figure 1):

* `lung opacity` is 1 for its own hazy patch, and with consolidation, atelectasis, edema or lung lesion;
* `enlarged cardiomediastinum` is 1 for a wide upper mediastinum, and with cardiomegaly.

Side is the patient's: the patient's right is at the image's left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Side = Literal["right", "left", "both", ""]
Zone = Literal["upper", "mid", "lower", ""]
Progress = Literal["stable", "worsening", "improving"]

LABELS: tuple[str, ...] = (
    "cardiomegaly",
    "enlarged cardiomediastinum",
    "consolidation",
    "atelectasis",
    "edema",
    "lung lesion",
    "lung opacity",
    "pleural effusion",
    "pneumothorax",
    "fracture",
    "support devices",
)
TEMPORAL_LABELS: tuple[str, ...] = ("consolidation", "edema", "pleural effusion", "pneumothorax")
OPACITIES: tuple[str, ...] = ("consolidation", "atelectasis", "edema", "lung lesion", "lung opacity")
DEVICES: tuple[str, ...] = ("pacemaker", "endotracheal tube", "central line", "chest tube", "ecg leads")

_COUNTS = (0.16, 0.26, 0.33, 0.25)  # share of studies with 0, 1, 2, 3 drawn findings
_WEIGHTS: Mapping[str, float] = {
    "support devices": 1.0,
    "fracture": 1.0,
    "enlarged cardiomediastinum": 1.0,
    "cardiomegaly": 1.0,
    "consolidation": 1.15,
    "atelectasis": 1.15,
    "edema": 1.15,
    "lung lesion": 1.1,
    "lung opacity": 0.7,
    "pleural effusion": 1.3,
    "pneumothorax": 1.4,
}
_EXCLUDES: tuple[frozenset[str], ...] = (
    frozenset({"edema", "pneumothorax"}),  # the haze would hide what tells either
    frozenset({"edema", "lung opacity"}),
    frozenset({"consolidation", "lung opacity"}),  # one vague patch more says nothing new
)
_PRIOR_SHARE = {True: 0.56, False: 0.08}  # keyed by: has a finding with a temporal label


@dataclass(frozen=True)
class Finding:
    """One drawn finding.

    Attributes:
        label: one of LABELS.
        side: the patient's side; "" where the finding is central.
        zone: lung zone of a focal finding, else "".
        level: 1 small or mild, 2 moderate, 3 large or severe.
        kind: the sort of device or lesion ("nodule", "mass"), else "".
        seed: fixes the shape, so that a prior shows the same thing at another level.
    """

    label: str
    side: Side = ""
    zone: Zone = ""
    level: int = 2
    kind: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Patient:
    """Anatomy of one patient: lengths in image sides, `ctr` the cardiothoracic ratio when healthy."""

    seed: int
    width: float
    top: float
    dome_right: float
    dome_left: float
    ctr: float
    upper_right: float
    upper_left: float
    rib_spacing: float
    rib_start: float
    rib_contrast: float
    wall: float
    clavicle: float
    breast: float
    bubble: float
    trachea: float


@dataclass(frozen=True)
class Acquisition:
    """How one picture was taken; differs between a study and its prior."""

    seed: int
    rotation: float  # degrees
    zoom: float
    shift: tuple[float, float]
    exposure: float
    gamma: float
    noise: float
    marker: str  # "R", "L" or ""


@dataclass(frozen=True)
class Scene:
    """Everything one picture shows."""

    patient: Patient
    findings: tuple[Finding, ...]
    acquisition: Acquisition

    def find(self, label: str) -> tuple[Finding, ...]:
        """The drawn findings with this very label (a child does not count for its parent)."""
        return tuple(f for f in self.findings if f.label == label)

    def labels(self) -> dict[str, int]:
        """1 or 0 for every phantom label."""
        drawn = {f.label for f in self.findings}
        if drawn & set(OPACITIES):
            drawn.add("lung opacity")
        if "cardiomegaly" in drawn:
            drawn.add("enlarged cardiomediastinum")
        return {label: int(label in drawn) for label in LABELS}


def sample_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient within normal limits: right dome higher, cardiothoracic ratio 0.40 to 0.47."""
    dome = rng.uniform(0.68, 0.73)
    return Patient(
        seed=int(rng.integers(1 << 31)),
        width=rng.uniform(0.93, 1.05),
        top=rng.uniform(0.10, 0.135),
        dome_right=dome,
        dome_left=dome + rng.uniform(0.018, 0.035),
        ctr=rng.uniform(0.40, 0.47),
        upper_right=rng.uniform(0.045, 0.058),
        upper_left=rng.uniform(0.045, 0.058),
        rib_spacing=rng.uniform(0.060, 0.068),
        rib_start=rng.uniform(0.105, 0.13),
        rib_contrast=rng.uniform(0.13, 0.22),
        wall=rng.uniform(0.88, 1.05),
        clavicle=rng.uniform(-0.02, 0.02),
        breast=float(rng.choice([0.0, rng.uniform(0.04, 0.10)])),
        bubble=float(rng.choice([0.0, 1.0], p=[0.2, 0.8])),
        trachea=rng.uniform(-0.008, 0.004),
    )


def sample_acquisition(rng: np.random.Generator) -> Acquisition:
    """Draw the pose, exposure and noise of one picture."""
    return Acquisition(
        seed=int(rng.integers(1 << 31)),
        rotation=rng.uniform(-3.0, 3.0),
        zoom=rng.uniform(1.0, 1.07),
        shift=(rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015)),
        exposure=rng.uniform(0.9, 1.12),
        gamma=rng.uniform(0.92, 1.15),
        noise=rng.uniform(0.008, 0.02),
        marker=str(rng.choice(["R", "L", ""], p=[0.45, 0.3, 0.25])),
    )


class _Room:
    """Which zones of which lung are still free, so that one finding never hides another."""

    def __init__(self) -> None:
        self.free = {(side, zone) for side in ("right", "left") for zone in ("upper", "mid", "lower")}

    def take(self, side: str, zones: tuple[str, ...]) -> bool:
        """Reserve the zones; False, and nothing reserved, when one of them is taken."""
        wanted = {(s, z) for s in (("right", "left") if side == "both" else (side,)) for z in zones}
        if not wanted <= self.free:
            return False
        self.free -= wanted
        return True


_EFFUSION_ZONES = {1: ("lower",), 2: ("lower", "mid"), 3: ("lower", "mid", "upper")}


def _zones(finding: Finding) -> tuple[str, ...]:
    """Lung zones a finding needs for itself."""
    if finding.label == "pleural effusion":
        return _EFFUSION_ZONES[finding.level]
    if finding.label == "pneumothorax":
        return ("upper", "mid", "lower")
    return (finding.zone,) if finding.zone else ()


def _propose(label: str, rng: np.random.Generator) -> Finding:
    """A finding with this label, placed by lot."""
    seed = int(rng.integers(1 << 31))
    level = int(rng.integers(1, 4))
    one: Side = "right" if rng.random() < 0.5 else "left"
    zone: Zone = ("upper", "mid", "lower")[int(rng.integers(3))]
    match label:
        case "support devices":
            kind = DEVICES[int(rng.integers(len(DEVICES)))]
            # sides as in practice: pulse generators on the left, central lines from the right, mostly
            usual: Side = "left" if kind == "pacemaker" else "right"
            other: Side = "right" if kind == "pacemaker" else "left"
            sided = kind in ("pacemaker", "central line", "chest tube")
            side = (usual if rng.random() < 0.75 else other) if sided else ""
            return Finding(label, side, kind=kind, seed=seed)
        case "fracture":
            return Finding(label, one, seed=seed)
        case "consolidation" | "lung opacity":
            return Finding(label, one, zone, level, seed=seed)
        case "lung lesion":
            return Finding(label, one, zone, level, "mass" if level == 3 else "nodule", seed)
        case "atelectasis":
            return Finding(label, "both" if rng.random() < 0.2 else one, "lower", level, seed=seed)
        case "pleural effusion":
            return Finding(label, "both" if level < 3 and rng.random() < 0.25 else one, "", level, seed=seed)
        case "edema":
            return Finding(label, "both", "", level, seed=seed)
        case "pneumothorax":
            return Finding(label, one, "", level, seed=seed)
        case _:
            return Finding(label, "", "", level, seed=seed)


def sample_findings(rng: np.random.Generator) -> tuple[Finding, ...]:
    """Draw nought to three findings that go together; two devices may share the device label."""
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    names = list(_WEIGHTS)
    weights = np.array([_WEIGHTS[name] for name in names])
    order = rng.choice(names, size=len(names), replace=False, p=weights / weights.sum())
    chosen: list[Finding] = []
    room = _Room()
    for label in order:
        if len({f.label for f in chosen}) >= count:
            break
        if any({f.label, str(label)} in _EXCLUDES for f in chosen):
            continue
        for _ in range(6):
            finding = _propose(str(label), rng)
            if room.take(finding.side, _zones(finding)):
                chosen.append(finding)
                break
    devices = [f for f in chosen if f.label == "support devices"]
    if devices and rng.random() < 0.3:
        second = _propose("support devices", rng)
        if second.kind != devices[0].kind:
            chosen.append(second)
    return tuple(sorted(chosen, key=lambda f: LABELS.index(f.label)))


def sample_prior(
    findings: tuple[Finding, ...], rng: np.random.Generator
) -> tuple[tuple[Finding, ...], dict[str, Progress]]:
    """Findings of an earlier picture and, per temporal label, the change since.

    A worsening finding was smaller by a level or two or not there at all, an improving one was larger, a
    stable one had the same level. Everything else stays as it is.
    """
    before: list[Finding] = []
    progression: dict[str, Progress] = {}
    for finding in findings:
        if finding.label not in TEMPORAL_LABELS:
            before.append(finding)
            continue
        # an improving finding had room to be larger: only then is it a choice
        kinds: tuple[Progress, ...] = ("stable", "worsening", "improving")
        odds = {1: (0.2, 0.2, 0.6), 2: (0.3, 0.35, 0.35), 3: (0.5, 0.5, 0.0)}[finding.level]
        change = kinds[int(rng.choice(3, p=odds))]
        progression[finding.label] = change
        earlier: Finding | None = finding
        if change == "improving":
            earlier = replace(finding, level=int(rng.integers(finding.level + 1, 4)))
        elif change == "worsening":
            level = int(rng.integers(0, finding.level))
            earlier = replace(finding, level=level) if level else None
        others = [f for f in findings if f is not finding]
        if earlier is not None and not _fit([earlier, *others]):
            earlier, progression[finding.label] = finding, "stable"
        if earlier is not None:
            before.append(earlier)
    return tuple(before), progression


def _fit(findings: list[Finding]) -> bool:
    """Whether no finding hides another."""
    room = _Room()
    return all(room.take(f.side, _zones(f)) for f in findings)


def wants_prior(findings: tuple[Finding, ...], rng: np.random.Generator) -> bool:
    """Whether the study gets a prior: about a third of all do."""
    return bool(rng.random() < _PRIOR_SHARE[any(f.label in TEMPORAL_LABELS for f in findings)])
