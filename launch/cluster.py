"""Start-up of the programs that may run as several processes: one a host of a pod, or one a GPU.

On a TPU pod, under SLURM (`srun`) and in indexed Jobs and JobSets of Kubernetes the processes find each other; anywhere
else each is told:

    python -m launch.sft ... --coordinator=10.0.0.1:8476 --process_count=2 --process_id=0
    python -m launch.sft ... --coordinator=10.0.0.1:8476 --process_count=2 --process_id=1
"""

import logging
import sys
import traceback
from collections.abc import Callable

from absl import flags

from launch.program import log, start

COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port at which process 0 can be reached.")
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of the processes of this run this is.", lower_bound=0
)
PROCESS_COUNT = flags.DEFINE_integer("process_count", None, "Processes of this run.", lower_bound=1)
START_WITHIN = flags.DEFINE_integer(
    "start_within", 300, "Seconds in which all processes must come.", lower_bound=1
)
LOST_AFTER = flags.DEFINE_integer(
    "lost_after", 60, "Seconds of silence after which a process counts as lost and all stop.", lower_bound=1
)

flags.register_multi_flags_validator(
    ["coordinator", "process_id", "process_count"],
    lambda given: (
        len({value is None for value in given.values()}) == 1
        and (given["coordinator"] is None or given["process_id"] < given["process_count"])
    ),
    "--coordinator, --process_id and --process_count go together, and process_id counts from 0",
)
COLLECTIVES = ("Gloo", "NCCL")  # in the errors of a device program that another process did not come to


def start_together(main: Callable[[], None], expected: tuple[type[Exception], ...]) -> None:
    """`program.start` for a program that may be one of several processes.

    The first process writes what there is to say; the others warn. What stops one stops all: with the same message
    and exit code, or with 75 where a process was lost and the same line resumes.
    """

    def run() -> None:
        from chestx_jax.parallel.distributed import Address, connect
        from chestx_jax.training.loop import Preempted

        address, coordinator = None, COORDINATOR.value
        process_id, process_count = PROCESS_ID.value, PROCESS_COUNT.value
        if coordinator is not None and process_id is not None and process_count is not None:
            address = Address(coordinator, process_id, process_count)
        watch = connect(address, start_within=START_WITHIN.value, lost_after=LOST_AFTER.value)
        if watch is None:
            main()
            return
        _say_which()
        try:
            main()
        except Preempted:
            watch.close()
            raise
        except Exception as error:
            if any(name in str(error) for name in COLLECTIVES):
                watch.wait()  # finds out which process was lost, and ends this one
            if isinstance(error, expected):
                print(f"error: {error}", file=sys.stderr)
                watch.leave(str(error), 1)
            traceback.print_exc()
            watch.leave(f"{type(error).__name__}, see its log", 1)
        watch.close()

    start(run, expected)


def _say_which() -> None:
    import jax

    index = jax.process_index()
    if index:
        log.setLevel(logging.WARNING)
    for handler in log.handlers:
        handler.setFormatter(logging.Formatter(f"%(asctime)s  [{index}] %(message)s", datefmt="%H:%M:%S"))
