"""How findings changed between two films, as their reports say it."""

import re
from collections import defaultdict
from collections.abc import Mapping

from chestx_jax.data.schema import LABELS
from chestx_jax.radiology import Finding, extract_findings, label_report, load

_STATES: Mapping[str, str] = {
    "new": "worsening",
    "worse": "worsening",
    "better": "improving",
    "stable": "stable",
}
_MOVES = re.compile(r"improv|wors|progress|increas|decreas|resol|regress|recur", re.IGNORECASE)


def progression(report: str, prior: str) -> dict[str, str]:
    """Label -> stable, worsening or improving, for the labels whose change the reports settle.

    What `report` says of a change decides: `change` of the definite findings of
    `chestx_jax.radiology.extract_findings` whose concept is one of the schema's labels (new and worse are
    worsening, better is improving; of an absent finding, only that it resolved). Of a label without such a
    word, the two reports' labels decide where both are definite and differ: absent, then present is worsening,
    present, then absent improving. Present in both without a word of change says nothing. A label with two
    different states, or "stable" in a sentence that also speaks of a direction, is left out.
    """
    states: dict[str, set[str]] = defaultdict(set)
    for finding in extract_findings(report):
        label = load().concepts[finding.concept].label
        if label in LABELS and finding.change and finding.certainty == "definite":
            states[label] |= _states(finding, report[finding.sentence_start : finding.sentence_end])
    before, now = label_report(prior), label_report(report)
    for label in LABELS:
        if label not in states and {before[label], now[label]} == {0, 1}:
            states[label] = {"worsening" if now[label] == 1 else "improving"}
    return {label: next(iter(states[label])) for label in LABELS if len(states.get(label, ())) == 1}


def _states(finding: Finding, sentence: str) -> set[str]:
    assert finding.change is not None
    if finding.polarity == "absent":
        return {"improving"} if finding.change == "better" else set()
    if finding.change == "stable" and _MOVES.search(sentence):
        return {"stable", "unsettled"}
    return {_STATES[finding.change]}
