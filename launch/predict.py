"""Completions of a model for a file of samples, or for one question.

    python -m launch.predict --model=DIR --data=samples.jsonl --out=predictions.jsonl
    python -m launch.predict --model=DIR --images=frontal.png,lateral.dcm \\
        --question="Which findings are in this chest X-ray?"

--model takes a Hugging Face directory or a checkpoint of ours. The file grows as predictions are made; rerun the
same line and it goes on where it stopped.
"""

from absl import flags

from launch.cluster import start_together
from launch.errors import EXPECTED

MODEL = flags.DEFINE_string(
    "model", None, "Hugging Face directory, workdir of a run, or one checkpoint.", required=True
)
PROCESSOR = flags.DEFINE_string(
    "processor", None, "Directory of tokenizer and preprocessor; that of --model."
)
DATA = flags.DEFINE_string("data", None, "Samples (JSONL).")
OUT = flags.DEFINE_string("out", None, "Where the predictions go (JSONL).")
IMAGES = flags.DEFINE_list("images", None, "One question instead of --data: its images, in order.")
QUESTION = flags.DEFINE_string("question", None, "One question instead of --data: its text.")
MODE = flags.DEFINE_enum("mode", "reason", ["reason", "answer"], "Ask for reasoning, or the answer alone.")
TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 is greedy.", lower_bound=0.0)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 1024, "Completions are cut there.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Prompts at a time.", lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Pixels a side; what the model was trained with.")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of the weights; those of the files.")
TENSOR = flags.DEFINE_integer(
    "tensor", 1, "Devices that share the weights; the prompts are divided among the others.", lower_bound=1
)
SEED = flags.DEFINE_integer("seed", 0, "Of sampling, when --temperature > 0.")
BEST_OF = flags.DEFINE_integer("best_of", 1, "Completions a prompt; the best is kept.", lower_bound=1)
PROCESS_REWARD = flags.DEFINE_string(
    "process_reward", None, "Workdir of launch.process_reward: says which completion is the best."
)
BLANK_IMAGES = flags.DEFINE_bool("blank_images", False, "Replace every image by an even grey one.")


def _one_mode(values: dict) -> bool:
    file, question = (values["data"], values["out"]), (values["images"], values["question"])
    return (all(file) and not any(question)) or (all(question) and not any(file))


flags.register_multi_flags_validator(
    ["data", "out", "images", "question"],
    _one_mode,
    "give --data and --out, or --images and --question",
)


flags.register_multi_flags_validator(
    ["best_of", "process_reward", "temperature", "data"],
    lambda v: (
        (v["best_of"] > 1) == bool(v["process_reward"])
        and (v["best_of"] == 1 or (v["temperature"] > 0 and bool(v["data"])))
    ),
    "--best_of and --process_reward go together, with --data and a --temperature above 0",
)


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.evaluation.inference import Inference
    from chestx_jax.evaluation.predict import Decoding
    from chestx_jax.parallel import is_first
    from chestx_jax.storage import to_path

    decoding = Decoding(
        mode=MODE.value,
        temperature=TEMPERATURE.value,
        max_new_tokens=MAX_NEW_TOKENS.value,
        batch_size=BATCH_SIZE.value if DATA.value else 1,
        seed=SEED.value,
        best_of=BEST_OF.value,
        blank_images=BLANK_IMAGES.value,
    )
    inference = Inference.load(
        MODEL.value, PROCESSOR.value, image_size=IMAGE_SIZE.value, dtype=DTYPE.value, tensor=TENSOR.value
    )
    if DATA.value and OUT.value:
        inference.predict_file(to_path(DATA.value), to_path(OUT.value), decoding, PROCESS_REWARD.value)
    elif IMAGES.value and QUESTION.value:
        answer = inference.ask([to_path(image) for image in IMAGES.value], QUESTION.value, decoding)
        if is_first():
            print(answer)


if __name__ == "__main__":
    start_together(main, EXPECTED)
