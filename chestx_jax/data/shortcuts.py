"""What a reader who never sees the image gets right: from the questions' text and other samples' answers.

Every baseline gives one predicted answer a sample (a letter, or the text for an open question) and, but for
`majority`, looks at all samples but the one it answers (leave-one-out). Give it one test set at a time.

Leaving a sample out of balanced data makes the other answer the more frequent one, so a naive prior would
score 0 % on a perfectly balanced set. A lead of one count is therefore a tie, which the next wider prior
breaks.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from chestx_jax.data.schema import LETTERS, OPTIONS_MARK, Sample

CHEXPERT_ORDER = (
    "no finding",
    "enlarged cardiomediastinum",
    "cardiomegaly",
    "lung lesion",
    "lung opacity",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural effusion",
    "pleural other",
    "fracture",
    "support devices",
)
"""The label columns of CheXpert's table in their order (Irvin et al. 2019, arXiv 1901.07031, table 1)."""


@dataclass(frozen=True)
class Shortcut:
    """Accuracy of one baseline, between 0 and 1."""

    name: str
    accuracy: float


def majority(samples: Sequence[Sample]) -> list[str]:
    """The most frequent answer for all; the sample itself counts, so this is the usual majority prior."""
    most = Counter(sample.answer for sample in samples).most_common(1)
    return [most[0][0] for _ in samples]


def label_prior(samples: Sequence[Sample]) -> list[str]:
    """The answer that was right most often among the other samples with the same question proper.

    For a binary or temporal question that is the label's majority. Ties go to the answer that was right most
    often in the whole set, then to the first option.
    """
    by_stem: dict[Hashable, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for sample in samples:
        by_stem[_stem(sample)][sample.answer_text] += 1
        overall[sample.answer_text] += 1
    answers = []
    for sample in samples:
        offered = sample.options or tuple(sorted(by_stem[_stem(sample)]))
        best = _leader(by_stem[_stem(sample)], offered, sample) or _leader(overall, offered, sample)
        answers.append(_answer(sample, best or offered[0]))
    return answers


def option_prior(samples: Sequence[Sample]) -> list[str]:
    """The option whose labels were most often part of the right answer when offered, among the other samples.

    An option's value is the mean log probability of its comma-separated labels, add-one smoothed toward
    chance. Open questions, and questions that offer all samples the same options, tell nothing beyond
    `label_prior`.
    """
    varied = len({frozenset(sample.options or ()) for sample in samples}) > 1
    by_label = label_prior(samples)
    priors = _Priors(samples)
    return [
        _best(sample, priors, _range(sample)) if sample.options and varied else label
        for sample, label in zip(samples, by_label, strict=True)
    ]


def option_order(samples: Sequence[Sample]) -> list[str]:
    """`option_prior` among the options that list their labels in CheXpert's column order, where some do.

    The released multiple-choice questions copy the right set from the table's columns and shuffle the wrong
    ones.
    """
    priors = _Priors(samples)
    answers = []
    for sample, fallback in zip(samples, option_prior(samples), strict=True):
        ordered = [i for i in _range(sample) if _in_order(_parts((sample.options or ())[i]))]
        answers.append(_best(sample, priors, ordered) if ordered else fallback)
    return answers


SHORTCUTS: Mapping[str, Callable[[Sequence[Sample]], list[str]]] = {
    "label prior": label_prior,
    "option prior": option_prior,
    "option order": option_order,
}


def shortcut_accuracies(samples: Sequence[Sample]) -> list[Shortcut]:
    """All leave-one-out baselines on one test set, in the order of `SHORTCUTS`."""
    return [Shortcut(name, accuracy(samples, answer(samples))) for name, answer in SHORTCUTS.items()]


def chance(samples: Sequence[Sample]) -> float:
    """The expected accuracy of guessing among the options; an open question cannot be guessed."""
    return sum(1 / len(sample.options) for sample in samples if sample.options) / len(samples)


def accuracy(samples: Sequence[Sample], answers: Sequence[str]) -> float:
    """Share of samples whose answer is the one given."""
    right = sum(sample.answer == answer for sample, answer in zip(samples, answers, strict=True))
    return right / len(samples)


def learned_accuracies(known: Sequence[Sample], asked: Sequence[Sample]) -> list[Shortcut]:
    """What a reader who studied `known` gets right on `asked` without an image: no leaving out is needed.

    By label: the answer that the same question proper most often had. By option: the option whose labels were
    most often right when offered. Both fall back on the first option.
    """
    by_stem: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in known:
        by_stem[_stem(sample)][sample.answer_text] += 1
    priors = _Priors(known)
    by_label, by_option = [], []
    for sample in asked:
        counts = by_stem[_stem(sample)]
        offered = sample.options or tuple(counts) or ("",)
        by_label.append(_answer(sample, max(offered, key=counts.__getitem__)))
        values = priors.of(sample, leave_out=False)
        by_option.append(LETTERS[values.index(max(values))] if values else by_label[-1])
    named = (("learned label prior", by_label), ("learned option prior", by_option))
    return [Shortcut(name, accuracy(asked, answers)) for name, answers in named]


class _Priors:
    """How often each label was offered and was part of the right option."""

    def __init__(self, samples: Sequence[Sample]):
        self._offered: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        for sample in samples:
            for option in sample.options or ():
                self._offered.update(_parts(option))
            self._right.update(_parts(sample.answer_text))

    def of(self, sample: Sample, *, leave_out: bool = True) -> list[float]:
        """The value of each of the sample's options, the sample itself left out where it is among those
        counted."""
        options = sample.options or ()
        own: Counter[str] = Counter(part for option in options for part in _parts(option) if leave_out)
        own_right = Counter(_parts(sample.answer_text) if leave_out else ())

        def log_probability(part: str) -> float:
            right = self._right[part] - own_right[part] + 1 / len(options)
            return math.log(right / (self._offered[part] - own[part] + 1))

        return [sum(map(log_probability, _parts(option))) / max(1, len(_parts(option))) for option in options]


def _best(sample: Sample, priors: _Priors, among: Sequence[int]) -> str:
    return LETTERS[max(among, key=priors.of(sample).__getitem__)]


def _stem(sample: Sample) -> str:
    return sample.question.partition(OPTIONS_MARK)[0]


def _range(sample: Sample) -> range:
    return range(len(sample.options or ()))


def _parts(option: str) -> list[str]:
    return [part for part in (piece.strip().lower() for piece in option.split(",")) if part]


def _in_order(labels: Sequence[str]) -> bool:
    if len(labels) < 2 or any(label not in CHEXPERT_ORDER for label in labels):
        return False
    places = [CHEXPERT_ORDER.index(label) for label in labels]
    return places == sorted(places)


def _leader(counts: Counter[str], offered: Sequence[str], sample: Sample) -> str | None:
    """The offered answer that leads by two or more, the sample left out."""
    ranked = sorted(
        ((counts[text] - (text == sample.answer_text), -i) for i, text in enumerate(offered)), reverse=True
    )
    if len(ranked) > 1 and ranked[0][0] - ranked[1][0] < 2:
        return None
    return offered[-ranked[0][1]]


def _answer(sample: Sample, text: str) -> str:
    return text if sample.options is None else LETTERS[sample.options.index(text)]
