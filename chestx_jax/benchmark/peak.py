"""How fast this machine multiplies matrices in float32 on one thread: the most that any step could reach."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from chestx_jax.benchmark.clock import Measured

SIDES = (512, 1024, 1536)
ROUNDS = 8  # the machine has quicker moments and slower ones; a peak is its best


def gemm_peak() -> Measured:
    """Operations a CPU second of square products, each library's best; `work` is the best of all."""
    rates: dict[str, float] = {}
    products = _products()
    for side in SIDES:
        numbers = np.random.default_rng(side).standard_normal((2, side, side), np.float32)
        for name, (put, multiply) in products.items():
            left, right = put(numbers[0]), put(numbers[1])
            multiply(left, right)
            for _ in range(ROUNDS):
                began = time.process_time()
                multiply(left, right)
                rate = 2 * side**3 / (time.process_time() - began)
                rates[name] = max(rates.get(name, 0.0), rate)
    return Measured([], [], work=max(rates.values()), facts={"gemm": rates})


def _products() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Library -> (numpy to its arrays, a product that is done when it returns)."""
    multiply = jax.jit(lambda left, right: left @ right)
    found: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "numpy": (np.asarray, np.matmul),
        "jax": (jax.device_put, lambda left, right: multiply(left, right).block_until_ready()),
    }
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        found["torch"] = (torch.from_numpy, torch.matmul)
    return found
