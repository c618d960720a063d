"""Score predictions: accuracy by task beside the majority prior, with 95 % bootstrap intervals.

    python -m launch.evaluate --data=samples.jsonl --predictions=predictions.jsonl --out=DIR

Writes scores.md, scores.json and cases.png (a picture sheet) under --out. A sample without a prediction counts
as wrong, and the table says how many there were.
"""

from pathlib import Path

from absl import flags

from launch.errors import EXPECTED
from launch.program import start

DATA = flags.DEFINE_string("data", None, "Samples (JSONL).")
PREDICTIONS = flags.DEFINE_string("predictions", None, "Predictions (JSONL) of launch.predict.")
OUT = flags.DEFINE_string("out", None, "Directory for the tables and the sheet.")
CASES = flags.DEFINE_integer("cases", 12, "Cases on the picture sheet.", lower_bound=1)
flags.mark_flags_as_required(["data", "predictions", "out"])


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.data import read_samples
    from chestx_jax.evaluation.evaluate import evaluate
    from chestx_jax.evaluation.predictions import read_predictions

    evaluate(
        read_samples(Path(DATA.value)),
        read_predictions(Path(PREDICTIONS.value)),
        Path(OUT.value),
        cases=CASES.value,
    )


if __name__ == "__main__":
    start(main, EXPECTED)
