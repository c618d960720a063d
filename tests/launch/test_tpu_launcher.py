"""The launcher for Cloud TPU, played through with a gcloud whose one machine is a directory of this one."""

import os
import subprocess
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parents[2] / "launch" / "pods" / "tpu_queued_resource.sh"
GIVEN = ["--name=run1", "--project=p", "--zone=z", "--type=v5litepod-8", "--tries=3"]
GCLOUD = r"""#!/usr/bin/env bash
whole="$*"
echo "$whole" >> "$CLOUD/calls"
case "$4 $whole" in
  create*) echo ACTIVE > "$CLOUD/state" ;;
  describe*) cat "$CLOUD/state" 2> /dev/null ;;
  delete*)
    [[ -e "$CLOUD/home/run/lock" ]] && flock "$CLOUD/home/run/lock" true  # nothing of the machine is left running
    rm -rf "$CLOUD/state" "$CLOUD/home" && mkdir "$CLOUD/home"
    ;;
  scp*) cp "$5" "$CLOUD/home/${6#*:}" ;;
  ssh*run/ended)
    happens="$(head -n 1 "$CLOUD/happens")"
    sed -i 1d "$CLOUD/happens"
    [[ "$happens" == preempted ]] && echo SUSPENDED > "$CLOUD/state"
    [[ -n "$happens" ]] && exit 255
    until [[ -e "$CLOUD/home/run/ended" ]]; do /bin/sleep 0.05; done
    cat "$CLOUD/home/run/ended"
    ;;
  ssh*) cd "$CLOUD/home" && HOME="$CLOUD/home" bash -c "${whole##*--command=}" ;;
esac
"""
UV = r"""#!/usr/bin/env bash
[[ "$1" == venv ]] && mkdir -p .venv/bin && cp "$CLOUD/tools/program" .venv/bin/python
exit 0
"""
PROGRAM = r"""#!/usr/bin/env bash
echo "said: $*"
code="$(head -n 1 "$CLOUD/codes")"
sed -i 1d "$CLOUD/codes"
exit "$code"
"""


def launch(cloud: Path, codes: list[int], happens: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """One call of the launcher.

    Args:
      codes: what the program ends with, start after start.
      happens: to the connections that ask whether it has ended, one after the other.
    """
    tools = cloud / "tools"
    tools.mkdir(exist_ok=True)
    (cloud / "home").mkdir(exist_ok=True)
    for name, text in {"gcloud": GCLOUD, "uv": UV, "program": PROGRAM, "sleep": "#!/bin/sh\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (cloud / "codes").write_text("".join(f"{code}\n" for code in codes))
    (cloud / "happens").write_text("".join(f"{one}\n" for one in happens))
    return subprocess.run(
        ["bash", LAUNCHER, *GIVEN, "--", "launch.sft", "--workdir=gs://b/a b"],
        env={"PATH": f"{tools}:{os.environ['PATH']}", "CLOUD": str(cloud)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def calls(cloud: Path, word: str) -> int:
    return (cloud / "calls").read_text().count(word)


@pytest.mark.parametrize("codes", [[0], [75, 134, 0]])
def test_a_run_that_can_go_on_does_and_the_machines_are_given_back(tmp_path: Path, codes: list[int]) -> None:
    done = launch(tmp_path, codes)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "codes").read_text() == ""
    assert calls(tmp_path, "create") == calls(tmp_path, "delete") == 1


@pytest.mark.parametrize("code", [1, 127, 137])
def test_an_error_for_a_person_shows_the_log_and_gives_the_machines_back(tmp_path: Path, code: int) -> None:
    done = launch(tmp_path, [code, 0])
    assert done.returncode == 1 and f"ended with exit code {code}" in done.stderr
    assert "said: -m launch.sft --workdir=gs://b/a b" in done.stdout
    assert calls(tmp_path, "create") == calls(tmp_path, "delete") == 1


def test_a_connection_that_drops_ends_nothing(tmp_path: Path) -> None:
    done = launch(tmp_path, [0], ("drops", "drops"))
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path, "create") == calls(tmp_path, "nohup") == 1


def test_machines_that_are_taken_away_are_asked_for_again(tmp_path: Path) -> None:
    done = launch(tmp_path, [75, 0, 0], ("preempted",))
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path, "create") == calls(tmp_path, "delete") == 2


def test_the_same_line_again_goes_on_watching(tmp_path: Path) -> None:
    """The launcher of before is gone; its run holds the lock on the machine."""
    (tmp_path / "home" / "run").mkdir(parents=True)
    (tmp_path / "state").write_text("ACTIVE\n")
    lock = tmp_path / "home" / "run" / "lock"
    held = subprocess.Popen(["flock", lock, "sh", "-c", f"sleep 2; echo 0 > {lock.parent / 'ended'}"])
    done = launch(tmp_path, [])
    held.wait()
    assert done.returncode == 0, done.stderr
    assert "it runs already" in done.stdout and calls(tmp_path, "create") == calls(tmp_path, "scp") == 0
