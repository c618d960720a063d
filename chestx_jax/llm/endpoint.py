"""What is asked, of whom, and what comes back."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class LLMError(Exception):
    """Base of this room's errors. No message holds a key, a request's text or a server's words."""


class MissingExtraError(LLMError, ImportError):
    """A package of the `llm` extra is not installed."""

    def __init__(self, package: str):
        super().__init__(
            f"asking a language model needs the package {package!r}: pip install 'chestx_jax[llm]'"
        )


class MissingKeyError(LLMError):
    """The environment variable that shall hold the API key is not set."""


class EndpointError(LLMError):
    """The endpoint cannot be used: refused key, unknown model or address, or nothing answers any more."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and how to use it.

    Attributes:
      base_url: up to and including the version, as in "https://api.openai.com/v1".
      api_key_env: the NAME of the environment variable that holds the key; None for a server that wants none.
      timeout: seconds one call may take, start to end.
      concurrency: calls under way at any time, at most.
      max_retries: further attempts at one request, after a failed call and after a malformed answer alike.
      first_wait: seconds before the first retry; doubles with each, up to `longest_wait`, with jitter.
      temperature: None leaves it to the server (some reasoning models refuse any).
    """

    base_url: str
    model: str
    api_key_env: str | None = None
    timeout: float = 120.0
    concurrency: int = 8
    max_retries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    temperature: float | None = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency {self.concurrency} is less than 1")
        if self.max_retries < 0:
            raise ValueError(f"max_retries {self.max_retries} is negative")

    def key(self) -> str:
        """The API key.

        Raises:
          MissingKeyError: naming the variable that is not set or empty.
        """
        if self.api_key_env is None:
            return "none"  # the openai package insists on a key
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise MissingKeyError(
                f"environment variable {self.api_key_env} is not set; it shall hold the API key"
            )
        return key


@dataclass(frozen=True)
class Request:
    """One question, text only.

    Attributes:
      id: the caller's own name for it; it is used in logs and results and is no part of what is sent.
      schema: JSON schema of the answer; None takes the answer as plain text. To be enforced by the server as
        well (OpenAI's strict mode) every object in it lists all its properties as required and closes with
        `additionalProperties: false`.
      max_tokens: of the answer; doubled at a retry when the answer was cut short.
    """

    id: str
    user: str = field(repr=False)
    system: str = field(default="", repr=False)
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 2048

    def digest(self, endpoint: Endpoint) -> str:
        """SHA-256 over all that decides the answer: address, model, texts, schema, sampling, length."""
        asked = {
            "base_url": endpoint.base_url.rstrip("/"),
            "model": endpoint.model,
            "temperature": endpoint.temperature,
            "system": self.system,
            "user": self.user,
            "schema": self.schema,
            "max_tokens": self.max_tokens,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A checked answer.

    Attributes:
      value: the decoded JSON that fits the request's schema, or the text when it has none. Not in the repr,
        which ends up in logs.
      cached: it came from the disk and cost nothing.
    """

    id: str
    value: Any = field(repr=False)
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False


@dataclass(frozen=True)
class Invalid:
    """No usable answer after all attempts; not cached, a rerun asks again. `reason` quotes nobody."""

    id: str
    reason: str
    attempts: int
