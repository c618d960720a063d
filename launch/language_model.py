"""The flags of programs that can ask a language model (`build_bench --miner=llm`, `evaluate`)."""

from pathlib import Path

from absl import flags

from chestx_jax.llm import Endpoint
from chestx_jax.storage import on_this_machine

_BASE_URL = flags.DEFINE_string("llm_base_url", None, "llm: OpenAI-compatible server, up to the version.")
_MODEL = flags.DEFINE_string("llm_model", None, "llm: model name.")
_KEY_ENV = flags.DEFINE_string("llm_key_env", None, "llm: environment variable that holds the key.")
_CONCURRENCY = flags.DEFINE_integer("llm_concurrency", 8, "llm: calls under way.", lower_bound=1)
_PROMPTS = flags.DEFINE_string("prompts", None, "llm: directory with prompts of your own.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "llm: print what would be asked, and stop.")


def asked() -> bool:
    """Whether any of the flags that name a server is given."""
    return bool(_BASE_URL.value or _MODEL.value)


def endpoint() -> Endpoint | None:
    """The server; None unless both its address and the model are given."""
    if not (_BASE_URL.value and _MODEL.value):
        return None
    return Endpoint(_BASE_URL.value, _MODEL.value, _KEY_ENV.value, concurrency=_CONCURRENCY.value)


def prompts() -> Path | None:
    """The directory of the user's prompts."""
    return None if _PROMPTS.value is None else on_this_machine(_PROMPTS.value, "--prompts", "copy them")
