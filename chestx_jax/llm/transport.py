"""One HTTP call through the openai package; its failures sorted: retry, give up this one, give up all."""

import asyncio
import email.utils
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chestx_jax.llm.counts import Counts
from chestx_jax.llm.endpoint import Endpoint, EndpointError, MissingExtraError, Request

_RETRY_STATUS = (408, 409, 425, 429)
_FATAL_STATUS = (401, 403, 404)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Reply:
    """What the server said. `cut` when the answer hit the token limit."""

    text: str
    cut: bool
    prompt_tokens: int
    completion_tokens: int


class RetryableError(Exception):
    """Try again, after `wait` seconds if the server said so."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class RefusedError(Exception):
    """This request will never be answered."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Transport:
    """Sends chat completions. Learns from the server's refusals which optional fields to leave out."""

    def __init__(self, endpoint: Endpoint, counts: Counts):
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("openai") from error
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logger = logging.getLogger(name)
            if logger.getEffectiveLevel() < logging.WARNING:
                logger.setLevel(
                    logging.WARNING
                )  # at DEBUG they write whole requests, thus reports, into the log
        self._openai = openai
        self._endpoint = endpoint
        self._counts = counts
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key(), base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0
        )
        self._enforces_schema = True
        self._length_field = "max_tokens"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def call(self, request: Request, max_tokens: int, again: bool) -> Reply:
        """One call. `again`: the last answer was malformed, so say once more what is wanted.

        Raises:
          RetryableError, RefusedError, EndpointError. Causes are dropped: they quote requests and headers.
        """
        openai = self._openai
        body = self._body(request, max_tokens, again)
        self._counts.calls += 1
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                raw = await self._client.chat.completions.with_raw_response.create(**body)
            return _reply(raw.http_response.text)
        except (openai.APITimeoutError, TimeoutError):
            raise RetryableError("timeout") from None
        except openai.APIStatusError as error:
            status, said, wait = error.status_code, error.body, _retry_after(error.response.headers)
        except openai.APIConnectionError:
            raise RetryableError("no connection") from None
        if status == 400 and self._learn(json.dumps(said, default=str), body):
            return await self.call(request, max_tokens, again)
        raise self._sorted(status, _code(said), wait)

    def _body(self, request: Request, max_tokens: int, again: bool) -> dict[str, Any]:
        user = request.user
        body: dict[str, Any] = {"model": self._endpoint.model, self._length_field: max_tokens}
        if self._endpoint.temperature is not None:
            body["temperature"] = self._endpoint.temperature
        if request.schema is not None:
            if self._enforces_schema:
                described = {"name": "answer", "strict": True, "schema": dict(request.schema)}
                body["response_format"] = {"type": "json_schema", "json_schema": described}
            else:
                schema = json.dumps(request.schema)
                user += f"\n\nThe answer is one JSON object that fits this JSON schema:\n{schema}"
            if again:
                user += "\n\nAnswer with that one JSON object only, complete and nothing around it."
        system = [{"role": "system", "content": request.system}] if request.system else []
        return body | {"messages": [*system, {"role": "user", "content": user}]}

    def _learn(self, complaint: str, sent: Mapping[str, Any]) -> bool:
        """Whether a 400 names an optional field of what was sent; it is left out from now on."""
        if "max_tokens" in sent and "max_completion_tokens" in complaint:
            self._length_field = "max_completion_tokens"
            return True
        if "response_format" in sent and any(
            name in complaint for name in ("response_format", "json_schema")
        ):
            self._enforces_schema = False
            return True
        return False

    def _sorted(self, status: int, code: str, wait: float | None) -> Exception:
        reason = f"HTTP {status}" + (f" {code}" if code else "")
        if status in _FATAL_STATUS or code == "insufficient_quota":
            hint = {401: ": is the API key right?", 404: ": are base_url and model right?"}.get(status, "")
            return EndpointError(
                f"{self._endpoint.base_url} refuses {self._endpoint.model!r}: {reason}{hint}"
            )
        if status in _RETRY_STATUS or status >= 500:
            return RetryableError(f"HTTP {status}", wait)
        return RefusedError(reason)


def _reply(text: str) -> Reply:
    """Reads the response ourselves: the openai package lets bodies of any shape through as they are."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        content = choice["message"]["content"] or ""
        usage = body.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise RetryableError("not a chat completion") from None
    if not isinstance(content, str):
        raise RetryableError("not a chat completion")
    if choice.get("finish_reason") == "content_filter":
        raise RefusedError("content filter")
    return Reply(content, choice.get("finish_reason") == "length", *tokens)


def _code(body: Any) -> str:
    """The error's code if it is a plain word; anything longer might quote the request or the key."""
    code = body.get("code") if isinstance(body, Mapping) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a Retry-After header in seconds or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        parsed = email.utils.parsedate_to_datetime(value) if _is_date(value) else None
        return None if parsed is None else max(0.0, parsed.timestamp() - time.time())


def _is_date(value: str) -> bool:
    return email.utils.parsedate_tz(value) is not None
