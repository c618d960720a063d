"""Where a run stands: its step, last metrics, last checkpoint and its age, whether it runs, and why it stopped.

    python -m launch.status --workdir=runs/tiny

Reads the run's files alone; it may run beside the run, on any machine that sees them.
"""

from absl import flags

from launch.errors import EXPECTED
from launch.program import start

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.storage import to_path
    from chestx_jax.training.status import status

    print("\n".join(status(to_path(WORKDIR.value))))


if __name__ == "__main__":
    start(main, EXPECTED)
