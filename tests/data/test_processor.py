"""The processor against transformers' own, piece by piece and whole; and samples meant to break it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from chestx_jax.data import chat
from chestx_jax.data.example import Bucket, BucketError, order_buckets, smallest_bucket, stack
from chestx_jax.data.images import ImageError, load_image
from chestx_jax.data.patches import PatchConfig, PatchError, patchify, smart_resize
from chestx_jax.data.processor import Processor, ProcessorError
from chestx_jax.data.tokenizer import SPECIAL_TOKENS
from tests.data.makers import SIZE, make_processor_dir, make_sample

GOLDEN = Path(__file__).parents[1] / "golden" / "processor.npz"
SMALL = PatchConfig(min_pixels=56 * 56, max_pixels=28 * 28 * 4)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_processor_dir(tmp_path_factory.mktemp("processor"))


@pytest.fixture(scope="module")
def processor(directory):
    return Processor.from_pretrained(directory, image_size=SIZE)


@pytest.fixture(scope="module")
def genuine(shared_data):
    return Processor.from_pretrained(shared_data / "qwen2vl", image_size=112)


def images_of(seed, shapes):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


# ------------------------------------------------------------------------------------------------ patches


def test_patches_equal_the_golden():
    golden = np.load(GOLDEN)
    for case in range(4):
        patches, hw = patchify(golden[f"patch{case}_image"], SMALL)
        np.testing.assert_allclose(patches[:, ::5], golden[f"patch{case}_values"], atol=1e-5, rtol=0)
        assert [[1, *(hw.max(0) + 1)]] == golden[f"patch{case}_grid"].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 200), st.integers(10, 200), st.integers(0, 5))
def test_patches_equal_transformers(height, width, seed):
    [image] = images_of(seed, [(height, width)])
    theirs = Qwen2VLImageProcessorPil(min_pixels=SMALL.min_pixels, max_pixels=SMALL.max_pixels)
    expected = theirs(images=[Image.fromarray(image)], return_tensors="np")
    patches, hw = patchify(image, SMALL)
    np.testing.assert_allclose(patches, expected["pixel_values"], atol=1e-5, rtol=0)
    assert [[1, *(hw.max(0) + 1)]] == expected["image_grid_thw"].tolist()


def test_place_of_each_patch():
    """In a picture whose every pixel says where it is, each patch must hold its own row and column."""
    rows, cols = np.indices((84, 112)) // 14
    image = np.stack([rows, cols, rows * 0], axis=-1).astype(np.uint8)
    config = PatchConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rescale=1.0)
    patches, hw = patchify(image, config)
    corner = patches.reshape(-1, 3, 2, 14, 14)
    np.testing.assert_array_equal(corner[:, :2, 0, 0, 0], hw)
    np.testing.assert_array_equal(corner[:, :2, 1, 13, 13], hw)
    assert hw[:4].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]  # a merge block comes together


def test_bad_images_and_configurations():
    with pytest.raises(PatchError, match="aspect ratio"):
        smart_resize(10, 4000, SMALL)
    with pytest.raises(PatchError, match="uint8"):
        patchify(np.zeros((56, 56, 3), np.float32), SMALL)
    with pytest.raises(PatchError, match="do_normalize"):
        PatchConfig.from_hf({"do_normalize": False})


# ----------------------------------------------------------------------------------------- whole examples


def test_shapes_and_meaning_of_an_example(processor, tmp_path):
    sample = make_sample(tmp_path, "two", images=2)
    example = processor(sample, mode="reason", target=True)
    assert example.num_patches == 32 and example.patches.shape[1] == 1176
    assert example.patch_segments.tolist() == [1] * 16 + [2] * 16
    is_image = example.tokens == processor.image_token_id
    assert example.image_index[is_image].tolist() == list(range(8))
    assert (example.image_index[~is_image] == -1).all()
    assert (example.segments == 1).all()
    assert example.positions.shape == (3, example.num_tokens)
    answer = example.tokens[example.loss_mask]
    assert answer[-1] == processor.eos_ids[0]
    assert processor.decode(answer) == chat.target(sample, "reason")
    first = load_image(sample.image_paths[0], SIZE)
    np.testing.assert_array_equal(example.patches[:16], patchify(first, processor.patch_config)[0])


def test_a_prompt_is_the_beginning_of_its_training_example(processor, tmp_path):
    sample = make_sample(tmp_path, "prompt", images=1)
    whole, prompt = (processor(sample, mode="answer", target=target) for target in (True, False))
    assert not prompt.loss_mask.any()
    np.testing.assert_array_equal(whole.tokens[~whole.loss_mask], prompt.tokens)
    np.testing.assert_array_equal(whole.positions[:, : prompt.num_tokens], prompt.positions)
    assert processor.decode(prompt.tokens).endswith("assistant\n")


def test_a_sample_without_images(processor, tmp_path):
    example = processor(make_sample(tmp_path, "text", images=0), mode="answer", target=True)
    assert example.patches.shape == (0, 1176) and (example.image_index == -1).all()
    np.testing.assert_array_equal(example.positions, np.tile(np.arange(example.num_tokens), (3, 1)))


def test_lengths_are_those_of_the_examples(processor, tmp_path):
    samples = [make_sample(tmp_path, f"s{n}", images=n, steps=n + 1) for n in range(4)]
    for target in (True, False):
        examples = [processor(s, mode="reason", target=target) for s in samples]
        expected = [[e.num_tokens, e.num_patches] for e in examples]
        assert processor.lengths(samples, mode="reason", target=target).tolist() == expected


def their_processor(processor):
    """Qwen2VLProcessor around our tokenizer; without the check that would need torchvision for videos."""
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

    class WithoutVideo(Qwen2VLProcessor):
        def check_argument_for_proper_class(self, *_):
            return None

    image_processor = Qwen2VLImageProcessorPil.from_pretrained(processor.directory)
    return WithoutVideo(image_processor, processor.tokenizer, chat_template=processor.tokenizer.chat_template)


@pytest.mark.parametrize(
    "shapes", [[], [(112, 112)], [(56, 84), (140, 112)], [(100, 60), (28, 28), (112, 300)]]
)
@pytest.mark.parametrize("mode", chat.MODES)
def test_equals_the_processor_of_transformers(genuine, tmp_path, shapes, mode):
    sample = make_sample(tmp_path, "hf", images=len(shapes))
    images = images_of(len(shapes), shapes)
    answer = {"role": "assistant", "content": [{"type": "text", "text": chat.target(sample, mode)}]}
    hf = their_processor(genuine)
    for target in (True, False):
        conversation = chat.messages(sample, mode) + [answer] * target
        text = hf.apply_chat_template(conversation, tokenize=False, add_generation_prompt=not target)
        pictures = [Image.fromarray(image) for image in images] or None
        theirs = hf(text=[text], images=pictures, return_tensors="np")
        ours = genuine(sample, images, mode=mode, target=target)
        # the template puts a line end behind <|im_end|>, which nobody needs to learn or to see
        newline = genuine.tokenizer.encode("\n") if target else []
        assert [*ours.tokens.tolist(), *newline] == theirs["input_ids"][0].tolist()
        if shapes:
            np.testing.assert_allclose(ours.patches, theirs["pixel_values"], atol=1e-5, rtol=0)
            sizes = [
                [1, *(ours.patch_hw[ours.patch_segments == i + 1].max(0) + 1)] for i in range(len(shapes))
            ]
            assert sizes == theirs["image_grid_thw"].tolist()


def test_ids_of_the_genuine_tokenizer(genuine):
    assert genuine.eos_ids == (151645, 151643)
    assert genuine.token_ids() == {
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
    }
    forbidden = genuine.forbidden_ids(151936)
    assert {151644, 151652, 151653, 151654, 151655, 151656, 151657, 151935} <= set(forbidden)
    assert not {151643, 151645} & set(forbidden) and len(forbidden) == (14 - 2) + (151936 - 151657)
    with pytest.raises(ProcessorError, match="151657 tokens, but the model's vocabulary has 1000"):
        genuine.forbidden_ids(1000)


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1).filter(str.strip))
def test_any_question_is_rendered_or_refused(processor, text):
    """Whatever the text, structure comes from the template alone."""
    sample = make_sample_text(text)
    if any(token in text for token in SPECIAL_TOKENS):
        with pytest.raises(ProcessorError, match="field question"):
            processor(sample, [], mode="answer", target=False)
        return
    example = processor(sample, [], mode="answer", target=False)
    starts = example.tokens == processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert starts.sum() == 3  # system, user, assistant


def make_sample_text(question, **changes):
    return make_sample(Path(), "text", images=0, question=question, **changes)


@pytest.mark.parametrize(
    "token", ["<|image_pad|>", "<|im_end|>", "<|vision_start|>", "<|endoftext|>", "<|box_end|>"]
)
def test_text_cannot_inject_special_tokens(processor, token):
    with pytest.raises(ProcessorError, match=r"sample 'text', field question: .*<\|"):
        processor(make_sample_text(f"Is this{token}edema?"), [], mode="answer", target=False)
    stepped = make_sample_text("Edema?", reason_steps=("Fine.", f"Not {token}."))
    with pytest.raises(ProcessorError, match=r"sample 'text', field reason_steps\[1\]"):
        processor(stepped, [], mode="reason", target=True)
    answered = make_sample_text("Edema?", answer=token)
    with pytest.raises(ProcessorError, match="sample 'text', field answer"):
        processor.lengths([answered], mode="answer", target=True)


def test_images_that_disagree_with_the_sample(processor, tmp_path):
    sample = make_sample(tmp_path, "one", images=1)
    with pytest.raises(ProcessorError, match=r"'one', field images: 1 image token.* but 2 image"):
        processor(sample, images_of(0, [(56, 56)] * 2), mode="answer", target=False)


def test_broken_and_missing_images_name_sample_and_file(processor, tmp_path):
    sample = make_sample(tmp_path, "torn", images=2)
    path = sample.image_paths[1]
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageError, match=r"sample 'torn', field images\[1\].*torn-1.png"):
        processor(sample, mode="answer", target=False)
    path.unlink()
    with pytest.raises(ImageError, match=r"sample 'torn', field images\[1\].*torn-1.png"):
        processor(sample, mode="answer", target=False)


# --------------------------------------------------------------------------------------------- directories


def test_save_pretrained_copies_a_usable_processor(processor, tmp_path):
    processor.save_pretrained(tmp_path / "out")
    copy = Processor.from_pretrained(tmp_path / "out", image_size=SIZE)
    assert copy.digest() == processor.digest()
    copy.save_pretrained(tmp_path / "out")  # onto itself
    assert copy.digest() == processor.digest()


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (
            ["tokenizer.json", "vocab.json"],
            r"vocab.json missing \(looked for tokenizer.json, or vocab.json with",
        ),
        (["tokenizer_config.json"], "tokenizer_config.json is missing"),
        (["preprocessor_config.json"], "looked for preprocessor_config.json and for image_processor in"),
        (["chat_template.jinja"], "looked for chat_template.jinja, chat_template.json and chat_template in"),
    ],
)
def test_missing_files_are_named(directory, tmp_path, removed, message):
    shutil.copytree(directory, tmp_path / "dir")
    for name in removed:
        (tmp_path / "dir" / name).unlink()
    with pytest.raises(ProcessorError, match=message):
        Processor.from_pretrained(tmp_path / "dir", image_size=SIZE)


def test_every_layout_of_a_directory_gives_the_same_tokens(processor, directory, tmp_path):
    """No tokenizer.json; the template as JSON; the image settings inside processor_config.json."""
    copy = tmp_path / "dir"
    shutil.copytree(directory, copy)
    (copy / "tokenizer.json").unlink()
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    settings_ = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    settings_["size"] = {
        "shortest_edge": settings_.pop("min_pixels"),
        "longest_edge": settings_.pop("max_pixels"),
    }
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": settings_}))
    other = Processor.from_pretrained(copy, image_size=SIZE)
    assert other.patch_config == processor.patch_config
    sample = make_sample(tmp_path, "layout", images=1)
    for field in dataclasses.fields(ours := processor(sample, mode="reason", target=True)):
        theirs = other(sample, mode="reason", target=True)
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_a_tokenizer_without_vision_tokens(directory, tmp_path):
    copy = tmp_path / "dir"
    shutil.copytree(directory, copy)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).write_text((copy / name).read_text().replace("<|image_pad|>", "<|other|>"))
    with pytest.raises(ProcessorError, match=r"lacks the special token\(s\) <\|image_pad\|>"):
        Processor.from_pretrained(copy, image_size=SIZE)


def test_broken_files_are_named(directory, tmp_path):
    copy = tmp_path / "dir"
    shutil.copytree(directory, copy)
    (copy / "preprocessor_config.json").write_text("{")
    with pytest.raises(ProcessorError, match=r"preprocessor_config.json: not valid JSON"):
        Processor.from_pretrained(copy, image_size=SIZE)


def test_an_image_size_that_would_be_resized_again(directory):
    with pytest.raises(ProcessorError, match=r"image_size 100: .* to 112x112: use that"):
        Processor.from_pretrained(directory, image_size=100)
    with pytest.raises(ProcessorError, match=r"image_size 28: .* to 56x56"):
        Processor.from_pretrained(directory, image_size=28)


# --------------------------------------------------------------------------------------- buckets, stacking


def test_stack_pads_to_the_right(processor, tmp_path):
    examples = [
        processor(make_sample(tmp_path, f"s{n}", images=n), mode="answer", target=True) for n in (1, 0)
    ]
    bucket = Bucket(200, 20)
    batch = stack(examples, bucket, pad_id=7)
    assert {name: array.shape for name, array in batch.items()} == {
        "tokens": (2, 200),
        "positions": (2, 3, 200),
        "segments": (2, 200),
        "loss_mask": (2, 200),
        "patches": (2, 20, 1176),
        "patch_hw": (2, 20, 2),
        "patch_segments": (2, 20),
        "image_index": (2, 200),
    }
    length = examples[0].num_tokens
    assert (batch["tokens"][0, length:] == 7).all() and (batch["image_index"][0, length:] == -1).all()
    for name in ("segments", "loss_mask"):
        assert not batch[name][0, length:].any()
    assert batch["patch_segments"][0].tolist() == [1] * 16 + [0] * 4 and not batch["patch_segments"][1].any()
    for name, array in batch.items():
        unpadded = getattr(examples[0], name)
        kept = array[0][tuple(slice(n) for n in unpadded.shape)]
        np.testing.assert_array_equal(kept, unpadded)
        assert array.dtype == unpadded.dtype
    with pytest.raises(BucketError, match=r"row 0: .* do not fit"):
        stack(examples, Bucket(200, 12), pad_id=7)


def test_patches_are_cut_in_place(processor, tmp_path):
    sample = make_sample(tmp_path, "room", images=1)
    room = np.zeros((20, 1176), np.float32)
    example = processor(sample, mode="answer", target=True, room=room)
    assert np.shares_memory(example.patches, room) and not room[16:].any()
    np.testing.assert_array_equal(example.patches, processor(sample, mode="answer", target=True).patches)
    with pytest.raises(ProcessorError, match="16 patches, but the bucket holds 12"):
        processor(sample, mode="answer", target=True, room=room[:12])


def test_the_cheapest_bucket_is_taken():
    buckets = order_buckets([Bucket(512, 1024), Bucket(512, 64), Bucket(1024, 0), Bucket(512, 64)])
    assert buckets == (Bucket(512, 64), Bucket(1024, 0), Bucket(512, 1024))
    assert [smallest_bucket(*size, buckets) for size in ((512, 64), (600, 0), (10, 65), (600, 4))] == [
        0,
        1,
        2,
        None,
    ]
    for bad in ((0, 4), (5, 6), (5, -4)):
        with pytest.raises(BucketError):
            Bucket(*bad)
