"""The whole road, small: build a bench, fine-tune, predict, evaluate, export.

    python -m launch.demo --workdir=demo                                    embedded phantoms
    python -m launch.demo --workdir=demo_openi --source=openi --root=DIR    real X-rays, answers only

Under --workdir: bench/ (questions), run/ (checkpoints and curves), predictions/, evaluation/ (tables and a
picture sheet), export/ (Hugging Face layout). Run the same line again and it goes on where it stopped.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import sft as recipes
from launch.errors import EXPECTED
from launch.program import start

WORKDIR = flags.DEFINE_string("workdir", None, "Directory for everything that the demo makes.", required=True)
SOURCE = flags.DEFINE_enum("source", "phantom", ["phantom", "openi"], "What to build the bench from.")
ROOT = flags.DEFINE_string("root", None, "Directory of the collection, for --source=openi.")
STEPS = flags.DEFINE_integer("steps", None, "Training steps; those of the recipe.", lower_bound=1)

TEST = {"binary": 300, "single": 60, "multiple": 60, "anomaly": 60, "temporal": 60}  # questions to answer
MAX_NEW_TOKENS = 192
BATCH_SIZE = 60

log = logging.getLogger("chestx_jax.demo")


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.data.embedded import build_small_bench
    from chestx_jax.training import sft

    began = time.monotonic()
    workdir = Path(WORKDIR.value)
    root = None if ROOT.value is None else Path(ROOT.value)
    config = make_config(workdir)
    build_small_bench(
        workdir / "bench",
        source=SOURCE.value,
        root=root,
        studies=config.data.phantom_studies,
        seed=config.seed,
    )
    config.data.train = tuple(_present(workdir / "bench", config.data.train))
    sft.run(config, workdir / "run")
    evaluate(workdir, mode=config.data.train[0][1])
    export(workdir)
    log.info("the demo took %.1f minutes", (time.monotonic() - began) / 60)


def make_config(workdir: Path) -> ConfigDict:
    """The recipe `tiny` on the demo's bench; collections without mined reasoning train on answers."""
    config = recipes.get_config("tiny")
    config.data.bench = str(workdir / "bench")
    if SOURCE.value != "phantom":
        config.data.train = tuple((name, "answer", weight) for name, _, weight in config.data.train)
        config.data.validation = tuple((name, "answer") for name, _ in config.data.validation)
        config.data.buckets = ((256, 64), (384, 192))
    if STEPS.value is not None:
        config.steps = STEPS.value
    return config


def _present(bench: Path, rows: tuple[tuple[str, str, float], ...]) -> Iterator[tuple[str, str, float]]:
    """The rows whose file the bench has: not every collection has serial studies."""
    return (row for row in rows if (bench / row[0]).is_file())


def evaluate(workdir: Path, mode: str) -> None:
    """Answer held-out questions, and the binary ones again without an image; tables and a picture sheet."""
    from chestx_jax.data import read_samples, write_samples
    from chestx_jax.evaluation.evaluate import evaluate as score
    from chestx_jax.evaluation.inference import Inference
    from chestx_jax.evaluation.predict import Decoding
    from chestx_jax.evaluation.predictions import read_predictions

    files = {task: workdir / "bench" / task / "test.jsonl" for task in TEST}
    chosen = [s for task, path in files.items() if path.is_file() for s in read_samples(path)[: TEST[task]]]
    binary = [sample for sample in chosen if sample.task == "binary"]
    inference = Inference.load(str(workdir / "run"), None, image_size=None, dtype=None)
    for name, samples, blank in (("seeing", chosen, False), ("blank", binary, True)):
        data, predictions = workdir / f"test_{name}.jsonl", workdir / "predictions" / f"{name}.jsonl"
        write_samples(data, samples)
        decoding = Decoding(
            mode=mode, max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH_SIZE, blank_images=blank
        )
        inference.predict_file(data, predictions, decoding)
        print(f"\nheld-out questions, {'every image replaced by an even grey' if blank else 'with images'}")
        score(read_samples(data), read_predictions(predictions), workdir / "evaluation" / name, cases=12)


def export(workdir: Path) -> None:
    """Write the Hugging Face directory, and load it as transformers does."""
    from transformers import AutoConfig, AutoTokenizer

    from chestx_jax.weights import load_pretrained, save_pretrained

    out = workdir / "export"
    shutil.rmtree(out, ignore_errors=True)
    save_pretrained(load_pretrained(workdir / "run"), out)
    kind = AutoConfig.from_pretrained(out).architectures[0]
    tokens = len(AutoTokenizer.from_pretrained(out))
    print(f"\n{out}: {kind}, {tokens} tokens. With torch installed:")
    print(f'  transformers.AutoModelForImageTextToText.from_pretrained("{out}")')


if __name__ == "__main__":
    start(main, EXPECTED)
