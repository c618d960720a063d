"""The learned reward: the same arrays as in training, verdicts at the ends of steps, and how they add up."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from chestx_jax.data import Processor, read_samples
from chestx_jax.data.chat import parse, target
from chestx_jax.data.embedded import build_small_bench
from chestx_jax.rewards import RewardError, columns_of, learned, reward
from chestx_jax.rewards.learned import AGGREGATES, UNVERIFIABLE, LearnedReward, continued
from chestx_jax.training import process_reward
from configs.process_reward import get_config
from tests.processes import finish, free_port

PROCESS = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
me = int(sys.argv[2])
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=me)
from chestx_jax.data import read_samples
from chestx_jax.data.chat import target
from chestx_jax.rewards import columns_of, reward

judge, samples = reward(sys.argv[3]), read_samples(sys.argv[4])
for shares in json.loads(sys.argv[5]):
    own = samples[slice(*shares[me])]
    texts = [target(sample, "reason") for sample in own]
    given = judge(prompts=texts, completions=texts, **columns_of(own))
    print(json.dumps([[float(one), [step.value for step in one.steps]] for one in given]))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "bench"
    build_small_bench(out, source="phantom", root=None, studies=24, seed=0)
    return out


@pytest.fixture(scope="module")
def workdir(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config: ConfigDict = get_config("tiny")
    config.model.arch = "tiny"
    config.data.update(
        bench=str(bench),
        image_size=56,
        train=(("binary/train.jsonl", "reason", 1.0),),
        validation=(("binary/train.jsonl", "reason"),),
        buckets=((224, 16),),
        limit=16,
    )
    config.update(steps=2, batch_size=8, save_every=2, eval_every=9)
    out = tmp_path_factory.mktemp("judge")
    process_reward.run(config, out)
    return out


def test_training_leaves_figures_with_and_without_images(workdir: Path) -> None:
    assert '"blank images"' in (workdir / "step_scores.json").read_text()


def test_a_completion_behind_its_prompt_is_what_training_reads(bench: Path) -> None:
    processor = Processor.from_pretrained(bench / "processor", image_size=56)
    sample = read_samples(bench / "binary" / "train.jsonl")[0]
    whole = processor(sample, mode="reason", target=True)
    prompt = processor(sample, mode="reason", target=False)
    encode = processor.tokenizer.backend_tokenizer.encode
    joined = continued(prompt, encode(target(sample, "reason"), add_special_tokens=False).ids)
    for name in ("tokens", "positions", "segments", "image_index"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name)[..., :-1], err_msg=name)


def test_every_step_gets_a_value_and_the_reasoning_its_worst(workdir: Path, bench: Path) -> None:
    samples = read_samples(bench / "binary" / "train.jsonl")[:3]
    texts = [target(sample, "reason") for sample in samples[:2]] + ["no tags"]
    columns = columns_of(samples)
    judge = LearnedReward(str(workdir), "learned")
    for given, text in zip(judge(prompts=[""] * 3, completions=texts, **columns), texts, strict=True):
        assert [(step.start, step.end) for step in given.steps] == list(parse(text).spans)
        assert all(step.value == UNVERIFIABLE for step in given.steps if not step.link)
        values = [step.value for step in given.steps if step.link]
        assert float(given) == pytest.approx(min(values, default=0.0))
    verdicts = judge.judge.verdicts(samples[:1], texts[:1])[0][0]
    np.testing.assert_allclose(verdicts.sum(axis=1), 1, rtol=1e-5)


def test_a_process_that_has_no_completions_reads_as_often_as_the_others(
    workdir: Path, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other process needs of room is only said to be so: two passes, of one and of no row."""
    samples = read_samples(bench / "binary" / "train.jsonl")[:1]
    judge, passes = LearnedReward(str(workdir), "learned").judge, []
    alone = judge.verdicts(samples, [target(samples[0], "reason")])
    other = [(320, 16, 16), (192, 16, 32)]
    monkeypatch.setattr(learned, "gather", lambda rooms: [rooms, other])
    compute = learned.probabilities

    def counted(model: Any, batch: Any, step_ids: Any, steps: int) -> Any:
        passes.append((*step_ids.shape, steps))
        return compute(model, batch, step_ids, steps)

    monkeypatch.setattr(learned, "probabilities", counted)
    assert judge.verdicts([], []) == []
    ((found, spans),) = judge.verdicts(samples, [target(samples[0], "reason")])
    assert passes == [(32, 320, 16), (32, 192, 32)] * 2
    assert spans == alone[0][1]
    np.testing.assert_allclose(found, alone[0][0], rtol=1e-5)


@pytest.mark.processes
def test_two_processes_read_what_one_reads(workdir: Path, bench: Path) -> None:
    """Three passes for the first process and one for the second; then none for the first and one for the second."""
    data, name = bench / "binary" / "train.jsonl", f"learned:{workdir}"
    samples = read_samples(data)
    calls = [[(0, 34), (34, 36)], [(0, 0), (36, 39)]]
    assert len(samples) >= 39
    line = [sys.executable, "-c", PROCESS, f"127.0.0.1:{free_port()}"]
    rest = [name, str(data), json.dumps(calls)]
    env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([*line, str(me), *rest], env=env, stdout=subprocess.PIPE, text=True) for me in (0, 1)
    ]
    ended = finish(processes)
    assert [code for code, _ in ended] == [0, 0], ended
    for me, (_, output) in enumerate(ended):
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("[[") or line == "[]"]
        for shares, found in zip(calls, lines, strict=True):
            own = samples[slice(*shares[me])]
            texts = [target(sample, "reason") for sample in own]
            expected = reward(name)(prompts=texts, completions=texts, **columns_of(own))
            assert [value for value, _ in found] == pytest.approx(list(map(float, expected)), abs=1e-5)
            for (_, steps), one in zip(found, expected, strict=True):
                assert steps == pytest.approx([step.value for step in one.steps], abs=1e-5)
                assert len(steps)


def test_aggregates_by_hand() -> None:
    values, judged = np.array([0.9, -0.5, 0.3, 0.0]), np.array([True, True, True, False])
    found = {name: f(values, judged) for name, f in AGGREGATES.items()}
    assert found == pytest.approx({"learned": -0.5, "learned-mean": 0.7 / 4, "learned-last": 0.3})


@pytest.mark.parametrize("name", ["learned:/nowhere", "learnt:/nowhere"])
def test_a_name_that_stands_for_nothing_is_refused(name: str) -> None:
    with pytest.raises(RewardError, match="learn"):
        reward(name)
