"""Scores pairs of texts with one metric's package; the only code that imports these packages.

    python worker.py radgraph < pairs > scores

It runs in whichever Python has the package, so it uses nothing of ours and nothing newer than Python 3.8. It writes
JSON lines: first {"ready": version}, or {"missing": why} without the package, or {"unloadable": why} without the model
files; then for each line {"candidate", "reference"} read {"scores": [..]}, or {"failed": why}. It ends at the first
line that is not a score.
"""

import functools
import json
import os
import sys
from importlib.metadata import version

SHORTEST = 3  # RaTEScore drops shorter sentences, and cannot score a text that has no other


def ratescore():
    """RaTEScore (Zhao et al. 2024, arXiv:2406.16845), weights for long reports: [score]."""
    import torch
    from RaTEScore import RaTEScore

    metric = RaTEScore(use_gpu=torch.cuda.is_available())  # left out, it takes a GPU for granted

    def score(candidate, reference):
        if min(len(candidate), len(reference)) < SHORTEST:
            return [0.0]
        # one pair at a time: in a list, a text without a sentence would shift the scores of those after it
        (value,) = metric.compute_score([candidate], [reference])
        return [float(value)]

    return score


def radgraph():
    """F1-RadGraph with RadGraph-XL (Delbrouck et al. 2022, 2024): [RG_E, RG_ER, RG_bar_ER]."""
    from radgraph import F1RadGraph

    metric = F1RadGraph(reward_level="all", model_type="radgraph-xl")

    def score(candidate, reference):
        if not candidate:
            return [0.0, 0.0, 0.0]
        means, *_ = metric(refs=[reference], hyps=[candidate])
        return [float(value) for value in means]

    return score


def chexbert():
    """CheXbert's 14 labels (Smit et al. 2020) of both texts, 1 for present or uncertain: 14 and 14 numbers."""
    from f1chexbert import F1CheXbert

    # its own F1 is not called: it unpacks a private function of scikit-learn that has changed since
    labels = functools.lru_cache(maxsize=None)(F1CheXbert().get_label)

    def score(candidate, reference):
        said = labels(candidate) if candidate else [0] * len(labels(reference))  # silence names nothing
        return [*said, *labels(reference)]

    return score


METRICS = {
    "ratescore": (ratescore, "RaTEScore"),
    "radgraph": (radgraph, "radgraph"),
    "chexbert": (chexbert, "f1chexbert"),
}


def main(name):
    """Answer the lines of stdin."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the packages print, too

    def tell(**answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    load, distribution = METRICS[name]
    try:
        score = load()
        ready = version(distribution)
    except ImportError as error:
        return tell(missing=str(error))
    except Exception as error:  # each package fails in its own way, radgraph with a bare Exception
        return tell(unloadable=f"{type(error).__name__}: {error}")
    tell(ready=ready)
    for line in sys.stdin:
        pair = json.loads(line)
        try:
            scores = score(pair["candidate"].strip(), pair["reference"].strip())
        except Exception as error:  # whatever it is, the other process names the sample
            return tell(failed=f"{type(error).__name__}: {error}")
        tell(scores=scores)


if __name__ == "__main__":
    main(sys.argv[1])
