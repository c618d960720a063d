"""The data card: `stats.json` in words and tables, to be published with the benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

from chestx_jax.data.schema import TASKS

_TASKS = {
    "binary": "Is one finding there? Yes or no.",
    "single": "Which one of four findings is there?",
    "multiple": "Which one of four sets of findings is there?",
    "anomaly": "Which findings are there? An open answer.",
    "temporal": "How has a finding changed between two images?",
}
_SAMPLING = {
    "balanced": (
        "Chosen so that text gives nothing away: for each label every answer that occurs is right equally often; "
        "single and multiple questions come in blocks of four studies that share their four options, of which each "
        "is right once; no answer to an open question makes up more than a tenth, where there are enough others. "
        "What is left to a reader who sees no image is below."
    ),
    "published": (
        "Counts and distractors as in the paper's scripts: per label at most 200 questions answered Yes and "
        "200 answered No, per finding at most 400 single questions, distractors at random. "
        "**A reader who sees no image does well on this sampling (below); do not compare models on it alone.**"
    ),
    "everything": "All questions that the labels answer; for each label as many binary ones answered Yes as No.",
}
_MINERS = {
    "none": "None was mined; samples carry reasoning only where their source brings it.",
    "rules": (
        "Mined from the reports by rules (`chestx_jax.data.mining`), offline and deterministic. Miner and checks "
        "read a report by the same rules: a high pass rate shows that the text holds together, not that the report "
        "was understood."
    ),
    "llm": "Mined from the reports by a language model in stages (`chestx_jax.data.mining`).",
}


SMALL = 100
"""The 95 % interval of an accuracy of one half is 20 points wide on so many questions."""


def card(stats: Mapping[str, Any]) -> str:
    """The text of README.md."""
    sections = (
        _head(stats),
        _files(stats),
        _counts(stats),
        _labels(stats),
        _questions(stats),
        _reasoning(stats),
        _shortcuts(stats),
        _splits(stats),
        _use(stats),
        _limits(stats),
        _versions(stats),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(stats: Mapping[str, Any]) -> str:
    titles = " and ".join(source["title"] for source in stats["sources"].values()) or "an empty collection"
    rows = [(s["title"], s["licence"], s["reference"]) for s in stats["sources"].values()]
    return (
        f"# RadRBench-CXR from {titles}\n\n"
        f"{stats['samples']:,} questions about {stats['images']:,} images, made from the reports and labels of "
        f"{stats['studies']:,} studies by chestx_jax {stats['versions']['chestx_jax']} after ChestX-Reasoner "
        "(arXiv 2504.20930).\n\n"
        f"{_table(('source', 'terms', 'reference'), rows)}\n\n"
        "The terms of the sources bind everything in this folder: images, reports and what was made from them."
    )


def _files(stats: Mapping[str, Any]) -> str:
    return (
        "## Files\n\n"
        "- `<task>/<split>.jsonl`: one question a line: id, study, patient, source, task, images (relative to the "
        "file), question, options, answer, answer_text, reason_steps, report\n"
        + _images(stats["recipe"]["longest_side"])
        + "- `quarantine.jsonl`: questions whose mined reasoning failed its checks, with the reasons\n"
        "- `rejected.jsonl`: records of the source that could not be used, with the reasons\n"
        "- `stats.json`: every number of this page and more"
    )


def _images(longest_side: int | None) -> str:
    if longest_side is None:
        return ""
    return (
        f"- `images/`: every image of a question once, at most {longest_side} pixels long: PNG and JPEG files that "
        "small as they are in the source, all else as JPEG of quality 95, the aspect ratio kept\n"
    )


def _counts(stats: Mapping[str, Any]) -> str:
    rows = []
    for task, splits in stats["tasks"].items():
        for split, row in splits.items():
            answers = " ".join(f"{letter} {count}" for letter, count in row["answers"].items()) or "open"
            steps = _mean_steps(row["steps"])
            patients = "not known" if row["patients"] is None else row["patients"]
            counts = (row["samples"], row["studies"], patients, row["with_reasoning"])
            rows.append((task, split, *counts, steps, answers))
    header = ("task", "split", "questions", "studies", "patients", "with reasoning", "steps", "answers")
    small = [
        f"{task}/{split}"
        for task, splits in stats["tasks"].items()
        for split, row in splits.items()
        if split != "train" and row["samples"] < SMALL
    ]
    return (
        f"## Counts\n\n{_table(header, rows)}\n\nSteps: mean (least to most) of the samples with reasoning."
        + (
            f" Fewer than {SMALL} questions, too few to tell models apart: {', '.join(small)}."
            if small
            else ""
        )
    )


def _mean_steps(steps: Mapping[str, int]) -> str:
    if not steps:
        return "none"
    counts = {int(count): number for count, number in steps.items()}
    mean = sum(count * number for count, number in counts.items()) / sum(counts.values())
    return f"{mean:.1f} ({min(counts)} to {max(counts)})"


def _labels(stats: Mapping[str, Any]) -> str:
    """Rows are labels, columns tasks; over all splits."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for task, splits in stats["tasks"].items():
        for row in splits.values():
            for label, counts in row["labels"].items():
                cell = table.setdefault(label, {}).setdefault(task, {})
                for answer, number in counts.items():
                    cell[answer] = cell.get(answer, 0) + number
    tasks = [task for task, splits in stats["tasks"].items() if splits]
    rows = [(label, *(_cell(cells.get(task)) for task in tasks)) for label, cells in sorted(table.items())]
    origins = "; ".join(f"{source['title']}: {source['labels']}" for source in stats["sources"].values())
    return f"## Labels\n\n{origins}.\n\n{_table(('label', *tasks), rows)}" if rows else ""


def _cell(counts: Mapping[str, int] | None) -> str:
    if not counts:
        return ""
    if set(counts) == {"present"}:
        return str(counts["present"])
    return ", ".join(f"{number} {answer}" for answer, number in counts.items())


def _questions(stats: Mapping[str, Any]) -> str:
    recipe = stats["recipe"]
    lines = [f"- {task}: {_TASKS[task]}" for task, splits in stats["tasks"].items() if splits]
    none = [task for task, splits in stats["tasks"].items() if not splits]
    lines += (
        [f"\nNone of the kind {', '.join(none)}: no study answers one, or sampling left none."]
        if none
        else []
    )
    built, kept = sum(stats["questions_built"].values()), stats["samples"] + stats["quarantined"]
    return (
        "## Questions\n\n" + "\n".join(lines) + "\n\nThe wording is the published one, to the letter.\n\n"
        f"Sampling: {recipe['sampling']} (seed {recipe['seed']}). {_SAMPLING[recipe['sampling']]} "
        f"{kept:,} of the {built:,} questions that the labels answer were taken; labels that are uncertain or not "
        "known answer none."
    )


def _reasoning(stats: Mapping[str, Any]) -> str:
    text = f"## Reasoning\n\n{_MINERS[stats['recipe']['miner']]}"
    if not stats["verification"]:
        return text
    rows, why, verdicts = [], [], []
    for task, row in stats["verification"].items():
        counts = (row[name] for name in ("mined", "passed", "repaired", "quarantined"))
        rows.append((task, *counts, f"{100 * row['pass_rate']:.1f} %"))
        why += [(task, reason, count) for reason, count in row["reasons"].items()]
        steps = sum(row["steps"].values())
        verdicts += [
            (task, verdict, count, f"{100 * count / steps:.1f} %") for verdict, count in row["steps"].items()
        ]
    return (
        f"{text} Every step was checked against the report, the conclusion against the answer, the text against "
        "mentions of a report; what failed is in `quarantine.jsonl`. A step is supported when the report bears out "
        "what it says, contradicted when the report says otherwise, unmentioned when the report does not speak of "
        "it (it is then taken as normal), empty when it makes no finding that could be checked.\n\n"
        + _table(("task", "mined", "passed", "of these repaired", "quarantined", "pass rate"), rows)
        + "\n\n"
        + _table(("task", "verdict", "steps", "share"), verdicts)
        + (f"\n\n{_table(('task', 'reason for quarantine', 'samples'), why)}" if why else "")
    )


def _shortcuts(stats: Mapping[str, Any]) -> str:
    names = (
        "chance",
        "majority",
        "label prior",
        "option prior",
        "learned label prior",
        "learned option prior",
    )
    rows = [
        (task, row["samples"], *(_percent(row.get(name)) for name in names), "!" if row["warning"] else "")
        for task, row in stats["shortcuts"].items()
    ]
    return (
        "## What a reader who sees no image gets right\n\n"
        f"{_table(('task', 'questions', *(f'{name} %' for name in names), ''), rows)}\n\n"
        "Majority: the most frequent answer for all. Priors: the most frequent answer to the same question, or the "
        "option that is most often right when offered, counted over all other questions (a prior below chance is "
        "the mark of exact balance: leaving a question out tips the scale against its answer), or learned on train "
        'and asked on the other splits. "!": more than 10 points above chance. Print the best of these beside '
        "every score."
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _splits(stats: Mapping[str, Any]) -> str:
    rows = [
        (split, row["reports"], other.removeprefix("near "), count)
        for split, row in stats["near_duplicate_reports"].items()
        for other, count in row.items()
        if other != "reports"
    ]
    return (
        "## Splits\n\n"
        "By patient (by study where patients are not known): the source's own split where it has one, else a hash "
        "of the patient, 80/10/10 in percent, that does not change when studies are added."
        + (
            "\n\nReports of one split that nearly repeat one of another (MinHash of four-word shingles, similarity "
            f"0.8 or more); normal reports are often boilerplate:\n\n"
            f"{_table(('split', 'reports', 'compared with', 'near-duplicates'), rows)}"
            if rows
            else ""
        )
    )


def _use(stats: Mapping[str, Any]) -> str:
    recipe = stats["recipe"]
    flags = " ".join(f"--{name}={recipe[name]}" for name in ("sampling", "miner", "seed"))
    flags += "".join(f" --task={task}" for task in recipe["tasks"] if len(recipe["tasks"]) < len(TASKS))
    source = "|".join(stats["sources"]) or "NAME"
    return (
        "## Use\n\n"
        "For training and comparing models that answer questions about chest X-rays and give reasons. Score a model "
        "with what makes its score mean something, the text-only baselines and the share of right answers on even "
        "grey images:\n\n```\n"
        "python -m launch.predict --model=DIR --data=single/test.jsonl --out=predictions.jsonl [--blank_images]\n"
        "python -m launch.evaluate --data=single/test.jsonl --predictions=predictions.jsonl --out=DIR\n```\n\n"
        "Built by this line, and by it again to the same content hash (phantom and folder have flags of their "
        "own):\n\n```\n"
        f"python -m launch.build_bench --source={source} --root=DIR --out=DIR {flags} "
        f"--longest_side={recipe['longest_side'] or 0}\n```"
    )


def _limits(stats: Mapping[str, Any]) -> str:
    return (
        "## Limits\n\n"
        "Labels and reports are what one reader wrote or an algorithm read, not a reference standard. Reasoning was "
        "made from text, by somebody who saw no image: it says what was found, not what can be seen at the stored "
        "size, and what a report does not mention is taken as normal. Many questions share a study; count studies, "
        "not questions, in an interval. A right answer does not show that the image was read. For research; not for "
        "clinical use.\n\n"
        f"{stats['rejected']:,} records of the source were rejected and {stats['studies_without_question']:,} studies "
        "answer no question."
    )


def _versions(stats: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in stats["versions"].items())
    return f"## Versions\n\nContent hash (samples and images): `{stats['content_sha256']}`. {versions}."


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
