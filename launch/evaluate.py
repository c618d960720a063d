"""Score predictions and write a page to look through them.

    python -m launch.evaluate --data=samples.jsonl --predictions=predictions.jsonl --out=DIR

Several models on the same samples: --predictions=a.jsonl,b.jsonl. Writes under --out:

* report.html: tables, plots and every case, to open in a browser; one file, needs no network
* scores.md, scores.json: accuracy by task with 95 % intervals beside the majority prior and the best
  text-only shortcut; offline RadRScore; precision, recall and F1 of open answers; with --text_metrics
  BLEU and ROUGE; with --metric=ratescore --metric=radgraph --metric=chexbert these, of the reasoning against the
  report (docs/metrics.md says what they need)
* cases.png: a picture sheet

A sample without a prediction counts as wrong, and the tables say how many there were.

    python -m launch.evaluate --preset=released --predictions=released_predictions.jsonl.gz --out=DIR

gives the published accuracy table of ChestX-Reasoner from the authors' released predictions, by their own
matching rules, beside strict matching and shortcuts (report.html, scores.md, scores.json).
"""

import sys
from pathlib import Path

from absl import app, flags

from chestx_jax.evaluation.model_metrics import PACKAGES
from launch.errors import EXPECTED
from launch.program import start

DATA = flags.DEFINE_string("data", None, "Samples (JSONL).")
PREDICTIONS = flags.DEFINE_list(
    "predictions", None, "Predictions (JSONL) of launch.predict, one file a model.", required=True
)
OUT = flags.DEFINE_string("out", None, "Directory for the page, the tables and the sheet.", required=True)
CASES = flags.DEFINE_integer("cases", 12, "Cases on the picture sheet.", lower_bound=1)
TEXT_METRICS = flags.DEFINE_bool(
    "text_metrics", False, "BLEU and ROUGE of the reasoning too (extra: metrics)."
)
METRICS = flags.DEFINE_multi_enum(
    "metric", [], list(PACKAGES), "A trained metric of the reasoning against the report; can be repeated."
)
METRICS_PYTHON = flags.DEFINE_string(
    "metrics_python", sys.executable, "The Python that has the packages of --metric."
)
PRESET = flags.DEFINE_enum(
    "preset", None, ["released"], "released: the authors' predictions, by their own rules."
)


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.evaluation.evaluate import evaluate_models, evaluate_released, read_models

    paths, out = [Path(path) for path in PREDICTIONS.value], Path(OUT.value)
    if PRESET.value == "released":
        if DATA.value or METRICS.value or len(paths) != 1:
            raise app.UsageError("--preset=released takes one --predictions file, no --data and no --metric")
        evaluate_released(paths[0], out)
        return
    if not DATA.value:
        raise app.UsageError("--data is missing")
    from chestx_jax.data import read_samples

    evaluate_models(
        read_samples(Path(DATA.value)),
        read_models(paths),
        out,
        cases=CASES.value,
        text_metrics=TEXT_METRICS.value,
        metrics=list(dict.fromkeys(METRICS.value)),
        metrics_python=METRICS_PYTHON.value,
    )


if __name__ == "__main__":
    start(main, EXPECTED)
