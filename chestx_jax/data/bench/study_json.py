"""A Study as a JSON object and back, for the working files of a build."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from chestx_jax.data.schema import Study


def study_to_json(study: Study) -> dict[str, Any]:
    """What `study_from_json` reads; tuples become lists, paths texts."""
    return asdict(study) | {
        "images": [str(path) for path in study.images],
        "prior": study_to_json(study.prior) if study.prior else None,
    }


def study_from_json(record: Mapping[str, Any]) -> Study:
    """The Study of a record of `study_to_json`."""
    values = {field.name: record[field.name] for field in fields(Study)}
    values["images"] = tuple(Path(path) for path in record["images"])
    values["reason_steps"] = tuple(record["reason_steps"])
    values["prior"] = study_from_json(record["prior"]) if record["prior"] else None
    return Study(**values)
