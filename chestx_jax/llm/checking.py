"""From a model's words to a value that fits the schema."""

import json
import re
from collections.abc import Mapping
from typing import Any

from chestx_jax.llm.endpoint import MissingExtraError

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


class MalformedError(Exception):
    """The answer cannot be used; `reason` is a fixed phrase, so that no text of the answer gets into logs."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises jsonschema.SchemaError when the caller's schema is itself wrong."""
    _jsonschema().Draft202012Validator.check_schema(dict(schema))


def checked_value(text: str, schema: Mapping[str, Any] | None) -> Any:
    """The answer's value: JSON that fits `schema`, in a Markdown fence or not; the text when there is none.

    Raises:
      MalformedError: empty, not JSON, or JSON that breaks the schema.
    """
    if not text.strip():
        raise MalformedError("empty answer")
    if schema is None:
        return text
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1]
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    check_value(value, schema)
    return value


def check_value(value: Any, schema: Mapping[str, Any] | None) -> None:
    """Raises MalformedError when `value` breaks `schema`."""
    if schema is not None and not _jsonschema().Draft202012Validator(dict(schema)).is_valid(value):
        raise MalformedError("breaks the schema")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _jsonschema() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise MissingExtraError("jsonschema") from error
    return jsonschema
