"""The plan end to end: real programs, compiled for machines that are not there."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from chestx_jax.planning import plan
from chestx_jax.planning.abstract import PlanError
from chestx_jax.planning.compiling import CompileError, compile_program
from chestx_jax.planning.facts import bounds, verdict
from chestx_jax.planning.programs import build, recipe_programs
from chestx_jax.planning.search import candidates
from chestx_jax.planning.topology import GIB, parse_topology
from configs import grpo, process_reward, sft
from tests.planning.conftest import needs_libtpu

V5E = parse_topology("v5e:2x2", 1)


@needs_libtpu
def test_two_layers_at_7b_width_on_four_chips(two_layers: ConfigDict, tmp_path: Path) -> None:
    facts = list(plan.plan(two_layers, V5E, ["sft"]))
    (one,) = facts
    plan.check(facts, V5E)
    # float32 parameters and two moments of the same size, cut over four chips
    assert one.parts["optimizer"] == pytest.approx(2 * one.parts["parameters"], rel=1e-3)
    assert one.memory is not None and one.memory.peak < 15.75 * GIB
    # what the policy "mlp" redoes: gate projections, attention scores, the one vision layer
    assert 1.05 < one.flops_ratio < 1.15
    # weights are gathered at most twice in bfloat16, gradients never summed whole
    whole = 2 * one.parts["parameters"]  # four chips' float32 as bfloat16
    gathered = (
        one.total("result_bytes") - one.traffic.get("reduce-scatter", {"result_bytes": 0})["result_bytes"]
    )
    assert gathered < 2.2 * whole
    assert one.traffic["reduce-scatter"]["wire_bytes"] > 0.5 * whole
    least = bounds(one, V5E)
    assert least is not None and 0 < least.arithmetic <= least.seconds
    plan.write(facts, V5E, tmp_path / "out")
    (record,) = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert record["peak_bytes"] == one.memory.peak and record["does_not_fit"] == ""
    assert "chip-hours for 100 calls" in (tmp_path / "out" / "plan.md").read_text()


@needs_libtpu
def test_moments_in_the_hosts_memory_are_none_of_the_chips_arguments(two_layers: ConfigDict) -> None:
    two_layers.optimizer.offload = True
    one = compile_program("sft", two_layers, V5E, tokens=512, patches=256)
    assert one.offloaded == 2 * one.parts["parameters"] and one.parts["optimizer"] < 1000
    assert one.memory is not None
    assert one.memory.arguments < 1.05 * sum(one.parts.values())


@needs_libtpu
def test_long_sequences_compile_with_splash(two_layers: ConfigDict) -> None:
    """One sequence of 4,096 tokens a chip: forward, and both halves of the backward pass, in every layer."""
    two_layers.model.attention = "splash"
    two_layers.data.buckets = ((4096, 1024),)
    two_layers.update(batch_size=4)
    one = compile_program("sft", two_layers, V5E, tokens=4096, patches=1024)
    assert verdict(one, V5E) == ""
    # the policy "mlp" keeps what attention leaves in the language model, and redoes the one vision layer
    assert one.opaque == {"tpu_custom_call": 2 * 3 + 4}


@needs_libtpu
def test_what_does_not_fit_says_so(two_layers: ConfigDict) -> None:
    two_layers.model.remat = "none"
    two_layers.update(batch_size=512)
    one = compile_program("sft", two_layers, V5E, tokens=512, patches=256)
    assert one.memory is None and "GiB of memory a chip, which has 15.75GiB" in verdict(one, V5E)
    with pytest.raises(plan.DoesNotFit, match=r"sft 512 tokens.*needs \d"):
        plan.check([one], V5E)


def test_simulated_devices_need_no_libtpu(tmp_path: Path) -> None:
    """A whole GRPO step, from the config alone."""
    config = grpo.get_config("tiny")
    config.model.arch = "tiny"
    config.data.buckets = ((64, 16),)
    config.rollout.update(group_size=2, max_new_tokens=6)
    config.update(batch_size=16, accumulation=2)
    topology = parse_topology("cpu:8", 1)
    facts = list(plan.plan(config, topology, recipe_programs(config)))
    reshard, rollout, score, update = facts
    assert [one.program.split()[:2] for one in facts] == [
        ["grpo", "reshard"],
        ["rollout", "of"],
        ["grpo", "score"],
        ["grpo", "update"],
    ]
    assert update.mesh == {"replica": 1, "fsdp": 8, "tensor": 1} and update.runs == config.steps
    assert rollout.mesh == {"replica": 8, "fsdp": 1, "tensor": 1}
    assert (
        0.9 < update.flops_ratio < 1.3 and 0.9 <= rollout.flops_ratio < 1.2 and 0.9 < score.flops_ratio < 1.1
    )
    assert update.traffic["reduce-scatter"]["times"] > 0
    # whole weights on each device: only the loop's end is agreed on
    assert rollout.total("wire_bytes") < 10_000 and reshard.total("wire_bytes") > 0
    assert rollout.resident.keys() == {"parameters", "optimizer", "reference"}
    assert update.resident == {"reference": update.parts["parameters"]}
    assert bounds(update, topology) is None and verdict(update, topology) == ""
    plan.write(facts, topology, tmp_path)
    text = (tmp_path / "plan.md").read_text()
    assert "rollout of 32 x 6" in text and "lower bound" in text


def test_the_process_reward_model_trains_and_judges() -> None:
    config = process_reward.get_config("tiny")
    config.model.arch = "tiny"
    config.model.lora.rank = 16
    config.data.buckets = ((64, 16),)
    config.update(batch_size=16)
    training, verdicts = plan.plan(config, parse_topology("cpu:8", 1), recipe_programs(config))
    assert training.runs == config.steps
    assert 1.0 < training.flops_ratio < 1.6  # the head, a third of this model, is redone in the backward pass
    assert 1.0 <= verdicts.flops_ratio < 1.1 and verdicts.tokens == 32 * 64
    assert training.parts["optimizer"] < training.parts["parameters"]  # adapters and head alone


def test_a_recipe_says_which_programs_it_has() -> None:
    assert recipe_programs(sft.get_config("tiny")) == ("sft",)
    config = grpo.get_config("qwen2_vl_7b")
    config.objective.kl_weight = 0.0
    assert recipe_programs(config) == ("reshard", "rollout", "grpo")
    config.rewards.process.function = "learned:DIR"
    config.rollout.tensor = 0
    assert recipe_programs(config) == ("rollout", "verdicts", "grpo")
    with pytest.raises(PlanError, match=r"--program=score: .* compiles only rollout, verdicts, grpo"):
        build("score", config, [], 64, 16)


def test_a_mesh_that_does_not_fit_is_the_users_to_mend() -> None:
    config = sft.get_config("tiny")
    config.mesh.fsdp = 3
    with pytest.raises(CompileError, match="does not fit 8 devices"):
        compile_program("sft", config, parse_topology("cpu:8", 1), tokens=64, patches=16)


def test_an_attention_that_the_devices_lack_is_told(tmp_path: Path) -> None:
    config = sft.get_config("tiny")
    config.model.attention = "splash"
    with pytest.raises(CompileError, match=r"config.model.attention=splash runs on TPUs, .* are CPUs"):
        compile_program("sft", config, parse_topology("cpu:8", 1), tokens=64, patches=16)


def test_candidates_divide_chips_batch_and_heads() -> None:
    config = sft.get_config("qwen2_vl_7b")
    found = list(candidates(config, parse_topology("v5e:8x8", 1)))
    assert {c["accumulation"] for c in found if c["mesh.tensor"] == 1} == {1, 2}  # 128 rows over 64 chips
    assert {c["mesh.tensor"] for c in found} == {1, 2, 4}
    two = list(candidates(config, parse_topology("v5e:8x8", 2)))
    assert {c["mesh.replica"] for c in two} == {2} and {
        c["accumulation"] for c in two if c["mesh.tensor"] == 1
    } == {1}


def test_search_proposes_the_lowest_bound_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.planning.test_facts import some_facts

    def compiled(name, config, topology, *, tokens, patches):
        peak = {"mlp": 20, "minimal": 12, "full": 6}[config.model.remat] * GIB
        flops = {"mlp": 1.1, "minimal": 1.2, "full": 1.3}[config.model.remat] * config.mesh.tensor * 1e14
        return some_facts(temporaries=peak, compiled_flops=int(flops))

    monkeypatch.setattr(plan, "compile_program", compiled)
    facts, changes = plan.search(
        sft.get_config("qwen2_vl_7b"), parse_topology("v5e:8x8", 1), "sft", 1024, 1024
    )
    assert (changes["model.remat"], changes["mesh.tensor"]) == ("minimal", 1)
    assert len(facts) > 6 and "model.remat=full" in " ".join(one.program for one in facts)
