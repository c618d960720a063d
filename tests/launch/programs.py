"""Programs as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(program: str, *flags: str, xla_flags: str = "") -> subprocess.Popen[str]:
    """`python -m launch.PROGRAM FLAGS`, whose errors stand among what it says."""
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{program}", *flags],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": xla_flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
