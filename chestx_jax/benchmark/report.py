"""Medians, ratios and efficiency as a table, and as JSON."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chestx_jax.benchmark.clock import Measured
from chestx_jax.benchmark.jobs import OURS, Job

HEADER = ("what", "who", "CPU s", "wall s", "theirs / ours", "% of GEMM peak", "peak MB", "first call CPU s")
DIFFERENCE = 1e-3  # of the first losses: two programs that differ more do not do the same work


class DifferentWorkError(Exception):
    """Two programs that should do the same do not."""


def check(found: Mapping[Job, Measured]) -> None:
    """Equal weights and rows must give equal losses.

    Raises:
      DifferentWorkError: they do not; names both.
    """
    for job, ours, theirs in _pairs(found):
        if "first_loss" in ours.facts and job.measure == "train":
            gap = abs(ours.facts["first_loss"] - theirs.facts["first_loss"])
            if not gap < DIFFERENCE:
                raise DifferentWorkError(
                    f"{job.name}: the first loss is {theirs.facts['first_loss']}, ours {ours.facts['first_loss']}"
                )


def records(found: Mapping[Job, Measured]) -> list[dict[str, Any]]:
    """One record a job: what was asked, the medians, and what follows from them."""
    peak = next(m.work for job, m in found.items() if job.measure == "peak")
    ours = {_thing(job): m for job, m in found.items() if job.who == OURS}
    rows = []
    for job, measured in found.items():
        if not measured.cpu:
            continue
        own = ours[_thing(job)]
        cpu = statistics.median(measured.cpu)
        rows.append(
            {
                "what": title(job),
                "who": job.who,
                "cpu_seconds": cpu,
                "wall_seconds": statistics.median(measured.wall),
                "theirs_over_ours": None if own is measured else cpu / statistics.median(own.cpu),
                "efficiency": own.work / (cpu * peak) if own.work else None,
                "peak_bytes": measured.peak_bytes,
                "first_call_cpu_seconds": measured.first_cpu,
                "job": vars(job),
                "all_cpu_seconds": measured.cpu,
                "all_wall_seconds": measured.wall,
                "facts": {name: value for name, value in measured.facts.items() if name != "tokens"},
            }
        )
    return rows


def table(rows: list[dict[str, Any]], gemm: Mapping[str, float]) -> str:
    """Markdown: one line a record, and under it the peak and what starting costs."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    for row in rows:
        if row["job"]["measure"] == "start":
            continue
        cells = (
            row["what"],
            row["who"],
            f"{row['cpu_seconds']:.3g}",
            f"{row['wall_seconds']:.3g}",
            "" if row["theirs_over_ours"] is None else f"{row['theirs_over_ours']:.2f}",
            "" if row["efficiency"] is None else f"{100 * row['efficiency']:.0f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['first_call_cpu_seconds']:.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    rates = ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in gemm.items())
    lines += ["", f"GEMM peak, one thread, float32, GFLOP a CPU second: {rates}."]
    return "\n".join(lines + [line for row in rows for line in _start(row)]) + "\n"


def _start(row: dict[str, Any]) -> list[str]:
    if row["job"]["measure"] != "start":
        return []
    facts = {name: value for name, value in row["facts"].items() if isinstance(value, list)}
    middle = {name: statistics.median(values) for name, values in facts.items()}
    jax = "with" if row["facts"]["imports_jax"] else "without"
    return [
        "",
        f"Start: `import chestx_jax` {middle['import_cpu']:.3f} s, {jax} JAX. A process with one training step "
        f"({row['what']}): {row['cpu_seconds']:.1f} CPU s, {row['wall_seconds']:.1f} s; with the cache of compiled "
        f"programs {middle['cached_cpu']:.1f} CPU s, {middle['cached_wall']:.1f} s.",
    ]


def title(job: Job) -> str:
    """The work of a job in words."""
    if job.measure == "generate":
        return f"{job.size} generate, {job.batch} x {job.tokens} + {job.new_tokens}"
    if job.measure == "grpo":
        return f"{job.size} GRPO step, {job.batch} x {job.group} x {job.new_tokens}"
    images = "" if job.images == 1 else f", {job.images} images"
    return f"{job.size} training step, {job.batch} x {job.tokens}{images}"


def write(found: Mapping[Job, Measured], out: Path) -> str:
    """bench.json and bench.md; returns the table.

    Raises:
      DifferentWorkError: see `check`; nothing is written then.
    """
    check(found)
    peak = next(m for job, m in found.items() if job.measure == "peak")
    rows, gemm = records(found), peak.facts["gemm"]
    text = table(rows, gemm)
    (out / "bench.json").write_text(
        json.dumps({"gemm_flops_per_second": gemm, "rows": rows}, indent=1) + "\n"
    )
    (out / "bench.md").write_text(text)
    return text


def _pairs(found: Mapping[Job, Measured]) -> list[tuple[Job, Measured, Measured]]:
    ours = {_thing(job): m for job, m in found.items() if job.who == OURS}
    return [(job, ours[_thing(job)], m) for job, m in found.items() if job.who != OURS]


def _thing(job: Job) -> tuple:
    """All of a job but whose program does it."""
    return tuple(value for name, value in vars(job).items() if name != "who")
