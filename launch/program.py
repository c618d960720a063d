"""How every program starts and stops: logging to the terminal, expected errors in one line, exit codes."""

import logging
import sys
from collections.abc import Callable, Sequence

from absl import app
from absl import logging as absl_logging

log = logging.getLogger("chestx_jax")


def start(main: Callable[[], None], expected: tuple[type[Exception], ...]) -> None:
    """Parse the flags and run `main`.

    Args:
      main: the program; it reads its flags itself.
      expected: the errors that a user can mend. They are printed as their message alone, with exit code 1.
        Anything else is a bug of ours and keeps its traceback.

    After SIGTERM, once the run is saved, the exit code is 75: a scheduler should run the same line again.
    """

    def run(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"not a flag: {' '.join(argv[1:])}")
        # here, so that the worker processes of a program, which import it, do not start JAX
        from chestx_jax.training.loop import EXIT_PREEMPTED, Preempted

        _log_to_terminal()
        try:
            main()
        except Preempted as stop:
            log.warning("%s", stop)
            sys.exit(EXIT_PREEMPTED)
        except expected as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(run)


def _log_to_terminal() -> None:
    """Our own lines, and only the warnings of the libraries (a checkpoint alone is forty lines of theirs)."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
