"""Which of the questions that a collection answers become the benchmark, and what else they offer.

`published`: as the paper's scripts draw them (eval/data/ of MAGIC-AI4Med/ChestX-Reasoner): for each label at
most 200 questions answered Yes and at most 200 answered No, at most 400 single questions for each finding, and
distractors drawn at random. Two habits of these scripts are left out: a label that is not mentioned does not
count as absent, and wrong sets list their labels in the same order as the right one. A reader who never sees
an image does well on the result: common findings are common answers.

`balanced`: nothing in the text tells the answer.

- binary, temporal: for each label, every answer is right equally often (a progression that never occurs with a
  label is not counted; a label of which only one occurs is left out).
- single, multiple: questions come in blocks of four studies with four different answers, of which each is
  known to be false of the other three; the four answers are the options of all four questions. So every wrong
  option is a real study's answer, each option is right in exactly one of the four questions that offer it, and
  each letter is right once.
- anomaly: no answer makes up more than a tenth.

`everything`: all questions, but as many binary ones answered Yes as No for each label. For small benches to
learn on (phantoms), where a question left out is a lesson lost.

All work within each split, and every draw is by a hash of seed and id, so that a few more studies change little.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from chestx_jax.data.questions.ballot import Ballot, rank
from chestx_jax.data.schema import PROGRESSIONS

Key = TypeVar("Key", bound=Hashable)
Elected = Mapping[str, tuple[str, ...] | None]
"""id of a question that is in -> the options it offers; None: those that it was built with."""

BINARY_EACH, SINGLE_EACH = 200, 400
"""As published: questions for each label and answer; questions for each finding."""
LARGEST_SHARE = 0.1
"""Balanced: the share that one answer to an open question may have."""
BLOCK = 4
_TRIED = 32  # questions of one answer that are tried for a block, and answers that are tried at all


def published(ballots: Iterable[Ballot], seed: int) -> Elected:
    """Counts and distractors as published."""
    limits = {"binary": BINARY_EACH, "single": SINGLE_EACH}
    elected: dict[str, tuple[str, ...] | None] = {}
    for (_, task, _, _), group in _grouped(ballots, lambda b: (b.split, b.task, b.label, b.truth)).items():
        elected.update(dict.fromkeys(_first(group, limits.get(task, len(group)), seed)))
    return elected


def everything(ballots: Iterable[Ballot], seed: int) -> Elected:
    """All questions, binary ones evenly."""
    elected: dict[str, tuple[str, ...] | None] = {}
    for (_, task, _), group in _grouped(ballots, lambda b: (b.split, b.task, b.label)).items():
        even = _evenly(group, ("Yes", "No"), seed) if task == "binary" else [b.id for b in group]
        elected.update(dict.fromkeys(even))
    return elected


def balanced(ballots: Iterable[Ballot], seed: int) -> Elected:
    """Text alone gets no more than chance."""
    elected: dict[str, tuple[str, ...] | None] = {}
    for (_, task, _, _), group in _grouped(ballots, _contest).items():
        if task == "binary":
            elected.update(dict.fromkeys(_evenly(group, ("Yes", "No"), seed)))
        elif task == "temporal":
            seen = {ballot.truth for ballot in group}
            occurring = [state for state in PROGRESSIONS if state in seen]
            elected.update(dict.fromkeys(_evenly(group, occurring, seed) if len(occurring) > 1 else ()))
        elif task == "anomaly":
            elected.update(dict.fromkeys(_capped(group, seed)))
        else:
            elected.update(_in_blocks(group, seed))
    return elected


SAMPLINGS: Mapping[str, Callable[[Iterable[Ballot], int], Elected]] = {
    "balanced": balanced,
    "published": published,
    "everything": everything,
}


def _contest(ballot: Ballot) -> tuple[str, str, str, int]:
    """Questions that are weighed against each other: of one split, task, label and size of the answer."""
    size = ballot.truth.count(", ") if ballot.task == "multiple" else 0
    return ballot.split, ballot.task, ballot.label, size


def _grouped(ballots: Iterable[Ballot], key: Callable[[Ballot], Key]) -> dict[Key, list[Ballot]]:
    groups: dict[Key, list[Ballot]] = defaultdict(list)
    for ballot in ballots:
        groups[key(ballot)].append(ballot)
    return groups


def _first(group: Collection[Ballot], count: int, seed: int) -> list[str]:
    return sorted((ballot.id for ballot in group), key=lambda name: rank(seed, name))[:count]


def _evenly(group: Sequence[Ballot], answers: Sequence[str], seed: int) -> list[str]:
    by_truth = _grouped(group, lambda ballot: ballot.truth)
    count = min(len(by_truth.get(answer, ())) for answer in answers)
    return [name for answer in answers for name in _first(by_truth.get(answer, ()), count, seed)]


def _capped(group: Sequence[Ballot], seed: int) -> list[str]:
    by_truth = _grouped(group, lambda ballot: ballot.truth)
    sizes = [len(same) for same in by_truth.values()]
    most = max(sizes)
    while most > 1 and most > LARGEST_SHARE * sum(min(size, most) for size in sizes):
        most -= 1
    return [name for same in by_truth.values() for name in _first(same, most, seed)]


def _in_blocks(group: Sequence[Ballot], seed: int) -> Elected:
    """Blocks of four, the most frequent answers first: that leaves the fewest questions over."""
    pools = {
        truth: sorted(same, key=lambda ballot: rank(seed, ballot.id), reverse=True)
        for truth, same in _grouped(group, lambda ballot: ballot.truth).items()
    }
    heap = [(-len(pool), rank(seed, truth), truth) for truth, pool in pools.items()]
    heapq.heapify(heap)
    elected: dict[str, tuple[str, ...] | None] = {}
    while len(heap) >= BLOCK:
        _, _, first = heapq.heappop(heap)
        block = [pools[first].pop()]
        touched = [first]
        while heap and len(block) < BLOCK and len(touched) < _TRIED:
            _, _, truth = heapq.heappop(heap)
            touched.append(truth)
            if (place := _fitting(pools[truth], block)) is not None:
                block.append(pools[truth].pop(place))
        for truth in touched:
            if pools[truth]:
                heapq.heappush(heap, (-len(pools[truth]), rank(seed, truth), truth))
        if len(block) == BLOCK:
            elected.update(_options(block, seed))
        else:  # nobody goes with the first one; the others get another chance
            for ballot in block[1:]:
                pools[ballot.truth].append(ballot)
            heap = [(-len(pool), rank(seed, truth), truth) for truth, pool in pools.items() if pool]
            heapq.heapify(heap)
    return elected


def _fitting(pool: Sequence[Ballot], block: Sequence[Ballot]) -> int | None:
    """The place of a ballot whose answer is false of all in the block, and theirs of it."""
    truth = pool[-1].truth
    if not all(other.allows(truth) for other in block):
        return None
    for place in range(len(pool) - 1, max(-1, len(pool) - 1 - _TRIED), -1):
        if all(pool[place].allows(other.truth) for other in block):
            return place
    return None


def _options(block: Sequence[Ballot], seed: int) -> dict[str, tuple[str, ...]]:
    """The block's answers as everyone's options; each letter is right once."""
    rng = random.Random(f"{seed}|{block[0].id}")
    letters = rng.sample(range(len(block)), len(block))
    offered = {}
    for ballot, letter in zip(block, letters, strict=True):
        options = [other.truth for other in block if other is not ballot]
        rng.shuffle(options)
        offered[ballot.id] = (*options[:letter], ballot.truth, *options[letter:])
    return offered
