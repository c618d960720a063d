"""A small byte-level BPE tokenizer, trained in seconds, in the layout of Qwen2-VL's own processor files.

For models trained from scratch: the vocabulary of Qwen2-VL (151,657 tokens) would be most of their
parameters. What differs is the learnt vocabulary and the ids; pre-tokenizer, normaliser, special tokens and
the text of the chat template are Qwen2-VL's, so every loader of the one loads the other.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from chestx_jax.data.patches import PatchConfig

# Contractions; letters with at most one leading sign; single digits; signs; line ends; white space (Qwen2).
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of Qwen2-VL; their ids follow the learnt vocabulary."""

SMALLEST = 256 + len(SPECIAL_TOKENS)
"""Every byte and every special token: with fewer, some text could not be written."""

# A conversation without a system turn gets the one Qwen2-VL was trained with. `-` strips white space around
# a tag.
CHAT_TEMPLATE = """\
{%- macro turn(role, content) -%}
{{ '<|im_start|>' ~ role ~ '\\n' }}
{%- if content is string -%}
{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'text' -%}
{{ part.text }}
{%- else -%}
{{ raise_exception('only image and text parts are supported') }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}
{{ turn('system', 'You are a helpful assistant.') }}
{%- endif -%}
{%- for message in messages -%}
{{ turn(message.role, message.content) }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


class TokenizerError(ValueError):
    """A tokenizer that cannot be trained as asked."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: str | Path) -> Tokenizer:
    """Trains on `texts` and writes processor files into the directory `out` (made if need be).

    The same texts in the same order give the same files. Any text can be encoded; `decode` gives back its
    NFC form.

    Args:
      texts: what the model will read and write: questions, answers, reasoning.
      vocab_size: tokens in all, special ones included; fewer when the texts hold no more pairs to merge.
      out: gets tokenizer.json, vocab.json, merges.txt, tokenizer_config.json, chat_template.jinja and
        preprocessor_config.json.

    Returns: the tokenizer; `Processor.from_pretrained(out)` for one that also knows images.
    Raises: TokenizerError when `vocab_size` has no room for the bytes and the special tokens.
    """
    if vocab_size < SMALLEST:
        raise TokenizerError(f"vocab_size {vocab_size}: 256 bytes and the special tokens need {SMALLEST}")
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    _write(tokenizer, Path(out))
    return tokenizer


def _write(tokenizer: Tokenizer, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(out))  # vocab.json, merges.txt
    tokenizer.save(str(out / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(tokenizer.token_to_id(token)): {"content": token, **flags} for token in SPECIAL_TOKENS}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    patches = PatchConfig()
    preprocessor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "image_mean": patches.mean,
        "image_std": patches.std,
        "patch_size": patches.patch,
        "temporal_patch_size": patches.temporal,
        "merge_size": patches.merge,
        "min_pixels": patches.min_pixels,
        "max_pixels": patches.max_pixels,
    }
    for name, content in (("tokenizer_config.json", config), ("preprocessor_config.json", preprocessor)):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
