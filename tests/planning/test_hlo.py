"""The reader of compiled programs, on snippets in the words of XLA for TPU."""

from pathlib import Path

import numpy as np
import pytest

from chestx_jax.planning.hlo import HloError, executions, parse, replica_groups
from chestx_jax.planning.work import collectives, matmul_flops

SNIPPETS = Path(__file__).parent / "snippets"
SCAN = (SNIPPETS / "scan.hlo").read_text()
EXCHANGE = (SNIPPETS / "collectives.hlo").read_text()


def test_a_loop_counts_as_often_as_it_runs() -> None:
    counts = executions(parse(SCAN))
    assert counts == {"main": 1, "body": 3, "fused_dot": 3}
    assert matmul_flops(parse(SCAN)) == 3 * 2 * 8 * 16 * 32


def test_a_counter_may_grow_by_two() -> None:
    by_two = SCAN.replace(
        "%constant.2 = s32[]{:T(128)} constant(1)", "%constant.2 = s32[]{:T(128)} constant(2)"
    )
    assert executions(parse(by_two))["body"] == 2


def test_a_count_that_xla_noted_is_taken() -> None:
    noted = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    assert executions(parse(SCAN.replace("body=%body", noted)))["body"] == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("direction=LT", "direction=NE", r"while\.1: its condition has the bounds \[\]"),
        ("add(%copy.1, %constant.2)", "multiply(%copy.1, %constant.2)", "grows by multiply"),
    ],
)
def test_a_loop_without_a_readable_bound_is_an_error(old: str, new: str, message: str) -> None:
    with pytest.raises(HloError, match=message):
        executions(parse(SCAN.replace(old, new)))


def convolution(result: str, left: str, right: str, attributes: str) -> int:
    text = f"""HloModule m

ENTRY %main (p0: {left}, p1: {right}) -> {result} {{
  %p0 = {left}{{0}} parameter(0)
  %p1 = {right}{{0}} parameter(1)
  ROOT %convolution.1 = {result}{{0}} convolution(%p0, %p1), {attributes}
}}
"""
    return matmul_flops(parse(text))


@pytest.mark.parametrize(
    ("result", "left", "right", "attributes", "expected"),
    [
        # a plain product [8,16] x [16,32]
        ("f32[8,32]", "bf16[8,16]", "bf16[16,32]", "dim_labels=bf_io->bf", 2 * 8 * 16 * 32),
        # 4 x 6 products [5,7] x [7,9], batched as a dilated window that meets one input a position
        (
            "f32[4,6,5,9]",
            "bf16[4,6,5,7]",
            "bf16[4,6,9,7]",
            "window={size=4x6 stride=3x5 lhs_dilate=4x6}, dim_labels=01bf_01oi->01bf",
            2 * 4 * 6 * 5 * 7 * 9,
        ),
        # a contraction spread over a window dimension: [8,2x16] x [2x16,32]
        (
            "f32[8,32,1]",
            "bf16[8,2,16]",
            "bf16[2,16,32]",
            "window={size=2}, dim_labels=b0f_0io->bf0",
            2 * 8 * 32 * 32,
        ),
        # two halves of the result, by padding: each meets one of the kernel's two positions
        (
            "bf16[8,2,32]",
            "bf16[8,16,1]",
            "bf16[16,2,32]",
            "window={size=2 pad=1_1 rhs_reversal=1}, dim_labels=bf0_i0o->b0f",
            2 * 2 * 8 * 16 * 32,
        ),
    ],
)
def test_products_written_as_convolutions(
    result: str, left: str, right: str, attributes: str, expected: int
) -> None:
    assert convolution(result, left, right, attributes) == expected


def test_collectives_by_kind_and_bytes() -> None:
    found = {c.kind: c for c in collectives(parse(EXCHANGE), partitions_per_slice=8)}
    whole = 64 * 128 * 2
    # the fused all-reduce and slice is a reduce-scatter over four: receives 3/4, keeps 1/4
    assert (found["reduce-scatter"].wire_bytes, found["reduce-scatter"].result_bytes) == (
        whole * 3 // 4,
        whole // 4,
    )
    # the gather's copies in later fusions are the same gather
    assert (found["all-gather"].wire_bytes, found["all-gather"].result_bytes) == (whole * 7 // 8, whole)
    assert found["all-gather"].times == 1
    # two operands of 400 bytes, over pairs: twice a half
    assert (found["all-reduce"].wire_bytes, found["all-reduce"].result_bytes) == (800, 800)
    assert found["collective-permute"].wire_bytes == 400
    assert len(found) == len(collectives(parse(EXCHANGE), 8))  # a group of one exchanges nothing


def test_what_crosses_slices() -> None:
    found = {c.kind: c.across_slices for c in collectives(parse(EXCHANGE), partitions_per_slice=4)}
    assert found == {
        "reduce-scatter": False,
        "all-gather": True,
        "all-reduce": True,
        "collective-permute": False,
    }


def test_sums_over_slices_go_through_the_host() -> None:
    text = """HloModule m

ENTRY %main (p0: f32[128,512]) -> f32[128,512] {
  %p0 = f32[128,512]{1,0:T(8,128)} parameter(0)
  %after-all = token[] after-all()
  %send = (f32[128,512]{1,0:T(8,128)}, u32[], token[]) send(%p0, %after-all), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[128,512]{1,0:T(8,128)}, u32[], token[]) recv(%after-all), channel_id=1, is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv-done = (f32[128,512]{1,0:T(8,128)}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  ROOT %get-tuple-element = f32[128,512]{1,0:T(8,128)} get-tuple-element(%recv-done), index=0
}
"""
    (crossing,) = collectives(parse(text), partitions_per_slice=4)
    assert (crossing.kind, crossing.across_slices) == ("between slices", True)
    assert crossing.wire_bytes == 128 * 512 * 4


def test_three_ways_to_write_groups() -> None:
    module = parse(EXCHANGE)
    groups = {
        i.name: replica_groups(i).tolist()
        for c in module.computations.values()
        for i in c.instructions.values()
        if "replica_groups" in i.attributes
    }
    assert groups["all-reduce.1"] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups["all-reduce.2"] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert groups["all-gather.1"] == [list(range(8))]
    mesh = parse(EXCHANGE.replace("mesh['axis_0'=8] {'axis_0'}", "mesh['a'=2,'b'=4] {'a'}"))
    gather = mesh.computations["gather_begins"].instructions["all-gather.1"]
    np.testing.assert_array_equal(replica_groups(gather), [[0, 4], [1, 5], [2, 6], [3, 7]])


def test_a_mesh_may_list_its_devices_in_another_order() -> None:
    words = "mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'a'}"
    module = parse(EXCHANGE.replace("mesh['axis_0'=8] {'axis_0'}", words))
    gather = module.computations["gather_begins"].instructions["all-gather.1"]
    np.testing.assert_array_equal(replica_groups(gather), [[0, 1], [2, 3], [4, 5], [6, 7]])


def test_groups_in_unknown_words_are_an_error() -> None:
    module = parse(EXCHANGE.replace("replica_groups={{0,1,2,3},{4,5,6,7}}", "replica_groups=new_style"))
    with pytest.raises(HloError, match="cannot read its replica groups"):
        collectives(module, 8)


def test_no_program_is_an_error() -> None:
    with pytest.raises(HloError, match="no ENTRY"):
        parse("HloModule m\n")
