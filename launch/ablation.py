"""Does it help to reward the reasoning? One fine-tuned model, several rewards, several seeds; rerun to resume.

    python -m launch.ablation --config=configs/ablation.py:tiny --workdir=runs/ablation

Fine-tunes a model, trains the process reward model, runs GRPO once an arm and seed, and answers held-out questions
with each. Writes under --workdir: ablation.md and ablation.json (accuracy, offline RadRScore, length, signs of
cheating; mean and spread over seeds), curves.png, scores.png, and all runs with their own curves and pages.
"""

from absl import flags
from ml_collections import config_flags

from launch.errors import EXPECTED
from launch.program import start

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/ablation.py:tiny.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of all runs; what is done there is not done again.", required=True
)
flags.mark_flag_as_required("config")


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.storage import on_this_machine
    from chestx_jax.training.ablation import run

    run(
        CONFIG.value,
        on_this_machine(WORKDIR.value, "--workdir", "copy its runs to the bucket when it is done"),
    )


if __name__ == "__main__":
    start(main, EXPECTED)
