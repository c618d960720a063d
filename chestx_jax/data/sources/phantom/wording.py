"""Words that the report and the reasoning share: sides, sizes, places, lists."""

from collections.abc import Callable, Sequence

from chestx_jax.data.sources.phantom.scene import Finding

Pick = Callable[..., str]  # one of the texts, by lot
SIZE = {1: "small", 2: "moderate", 3: "large"}
GRADE = {1: "mild", 2: "moderate", 3: "severe"}
ADVERB = {1: "mildly", 2: "moderately", 3: "markedly"}


def degree(finding: Finding) -> str:
    """small/moderate/large for what has an extent, mild/moderate/severe for the rest."""
    sized = ("consolidation", "pleural effusion", "pneumothorax", "lung lesion", "lung opacity")
    return (SIZE if finding.label in sized else GRADE)[finding.level]


def side(finding: Finding) -> str:
    """right, left or bilateral."""
    return "bilateral" if finding.side == "both" else finding.side


def lobe(finding: Finding) -> str:
    """The lobe of a consolidation, as in "right upper lobe"; the left mid zone is the lingula."""
    if finding.zone == "mid":
        return "right middle lobe" if finding.side == "right" else "lingula"
    return f"{finding.side} {finding.zone} lobe"


def zone(finding: Finding) -> str:
    """As in "right mid lung"."""
    return f"{finding.side} {finding.zone} lung"


def device(finding: Finding) -> str:
    """A device with its article and, where it has one, its side."""
    match finding.kind:
        case "pacemaker":
            return f"a {finding.side} pacemaker"
        case "central line" | "chest tube":
            return f"a {finding.side} {finding.kind}"
        case "endotracheal tube":
            return "an endotracheal tube"
        case _:
            return "ECG leads"


def join(words: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def sentence(text: str) -> str:
    """Capital at the start, full stop at the end."""
    return text[0].upper() + text[1:] + "."
