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

RadRScore as the paper has it needs a language model that judges. It is sent questions' gold reasoning, reports and
predictions, so use a server that may see them (--dry_run says how much there is to ask):

    python -m launch.evaluate --data=.. --predictions=.. --out=DIR \
        --llm_base_url=http://127.0.0.1:8000/v1 --llm_model=qwen2.5-72b [--llm_key_env=JUDGE_KEY]

Its answers are kept in DIR/judge (a rerun pays for nothing twice), its judgments in DIR/judged.jsonl. Outputs that
have been judged, in that shape or in the authors', bring their predictions along:

    python -m launch.evaluate --data=samples.jsonl --judged=judged.jsonl.gz --out=DIR

    python -m launch.evaluate --preset=released --predictions=released_predictions.jsonl.gz --out=DIR

gives the published accuracy table of ChestX-Reasoner from the authors' released predictions, by their own
matching rules, beside strict matching and shortcuts (report.html, scores.md, scores.json).
"""

import sys
from pathlib import Path

from absl import app, flags

from chestx_jax.data import read_samples
from chestx_jax.evaluation.accuracy import judge as answers
from chestx_jax.evaluation.evaluate import evaluate_models, evaluate_released, read_models
from chestx_jax.evaluation.judging import Judge, LanguageModelJudge, RecordedJudge, judged_models
from chestx_jax.evaluation.model_metrics import PACKAGES
from chestx_jax.evaluation.page.cases import Rows
from chestx_jax.evaluation.radrscore import read_judged
from chestx_jax.llm import Client
from chestx_jax.storage import on_this_machine, to_path
from launch import language_model
from launch.errors import EXPECTED
from launch.program import start

flags.adopt_module_key_flags(language_model)
DATA = flags.DEFINE_string("data", None, "Samples (JSONL).")
PREDICTIONS = flags.DEFINE_list("predictions", [], "Predictions (JSONL) of launch.predict, one file a model.")
JUDGED = flags.DEFINE_string("judged", None, "Judged records (JSONL) in place of --predictions.")
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
    paths = [to_path(path) for path in PREDICTIONS.value]
    out = on_this_machine(OUT.value, "--out", "write the page to a disk, then copy it")
    if PRESET.value == "released":
        if DATA.value or METRICS.value or JUDGED.value or language_model.asked() or len(paths) != 1:
            raise app.UsageError(
                "--preset=released takes one --predictions file, no --data, --judged, --metric or --llm_*"
            )
        evaluate_released(paths[0], out)
        return
    if not DATA.value:
        raise app.UsageError("--data is missing")
    if bool(paths) == bool(JUDGED.value):
        raise app.UsageError("give --predictions or --judged, one of the two")
    samples = read_samples(DATA.value)
    models, judge = _models_and_judge(paths, out)
    if language_model.DRY_RUN.value:
        if not isinstance(judge, LanguageModelJudge):
            raise app.UsageError("--dry_run is of a judge: give --llm_base_url and --llm_model")
        print(judge.estimate({model: answers(samples, rows) for model, rows in models.items()}).summary())
        return
    evaluate_models(
        samples,
        models,
        out,
        cases=CASES.value,
        judge=judge,
        text_metrics=TEXT_METRICS.value,
        metrics=list(dict.fromkeys(METRICS.value)),
        metrics_python=METRICS_PYTHON.value,
    )
    if isinstance(judge, LanguageModelJudge):
        print(judge.client.counts.summary())


def _models_and_judge(paths: list[Path], out: Path) -> tuple[dict[str, Rows], Judge | None]:
    endpoint = language_model.endpoint()
    if language_model.asked() and endpoint is None:
        raise app.UsageError("a judge needs both --llm_base_url and --llm_model")
    if not JUDGED.value:
        if endpoint is None:
            return read_models(paths), None
        return read_models(paths), LanguageModelJudge(
            Client(endpoint, out / "judge"), language_model.prompts()
        )
    if endpoint:
        raise app.UsageError("--judged has judgments already; leave --llm_* out")
    records = read_judged(to_path(JUDGED.value))
    return judged_models(records), RecordedJudge(to_path(JUDGED.value).name, records)


if __name__ == "__main__":
    start(main, EXPECTED)
