"""Two processes stop after the same step, whichever is told to."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import free_port

PROGRAM = """
import sys, time
import jax
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from chestx_jax.training.stopping import Stopping
with Stopping(time.monotonic(), float(sys.argv[3])) as stopping:
    for step in range(1, 2000):
        time.sleep(0.02 * (1 + jax.process_index()))
        if step == 5:
            print("running", flush=True)
        if why := stopping.reason(step):
            break
print(step, why, flush=True)
"""


@pytest.mark.parametrize("told", ["by a signal", "by its clock"])
def test_processes_stop_after_the_same_step(told: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    seconds = ("0", "0") if told == "by a signal" else ("0", "0.5")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index), seconds[index]],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        if told == "by a signal":
            assert processes[1].stdout is not None and processes[1].stdout.readline() == "running\n"
            time.sleep(0.1)
            processes[1].send_signal(signal.SIGTERM)
        ends = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    steps = [int(end.split()[0]) for end in ends]
    assert steps[0] == steps[1] < 1999
    if told == "by its clock":
        assert ends[1].endswith("config.max_seconds")
