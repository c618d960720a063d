"""The client for any OpenAI-compatible endpoint: checked answers, retries, cache, resume, counts.

    endpoint = Endpoint(base_url="http://127.0.0.1:8000/v1", model="qwen2.5-72b", api_key_env="JUDGE_KEY")
    client = Client(endpoint, cache=Path("answers"))
    results = client.ask_all([Request(id="1", user="...", schema={...})])   # list[Answer | Invalid], in order
    print(client.counts.summary())

Importing this room needs neither the `openai` package nor a key; asking needs the `llm` extra.
"""

from chestx_jax.llm.cache import AnswerCache
from chestx_jax.llm.client import Client
from chestx_jax.llm.counts import Counts, Estimate
from chestx_jax.llm.endpoint import (
    Answer,
    Endpoint,
    EndpointError,
    Invalid,
    LLMError,
    MissingExtraError,
    MissingKeyError,
    Request,
)

__all__ = [
    "Answer",
    "AnswerCache",
    "Client",
    "Counts",
    "Endpoint",
    "EndpointError",
    "Estimate",
    "Invalid",
    "LLMError",
    "MissingExtraError",
    "MissingKeyError",
    "Request",
]
