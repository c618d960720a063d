"""The small tokenizer: reproducible, lossless, laid out like Qwen2-VL's, with its words as single tokens."""

import filecmp
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from chestx_jax.data.processor import Processor, ProcessorError
from chestx_jax.data.tokenizer import SMALLEST, SPECIAL_TOKENS, TokenizerError, train_tokenizer

WORDS = ("cardiomegaly", "effusion", "pneumothorax", "consolidation", "atelectasis", "edema", "nodule")
TEXTS = [f"There is {a} and no {b}. <think> {b} </think><answer> A </answer>" for a in WORDS for b in WORDS]
CONVERSATIONS = [
    [{"role": "user", "content": [{"type": "text", "text": "no image"}]}],
    [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": " a\n\n"}]}],
    [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "  {{ braces }} <b>\n"},
        {"role": "assistant", "content": [{"type": "text", "text": "x\n"}]},
    ],
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 600, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory):
    return AutoTokenizer.from_pretrained(directory)


def test_the_same_texts_give_the_same_files(directory, tmp_path):
    train_tokenizer(TEXTS, 600, tmp_path)
    names = sorted(path.name for path in directory.iterdir())
    assert filecmp.cmpfiles(directory, tmp_path, names, shallow=False) == (names, [], [])
    assert names == [
        "chat_template.jinja",
        "merges.txt",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_words_are_single_tokens(tokenizer):
    for word in WORDS:
        assert len(tokenizer.encode(" " + word)) == 1, word


def test_size_and_special_ids(tokenizer, directory):
    assert len(tokenizer) <= 600
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(
        range(len(tokenizer) - len(SPECIAL_TOKENS), len(tokenizer))
    )
    assert [len(tokenizer.encode(token)) for token in SPECIAL_TOKENS] == [1] * len(SPECIAL_TOKENS)
    assert len(json.loads((directory / "vocab.json").read_text())) == len(tokenizer) - len(SPECIAL_TOKENS)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_survives_and_every_loader_agrees(tokenizer, directory, text):
    ids = tokenizer.encode(text)
    assert ids == _from_file(directory).encode(text).ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


def _from_file(directory, cache={}):  # noqa: B006 - read the file once
    return cache.setdefault(directory, Tokenizer.from_file(str(directory / "tokenizer.json")))


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(codec="utf-8")))
def test_text_is_cut_into_words_as_by_the_genuine_one(tokenizer, shared_data, text):
    genuine = _genuine(shared_data).backend_tokenizer
    ours = tokenizer.backend_tokenizer
    normal = ours.normalizer.normalize_str(text)
    assert normal == genuine.normalizer.normalize_str(text)
    assert ours.pre_tokenizer.pre_tokenize_str(normal) == genuine.pre_tokenizer.pre_tokenize_str(normal)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
def test_chat_template_equals_the_genuine_one(tokenizer, shared_data, conversation, prompt):
    ours, genuine = (
        t.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
        for t in (tokenizer, _genuine(shared_data))
    )
    assert ours == genuine


def _genuine(shared_data, cache={}):  # noqa: B006 - two seconds to load
    if not cache:
        cache[0] = AutoTokenizer.from_pretrained(shared_data / "qwen2vl")
    return cache[0]


def test_chat_template_without_shared_data(tokenizer):
    text = tokenizer.apply_chat_template(CONVERSATIONS[1], tokenize=False, add_generation_prompt=True)
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{image}{image} a\n\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_our_processor_loads_it(directory):
    processor = Processor.from_pretrained(directory, image_size=112)
    ids = processor.token_ids()
    assert processor.vocab_size == len(processor.tokenizer)
    assert ids["eos_token_id"] == processor.eos_ids[0] and ids["image_token_id"] == processor.image_token_id


def test_an_unknown_part_of_a_message_is_an_error(tokenizer):
    with pytest.raises(Exception, match="only image and text"):
        tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)


def test_too_small_a_vocabulary(tmp_path):
    with pytest.raises(TokenizerError, match=f"vocab_size 200: .* need {SMALLEST}"):
        train_tokenizer(TEXTS, 200, tmp_path)
    with pytest.raises(ProcessorError, match="looked for preprocessor_config"):
        Processor.from_pretrained(tmp_path)
