"""How every program starts and stops: logging to the terminal, expected errors in one line, exit codes."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging

log = logging.getLogger("chestx_jax")

COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    "~/.cache/chestx_jax/compiled",
    "Where compiled programs are kept for the next start; empty: nowhere. JAX_COMPILATION_CACHE_DIR goes before it.",
)
WORTH_KEEPING = 0.5  # seconds of compilation


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
        _keep_compiled()
        try:
            main()
        except Preempted as stop:
            log.warning("%s", stop)
            sys.exit(EXIT_PREEMPTED)
        except expected as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(run)


def _keep_compiled() -> None:
    """The same program is compiled once on a machine, not once a start."""
    import jax

    from chestx_jax.storage import to_path

    if COMPILATION_CACHE.value and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(to_path(COMPILATION_CACHE.value).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def _log_to_terminal() -> None:
    """Our own lines, and only the warnings of the libraries (a checkpoint alone is forty lines of theirs)."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
