"""Supervised fine-tuning; rerun the same line to resume.

    python -m launch.sft --config=configs/sft.py:tiny --workdir=runs/tiny

Writes under --workdir: checkpoints/, model/ (config, tokenizer, processor), metrics.jsonl, tensorboard/,
config.json and run.json. Any leaf of the config can be changed on the line: --config.optimizer.peak=1e-4.
"""

from absl import flags
from ml_collections import config_flags

from launch.cluster import start_together
from launch.errors import EXPECTED

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/sft.py:tiny.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; it resumes what it finds there.", required=True
)
flags.mark_flag_as_required("config")


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.storage import to_path
    from chestx_jax.training import sft

    sft.run(CONFIG.value, to_path(WORKDIR.value))


if __name__ == "__main__":
    start_together(main, EXPECTED)
