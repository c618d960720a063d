"""The stages of mining by a language model: their prompts, requests and schemas (arXiv 2504.20930, RadRBench-CXR).

    plan -> evidence -> refine          temporal: joint -> refine          a sample that fails: repair

The plan sees the question alone, so equal questions share one request. The prompts are the files of `prompts/`,
`$name` standing for a field of the request; a directory with one's own replaces them. `version.txt` names the
version, which is kept with every output.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from chestx_jax.data.mining.sources import MiningError
from chestx_jax.data.schema import Sample
from chestx_jax.llm import Request

STAGES = ("plan", "evidence", "joint", "refine", "repair")
_STATUS = {"type": "string", "enum": ["present", "absent", "normal", "uncertain"]}
_TEXT = {"type": "string", "minLength": 1}


def _list_of(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    entry = {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }
    return _object(name, {"type": "array", "minItems": 1, "items": entry})


def _object(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: dict(value)},
        "required": [name],
        "additionalProperties": False,
    }


_STEPS = _object("steps", {"type": "array", "minItems": 2, "items": _TEXT})
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "plan": _list_of("plan", {"option": _TEXT, "look_at": _TEXT, "why": _TEXT}),
    "evidence": _list_of("evidence", {"option": _TEXT, "observation": _TEXT, "status": _STATUS}),
    "joint": _list_of("comparison", {"area": _TEXT, "reference": _TEXT, "new": _TEXT, "change": _TEXT}),
    "refine": _STEPS,
    "repair": _STEPS,
}


@dataclass(frozen=True)
class Prompts:
    """The prompts' texts.

    Attributes:
      version: of `version.txt`.
      digest: the first digits of a SHA-256 over all of them, to tell edited prompts of one version apart.
    """

    texts: Mapping[str, Template]
    version: str
    digest: str

    @classmethod
    def read(cls, directory: Path | None = None) -> "Prompts":
        """The package's prompts, or those of a directory.

        Raises:
          MiningError: a file is missing; it names the file.
        """
        root = resources.files(__package__).joinpath("prompts") if directory is None else directory
        texts = {}
        for name in (*STAGES, "system", "version"):
            file = root.joinpath(f"{name}.txt")
            try:
                texts[name] = file.read_text(encoding="utf-8").strip()
            except FileNotFoundError as error:
                raise MiningError(f"prompt {file} is missing") from error
        digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]
        version = texts.pop("version")
        return cls({name: Template(text) for name, text in texts.items()}, version, digest)


def stages_of(sample: Sample) -> tuple[str, ...]:
    """The stages that every sample of this task goes through."""
    return ("joint", "refine") if sample.task == "temporal" else ("plan", "evidence", "refine")


def request(
    stage: str, sample: Sample, outputs: Mapping[str, Any], prompts: Prompts, problems: Sequence[str] = ()
) -> Request:
    """What is asked in a stage, given the outputs of those before.

    Raises:
      MiningError: a prompt names an unknown field, or a sample has no report; it names them.
    """
    fields = _fields(stage, sample, outputs, problems)
    try:
        user = prompts.texts[stage].substitute(fields)
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${name}" for name in fields)
        raise MiningError(f"prompt {stage!r}: {error} is none of its fields {known}") from error
    system = prompts.texts["system"].template
    return Request(f"{sample.id}/{stage}", user, system=system, schema=SCHEMAS[stage])


def _fields(
    stage: str, sample: Sample, outputs: Mapping[str, Any], problems: Sequence[str]
) -> dict[str, str]:
    if stage == "plan":
        return {"question": sample.question}
    if stage == "evidence":
        plan = _lines(outputs["plan"]["plan"])
        return {"question": sample.question, "plan": plan, "report": _report(sample)}
    answer = sample.answer if sample.options is None else f"{sample.answer}) {sample.answer_text}"
    common = {"question": sample.question, "answer": answer}
    if stage == "joint":
        return {**common, "report": _report(sample), "prior_report": _prior_report(sample)}
    if stage == "refine":
        seen = outputs["joint"]["comparison"] if "joint" in outputs else outputs["evidence"]["evidence"]
        return {**common, "evidence": _lines(seen)}
    report = _report(sample)
    if sample.task == "temporal":
        report = f"Reference image: {_prior_report(sample)}\nNew image: {report}"
    steps = outputs["refine"]["steps"]
    return {
        **common,
        "report": report,
        "steps": "\n".join(f"{i}. {step}" for i, step in enumerate(steps, start=1)),
        "problems": "\n".join(f"- {problem}" for problem in problems),
    }


def _report(sample: Sample) -> str:
    if not sample.report.strip():
        raise MiningError(f"sample {sample.id!r}: field 'report' is empty; mining needs it")
    return sample.report


def _prior_report(sample: Sample) -> str:
    prior = sample.extra.get("prior_report")
    if not isinstance(prior, str) or not prior.strip():
        raise MiningError(
            f"sample {sample.id!r}: field 'prior_report' is missing; a temporal question needs it"
        )
    return prior


def _lines(entries: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
