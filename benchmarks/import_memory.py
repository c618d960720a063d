"""Peak memory and time of importing and exporting a checkpoint with the shapes of a real model, random
weights.

    python benchmarks/import_memory.py [--size=2b]        (writes 2 x 4.4 GB to a temporary directory; 7b: 2 x
    16.6)

Linux only: it reads the peak resident memory of a fresh process (VmHWM, mapped files included). Ends with an
error when importing takes more than the checkpoint's own size and 1.5 GiB.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from absl import app, flags
from flax import nnx

from chestx_jax.models.qwen2_vl import QWEN2_VL_2B, QWEN2_VL_7B, TINY, Qwen2VL
from chestx_jax.weights import load_pretrained, save_pretrained
from chestx_jax.weights.pretrained import flat_params, patch_shape
from chestx_jax.weights.safetensors_file import SafetensorsWriter
from chestx_jax.weights.table import expected_keys

CONFIGS = {"tiny": TINY, "2b": QWEN2_VL_2B, "7b": QWEN2_VL_7B}
LIMIT = 1.5  # GiB beyond the checkpoint's size

_SIZE = flags.DEFINE_enum("size", "2b", list(CONFIGS), "Whose shapes to use.")
_TMP = flags.DEFINE_string("tmp", None, "Where to make the temporary directory.")
_JSON = flags.DEFINE_string("json", None, "Where to write the figures.")
_CHILD = flags.DEFINE_string("child", None, "Used by the program itself: the directory to measure.")


def memory(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 2**20


def write_random(directory: Path, size: str) -> None:
    """A bfloat16 checkpoint, a tensor at a time."""
    config, dtype = CONFIGS[size], np.dtype(ml_dtypes.bfloat16)
    abstract = nnx.eval_shape(lambda: Qwen2VL(config, rngs=nnx.Rngs(0)))
    shapes = {path: tuple(leaf.shape) for path, leaf in flat_params(abstract).items()}
    tensors = {key: (dtype, shape) for key, (_, shape) in expected_keys(shapes, patch_shape(config)).items()}
    rng = np.random.default_rng(0)
    directory.mkdir()
    with SafetensorsWriter(directory / "model.safetensors", tensors) as writer:
        for key in writer.order:
            bits = rng.integers(0x3C00, 0x3E00, tensors[key][1], np.uint16)  # about 0.008 to 0.125
            writer.write(key, bits.view(dtype))
    (directory / "config.json").write_text(json.dumps({**config.to_hf(), "torch_dtype": dtype.name}))


def measure(directory: Path) -> dict[str, dict[str, float]]:
    """Load, then save, in this process; the peak is set back between the two."""
    figures = {}
    model = None
    for phase in ("import", "export"):
        Path("/proc/self/clear_refs").write_text("5")
        before, began = memory("VmRSS"), time.monotonic()
        if model is None:
            model = jax.block_until_ready(load_pretrained(directory / "in"))
        else:
            save_pretrained(model, directory / "out")
        peak, seconds = memory("VmHWM"), time.monotonic() - began
        figures[phase] = {"before_gib": before, "peak_gib": peak, "seconds": seconds}
    return figures


def main(_: list[str]) -> None:
    if _CHILD.value:
        print(json.dumps(measure(Path(_CHILD.value))))
        return
    with tempfile.TemporaryDirectory(dir=_TMP.value) as directory:
        write_random(Path(directory) / "in", _SIZE.value)
        own = (Path(directory) / "in" / "model.safetensors").stat().st_size / 2**30
        line = [sys.executable, __file__, f"--child={directory}"]
        on_cpu = {**os.environ, "JAX_PLATFORMS": "cpu"}
        output = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=on_cpu).stdout
    figures = json.loads(output.splitlines()[-1])
    print(f"{_SIZE.value}, bfloat16, {own:.2f} GiB on disk")
    for phase, row in figures.items():
        before, peak, seconds = row["before_gib"], row["peak_gib"], row["seconds"]
        print(f"{phase}: {seconds:.0f} s, {before:.2f} GiB before, peak {peak:.2f} GiB")
    if _JSON.value:
        Path(_JSON.value).write_text(
            json.dumps({"size": _SIZE.value, "disk_gib": own, **figures}, indent=2) + "\n"
        )
    if figures["import"]["peak_gib"] > own + LIMIT:
        sys.exit(f"the import took more than the checkpoint's {own:.2f} GiB and {LIMIT} GiB")


if __name__ == "__main__":
    app.run(main)
