"""Write a checkpoint as a Hugging Face directory, for transformers and vLLM.

python -m launch.export --checkpoint=WORKDIR --out=DIR
"""

from absl import flags

from launch.errors import EXPECTED
from launch.program import start

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "A run's workdir (its newest checkpoint), one step's directory, or a Hugging Face directory.",
    required=True,
)
_OUT = flags.DEFINE_string("out", None, "Directory to write; must not exist, or be empty.", required=True)
_PROCESSOR = flags.DEFINE_string(
    "processor", None, "Directory with tokenizer and processor files, where the checkpoint has none."
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["bfloat16", "float16", "float32"],
    "Of the written weights; by default that of the checkpoint.",
)


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.weights import load_pretrained, save_pretrained

    model = load_pretrained(_CHECKPOINT.value)
    save_pretrained(model, _OUT.value, _PROCESSOR.value, dtype=_DTYPE.value)
    print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    start(main, EXPECTED)
