"""Asking many requests at once: cache, workers, retries."""

import asyncio
import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import logging

from chestx_jax.llm.cache import AnswerCache
from chestx_jax.llm.checking import MalformedError, check_schema, check_value, checked_value
from chestx_jax.llm.counts import CHARACTERS_PER_TOKEN, Counts, Estimate
from chestx_jax.llm.endpoint import Answer, Endpoint, EndpointError, Invalid, Request
from chestx_jax.llm.transport import RefusedError, RetryableError, Transport

PROGRESS_SECONDS = 10.0
Result = Answer | Invalid


class Client:
    """Asks an endpoint and remembers its answers under `cache`; a rerun pays for nothing that was answered.

    Calls are synchronous; asyncio runs inside. The key is read from the environment when the first call is
    made, so a dry run, or a rerun that finds all its answers, needs none.
    """

    def __init__(self, endpoint: Endpoint, cache: Path):
        self.endpoint = endpoint
        self.counts = Counts()
        self._cache = AnswerCache(cache)
        self._failed_in_a_row = 0

    def ask_all(self, requests: Iterable[Request]) -> list[Result]:
        """One result a request, in their order. Equal requests are sent once.

        Raises:
          EndpointError: the endpoint refuses key, address or model, or one request after another found no
            server; what was answered until then is in the cache.
          MissingKeyError, MissingExtraError: only when there is something to send.
          jsonschema.SchemaError: a request's schema is wrong.
        """
        requests = list(requests)
        digests = [request.digest(self.endpoint) for request in requests]
        results, pending = self._look_up(requests, digests)
        self.counts.requests += len(requests)
        self.counts.repeated += len(requests) - len(results) - len(pending)
        self.counts.cache_hits += len(results)
        if pending:
            _run(self._work(pending, results))
        # The caller's own id goes back to each, also where equal requests share an answer.
        return [replace(results[digest], id=r.id) for digest, r in zip(digests, requests, strict=True)]

    def estimate(self, requests: Iterable[Request]) -> Estimate:
        """What `ask_all` would send. Sends nothing, needs no key."""
        requests = list(requests)
        found, pending = self._look_up(requests, [r.digest(self.endpoint) for r in requests])
        characters = sum(len(r.system) + len(r.user) for r in pending.values())
        return Estimate(
            requests=len(requests),
            cached=len(found),
            to_ask=len(pending),
            prompt_tokens=-(-characters // CHARACTERS_PER_TOKEN),
            most_completion_tokens=sum(r.max_tokens for r in pending.values()),
        )

    def _look_up(
        self, requests: Sequence[Request], digests: Sequence[str]
    ) -> tuple[dict[str, Result], dict[str, Request]]:
        """Results that are on the disk, and the requests that are not, by digest."""
        found: dict[str, Result] = {}
        pending: dict[str, Request] = {}
        for digest, request in zip(digests, requests, strict=True):
            if digest in found or digest in pending:
                continue
            if (answer := self._cached(digest, request)) is not None:
                found[digest] = answer
            else:
                pending[digest] = request
        return found, pending

    def _cached(self, digest: str, request: Request) -> Answer | None:
        try:
            stored = self._cache.read(digest)
            if stored is None:
                return None
            check_value(stored["value"], request.schema)
        except (ValueError, MalformedError) as error:
            self.counts.broken_cache_files += 1
            logging.warning("asking again, the cached answer cannot be used: %s", error)
            return None
        tokens = stored["prompt_tokens"], stored["completion_tokens"]
        return Answer(request.id, stored["value"], *tokens, cached=True)

    async def _work(self, pending: dict[str, Request], results: dict[str, Result]) -> None:
        for request in pending.values():
            if request.schema is not None:
                check_schema(request.schema)
        transport = Transport(self.endpoint, self.counts)
        queue = iter(pending.items())
        done = 0
        last = time.monotonic()

        async def worker() -> None:
            nonlocal done, last
            for digest, request in queue:  # one iterator, so each item goes to one worker
                results[digest] = await self._ask(transport, digest, request)
                done += 1
                if time.monotonic() - last > PROGRESS_SECONDS:
                    last = time.monotonic()
                    logging.info("%d of %d requests; %s", done, len(pending), self.counts.summary())

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.endpoint.concurrency, len(pending))):
                    group.create_task(worker())
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            await transport.close()

    async def _ask(self, transport: Transport, digest: str, request: Request) -> Result:
        """All attempts at one request. A waiting worker keeps its place: a busy server sees fewer calls."""
        max_tokens, again, reason, answers = request.max_tokens, False, "", True
        for attempt in range(self.endpoint.max_retries + 1):
            if attempt:
                self.counts.retries[reason] += 1
            try:
                reply = await transport.call(request, max_tokens, again)
                self._failed_in_a_row, answers = 0, True
                self.counts.prompt_tokens += reply.prompt_tokens
                self.counts.completion_tokens += reply.completion_tokens
                if reply.cut:
                    max_tokens *= 2
                    raise MalformedError("cut short")
                value = checked_value(reply.text, request.schema)
            except MalformedError as error:
                reason, again = error.reason, True
                continue  # the server is well: no wait
            except RefusedError as error:
                return self._invalid(request, error.reason, attempt + 1)
            except RetryableError as error:
                reason, answers = error.reason, False
                if attempt < self.endpoint.max_retries:
                    await asyncio.sleep(self._wait(attempt, error.wait))
                continue
            self._cache.write(digest, value, reply.prompt_tokens, reply.completion_tokens)
            self.counts.answered += 1
            return Answer(request.id, value, reply.prompt_tokens, reply.completion_tokens)
        if not answers:
            self._give_up_if_dead(reason)
        return self._invalid(request, reason, self.endpoint.max_retries + 1)

    def _wait(self, attempt: int, asked: float | None) -> float:
        backoff = min(self.endpoint.first_wait * 2**attempt, self.endpoint.longest_wait)
        return max(asked or 0.0, backoff * random.uniform(0.5, 1.0))  # jitter: not all workers at once

    def _give_up_if_dead(self, reason: str) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= 2 * self.endpoint.concurrency:
            raise EndpointError(
                f"{self.endpoint.base_url}: {self._failed_in_a_row} requests in a row failed for good, "
                f"the last with {reason!r}; what was answered before is in the cache"
            )

    def _invalid(self, request: Request, reason: str, attempts: int) -> Invalid:
        self.counts.invalid += 1
        logging.warning("request %s: no valid answer after %d attempts: %s", request.id, attempts, reason)
        return Invalid(request.id, reason, attempts)


def _run(work: Any) -> None:
    """Runs a coroutine to its end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    failure: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
