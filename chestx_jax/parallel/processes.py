"""What the processes of one run tell each other. All of it goes through JAX's coordination service, on the host: it
waits for no device, and works for processes that come minutes apart. With one process every function is trivial.

Every process calls these functions in the same order. A process that is lost while others wait for it ends them:
see `distributed.Watch`.
"""

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
from jax._src import distributed as jax_distributed  # the service's client has no public name in jax 0.10

Value = TypeVar("Value")
WAIT_MS = 7 * 24 * 3600 * 1000  # a week: what ends a wait early is the loss of a process
_meetings = itertools.count()


class ClusterError(Exception):
    """Processes that cannot work as one run; the message names which of them, and what is wrong with it."""


def client() -> Any:
    """The client of the coordination service that `distributed.connect` started."""
    return jax_distributed.global_state.client


def is_first() -> bool:
    """Whether this is the process that writes what only one should write."""
    return jax.process_index() == 0


def barrier() -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        client().wait_at_barrier(f"chestx_jax/{next(_meetings)}", WAIT_MS)


def gather(value: Value) -> list[Value]:
    """The `value` of every process (anything that can be pickled), in the order of the processes."""
    if jax.process_count() == 1:
        return [value]
    room = f"chestx_jax/gather/{next(_meetings)}"
    client().key_value_set_bytes(f"{room}/{jax.process_index()}", pickle.dumps(value))
    barrier()
    found = {
        int(key.rsplit("/", 1)[1]): content for key, content in client().key_value_dir_get_bytes(f"{room}/")
    }
    barrier()  # all have read
    client().key_value_delete(f"{room}/{jax.process_index()}")
    return [pickle.loads(found[index]) for index in range(jax.process_count())]


def by_first(work: Callable[[], None]) -> None:
    """The first process does it while the others wait."""
    if is_first():
        work()
    barrier()


def agree(facts: Mapping[str, Any]) -> None:
    """Makes sure that these facts (JSON values by name) are the same on every process.

    Raises:
      ClusterError: on every process; names each that differs from most of them (of two, from the first), and in
        what.
    """
    everyone = [
        {name: json.dumps(value, sort_keys=True) for name, value in theirs.items()}
        for theirs in gather(dict(facts))
    ]
    names = sorted(set().union(*everyone))
    usual = {name: Counter(theirs.get(name) for theirs in everyone).most_common(1)[0][0] for name in names}
    differing = [
        f"process {index} has {name} {theirs.get(name)}, where most have {usual[name]}"
        if len(everyone) > 2
        else f"process {index} has {name} {theirs.get(name)}, process {1 - index} has {usual[name]}"
        for index, theirs in enumerate(everyone)
        for name in names
        if theirs.get(name) != usual[name]
    ]
    if differing:
        raise ClusterError("the processes of this run do not agree:\n  " + "\n  ".join(differing))
