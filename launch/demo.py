"""The whole road, small: build a bench, fine-tune, reward the reasoning, predict, evaluate, export.

    python -m launch.demo --workdir=demo                                    embedded phantoms
    python -m launch.demo --workdir=demo_openi --source=openi --root=DIR    real X-rays, reasoning mined by rules

Under --workdir: bench/ (questions), sft/ and grpo/ (checkpoints, curves, pages of completions), predictions/,
evaluation/ (tables, report.html to browse, a picture sheet), export/ (Hugging Face layout). Run the same line again
and it goes on where it stopped.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import grpo as grpo_recipes
from configs import sft as sft_recipes
from launch.errors import EXPECTED
from launch.program import start

WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything that the demo makes.", required=True)
SOURCE = flags.DEFINE_enum("source", "phantom", ["phantom", "openi"], "What to build the bench from.")
ROOT = flags.DEFINE_string("root", None, "Directory of the collection, for --source=openi.")
STEPS = flags.DEFINE_integer("steps", None, "Steps of fine-tuning; those of the recipe.", lower_bound=1)
GRPO_STEPS = flags.DEFINE_integer("grpo_steps", None, "Steps of GRPO; those of the recipe.", lower_bound=1)

TEST = {"binary": 300, "single": 60, "multiple": 60, "anomaly": 60, "temporal": 60}  # questions to answer
RUNS = ("grpo", "sft")
MAX_NEW_TOKENS = 192
BATCH_SIZE = 60

log = logging.getLogger("chestx_jax.demo")


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.data.embedded import build_small_bench
    from chestx_jax.storage import on_this_machine
    from chestx_jax.training import sft
    from chestx_jax.training.grpo.run import run as run_grpo

    began = time.monotonic()
    workdir = on_this_machine(WORKDIR.value, "--workdir", "the demo writes to a disk")
    bench = workdir / "bench"
    recipe = sft_config(bench)
    build_small_bench(
        bench,
        source=SOURCE.value,
        root=None if ROOT.value is None else on_this_machine(ROOT.value, "--root", "copy or mount it"),
        studies=recipe.data.phantom_studies,
        seed=recipe.seed,
    )
    for config, run, name in ((recipe, sft.run, "sft"), (grpo_config(workdir), run_grpo, "grpo")):
        config.data.train = tuple(_present(bench, config.data.train))
        config.data.validation = tuple(_present(bench, config.data.validation))
        run(config, workdir / name)
    evaluate(workdir)
    export(workdir)
    log.info("the demo took %.1f minutes", (time.monotonic() - began) / 60)


def sft_config(bench: Path) -> ConfigDict:
    """The recipe `tiny` on the demo's bench; reports of people are longer than those of phantoms."""
    config = sft_recipes.get_config("tiny")
    config.data.bench = str(bench)
    if SOURCE.value == "openi":
        config.data.buckets = ((320, 128), (704, 320))
    if STEPS.value is not None:
        config.steps = STEPS.value
    return config


def grpo_config(workdir: Path) -> ConfigDict:
    """The recipe `tiny`, from the fine-tuned model."""
    config = grpo_recipes.get_config("tiny")
    config.model.pretrained = str(workdir / "sft")
    config.data.bench = str(workdir / "bench")
    config.advantage.credit = "step"
    if SOURCE.value == "openi":
        config.data.buckets = ((256, 320),)
        config.rollout.max_new_tokens = 256
    if GRPO_STEPS.value is not None:
        config.steps = GRPO_STEPS.value
    return config


def _present(bench: Path, rows: Iterable[tuple]) -> Iterator[tuple]:
    """The rows whose file the bench has: not every collection has serial studies."""
    return (row for row in rows if (bench / row[0]).is_file())


def evaluate(workdir: Path) -> None:
    """Answer held-out questions before and after GRPO, and the binary ones again without an image: tables, a page and
    a picture sheet."""
    from chestx_jax.data import read_samples, write_samples
    from chestx_jax.evaluation.evaluate import evaluate_models, read_models
    from chestx_jax.evaluation.inference import Inference
    from chestx_jax.evaluation.predict import Decoding

    files = {task: workdir / "bench" / task / "test.jsonl" for task in TEST}
    chosen = [s for task, path in files.items() if path.is_file() for s in read_samples(path)[: TEST[task]]]
    write_samples(workdir / "test.jsonl", chosen)
    write_samples(workdir / "test_binary.jsonl", [sample for sample in chosen if sample.task == "binary"])
    models = {name: Inference.load(str(workdir / name), None, image_size=None, dtype=None) for name in RUNS}
    for name, data, blank in (("seeing", "test", False), ("blank", "test_binary", True)):
        predictions = {run: workdir / "predictions" / name / f"{run}.jsonl" for run in RUNS}
        decoding = Decoding(max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH_SIZE, blank_images=blank)
        for run, path in predictions.items():
            models[run].predict_file(workdir / f"{data}.jsonl", path, decoding)
        print(f"\nheld-out questions, {'every image replaced by an even grey' if blank else 'with images'}")
        evaluate_models(
            read_samples(workdir / f"{data}.jsonl"),
            read_models(list(predictions.values())),
            workdir / "evaluation" / name,
            cases=12,
        )


def export(workdir: Path) -> None:
    """Write the Hugging Face directory, and load it as transformers does."""
    from transformers import AutoConfig, AutoTokenizer

    from chestx_jax.weights import load_pretrained, save_pretrained

    out = workdir / "export"
    shutil.rmtree(out, ignore_errors=True)
    save_pretrained(load_pretrained(workdir / "grpo"), out)
    kind = AutoConfig.from_pretrained(out).architectures[0]
    tokens = len(AutoTokenizer.from_pretrained(out))
    print(f"\n{out}: {kind}, {tokens} tokens. With torch installed:")
    print(f'  transformers.AutoModelForImageTextToText.from_pretrained("{out}")')


if __name__ == "__main__":
    start(main, EXPECTED)
