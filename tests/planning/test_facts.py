"""Sums, bounds and tables from plain numbers; names of topologies; the textbook's operations."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from chestx_jax.models.qwen2_vl import TINY, Qwen2VL
from chestx_jax.models.qwen2_vl.flops import forward_flops, update_flops
from chestx_jax.parallel.chips import chips
from chestx_jax.planning.facts import Facts, Memory, bounds, facts_from_dict, verdict
from chestx_jax.planning.hlo import parse
from chestx_jax.planning.report import markdown, summary, whole_run
from chestx_jax.planning.textbook import Passes, groups_flops, rows_flops
from chestx_jax.planning.topology import GIB, TopologyError, parse_topology
from chestx_jax.planning.work import matmul_flops
from chestx_jax.planning.worker import out_of_memory

V5E = parse_topology("v5e:8x8", 1)


def some_facts(temporaries: int = GIB, compiled_flops: int = 197 * 10**12, **changes: Any) -> Facts:
    fields: dict[str, Any] = dict(
        program="sft",
        bucket="1024 tokens, 1024 patches",
        topology="v5e:8x8",
        chips=64,
        mesh={"replica": 1, "fsdp": 64, "tensor": 1},
        problem="",
        memory=Memory(arguments=2 * GIB, outputs=2 * GIB, temporaries=temporaries, aliased=2 * GIB, code=0),
        parts={"parameters": GIB, "optimizer": GIB},
        resident={},
        offloaded=0,
        model_flops=64 * 180e12,
        compiled_flops=compiled_flops,
        traffic={
            "all-gather": dict(times=2, result_bytes=31 * 10**9, wire_bytes=30 * 10**9, dcn_bytes=0),
            "reduce-scatter": dict(times=1, result_bytes=10**9, wire_bytes=15 * 10**9, dcn_bytes=5 * 10**9),
        },
        opaque={},
        tokens=262144,
        hbm_bytes=4 * GIB,
        runs=3600,
        compile_seconds=100.0,
        host_bytes=2 * 10**9,
    )
    return Facts(**{**fields, **changes})


def test_bounds_are_work_over_published_peaks() -> None:
    least = bounds(some_facts(), V5E)
    assert least is not None
    assert least.arithmetic == 1.0
    assert least.interconnect == 40e9 / 200e9
    assert least.between_slices == 5e9 / 3.125e9
    assert least.memory == pytest.approx(4 * GIB / 819e9)
    assert (least.seconds, least.what) == (1.6, "between slices")


def test_peak_counts_donated_arguments_once() -> None:
    assert some_facts().memory == Memory(2 * GIB, 2 * GIB, GIB, 2 * GIB, 0)
    assert some_facts().memory.peak == 3 * GIB  # type: ignore[union-attr]
    assert verdict(some_facts(), V5E) == ""
    assert verdict(some_facts(temporaries=14 * GIB), V5E) == "needs 16.0 GiB a chip, which has 15.75 GiB"
    assert verdict(some_facts(memory=None, problem="too big"), V5E) == "too big"


def test_what_a_run_keeps_beside_a_program_needs_room_too() -> None:
    beside = some_facts(resident={"optimizer": 8 * GIB, "reference": 5 * GIB})
    assert beside.peak == 16 * GIB
    assert verdict(beside, V5E) == "needs 16.0 GiB a chip, which has 15.75 GiB"
    assert "| beside it: optimizer | 8 GiB |" in markdown([beside], V5E)


def test_a_whole_run_is_its_programs_as_often_as_it_calls_them() -> None:
    small = some_facts(bucket="small", runs=10)
    facts = [some_facts(), some_facts(runs=7200), small]
    assert whole_run(facts, V5E, "small") == pytest.approx(10 * 1.6)
    text = markdown(facts, V5E)
    # (3600 + 7200) x 1.6 s = 4.8 hours of 64 chips
    assert "all samples in 1024 tokens, 1024 patches: at least 4.8 hours, 307 chip-hours" in text
    assert whole_run([some_facts(memory=None, problem="too big")], V5E, small.bucket) is None


def test_tables_say_what_matters() -> None:
    facts = [some_facts(), some_facts(memory=None, problem="needs 17GiB of hbm a chip, which has 15.75GiB")]
    text = markdown(facts, V5E)
    assert "**fits**" in text and "**DOES NOT FIT**: needs 17GiB" in text
    assert "1.094 of the model's" in text  # 197 over 180
    assert "| chip-hours for 3,600 calls, at least | 102 |" in text  # 1.6 s x 64 chips x 3600 / 3600
    assert "163,840 (bound: between slices)" in text
    assert summary(facts, [V5E, V5E]).count("\n") == 4


def test_facts_survive_json() -> None:
    import dataclasses
    import json

    facts = some_facts()
    assert facts_from_dict(json.loads(json.dumps(dataclasses.asdict(facts)))) == facts


def test_topologies_by_name() -> None:
    assert (V5E.chips, V5E.name) == (64, "v5e:8x8")
    assert (parse_topology("v5p:4x4x4", 2).chips, parse_topology("v5p:4x4x4", 2).name) == (
        128,
        "2 x v5p:4x4x4",
    )
    assert parse_topology("cpu:8", 1).chip is None
    assert all(chip.source.startswith("https://") for chip in chips().values())
    for bad, slices in (("v5e", 1), ("h100:8", 1), ("v5e:8by8", 1), ("cpu:2x4", 1), ("cpu:8", 2)):
        with pytest.raises(TopologyError, match=bad):
            parse_topology(bad, slices)


def test_out_of_memory_in_one_line() -> None:
    late = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.20G of 15.75G hbm. Exceeded by 1.45G."
    early = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (70.69G) exceeds "
        "available HBM (15.75G)."
    )
    assert out_of_memory(late) == "needs 17.20GiB of memory a chip, which has 15.75GiB"
    assert out_of_memory(early) == "needs 70.69GiB of memory a chip, which has 15.75GiB"
    with pytest.raises(RuntimeError, match="INTERNAL"):
        out_of_memory("INTERNAL: something else")


def test_the_textbook_counts_what_a_forward_pass_compiles_to() -> None:
    """Without remat, padding or sharding the compiled products are the formula's, to the last operation."""
    model = nnx.eval_shape(lambda: Qwen2VL(TINY, rngs=nnx.Rngs(0)))
    rows, tokens, patches = 2, 24, 16
    batch = {
        "tokens": jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
        "positions": jax.ShapeDtypeStruct((rows, 3, tokens), jnp.int32),
        "segments": jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
        "patches": jax.ShapeDtypeStruct((rows, patches, 1176), jnp.float32),
        "patch_hw": jax.ShapeDtypeStruct((rows, patches, 2), jnp.int32),
        "patch_segments": jax.ShapeDtypeStruct((rows, patches), jnp.int32),
        "image_index": jax.ShapeDtypeStruct((rows, tokens), jnp.int32),
    }
    text = jax.jit(Qwen2VL.__call__).lower(model, batch).compile().as_text()
    assert matmul_flops(parse(text)) == forward_flops(TINY, rows, tokens, patches)
    assert update_flops(TINY, rows, tokens, patches) == 3 * forward_flops(TINY, rows, tokens, patches)


@pytest.mark.parametrize(
    ("paths", "tied", "expected"),
    [
        (
            ("vision.merger.fc1.kernel", "text.layers.mlp.up_proj.kernel", "lm_head.kernel"),
            False,
            Passes(3, 3, 3),
        ),
        # adapters of the language model: no gradient for frozen kernels, none at all for what lies before them
        (("text.layers.attn.q_proj.lora_a", "step_head.kernel"), False, Passes(1, 2, 2)),
        (("text.layers.mlp.up_proj.kernel", "text.embed.embedding"), True, Passes(1, 3, 3)),
        (("step_head.kernel",), False, Passes(1, 1, 1)),
    ],
)
def test_what_learns_says_how_often_a_pass_is_paid(
    paths: tuple[str, ...], tied: bool, expected: Passes
) -> None:
    nested: dict[str, Any] = {}
    for path in paths:
        *above, last = path.split(".")
        at = nested
        for name in above:
            at = at.setdefault(name, {})
        at[last] = 0.0
    assert Passes.of(nested, tied) == expected


def test_a_group_pays_for_its_prompt_once() -> None:
    full, one = Passes(3, 3, 3), Passes()
    assert rows_flops(TINY, full, 2, 24, 16) == update_flops(TINY, 2, 24, 16)
    once = groups_flops(TINY, one, 1, 1, 24, 16, 8)
    four = groups_flops(TINY, one, 1, 4, 24, 16, 8)
    alone = groups_flops(TINY, one, 1, 0, 24, 16, 8)
    assert four - alone == pytest.approx(4 * (once - alone))
    assert groups_flops(TINY, full, 3, 4, 24, 16, 8) == pytest.approx(9 * four)
