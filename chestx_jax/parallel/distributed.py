"""Several processes as one run: how they find each other, and how the loss of one stops the others.

Every process tells the coordination service every few seconds that it is alive, and reads that the others are. A
process that falls silent, or says why it leaves, ends all of them with one message and an exit code: 75 (a scheduler
should run the same line again) where a process was lost, its own code where it left with an error. The service lives
in process 0; where that one dies, JAX itself aborts the others within a second or two (exit code 134).
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax._src import cloud_tpu_init  # whether this is a TPU machine has no public name in jax 0.10

from chestx_jax.parallel.processes import ClusterError, client

log = logging.getLogger(__name__)

EXIT_LOST = 75  # EX_TEMPFAIL
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
KUBERNETES = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
_ALIVE, _LEFT = "chestx_jax/alive", "chestx_jax/left"


@dataclass(frozen=True)
class Address:
    """Where process 0 listens ("host:port"), which process this is, and of how many."""

    coordinator: str
    process_id: int
    process_count: int


def environment(variables: Mapping[str, str]) -> str:
    """Which cluster started this process as one of several: "tpu", "slurm", "kubernetes", or "" for none.

    Under SLURM, processes that `srun` started; under Kubernetes, pods of an indexed Job or JobSet.
    """
    if cloud_tpu_init.running_in_cloud_tpu_vm:
        return "tpu"
    if all(name in variables for name in SLURM):
        return "slurm" if int(variables["SLURM_NTASKS"]) > 1 else ""
    return "kubernetes" if all(name in variables for name in KUBERNETES) else ""


def connect(address: Address | None, *, start_within: int, lost_after: int) -> "Watch | None":
    """Make the processes of a run known to each other; to be called before anything touches a device.

    Args:
      address: None finds it by `environment`; where there is none, this process is alone and None comes back.
      start_within: seconds in which all processes must have come.
      lost_after: seconds of silence after which a process counts as lost, and all stop.

    Where the others do not come in time, the process ends with a message and exit code 1: nothing can be raised, for
    JAX does not return from its waiting.

    Raises:
      ClusterError: the others cannot be found.
    """
    found = environment(os.environ)
    if address is None and not found:
        return None
    given = {} if address is None else vars(address)
    how = f"by {found}" if address is None else f"at {address.coordinator}, as process {address.process_id}"
    missed = (
        f"the processes of this run did not find each other {how} within {start_within} s (--start_within)"
    )
    # JAX aborts where its own time to wait is over, with a page of C++: this ends before it.
    patience = threading.Timer(start_within, _end, [missed, 1])
    patience.daemon = True
    patience.start()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            given.get("coordinator"),
            given.get("process_count"),
            given.get("process_id"),
            cluster_detection_method="deactivate" if given else None,
            initialization_timeout=2 * start_within + 60,
            # what JAX does by itself where a process falls silent is to abort; the watch is there before it
            heartbeat_timeout_seconds=2 * lost_after,
            shutdown_timeout_seconds=2 * lost_after,
        )
    except (RuntimeError, ValueError) as error:
        raise ClusterError(f"{missed}: {error}") from error
    finally:
        patience.cancel()
    if jax.process_count() == 1:
        return None
    log.info("process %d of %d, %d devices", jax.process_index(), jax.process_count(), jax.device_count())
    return Watch(lost_after)


class Watch:
    """Looks after the other processes in a thread of its own, and ends this one when the run cannot go on."""

    def __init__(self, lost_after: float):
        self._index, self._count = jax.process_index(), jax.process_count()
        self._lost_after = lost_after
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def leave(self, message: str, code: int) -> None:
        """Tell the others why this process stops, and stop with this exit code, at once."""
        self._closed.set()
        notice = {"process": self._index, "message": message, "code": code}
        try:
            client().key_value_set(_LEFT, json.dumps(notice))
        except jax.errors.JaxRuntimeError:
            log.debug("another process left first")
        if self._index == 0:
            time.sleep(min(2.0, self._lost_after))  # the notice is lost with the service, which is here
        _exit(code)

    def wait(self) -> None:
        """Until the watch has found out which process was lost, and has ended this one; returns where none was."""
        self._thread.join(2 * self._lost_after)

    def close(self) -> None:
        """The run is over: returns when all processes are here."""
        try:
            client().wait_at_barrier("chestx_jax/end", int(2000 * self._lost_after))
        except jax.errors.JaxRuntimeError:
            self._stop(f"the others did not end within {2 * self._lost_after:g} s of this one")
        self._closed.set()
        if self._index == 0:
            client().key_value_set(_LEFT, json.dumps({"process": 0, "message": "done", "code": 0}))
        self._thread.join()

    def _look(self) -> None:
        beats = dict.fromkeys(range(self._count), ("", time.monotonic()))
        for beat in range(sys.maxsize):
            try:
                client().key_value_set(f"{_ALIVE}/{self._index}", str(beat), allow_overwrite=True)
                notice = self._notice()
                signs = client().key_value_dir_get(f"{_ALIVE}/")
            except jax.errors.JaxRuntimeError as error:
                self._stop(f"process 0, through which all find each other, is lost ({_first_line(error)})")
                return
            if self._closed.is_set():
                return
            if notice is not None and notice["process"] != self._index:
                self._stop(f"process {notice['process']} stopped: {notice['message']}", notice["code"])
            now = time.monotonic()
            for key, sign in signs:
                process = int(key.rsplit("/", 1)[1])
                if beats[process][0] != sign:
                    beats[process] = (sign, now)
            lost = [process for process, (_, since) in beats.items() if now - since > self._lost_after]
            if lost:
                names = ", ".join(map(str, lost))
                self._stop(f"process {names} of this run is lost: silent for {self._lost_after:g} s")

    def _notice(self) -> dict[str, Any] | None:
        """What a process that leaves says; waits for it until it is time for the next sign of life."""
        try:
            return json.loads(client().blocking_key_value_get(_LEFT, int(self._lost_after * 1000 / 6)))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def _stop(self, message: str, code: int = EXIT_LOST) -> None:
        if self._closed.is_set():
            return
        advice = "; start all processes again to resume" if code == EXIT_LOST else ""
        _end(f"process {self._index} stops: {message}{advice}", code)


def _end(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    _exit(code)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _exit(code: int) -> None:
    """Without the interpreter's last rites: they would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
