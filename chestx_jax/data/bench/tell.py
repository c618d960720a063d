"""The statistics of a build for the terminal."""

from collections.abc import Mapping
from typing import Any

_BASELINES = (
    "chance",
    "majority",
    "label prior",
    "option prior",
    "learned label prior",
    "learned option prior",
)


def summary(stats: Mapping[str, Any]) -> str:
    """Counts by task and split, what was left out, and a line for each task that sampling emptied."""
    lines = [f"{'task':<10}{'split':<12}{'samples':>9}{'reasoning':>11}  answers"]
    for task, splits in stats["tasks"].items():
        for split, row in splits.items():
            answers = " ".join(f"{letter}:{count}" for letter, count in row["answers"].items())
            lines.append(f"{task:<10}{split:<12}{row['samples']:>9}{row['with_reasoning']:>11}  {answers}")
    for task, row in stats["verification"].items():
        lines.append(
            f"{task}: {row['mined']} mined, {100 * row['pass_rate']:.1f} % passed verification, "
            f"{row['quarantined']} in quarantine.jsonl"
        )
    for task, built in stats["questions_built"].items():
        if built and not stats["tasks"][task]:
            lines.append(
                f"warning: {task}: {built} questions were built, but none is left by sampling "
                f"{stats['recipe']['sampling']} and verification; --sampling=published takes more"
            )
    lines.append(
        f"{stats['studies']} studies used, {stats['studies_without_question']} of them without a question, "
        f"{stats['rejected']} records rejected"
    )
    return "\n".join(lines)


def shortcut_table(stats: Mapping[str, Any]) -> str:
    """What text alone gets right on each task, in percent, and a warning for each task where it is a lot."""
    lines = ["", "right without an image, %", f"{'task':<10}" + "".join(f"{n:>22}" for n in _BASELINES)]
    for task, row in stats["shortcuts"].items():
        cells = ("" if name not in row else f"{100 * row[name]:.1f}" for name in _BASELINES)
        lines.append(f"{task:<10}" + "".join(f"{cell:>22}" for cell in cells))
    for task, row in stats["shortcuts"].items():
        if row["warning"]:
            lines.append(
                f"warning: {task}: {row['best']} gets {100 * row[row['best']]:.1f} % right without an image, "
                f"chance is {100 * row['chance']:.1f} %"
            )
    return "\n".join(lines) + "\n"
