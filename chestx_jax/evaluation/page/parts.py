"""What a page is made of. Nothing here knows where the numbers and texts come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

VERDICTS = (
    "supported",
    "contradicted",
    "unmentioned",
    "repeated",
    "off topic",
    "planned",
    "empty",
    "recalled",
    "in part",
    "missed",
)
"""What became of a sentence. Of a judged text: the sources bear it out, deny it, are silent; it says again
what was said; it is true but beside the question; it plans; it claims nothing. Of a reference: the judged
texts state what it says, some of it, none of it."""
OWN = -1
TONES = ("", "good", "bad", "quiet")


class PageError(ValueError):
    """A part that cannot be shown; the message names it."""


@dataclass(frozen=True)
class Cell:
    """A table cell. `tone` is one of `TONES` and only adds to what the text says; `title` shows on hover."""

    text: str
    tone: str = ""
    title: str = ""


@dataclass(frozen=True)
class Table:
    """`columns` are headings, and each row has as many cells. The first `names` columns and those without a
    heading hold words and are set to the left, the others hold numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    note: str = ""
    names: int = 1


@dataclass(frozen=True)
class Plot:
    """`svg` goes into the page as it is: make it with `page.plots`, never from a model's words."""

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of a case.

    Attributes:
      name: what to call it; shown where there is nothing else.
      thumbnail: a data URI, or "".
      link: the whole picture, relative to the page, or "" where a browser cannot show it.
      missing: why there is neither.
    """

    name: str
    thumbnail: str = ""
    link: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on. `source` are the words that the page quotes: (number of the case's reference,
    or `OWN` for the text itself, start, end)."""

    says: str
    source: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Span:
    """`text[start:end]` is a sentence; `verdict` one of `VERDICTS`, or "" where none was given."""

    start: int
    end: int
    verdict: str = ""
    evidence: Sequence[Evidence] = ()


@dataclass(frozen=True)
class Text:
    """One text of a case: a model's output, a completion, a gold reasoning, a report.

    Attributes:
      title: whose text it is; the same in all cases, as the page filters by it.
      spans: its sentences in order. Without any, the whole text is shown.
      answer: what was answered, "" when nothing was read.
      right: whether that is right; None: not a question of right or wrong.
      numbers: scores, rewards, advantages; by name, the same names in all cases.
      facts: further things to say of it, by name.
    """

    title: str
    text: str
    spans: Sequence[Span] = ()
    answer: str = ""
    right: bool | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One case: a question with its images, the texts to trust and the texts to judge.

    Attributes:
      id: unique on the page.
      group: what cases are filtered by first: the task, or the step of a run.
      answer: the gold answer.
      references: what the texts are compared with.
      texts: one a model or completion.
      captions: below the pictures, in their order; may be fewer.
    """

    id: str
    group: str
    question: str
    answer: str
    pictures: Sequence[Picture]
    references: Sequence[Text]
    texts: Sequence[Text]
    captions: Sequence[str] = ()
