"""What a run leaves in its workdir so that it can be told apart and run again."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from ml_collections import ConfigDict

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def describe_run(workdir: Path, config: ConfigDict) -> None:
    """Write `config.json` and `run.json` (command, git revision, package versions).

    Rerun lines append to `run.json`'s list, so a resumed run keeps the history of who continued it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(config.to_json(indent=2, sort_keys=True) + "\n")
    path = workdir / "run.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    runs.append(
        {
            "command": sys.argv,
            "git_revision": git_revision(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
    )
    path.write_text(json.dumps(runs, indent=2) + "\n")


def git_revision() -> str:
    """The checkout's commit, with `+changes` when files differ from it; "unknown" outside of a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")
