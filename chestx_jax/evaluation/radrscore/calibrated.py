"""The calibrated judge: ridge regression from the offline RadRScore's evidence to a judge's numbers.

Trained on records that a language model has judged, it predicts what that judge would say. It follows the
judge more closely than the rules do, and is easier to fool: a score for reading, not a reward. Ridge
regression (Hoerl & Kennard 1970) in closed form on standardised features, one target a component; the
intercept is not penalised. Saved as JSON, whose numbers round-trip exactly.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from chestx_jax.data.schema import LETTERS
from chestx_jax.evaluation.radrscore.aggregate import COMPONENTS
from chestx_jax.rewards.evidence import SENTENCES
from chestx_jax.rewards.offline import OfflineRadRScore, offline_radrscore
from chestx_jax.rewards.reference import Reference

PENALTY = 100.0
FORMAT = "chestx_jax calibrated RadRScore judge 1"
_WORD = re.compile("[a-z]+")


class CalibratedJudgeError(ValueError):
    """Training data or a file of which no judge can be made; the message names the file or what is wrong."""


@dataclass(frozen=True)
class PredictedRadRScore:
    """What the judge is expected to say, each between 0 and 1; `score` is the mean of the components."""

    factuality: float
    completeness: float
    effectiveness: float

    @property
    def score(self) -> float:
        return (self.factuality + self.completeness + self.effectiveness) / 3


def features(prediction: str, reference: Reference) -> dict[str, float]:
    """Everything the judge looks at, by name: offline scores, evidence, lengths and overlap of words."""
    scored = offline_radrscore(prediction, reference)
    parts = (
        _score_features(scored, reference),
        _claim_features(scored),
        _sentence_features(scored),
        _text_features(scored, reference),
    )
    return {name: float(value) for part in parts for name, value in part.items()}


def _score_features(scored: OfflineRadRScore, reference: Reference) -> dict[str, float]:
    conclusion = scored.evidence.conclusion
    predicted = conclusion.predicted if conclusion else None
    options = reference.options or ()
    return {
        **{name: vars(scored)[name] for name in (*COMPONENTS, "score")},
        "conclusion credit": conclusion.credit if conclusion else 0.0,
        "conclusion undercut": conclusion is not None and conclusion.undercut,
        "answer read": predicted is not None,
        "answer right": reference.concluded(predicted),
        "options": len(options),
        "labels an option": sum(1 + option.count(",") for option in options) / max(1, len(options)),
        "gold claims": len(reference.gold_claims),
        "gold sentences": len(reference.gold.sentences),
        "report findings": len(reference.report),
    }


def _claim_features(scored: OfflineRadRScore) -> dict[str, float]:
    claims, gold = scored.evidence.claims, scored.evidence.gold
    total = max(1, len(claims))
    found: dict[str, float] = {"claims": len(claims), "credit": sum(c.verdict.credit for c in claims) / total}
    for polarity in ("present", "absent"):
        for verdict in ("supported", "contradicted", "unmentioned"):
            count = sum(c.finding.polarity == polarity and c.verdict.verdict == verdict for c in claims)
            found |= {f"{polarity} {verdict}": count, f"{polarity} {verdict} share": count / total}
        credits = [one.credit for one in gold if one.finding.polarity == polarity]
        found |= {f"{polarity} gold": len(credits), f"{polarity} recall": sum(credits) / max(1, len(credits))}
    for source in ("gold", "report", "question", "prediction"):
        found[f"by {source}"] = sum(c.verdict.source == source for c in claims) / total
    return found


def _sentence_features(scored: OfflineRadRScore) -> dict[str, float]:
    counts = Counter(sentence.verdict for sentence in scored.evidence.sentences)
    total = counts.total()
    shares = {f"sentences {name}": counts[name] / max(1, total) for name in SENTENCES}
    return {"sentences": total, **shares}


def _text_features(scored: OfflineRadRScore, reference: Reference) -> dict[str, float]:
    evidence = scored.evidence
    words = _words(evidence.text[s.start : s.end] for s in evidence.sentences)
    right = reference.answer or ""
    if reference.options is not None and len(right) == 1:
        right = reference.options[LETTERS.index(right)]
    found: dict[str, float] = {"words": len(words), "says normal": "normal" in words}
    found["answer is normal"] = right.strip().lower() in ("normal", "no finding")
    for name, other in (("gold", _words([reference.gold.text])), ("answer", _words([right]))):
        for size in (1, 2):
            mine, theirs = _grams(words, size), _grams(other, size)
            shared = (mine & theirs).total()
            found[f"{size}-grams in {name}"] = shared / max(1, mine.total())
            found[f"{name} {size}-grams said"] = shared / max(1, theirs.total())
    return found


def _words(texts: Iterable[str]) -> list[str]:
    return _WORD.findall(" ".join(texts).lower())


def _grams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(size)), strict=False))


@dataclass(frozen=True)
class CalibratedJudge:
    """`names` in the order of the columns; `weights` has one row a feature and one column a component."""

    names: tuple[str, ...]
    mean: Float[np.ndarray, " F"]
    scale: Float[np.ndarray, " F"]
    weights: Float[np.ndarray, "F 3"]
    intercept: Float[np.ndarray, " 3"]

    @classmethod
    def fit(
        cls,
        rows: Sequence[Mapping[str, float]],
        judged: Float[np.ndarray, "N 3"],
        penalty: float = PENALTY,
    ) -> CalibratedJudge:
        """Fits features to the judge's factuality, completeness and effectiveness.

        Raises:
          CalibratedJudgeError: fewer than two rows, or not one judgment a row.
        """
        if len(rows) < 2 or judged.shape != (len(rows), len(COMPONENTS)):
            raise CalibratedJudgeError(f"{len(rows)} rows of features, judgments of shape {judged.shape}")
        names = tuple(rows[0])
        table = np.array([[row[name] for name in names] for row in rows], dtype=np.float64)
        mean, spread = table.mean(axis=0), table.std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        x, intercept = (table - mean) / scale, judged.mean(axis=0)
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(len(names)), x.T @ (judged - intercept))
        return cls(names, mean, scale, weights, intercept)

    def predict(self, row: Mapping[str, float]) -> PredictedRadRScore:
        """What the judge is expected to say, clipped to 0..1.

        Raises:
          CalibratedJudgeError: the features are not those of the training.
        """
        if set(row) != set(self.names):
            odd = sorted(set(row) ^ set(self.names))
            raise CalibratedJudgeError(f"features differ from those of the training: {', '.join(odd)}")
        x = (np.array([row[name] for name in self.names]) - self.mean) / self.scale
        return PredictedRadRScore(*np.clip(x @ self.weights + self.intercept, 0.0, 1.0).tolist())

    def save(self, path: Path) -> None:
        """Writes JSON."""
        arrays = {name: vars(self)[name].tolist() for name in ("mean", "scale", "weights", "intercept")}
        plain = {"format": FORMAT, "components": COMPONENTS, "names": self.names, **arrays}
        path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CalibratedJudge:
        """Reads what `save` wrote; predictions are identical.

        Raises:
          CalibratedJudgeError: the file is something else.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["format"] != FORMAT:
                raise CalibratedJudgeError(f"{path}: format {plain['format']!r}, expected {FORMAT!r}")
            arrays = [np.array(plain[name]) for name in ("mean", "scale", "weights", "intercept")]
            judge = cls(tuple(plain["names"]), *arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise CalibratedJudgeError(f"{path}: no calibrated judge ({error})") from error
        count = len(judge.names)
        shapes = [array.shape for array in arrays]
        if shapes != [(count,), (count,), (count, len(COMPONENTS)), (len(COMPONENTS),)]:
            raise CalibratedJudgeError(f"{path}: arrays of shapes {shapes} for {count} features")
        return judge
