"""RadRScore's official form: any OpenAI-compatible endpoint as the judge (arXiv 2504.20930, RadRScore).

At most five calls a sample, in two rounds: findings of the gold reasoning, findings of the prediction, and
the effectiveness of its steps; then which gold findings were recalled, and which predicted ones the report
bears out. The gold findings are asked once for all models, as equal requests share an answer.

Where this judge differs from the authors' script, and why: their judge lists what it accepts and counts it,
and the two disagree at times; ours gives a verdict for each number of a list it is shown, so the counts are
ours and the JSON schema makes sure that none is left out. Only the reasoning is judged: theirs also read the
prompt that leaked into the prediction. A prediction without reasoning costs no call and has nothing to count:
it scores 0 (their judge asked back, which made the judgment malformed).
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from chestx_jax.evaluation.accuracy import Case
from chestx_jax.llm import Answer, Client, Estimate, Invalid, Request

PROMPTS = ("system", "extract", "recall", "precision", "effectiveness")
FINDINGS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "key_conclusion": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"observation": {"type": "string"}, "status": {"type": "string"}},
                "required": ["observation", "status"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["key_conclusion"],
    "additionalProperties": False,
}
Findings = list[dict[str, str]]
Results = Mapping[str, Answer | Invalid]


class JudgeError(Exception):
    """Samples or prompts that cannot be judged; the message names the sample and its field, or the prompt."""


def judge_cases(
    cases: Sequence[Case], model: str, client: Client, prompts: Path | None = None
) -> list[dict[str, Any]]:
    """One record a case, in the shape of the released judgments, ready for `aggregate`.

    Args:
      cases: samples with their predictions, from `chestx_jax.evaluation.accuracy.judge`; ids must be unique.
      model: whose predictions these are, for the records.
      prompts: a directory with texts of one's own in place of the package's `prompts/*.txt`.

    A part that the judge failed to give is {"error": reason}, which `aggregate` counts as malformed.

    Raises:
      JudgeError: a sample has no gold steps or no report, or a prompt is missing or names an unknown field.
    """
    texts = _texts(prompts)
    _check(cases)
    first = [request for case in cases for request in _first_round(case, texts)]
    results: dict[str, Answer | Invalid] = {r.id: r for r in client.ask_all(first)}
    second = [
        request
        for case in cases
        for request in _second_round(
            case, _findings(results, case, "gold"), _findings(results, case, "pred"), texts
        )
    ]
    results |= {r.id: r for r in client.ask_all(second)}
    return [_record(case, model, results) for case in cases]


def estimate_judging(cases: Sequence[Case], client: Client, prompts: Path | None = None) -> Estimate:
    """A dry run. The first round is exact; in the second each step stands for the finding it may become."""
    texts = _texts(prompts)
    _check(cases)
    first = client.estimate(request for case in cases for request in _first_round(case, texts))
    second = client.estimate(
        request
        for case in cases
        for request in _second_round(case, _stand_in(case.sample.reason_steps), _stand_in(case.steps), texts)
    )
    return first + second


def _stand_in(steps: Sequence[str]) -> Findings:
    return [{"observation": step, "status": ""} for step in steps]


def _texts(prompts: Path | None) -> dict[str, Template]:
    root = resources.files(__package__).joinpath("prompts") if prompts is None else prompts
    texts = {}
    for name in PROMPTS:
        file = root.joinpath(f"{name}.txt")
        try:
            texts[name] = Template(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise JudgeError(f"prompt {file} is missing") from error
    return texts


def _check(cases: Sequence[Case]) -> None:
    for case in cases:
        for name, value in (("reason_steps", case.sample.reason_steps), ("report", case.sample.report)):
            if not value:
                raise JudgeError(f"sample {case.sample.id!r}: field {name!r} is empty; RadRScore needs it")


def _first_round(case: Case, texts: Mapping[str, Template]) -> list[Request]:
    gold, steps = _numbered(case.sample.reason_steps), _numbered(case.steps)
    requests = [_request(case, "gold", texts, "extract", FINDINGS_SCHEMA, steps=gold)]
    if case.steps:
        requests.append(_request(case, "pred", texts, "extract", FINDINGS_SCHEMA, steps=steps))
        schema = verdict_schema(len(case.steps), ("effective", "ineffective"))
        requests.append(_request(case, "effective", texts, "effectiveness", schema, gold=gold, steps=steps))
    return requests


def _second_round(
    case: Case, gold: Findings | None, pred: Findings | None, texts: Mapping[str, Template]
) -> list[Request]:
    if not pred:
        return []
    listed = _numbered([_line(finding) for finding in pred])
    schema = verdict_schema(len(pred), ("correct", "incorrect"))
    report = case.sample.report
    requests = [_request(case, "correct", texts, "precision", schema, report=report, findings=listed)]
    if gold:
        schema = verdict_schema(len(gold), ("recalled", "missed"))
        reference = _numbered([_line(finding) for finding in gold])
        requests.append(_request(case, "recalled", texts, "recall", schema, gold=reference, findings=listed))
    return requests


def _request(
    case: Case,
    part: str,
    texts: Mapping[str, Template],
    prompt: str,
    schema: Mapping[str, Any],
    **values: str,
) -> Request:
    try:
        user = texts[prompt].substitute(values)
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${name}" for name in values)
        raise JudgeError(f"prompt {prompt!r}: {error} is none of its fields {known}") from error
    return Request(f"{case.sample.id}/{part}", user, system=texts["system"].template, schema=schema)


def verdict_schema(count: int, verdicts: tuple[str, str]) -> dict[str, Any]:
    """{"1": verdict, .., "count": verdict}: every number is required, so nothing can be left out."""
    numbers = [str(i + 1) for i in range(count)]
    return {
        "type": "object",
        "properties": {number: {"type": "string", "enum": list(verdicts)} for number in numbers},
        "required": numbers,
        "additionalProperties": False,
    }


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1))


def _line(finding: Mapping[str, str]) -> str:
    return json.dumps(finding, ensure_ascii=False)


def _findings(results: Results, case: Case, part: str) -> Findings | None:
    """None when the judge gave none that can be used; [] when there was nothing to extract from."""
    result = results.get(f"{case.sample.id}/{part}")
    if result is None:
        return []
    return result.value["key_conclusion"] if isinstance(result, Answer) else None


def _chosen(results: Results, case: Case, part: str, verdict: str, items: Sequence[Any]) -> list[Any]:
    result = results[f"{case.sample.id}/{part}"]
    assert isinstance(result, Answer)
    return [item for i, item in enumerate(items, start=1) if result.value[str(i)] == verdict]


def _error(results: Results, case: Case, *parts: str) -> dict[str, str] | None:
    """What the judge failed at, if a part that this one rests on is invalid."""
    for part in parts:
        result = results.get(f"{case.sample.id}/{part}")
        if isinstance(result, Invalid):
            return {"error": f"{part}: {result.reason}"}
    return None


def _record(case: Case, model: str, results: Results) -> dict[str, Any]:
    sample = case.sample
    return {
        "id": sample.id,
        "task": sample.task,
        "model": model,
        "question": sample.question,
        "answer": sample.answer,
        "pred": case.prediction,
        "correct": "yes" if case.correct else "no",
        "reason_steps": list(sample.reason_steps),
        "original_report": sample.report,
        "gt_key_finding": _key_findings(case, results, "gold"),
        "pred_key_finding": _key_findings(case, results, "pred"),
        "recall_res": _recall(case, results),
        "precision_res": _precision(case, results),
        "efficiency": _efficiency(case, results),
    }


def _key_findings(case: Case, results: Results, part: str) -> dict[str, Any]:
    return _error(results, case, part) or {"key_conclusion": _findings(results, case, part)}


def _recall(case: Case, results: Results) -> dict[str, Any]:
    if error := _error(results, case, "gold", "pred", "recalled"):
        return error
    gold, pred = _findings(results, case, "gold"), _findings(results, case, "pred")
    found = _chosen(results, case, "recalled", "recalled", gold) if gold and pred else []
    return {"recalled_findings": found, "recalled_count": len(found)}


def _precision(case: Case, results: Results) -> dict[str, Any]:
    if error := _error(results, case, "pred", "correct"):
        return error
    pred = _findings(results, case, "pred")
    right = _chosen(results, case, "correct", "correct", pred) if pred else []
    return {"correct_steps": right, "correct_count": len(right)}


def _efficiency(case: Case, results: Results) -> dict[str, Any]:
    if error := _error(results, case, "effective"):
        return error
    good = _chosen(results, case, "effective", "effective", case.steps) if case.steps else []
    return {
        "effective_steps": good,
        "effective_count": len(good),
        "ineffective_count": len(case.steps) - len(good),
    }
