"""Words that give away that the reasoning was made from a text, not seen in an image."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SOURCE = (
    r"(?:the|this|that|radiology|radiologic|radiological|radiographic|medical|imaging|provided|given|original|written)"
    r" (?:report|reports|notes|findings section)(?! of)",
    r"(?:the )?impression (?:states|indicates|section|in the|of ['\"‘“]|['\"‘“])",
    r"(?:is|are|was|were|been|being|as|not|explicitly|specifically|clearly) (?:mentioned|reported|documented"
    r"|described|stated)(?! as)",
    r"as (?:mentioned|stated|documented|reported|described (?:in|by|above))",
    r"according to (?:the )?(?:report|description|findings|note|text)",
    r"no mention|without mention|(?:does|do|did) not mention|(?:the )?mention of|mentioned",
    r"radiologists? (?:noted|notes|reported|reports|described|describes|stated|saw|interpreted)",
    r"x{4,}",
)
_PLAN = (
    r"(?:the|diagnosis|diagnostic|this|given|provided|above) plans?",
    r"(?:the )?(?:correct|known|given|right|ground[- ]truth) answer (?:provided|given|was|above)",
    r"ground[- ]truth",
    r"as (?:an )?(?:ai|language model)",
)
_PRIOR = (
    r"(?:compared|comparison|comparing|relative) (?:with|to) (?:the |a |an |his |her )?"
    r"(?:prior|previous|earlier|old|older|last|recent)",
    r"(?:prior|previous|earlier) (?:examination|exam|study|studies|radiograph|radiographs|film|films|image|images"
    r"|imaging|x-rays?|chest x-rays?)",
    r"(?:since|from) (?:the )?(?:prior|previous)",
    r"(?:interval|unchanged)\b",
)


def _pattern(phrases: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE)


_ANY, _PRIORS = _pattern((*_SOURCE, *_PLAN)), _pattern(_PRIOR)


def find_leaks(text: str, one_time: bool) -> tuple[str, ...]:
    """The phrases of a step that leak, in lower case: of the report, of the plan, and, where all images are of
    one time (`one_time`), of an earlier image that nobody sees."""
    found = [*_ANY.finditer(text), *(_PRIORS.finditer(text) if one_time else ())]
    return tuple(match.group().lower() for match in sorted(found, key=lambda match: match.start()))
