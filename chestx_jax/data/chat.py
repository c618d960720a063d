"""The chat format and the answer grammar: the one place that renders samples and parses the model's words.

Rendering follows the paper (ChestX-Reasoner, arXiv 2504.20930): every image, then the question, then, where
reasoning is asked for, `SUFFIX`; the model writes `<think> {steps} </think><answer> B </answer>`, or
`<answer> B </answer>` alone. There is no system prompt beyond the chat template's own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chestx_jax.data.schema import LETTERS, Sample
from chestx_jax.data.steps import Step, split_steps

__all__ = [
    "MODES",
    "RULES",
    "SUFFIX",
    "ChatError",
    "Parsed",
    "Step",
    "label_set",
    "match",
    "messages",
    "normalise",
    "parse",
    "predicted_option",
    "split_steps",
    "target",
    "user_text",
]

SUFFIX = (
    "\nLet's think step by step."
    " Enclose the reasoning within <think></think> and the answer within <answer></answer>."
)
MODES = ("reason", "answer")

RULES = (
    "strict",
    "answer_only",
    "loose_tags",
    "conflicting_tags",
    "empty_tag",
    "unclosed_answer",
    "letter_prefix",
    "bare_letter",
    "answer_phrase",
    "bare_text",
    "closing_letter",
    "none",
)
"""How an answer was found, in the order of trial:

strict            `<think>..</think><answer>..</answer>` and nothing else: the format asked for with reasoning
answer_only       `<answer>..</answer>` and nothing else: the format asked for without reasoning
loose_tags        one or more closed answer tags that agree, with other text around or a broken think tag
conflicting_tags  closed answer tags that disagree: no answer
empty_tag         closed answer tags that are all empty: no answer
unclosed_answer   text after `<answer>` that is never closed, to the end of its line
letter_prefix     all of the text is "(B) No", "B) No" or "B. No"
bare_letter       all of the text is a letter
answer_phrase     "the answer is B", "Final answer: (B) No": the last such phrase
bare_text         all of the text is one short line: taken as the answer's text
closing_letter    the last line of a longer text names one option: "..is most consistent with option C."
none              nothing of the kind: no answer

A text that repeats the conversation ("system\\n.. user\\n.. assistant\\n..") is read after the last
"assistant" header; its rule then reads "chat_prefix+" and the rule that applied.
"""

_HEADER = re.compile(r"(?:^|\n)(?:<\|im_start\|>)?assistant[ \t]*\n")
_STOP = re.compile(r"(?:\s*(?:<\|im_end\|>|<\|endoftext\|>))+\s*\Z")
_STRICT = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_ANSWER_ONLY = re.compile(r"\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_PHRASE = re.compile(  # the answer is looked at, not consumed: its line may hold a second, later one
    r"\b[Aa]nswer\b(?:(?!options|each|following)[^.\n:]){0,80}?(?:\bis\b|\bwould be\b|:)[\s:*\"“]*"
    r"(?=(?P<answer>[A-Z](?=,? (?:because|since|as)\b)|(?:[Oo]ption )?\(?[A-Z](?:\)|[.:*,]|\s*$)[^\n]*"
    r"|(?i:yes|no|stable|worsening|improving)\b[^\n]*))",
    re.MULTILINE,
)
_MENTION = re.compile(
    r"(?:\b[Oo]ption )?(?<!\w)\(?(?P<letter>[A-Z])\)|\b[Oo]ption (?:is )?(?P<named>[A-Z])\b"
)
_LISTED = re.compile(r"[\s*-]*\(?[A-Z](?:\)|[.:])\s")
_LETTER = re.compile(r"(?:option\s+)?\(?([A-Za-z])\s*[).:]?", re.IGNORECASE)
_LETTER_PREFIX = re.compile(
    r"(?:option\s+)?(?:\(([A-Za-z])\)[.:]?|([A-Za-z])(?:\)|[.:]))\s*(\S.*)", re.IGNORECASE | re.DOTALL
)
_OTHER_LETTER = re.compile(r"\(?\b[A-Z]\)|\b(?:or|and|not)\s+\(?[A-Z]\b(?!\s+[a-z])|\boption [A-Z]\b")
_SHORT = 200
_POLAR = ("yes", "no")


class ChatError(ValueError):
    """A sample that cannot be rendered; the message names its id and the field."""


@dataclass(frozen=True)
class Parsed:
    """What was understood of a completion.

    Attributes:
      answer: the answer's text as it was written ("B", "(B) No", "edema, pneumonia"), None for none.
      steps: the reasoning, step by step.
      rule: one of `RULES`, possibly behind "chat_prefix+".
      spans: the character span of each step in the text that was parsed.
    """

    answer: str | None
    steps: tuple[str, ...]
    rule: str
    spans: tuple[tuple[int, int], ...] = ()


def user_text(sample: Sample, mode: str) -> str:
    """The user's words: the question, with `SUFFIX` when reasoning is asked for."""
    _check_mode(mode)
    return sample.question + (SUFFIX if mode == "reason" else "")


def messages(sample: Sample, mode: str) -> list[dict[str, Any]]:
    """The prompt as Hugging Face chat messages: one user turn, images first (in order), then the text."""
    content: list[dict[str, Any]] = [{"type": "image"} for _ in sample.images]
    content.append({"type": "text", "text": user_text(sample, mode)})
    return [{"role": "user", "content": content}]


def target(sample: Sample, mode: str) -> str:
    """What the model shall write, without the end token.

    Raises:
      ChatError: mode "reason" on a sample without steps, or a step or answer that contains one of the tags.
    """
    _check_mode(mode)
    for name, texts in (("answer", [sample.answer]), ("reason_steps", sample.reason_steps)):
        if any(_TAG.search(text) for text in texts):
            raise ChatError(f"sample {sample.id!r}: field '{name}': holds a <think> or <answer> tag")
    answer = f"<answer> {sample.answer} </answer>"
    if mode == "answer":
        return answer
    if not sample.reason_steps:
        raise ChatError(f"sample {sample.id!r}: field 'reason_steps': empty, a reasoning target needs steps")
    return f"<think> {' '.join(sample.reason_steps)} </think>{answer}"


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ChatError(f"mode {mode!r} is none of {', '.join(MODES)}")


def parse(text: str) -> Parsed:
    """Reads a completion by the first of `RULES` that applies; `Parsed.rule` names it. Never raises."""
    end = len(text)
    if stop := _STOP.search(text):
        end = stop.start()
    begin, prefix = 0, ""
    if header := list(_HEADER.finditer(text, 0, end)):
        begin, prefix = header[-1].end(), "chat_prefix+"
    for rule, pattern in (("strict", _STRICT), ("answer_only", _ANSWER_ONLY)):
        found = pattern.fullmatch(text, begin, end)
        if found and not any(_TAG.search(group) for group in found.groups()):
            steps = _shift(split_steps(found["think"]), found.start("think")) if rule == "strict" else ()
            answer = found["answer"].strip() or None
            return _parsed(answer, steps, prefix + (rule if answer else "empty_tag"))
    answer, rule = _fallback(text[begin:end])
    return _parsed(answer, _thoughts(text, begin, end), prefix + rule)


def _parsed(answer: str | None, steps: Iterable[Step], rule: str) -> Parsed:
    steps = tuple(steps)
    return Parsed(answer, tuple(s.text for s in steps), rule, tuple((s.start, s.end) for s in steps))


def _shift(steps: Iterable[Step], by: int) -> list[Step]:
    return [Step(s.text, s.start + by, s.end + by) for s in steps]


def _thoughts(text: str, begin: int, end: int) -> list[Step]:
    """Steps of a text out of form: inside the think tags if there are any, else all before the answer tag."""
    opened = text.find("<think>", begin, end)
    start = begin if opened < 0 else opened + len("<think>")
    stops = [p for tag in ("</think>", "<answer>") if (p := text.find(tag, start, end)) >= 0]
    stop = min(stops, default=end)
    steps: list[Step] = []
    for tag in [*_TAG.finditer(text, start, stop), None]:  # a stray tag ends a step and belongs to none
        steps += _shift(split_steps(text[start : tag.start() if tag else stop]), start)
        start = tag.end() if tag else stop
    return steps


def _fallback(text: str) -> tuple[str | None, str]:
    tagged = [answer.strip() for answer in _ANSWER.findall(text)]
    filled = [answer for answer in tagged if answer]
    if filled:
        same = len({normalise(answer) for answer in filled}) == 1
        return (filled[-1], "loose_tags") if same else (None, "conflicting_tags")
    if (opened := text.rfind("<answer>")) > text.rfind("</answer>"):
        rest = _TAG.sub(" ", text[opened:]).strip()
        return (rest.split("\n")[0].strip(), "unclosed_answer") if rest else (None, "empty_tag")
    if tagged:
        return None, "empty_tag"
    bare = _TAG.sub(" ", text).strip()
    if not bare:
        return None, "none"
    if "\n" not in bare and len(bare) <= _SHORT and _LETTER_PREFIX.fullmatch(_plain(bare)):
        return bare, "letter_prefix"
    if _LETTER.fullmatch(_plain(bare)):
        return bare, "bare_letter"
    phrases = [found["answer"].strip() for found in _PHRASE.finditer(bare)]
    if phrases:
        return re.split(r"(?<=[.;])\s", phrases[-1].replace("*", ""))[0] or None, "answer_phrase"
    if "\n" not in bare and len(bare) <= _SHORT:
        return bare, "bare_text"
    return _closing(bare)


def _closing(text: str) -> tuple[str | None, str]:
    """The one option that the last line names, unless that line is the end of a list of options."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    last = _plain(lines[-1])
    listed = len(lines) > 1 and _LISTED.match(lines[-1]) and _LISTED.match(lines[-2])
    mentions = list(_MENTION.finditer(last))
    letters = {found["letter"] or found["named"] for found in mentions}
    if len(letters) == 1 and not listed:
        return letters.pop(), "closing_letter"
    return (last, "closing_letter") if re.fullmatch(r"[A-Z]", last) else (None, "none")


def _plain(text: str) -> str:
    """Without markdown emphasis, quotes and outer white space."""
    return re.sub(r"[*`\"“”]+", "", text).strip()


def normalise(text: str) -> str:
    """For comparing answers: lower case, single spaces, no emphasis, quotes or closing punctuation."""
    return re.sub(r"\s+", " ", _plain(text)).strip(" .;,:").lower()


def label_set(text: str) -> frozenset[str]:
    """Comma-joined labels as a set, each normalised; order and repeats do not matter."""
    parts = re.split(r"[,;\n]", text)
    return frozenset(
        label for part in parts if (label := re.sub(r"^(?:and )?(?:[-•] )?", "", normalise(part)))
    )


def match(parsed: Parsed, sample: Sample) -> bool:
    """Whether the answer is right: the letter or the option's text; for an open question the set of labels.

    An answer that names two options ("A or B", "A) Yes B) No"), or a letter with another option's text, is
    wrong; so is none.
    """
    if parsed.answer is None:
        return False
    if sample.options is None:
        return label_set(parsed.answer) == label_set(sample.answer)
    return predicted_option(parsed.answer, sample.options) == sample.answer


def predicted_option(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter of the one option that `answer` names, None when it names none or more than one."""
    letters = LETTERS[: len(options)]
    plain = _plain(answer)
    if found := _LETTER.fullmatch(plain):
        letter = found.group(1).upper()
        return letter if letter in letters else None
    if found := _LETTER_PREFIX.fullmatch(plain):
        letter = (found.group(1) or found.group(2)).upper()
        if letter not in letters or _OTHER_LETTER.search(found.group(3)):
            return None
        return letter if _agrees(found.group(3), letters.index(letter), options) else None
    same = [i for i, option in enumerate(options) if label_set(option) == label_set(plain) != frozenset()]
    if len(same) == 1:
        return letters[same[0]]
    first = re.match(r"(yes|no)\b[.,;:]", plain.lower())
    folded = [option.lower() for option in options]
    if first and sorted(folded) == sorted(_POLAR):  # "No, the chest X-ray shows no edema."
        return letters[folded.index(first.group(1))]
    return None


def _agrees(rest: str, index: int, options: tuple[str, ...]) -> bool:
    """Whether the words behind a letter may stand for that option: they begin with it, or name no other."""
    words = normalise(rest)
    own = normalise(options[index])
    if label_set(rest) == label_set(options[index]):
        return True
    if own and re.match(re.escape(own) + r"(?!\w)", words):
        return True
    others = [normalise(option) for i, option in enumerate(options) if i != index]
    return not any(other and re.search(rf"(?<!\w){re.escape(other)}(?!\w)", words) for other in others)
