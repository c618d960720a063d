"""Parts to HTML. Texts come from models and are not to be trusted: they reach the page as JSON, which the
script shows as text, never as HTML; a content security policy forbids all that the page does not bring."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from chestx_jax.evaluation.page.parts import (
    OWN,
    TONES,
    VERDICTS,
    Cell,
    Evidence,
    Item,
    PageError,
    Plot,
    Span,
    Table,
    Text,
)


def render(
    title: str,
    tables: Sequence[Table],
    plots: Sequence[Plot],
    cases: Sequence[Item],
    *,
    warnings: Sequence[str] = (),
    subtitle: str = "",
) -> str:
    """The page as HTML.

    Args:
      warnings: what a reader must know before the tables, one sentence each.
      subtitle: a line below the title.

    Raises:
      PageError: an id that comes twice, a span outside its text, a row of the wrong length, an unknown
        verdict or tone.
    """
    _check(tables, cases)
    script, style = _asset("page.js"), _asset("page.css")
    page = _template().render(
        title=title,
        subtitle=subtitle,
        warnings=warnings,
        tables=[_table(table) for table in tables],
        plots=plots,
        count=len(cases),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(_json(_data(cases))),
    )
    return _whole(page)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["svg"] = Markup
    return environment.from_string(_asset("page.html.j2"))


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _table(table: Table) -> dict[str, Any]:
    rows = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in table.rows]
    left = [i < table.names or not column for i, column in enumerate(table.columns)]
    return {"title": table.title, "columns": table.columns, "left": left, "rows": rows, "note": table.note}


def _check(tables: Sequence[Table], cases: Sequence[Item]) -> None:
    for table in tables:
        for row in table.rows:
            if len(row) != len(table.columns):
                raise PageError(f"table {table.title!r}: {len(row)} cells for {len(table.columns)} columns")
            tones = {cell.tone for cell in row if isinstance(cell, Cell)} - set(TONES)
            if tones:
                raise PageError(f"table {table.title!r}: tone {tones.pop()!r} is none of {', '.join(TONES)}")
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise PageError(f"case {case.id!r} is there twice")
        seen.add(case.id)
        for text in (*case.references, *case.texts):
            for span in text.spans:
                _check_span(span, text, case)


def _check_span(span: Span, text: Text, case: Item) -> None:
    place = f"case {case.id!r}, text {text.title!r}"
    if not 0 <= span.start <= span.end <= len(text.text):
        raise PageError(f"{place}: span {span.start} to {span.end} of {len(text.text)} characters")
    if span.verdict and span.verdict not in VERDICTS:
        raise PageError(f"{place}: verdict {span.verdict!r} is none of {', '.join(VERDICTS)}")
    for evidence in span.evidence:
        number = OWN if evidence.source is None else evidence.source[0]
        if number != OWN and not 0 <= number < len(case.references):
            raise PageError(f"{place}: evidence in reference {number} of {len(case.references)}")


def _json(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end that element or open a comment."""
    plain = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        plain = plain.replace(character, f"\\u{ord(character):04x}")
    return plain


def _data(cases: Sequence[Item]) -> dict[str, Any]:
    """The cases with each picture once, as several ask about the same study."""
    pictures: dict[Any, int] = {}
    rows = []
    for case in cases:
        numbers = [pictures.setdefault(picture, len(pictures)) for picture in case.pictures]
        rows.append(
            {
                "id": case.id,
                "group": case.group,
                "question": case.question,
                "answer": case.answer,
                "pictures": numbers,
                "captions": list(case.captions),
                "references": [_text(text, case) for text in case.references],
                "texts": [_text(text, case) for text in case.texts],
            }
        )
    shown = [
        {"name": p.name, "thumbnail": p.thumbnail, "link": p.link, "missing": p.missing} for p in pictures
    ]
    return {"verdicts": VERDICTS, "pictures": shown, "cases": rows}


def _text(text: Text, case: Item) -> dict[str, Any]:
    at = _units(text.text)
    return {
        "title": text.title,
        "text": text.text,
        "spans": [
            [
                at(span.start),
                at(span.end),
                VERDICTS.index(span.verdict) if span.verdict else -1,
                [_evidence(one, text, case) for one in span.evidence],
            ]
            for span in text.spans
        ],
        "answer": text.answer,
        "right": text.right,
        "numbers": {name: round(x, 6) for name, x in text.numbers.items() if math.isfinite(x)},
        "facts": dict(text.facts),
    }


def _evidence(evidence: Evidence, text: Text, case: Item) -> list[Any]:
    if evidence.source is None:
        return [evidence.says]
    number, start, end = evidence.source
    at = _units(text.text if number == OWN else case.references[number].text)
    return [evidence.says, number, at(start), at(end)]


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which no encoding can write."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _units(text: str) -> Any:
    """From Python's offsets to the script's, which count a character beyond U+FFFF twice."""
    if all(ord(character) < 0x10000 for character in text):
        return lambda offset: offset
    return lambda offset: len(text[:offset].encode("utf-16-le", "surrogatepass")) // 2
