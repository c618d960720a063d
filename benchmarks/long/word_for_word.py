"""Whether fine-tuning can learn real samples by heart: `configs/sft.py:openi` on the first questions of a file with
the genuine tokenizer, then greedy completions beside the targets.

    python -m benchmarks.long.word_for_word [--data=../shared/data/radrbench/openi_samples.jsonl]
        [--processor=../shared/data/qwen2vl] [--samples=32] [--steps=600] [--workdir=DIR] [--json=FILE]

About an hour on two cores, for a vocabulary of 152,000 tokens; `make bench` leaves it out. With --workdir the same
line goes on after a stop. Ends with an error when more than one in 32 completions differs from its target by a single
character.
"""

import json
import sys
import tempfile
from pathlib import Path

from absl import flags

from chestx_jax.data import read_samples
from chestx_jax.data.chat import target
from chestx_jax.data.jsonl import write_samples
from chestx_jax.evaluation.inference import Inference
from chestx_jax.evaluation.predict import Decoding
from chestx_jax.training import sft
from configs.sft import get_config
from launch.errors import EXPECTED
from launch.program import start

SHARED = Path(__file__).resolve().parents[3] / "shared/data"
MAX_NEW_TOKENS = 512

_DATA = flags.DEFINE_string("data", str(SHARED / "radrbench/openi_samples.jsonl"), "Samples (JSONL).")
_PROCESSOR = flags.DEFINE_string("processor", str(SHARED / "qwen2vl"), "Tokenizer and preprocessor.")
_SAMPLES = flags.DEFINE_integer("samples", 32, "How many, from the first.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 600, "Updates, of 4 samples each.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where to train; a temporary directory by default.")
_JSON = flags.DEFINE_string("json", None, "Where to write the figures.")


def train(workdir: Path) -> Path:
    """The recipe on the chosen samples, which are written beside it; returns their file."""
    workdir.mkdir(parents=True, exist_ok=True)
    data = workdir / "openi_samples.jsonl"
    write_samples(data, read_samples(Path(_DATA.value))[: _SAMPLES.value])
    config = get_config("openi")
    config.data.update(bench=str(workdir), validation=())
    config.model.processor = _PROCESSOR.value
    config.steps = _STEPS.value
    sft.run(config, workdir)
    return data


def differing(workdir: Path, data: Path) -> list[str]:
    """Ids of the samples whose greedy completion is not the target to the last character."""
    out = workdir / f"predictions-{_STEPS.value}.jsonl"
    inference = Inference.load(str(workdir), None, image_size=None, dtype=None)
    inference.predict_file(data, out, Decoding(max_new_tokens=MAX_NEW_TOKENS, batch_size=4))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    written = {row["id"]: row["prediction"] for row in rows}
    return [s.id for s in read_samples(data) if written[s.id] != target(s, "reason")]


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(_WORKDIR.value or temporary)
        differ = differing(workdir, train(workdir))
    figures = {
        "samples": _SAMPLES.value,
        "steps": _STEPS.value,
        "word_for_word": _SAMPLES.value - len(differ),
        "differ": differ,
    }
    print(json.dumps(figures, indent=2))
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")
    if len(differ) > _SAMPLES.value / 32:
        sys.exit("too many completions differ from their targets")


if __name__ == "__main__":
    start(main, EXPECTED)
