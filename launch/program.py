"""How every program starts and stops: logging to the terminal, expected errors in one line, exit codes."""

import sys
from collections.abc import Callable, Sequence

from absl import app, logging

from chestx_jax.training.loop import EXIT_PREEMPTED, Preempted


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
        logging.set_verbosity(logging.INFO)
        try:
            main()
        except Preempted as stop:
            logging.warning("%s", stop)
            sys.exit(EXIT_PREEMPTED)
        except expected as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(run)
