"""A metric's package at work in a Python process of its own.

Radgraph and f1chexbert call a method of tokenizers that transformers 5 no longer has, and medspacy, which RaTEScore
needs, asks for NumPy 1 under Python 3.11; this package needs transformers 5 and NumPy 2. Thus they live in an
environment of their own, whose interpreter runs worker.py.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chestx_jax.evaluation.text_metrics import MetricsError

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Package:
    """What a metric needs."""

    distribution: str
    pip: str
    files: str


PACKAGES = {
    "ratescore": Package(
        "RaTEScore",
        "pip install RaTEScore torch transformers medspacy pandas",  # its wheel names no dependencies
        "Angelakeke/RaTE-NER-Deberta and FremyCompany/BioLORD-2023-C of the Hugging Face hub, in its cache (HF_HOME)",
    ),
    "radgraph": Package(
        "radgraph",
        "pip install radgraph 'transformers<5'",
        "radgraph-xl.tar.gz of StanfordAIMI/RRG_scorers on the Hugging Face hub, unpacked as radgraph/VERSION/"
        "radgraph-xl in the user's cache directory (~/.cache on Linux), and the encoder that its config.json names, "
        "in the hub's cache (HF_HOME)",
    ),
    "chexbert": Package(
        "f1chexbert",
        "pip install f1chexbert 'transformers<5'",
        "chexbert.pth of StanfordAIMI/RRG_scorers on the Hugging Face hub, as chexbert/chexbert.pth in the user's "
        "cache directory (~/.cache on Linux), and bert-base-uncased in the hub's cache (HF_HOME)",
    ),
}


@dataclass(frozen=True)
class Scorer:
    """A metric that is loaded and waits for texts."""

    name: str
    version: str
    process: subprocess.Popen[str]

    def score(self, candidate: str, reference: str) -> list[float]:
        """The numbers of one pair, as worker.py gives them.

        Raises:
          MetricsError: the package failed on these texts, or its process died.
        """
        answer = _ask(self.name, self.process, {"candidate": candidate, "reference": reference})
        if "failed" in answer:
            raise MetricsError(f"{self.name}: {self.version} failed: {answer['failed']}")
        return answer["scores"]


@contextmanager
def open_scorers(names: Sequence[str], python: str) -> Iterator[list[Scorer]]:
    """Load the metrics; their processes end with the context.

    Args:
      names: of PACKAGES.
      python: the interpreter that has their packages.

    Raises:
      MetricsError: naming the package, how to install it and its model files, when one is absent.
    """
    with ExitStack() as stack:
        yield [_open(name, python, stack) for name in names]


def _open(name: str, python: str, stack: ExitStack) -> Scorer:
    try:
        process = subprocess.Popen(
            [python, str(WORKER), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise MetricsError(f"cannot run {python}: {error.strerror}") from error
    stack.callback(_end, process)
    answer, package = _answer(name, process), PACKAGES[name]
    if "ready" in answer:
        return Scorer(name, f"{package.distribution} {answer['ready']}", process)
    why = (
        f"the package {package.distribution} does not import in {python} ({answer['missing']})"
        if "missing" in answer
        else f"{package.distribution} could not load its model ({answer['unloadable']})"
    )
    raise MetricsError(
        f"metric {name}: {why}\n"
        f"  package: {package.pip}\n"
        "    in an environment of its own (--metrics_python=ENV/bin/python): it does not go with our transformers "
        "or NumPy\n"
        f"  model files: {package.files}"
    )


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.kill()
    process.wait()
    process.stdout.close()
    with suppress(BrokenPipeError):  # a question that it no longer read
        process.stdin.close()


def _ask(name: str, process: subprocess.Popen[str], question: dict[str, str]) -> dict:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise MetricsError(_died(name, process)) from None
    return _answer(name, process)


def _answer(name: str, process: subprocess.Popen[str]) -> dict:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise MetricsError(_died(name, process))
    return json.loads(line)


def _died(name: str, process: subprocess.Popen[str]) -> str:
    return f"metric {name}: its process ended with code {process.wait()}; what it printed is above"
