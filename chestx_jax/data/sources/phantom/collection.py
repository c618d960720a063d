"""The phantom collection as Study objects and PNG files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from chestx_jax.data.pool import ordered_map
from chestx_jax.data.schema import Study
from chestx_jax.data.sources.phantom import reasoning, report
from chestx_jax.data.sources.phantom.render import SIZE, render
from chestx_jax.data.sources.phantom.scene import (
    Progress,
    Scene,
    sample_acquisition,
    sample_findings,
    sample_patient,
    sample_prior,
    wants_prior,
)

SOURCE = "phantom"
_BATCH = 16  # studies that go to a process at a time
_RUNS = 3  # zlib's Z_RLE: on film grain half the work of level 1, and files that are an eighth smaller


@dataclass(frozen=True)
class PhantomStudy:
    """A scene, maybe with an earlier scene of the same patient, before anything is drawn.

    Attributes:
        id: "phantom-<seed>-<index>"; also the patient's id.
        seed: (seed, index), the root of every random choice.
        scene, prior: what the pictures show.
        progression: temporal label -> change since the prior.
    """

    id: str
    seed: tuple[int, int]
    scene: Scene
    prior: Scene | None = None
    progression: Mapping[str, Progress] = field(default_factory=dict)

    def study(self, out: Path | None = None, *, size: int = SIZE) -> Study:
        """The Study; with `out`, its pictures are written to out/images."""
        before = None
        if self.prior is not None:
            before = _study(f"{self.id}-prior", self.id, self.prior, _rng(self.seed, 3), out, size)
        rng = _rng(self.seed, 2)
        changes = reasoning.compare(self.scene, self.prior, self.progression, rng) if self.prior else {}
        return _study(
            self.id, self.id, self.scene, rng, out, size, before, self.prior, self.progression, changes
        )


def _rng(seed: tuple[int, int], stream: int) -> np.random.Generator:
    return np.random.default_rng((*seed, stream))


def phantom(seed: int, index: int) -> PhantomStudy:
    """Draw study `index` of collection `seed` by lot, without pictures."""
    rng = _rng((seed, index), 1)
    patient = sample_patient(rng)
    findings = sample_findings(rng)
    scene = Scene(patient, findings, sample_acquisition(rng))
    name = f"{SOURCE}-{seed}-{index:06d}"
    if not wants_prior(findings, rng):
        return PhantomStudy(name, (seed, index), scene)
    earlier, progression = sample_prior(findings, rng)
    return PhantomStudy(
        name, (seed, index), scene, Scene(patient, earlier, sample_acquisition(rng)), progression
    )


def studies(
    n: int, *, seed: int = 0, size: int = SIZE, out: Path | None = None, processes: int = 1
) -> Iterator[Study]:
    """Yield `n` phantom studies of collection `seed`.

    Args:
        n: how many; study i is the same whatever `n` is.
        seed: which collection.
        size: image side in pixels.
        out: where images/<id>.png (8-bit grey) go; None draws nothing, and the studies' paths are relative.
        processes: in how many processes to draw; they change nothing in the result.

    Yields:
        Studies with a label 0/1 for every phantom label and `reason_steps`, one sentence a label in the order
        of `LABELS`. About a third have a `prior`. `extra` holds `steps` (label -> its sentence), `drawn` (the
        labels drawn as findings of their own, without "lung opacity" where a child implies it) and, with a
        prior, `comparison_steps` (temporal label -> sentence on the change), which `reason_steps` leaves out
        because they are true only beside the prior's picture.
    """
    batches = [range(start, min(start + _BATCH, n)) for start in range(0, n, _BATCH)]
    for drawn in ordered_map(partial(_draw, seed=seed, size=size, out=out), batches, processes):
        yield from drawn


def _draw(indices: range, seed: int, size: int, out: Path | None) -> list[Study]:
    return [phantom(seed, index).study(out, size=size) for index in indices]


def _study(
    name: str,
    patient: str,
    scene: Scene,
    rng: np.random.Generator,
    out: Path | None,
    size: int,
    before: Study | None = None,
    prior: Scene | None = None,
    progression: Mapping[str, Progress] | None = None,
    changes: Mapping[str, str] | None = None,
) -> Study:
    path = Path("images") / f"{name}.png"
    if out is not None:
        path = out / path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(scene, size=size)).save(path, compress_type=_RUNS)
    steps = reasoning.read(scene, rng)
    findings, impression = report.write(scene, rng, prior, progression)
    return Study(
        id=name,
        source=SOURCE,
        images=(path,),
        findings=findings,
        impression=impression,
        patient=patient,
        labels=scene.labels(),
        progression=dict(progression or {}),
        prior=before,
        reason_steps=tuple(steps.values()),
        extra={
            "steps": steps,
            "drawn": tuple(dict.fromkeys(f.label for f in scene.findings)),
            "comparison_steps": dict(changes or {}),
        },
    )
