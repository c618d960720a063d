"""The plan and the pipeline: deterministic, fair, sharded without loss, resumable, and loud."""

import dataclasses
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestx_jax.data.example import Bucket, BucketError
from chestx_jax.data.pipeline import Pipeline, PipelineError, Source, measure, ordered_batches
from chestx_jax.data.plan import PlanError, plan_batches
from chestx_jax.data.processor import Processor
from tests.data.makers import SIZE, make_processor_dir, make_sample

BUCKETS = (Bucket(120, 16), Bucket(220, 32))


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return Processor.from_pretrained(
        make_processor_dir(tmp_path_factory.mktemp("processor")), image_size=SIZE
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    short = [make_sample(root, f"short{i}", images=i % 3) for i in range(7)]
    long = [make_sample(root, f"long{i}", images=1, steps=1 + i % 4) for i in range(5)]
    return Source("short.jsonl", short, "answer", 0.7), Source("long.jsonl", long, "reason", 0.3)


def make(sources, processor, **changes):
    values = dict(buckets=BUCKETS, batch_size=4, steps=12, seed=3, read_threads=2)
    return Pipeline(sources, processor, **{**values, **changes})


def equal(left, right):
    assert left.ids == right.ids
    for name in left.arrays.keys() | right.arrays.keys():
        np.testing.assert_array_equal(left.arrays[name], right.arrays[name])


# --------------------------------------------------------------------------------------------------- plan


datasets_strategy = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=4)


@settings(deadline=None)
@given(datasets_strategy, st.integers(1, 5), st.integers(1, 12), st.integers(0, 9), st.data())
def test_a_longer_plan_begins_with_the_shorter_one(datasets, batch_size, steps, seed, data):
    buckets = [np.array(dataset) for dataset in datasets]
    weights = data.draw(st.lists(st.floats(0.01, 5), min_size=len(buckets), max_size=len(buckets)))
    kwargs = dict(batch_size=batch_size, seed=seed)
    short = plan_batches(buckets, weights, steps=steps, **kwargs)
    long = plan_batches(buckets, weights, steps=steps + 7, **kwargs)
    for field in dataclasses.fields(short):
        np.testing.assert_array_equal(getattr(long, field.name)[:steps], getattr(short, field.name))
    assert short.dataset.shape == (steps, batch_size)
    for step in range(steps):  # all rows of a batch fall into its bucket
        rows = zip(short.dataset[step], short.sample[step], strict=True)
        assert {buckets[d][s] for d, s in rows} == {short.bucket[step]}


@given(st.sampled_from([1, 2, 4]), st.integers(0, 5))
def test_shards_are_disjoint_and_together_the_whole(count, seed):
    buckets = [np.arange(50) % 3, np.arange(20) % 2]
    plan = plan_batches(buckets, [1, 1], batch_size=8, steps=20, seed=seed)
    shards = [plan.shard(index, count) for index in range(count)]
    np.testing.assert_array_equal(np.concatenate([s.sample for s in shards], axis=1), plan.sample)
    np.testing.assert_array_equal(np.concatenate([s.dataset for s in shards], axis=1), plan.dataset)
    for shard in shards:
        assert shard.sample.shape == (20, 8 // count)
        np.testing.assert_array_equal(shard.bucket, plan.bucket)


def test_every_epoch_holds_every_sample_once_and_is_shuffled_anew():
    plan = plan_batches([np.zeros(6, int)], [1.0], batch_size=6, steps=50, seed=0)
    assert (np.sort(plan.sample, axis=1) == np.arange(6)).all()
    assert len(np.unique(plan.sample, axis=0)) > 30


def test_mixture_proportions():
    weights = np.array([0.3, 0.2, 0.0, 0.5])
    buckets = [np.arange(n) % 2 for n in (1000, 10, 0, 300)]
    plan = plan_batches(buckets, weights, batch_size=64, steps=500, seed=1)
    shares = np.bincount(plan.dataset.ravel(), minlength=4) / plan.dataset.size
    np.testing.assert_allclose(shares, weights, atol=0.01)  # five standard deviations
    other = plan_batches(buckets, weights, batch_size=64, steps=500, seed=2)
    assert (plan.dataset != other.dataset).any()


def test_samples_wait_for_a_full_batch_of_their_bucket():
    """One sample in 20 is large: it neither starves nor comes in a batch of small ones."""
    plan = plan_batches([(np.arange(100) % 20 == 0).astype(int)], [1.0], batch_size=4, steps=250, seed=0)
    assert 8 <= (plan.bucket == 1).sum() <= 13  # 1000 draws hold 50 large ones: 12 batches


@pytest.mark.parametrize(
    ("buckets", "weights", "changes", "message"),
    [
        ([[0]], [1.0, 1.0], {}, r"1 data set\(s\), but 2 weight"),
        ([[0], []], [1.0, 0.5], {}, "data set 1: weight 0.5, but no samples"),
        ([[0]], [-1.0], {}, "data set 0: weight -1.0"),
        ([[0]], [float("nan")], {}, "data set 0: weight nan"),
        ([[0]], [0.0], {}, "every data set has weight 0"),
        ([[0]], [1.0], {"steps": 0}, "must be at least 1"),
    ],
)
def test_impossible_plans(buckets, weights, changes, message):
    kwargs = {"batch_size": 2, "steps": 3, "seed": 0, **changes}
    with pytest.raises(PlanError, match=message):
        plan_batches([np.array(b, int) for b in buckets], weights, **kwargs)


# ----------------------------------------------------------------------------------------------- pipeline


def test_batches_have_the_shape_of_a_bucket_and_name_their_samples(sources, processor):
    by_id = {s.id: (source, s) for source in sources for s in source.samples}
    shapes = set()
    for batch in make(sources, processor):
        tokens, patches = batch.arrays["tokens"].shape[1], batch.arrays["patches"].shape[1]
        shapes.add(Bucket(tokens, patches))
        assert len(batch.ids) == 4 and batch.row_mask.all()
        for row, (name, sample) in enumerate(zip(batch.ids, batch.samples, strict=True)):
            source, expected = by_id[name]
            assert sample == expected
            example = processor(sample, mode=source.mode, target=True)
            length = example.num_tokens
            np.testing.assert_array_equal(batch.arrays["tokens"][row, :length], example.tokens)
            np.testing.assert_array_equal(batch.arrays["loss_mask"][row, :length], example.loss_mask)
            np.testing.assert_array_equal(
                batch.arrays["patches"][row, : example.num_patches], example.patches
            )
            assert not batch.arrays["segments"][row, length:].any()
    assert shapes == set(BUCKETS)


def test_it_ends_after_its_steps(sources, processor):
    pipeline = make(sources, processor, steps=5)
    assert len(pipeline) == 5 and len(list(pipeline)) == 5
    assert list(pipeline) == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_together_read_the_single_stream(sources, processor, count):
    single = list(make(sources, processor, steps=6))
    streams = [
        list(make(sources, processor, steps=6, process_index=i, process_count=count)) for i in range(count)
    ]
    for step, whole in enumerate(single):
        parts = [stream[step] for stream in streams]
        assert sum((part.ids for part in parts), ()) == whole.ids
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(np.concatenate([part.arrays[name] for part in parts]), array)


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_threads_do_not_change_the_stream(sources, processor, threads):
    for left, right in zip(
        make(sources, processor), make(sources, processor, read_threads=threads), strict=True
    ):
        equal(left, right)


def test_worker_processes_give_the_same_stream_and_the_same_errors(processor, tmp_path):
    samples = [make_sample(tmp_path, f"s{i}") for i in range(8)]
    mixture = [Source("workers.jsonl", samples, "answer")]
    alone = list(make(mixture, processor, batch_size=2, steps=4))
    samples[samples.index(alone[3].samples[1])].image_paths[0].unlink()
    pipeline = make(mixture, processor, batch_size=2, steps=4, read_threads=1, workers=2)
    for expected in alone[:3]:
        equal(next(pipeline), expected)
    with pytest.raises(PipelineError, match=r"workers.jsonl: sample 's\d', field images\[0\], file "):
        next(pipeline)
    assert pipeline.get_state()["next_step"] == 3


@pytest.mark.parametrize("taken", [0, 1, 5, 12])
def test_a_resumed_run_is_the_unbroken_run(sources, processor, taken):
    unbroken = list(make(sources, processor))
    first = make(sources, processor)
    for _ in range(taken):
        next(first)
    state = json.loads(json.dumps(first.get_state()))  # survives JSON
    second = make(sources, processor, steps=14)  # and a longer run
    second.set_state(state)
    rest = list(second)
    assert len(rest) == 14 - taken
    for left, right in zip(unbroken[taken:], rest, strict=False):
        equal(left, right)


def test_resume_on_another_number_of_processes(sources, processor):
    unbroken = list(make(sources, processor))
    first = make(sources, processor)
    for _ in range(5):
        next(first)
    halves = [make(sources, processor, process_index=i, process_count=2) for i in range(2)]
    assert halves[0].get_state() == halves[1].get_state() == make(sources, processor).get_state()
    for half in halves:
        half.set_state(first.get_state())
    for whole, left, right in zip(unbroken[5:], *halves, strict=True):
        assert left.ids + right.ids == whole.ids


def test_a_foreign_state_is_refused_by_name(sources, processor, tmp_path):
    state = make(sources, processor).get_state()
    short, long = sources
    edited = dataclasses.replace(
        short, samples=[dataclasses.replace(short.samples[0], question="Other?"), *short.samples[1:]]
    )
    reweighted = dataclasses.replace(short, weight=0.5)
    other_dir = tmp_path / "processor"
    processor.save_pretrained(other_dir)
    (other_dir / "added_tokens.json").write_text("{}")
    foreign = {
        "seed": make(sources, processor, seed=4),
        "batch_size": make(sources, processor, batch_size=2),
        "buckets": make(sources, processor, buckets=[Bucket(230, 32)]),
        "target": make(sources, processor, target=False),
        "data": make([edited, long], processor),
        "weights": make([reweighted, long], processor),
        "modes": make([dataclasses.replace(short, mode="reason"), long], processor),
        "processor": make(sources, Processor.from_pretrained(other_dir, image_size=SIZE)),
        "image_size": make(
            sources, dataclasses.replace(processor, image_size=84), buckets=[Bucket(260, 4 * 18)]
        ),
    }
    for name, pipeline in foreign.items():
        with pytest.raises(PipelineError, match="belongs to another run") as error:
            pipeline.set_state(state)
        named = str(error.value).split("run: ")[1].split("; ")
        expected = {name} | ({"buckets"} if name == "image_size" else set())
        assert {part.split(" ")[0] for part in named} == expected
    with pytest.raises(PipelineError, match="version"):
        make(sources, processor).set_state({"next_index": 3})
    with pytest.raises(PipelineError, match="step 13 of 12"):
        make(sources, processor).set_state({**state, "next_step": 13})


def test_a_refused_state_leaves_the_pipeline_as_it_was(sources, processor):
    pipeline = make(sources, processor)
    expected = [b.ids for b in make(sources, processor)]
    taken = [next(pipeline).ids]
    with pytest.raises(PipelineError):
        pipeline.set_state(make(sources, processor, seed=9).get_state())
    assert taken + [b.ids for b in pipeline] == expected


def test_samples_that_moved_are_the_same_data(sources, processor, tmp_path):
    state = make(sources, processor).get_state()
    moved = [
        dataclasses.replace(s, samples=[dataclasses.replace(x, root=tmp_path) for x in s.samples])
        for s in sources
    ]
    make(moved, processor).set_state(state)


@pytest.mark.parametrize("threads", [0, 3])
def test_a_broken_image_stops_the_consumer_with_its_name(processor, tmp_path, threads):
    samples = [make_sample(tmp_path, f"s{i}") for i in range(8)]
    path = samples[5].image_paths[0]
    path.write_bytes(path.read_bytes()[:300])
    broken = Source("broken.jsonl", samples, "answer")
    pipeline = make([broken], processor, batch_size=2, steps=4, read_threads=threads)
    message = r"broken.jsonl: sample 's5', field images\[0\], file .*s5-0.png"
    good = []
    with pytest.raises(PipelineError, match=message):
        for batch in pipeline:
            good.append(batch)
    assert all("s5" not in batch.ids for batch in good)
    state = pipeline.get_state()
    assert state["next_step"] == len(good)
    with pytest.raises(PipelineError, match=message):  # asked again, it does not skip the batch
        next(pipeline)
    make_sample(tmp_path, "s5")  # mended
    assert len(good) + len(list(pipeline)) == 4
    pipeline.close()


def test_no_threads_are_left_behind(sources, processor):
    before = threading.active_count()
    for _ in range(3):
        pipeline = make(sources, processor, read_threads=4)
        next(pipeline)
        pipeline.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_samples_too_long_for_every_bucket(sources, processor):
    message = (
        r"long.jsonl: \d of 5 samples fit no bucket; sample 'long3' has \d+ tokens and 16 patches "
        r"\(1 x 56 px\), the largest bucket holds 120 tokens and 32 patches"
    )
    with pytest.raises(PipelineError, match=message):
        make(sources, processor, buckets=[Bucket(120, 32)])
    with pytest.raises(
        PipelineError, match=r"32 patches \(2 x 56 px\), the largest bucket holds .* 16 patches"
    ):
        make(sources, processor, buckets=[Bucket(500, 16)])
    with pytest.raises(BucketError, match="no buckets"):
        make(sources, processor, buckets=[])


def test_batch_size_must_divide_among_processes(sources, processor):
    with pytest.raises(PlanError, match="batch_size 4 cannot be divided evenly among 3 processes"):
        make(sources, processor, process_count=3)
    with pytest.raises(PlanError, match="process 2 of 2"):
        make(sources, processor, process_count=2, process_index=2)


def test_a_sample_without_reasoning_is_refused_up_front(processor, tmp_path):
    samples = [make_sample(tmp_path, "dry", steps=0)]
    with pytest.raises(PipelineError, match=r"dry.jsonl: sample 'dry': field 'reason_steps'"):
        make([Source("dry.jsonl", samples, "reason")], processor)


def test_prompts_for_generation(sources, processor):
    for batch in make(sources, processor, target=False, steps=3):
        assert not batch.arrays["loss_mask"].any()
        for tokens, segments in zip(batch.arrays["tokens"], batch.arrays["segments"], strict=True):
            assert processor.decode(tokens[segments == 1]).endswith("assistant\n")


# ---------------------------------------------------------------------------------------- ordered batches


@pytest.mark.parametrize("count", [1, 2])
def test_ordered_batches_hold_every_sample_once(sources, processor, count):
    kwargs = dict(buckets=BUCKETS, batch_size=4, target=True, process_count=count)
    streams = [
        list(ordered_batches(sources[0], processor, process_index=index, **kwargs)) for index in range(count)
    ]
    assert len({len(stream) for stream in streams}) == 1
    ids = [name for stream in streams for batch in stream for name in batch.ids]
    assert sorted(ids) == sorted(s.id for s in sources[0].samples)
    for batch in (batch for stream in streams for batch in stream):
        assert batch.row_mask.shape == (4 // count,) and batch.row_mask.sum() == len(batch.ids)
        np.testing.assert_array_equal(batch.arrays["loss_mask"].any(1), batch.row_mask)
        lengths = batch.arrays["segments"].sum(1)
        assert (lengths > 0).all() and (np.diff(lengths) <= 0).all()


def test_ordered_batches_of_grey_images(sources, processor):
    batches = list(
        ordered_batches(sources[1], processor, buckets=BUCKETS, batch_size=4, target=False, blank_images=True)
    )
    for batch in batches:
        real = batch.arrays["patch_segments"] > 0
        assert len(np.unique(batch.arrays["patches"][real])) == 3  # one value a channel


def test_ordered_batches_stop_at_a_broken_image(processor, tmp_path):
    samples = [make_sample(tmp_path, f"s{i}") for i in range(3)]
    samples[1].image_paths[0].unlink()
    with pytest.raises(PipelineError, match=r"gone.jsonl: sample 's1', field images\[0\]"):
        list(
            ordered_batches(
                Source("gone.jsonl", samples, "answer"), processor, buckets=BUCKETS, batch_size=2, target=True
            )
        )


def test_sizes_of_nothing(processor):
    sizes = measure(Source("empty.jsonl", [], "answer"), processor, BUCKETS, target=True)
    assert len(sizes.bucket) == 0
