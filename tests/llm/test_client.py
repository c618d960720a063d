"""The client against a real HTTP server with scripted answers."""

import asyncio
import email.utils
import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the llm extra")

from chestx_jax.llm import (
    Answer,
    AnswerCache,
    Client,
    Endpoint,
    EndpointError,
    Invalid,
    MissingKeyError,
    Request,
)
from tests.llm.server import Say, ScriptedServer

KEY = "sk-secret-0123456789"
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
GOOD = Say('{"n": 1}')
Script = Callable[[int, dict[str, Any]], Say]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", KEY)


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[[Script], ScriptedServer]]:
    def start(script: Script) -> ScriptedServer:
        running = ScriptedServer(script).running()
        server = running.__enter__()
        request.addfinalizer(lambda: running.__exit__(None, None, None))
        return server

    yield start


def endpoint(url: str, **changes: Any) -> Endpoint:
    settings = {"timeout": 5.0, "max_retries": 3, "first_wait": 0.01, "api_key_env": "TEST_LLM_KEY"} | changes
    return Endpoint(url, "tiny", **settings)


def requests(n: int) -> list[Request]:
    return [
        Request(id=f"r{i}", user=f"report number {i}", system="be brief", schema=SCHEMA) for i in range(n)
    ]


def test_answers_come_in_order_with_counts(serve, tmp_path: Path) -> None:
    server = serve(lambda _, body: Say(json.dumps({"n": int(body["messages"][-1]["content"].split()[-1])})))
    client = Client(endpoint(server.url), tmp_path)
    results = client.ask_all(requests(20))
    assert [(r.id, r.value) for r in results] == [(f"r{i}", {"n": i}) for i in range(20)]
    assert client.counts.calls == client.counts.answered == 20
    assert (client.counts.prompt_tokens, client.counts.completion_tokens) == (140, 60)
    assert "20 requests" in client.counts.summary() and "140 prompt" in client.counts.summary()
    body = server.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "be brief"} and body["temperature"] == 0.0
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_rerun_makes_no_call_and_needs_no_key(serve, tmp_path: Path, monkeypatch) -> None:
    server = serve(lambda *_: GOOD)
    Client(endpoint(server.url), tmp_path).ask_all(requests(5))
    monkeypatch.delenv("TEST_LLM_KEY")
    again = Client(endpoint(server.url), tmp_path)
    assert all(r.cached and r.value == {"n": 1} for r in again.ask_all(requests(5)))
    assert len(server.bodies) == 5
    assert (again.counts.calls, again.counts.cache_hits) == (0, 5)
    with pytest.raises(MissingKeyError, match="TEST_LLM_KEY"):
        again.ask_all(requests(6))


@pytest.mark.parametrize("change", ["model", "temperature", "schema", "user", "system", "max_tokens"])
def test_another_request_is_not_answered_from_the_cache(change: str) -> None:
    one = Endpoint("http://a/v1", "m"), Request("r", "u", "s", SCHEMA)
    other = {
        "model": (Endpoint("http://a/v1", "m2"), one[1]),
        "temperature": (Endpoint("http://a/v1", "m", temperature=1.0), one[1]),
        "schema": (one[0], Request("r", "u", "s", SCHEMA | {"title": "x"})),
        "user": (one[0], Request("r", "u2", "s", SCHEMA)),
        "system": (one[0], Request("r", "u", "s2", SCHEMA)),
        "max_tokens": (one[0], Request("r", "u", "s", SCHEMA, max_tokens=5)),
    }[change]
    assert one[1].digest(one[0]) != other[1].digest(other[0])
    assert one[1].digest(one[0]) == Request("other id", "u", "s", SCHEMA).digest(one[0])


def test_429_is_retried_after_what_the_server_asks(serve, tmp_path: Path) -> None:
    busy = Say(status=429, headers={"Retry-After": "0.4"}, body='{"error": {"message": "slow down"}}')
    server = serve(lambda number, _: busy if number == 0 else GOOD)
    client = Client(endpoint(server.url), tmp_path)
    assert isinstance(client.ask_all(requests(1))[0], Answer)
    assert server.times[1] - server.times[0] >= 0.4
    assert client.counts.retries == {"HTTP 429": 1} and client.counts.calls == 2


def test_retry_after_may_be_a_date(serve, tmp_path: Path) -> None:
    def script(number: int, _: Any) -> Say:
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        return Say(status=503, headers={"Retry-After": date}, body="") if number == 0 else GOOD

    server = serve(script)
    assert isinstance(Client(endpoint(server.url), tmp_path).ask_all(requests(1))[0], Answer)
    assert server.times[1] - server.times[0] >= 0.9  # the date has whole seconds


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Say(status=500, body="oops"), "HTTP 500"),
        (Say(status=502, body="<html>"), "HTTP 502"),
        (Say(status=408, body="{}"), "HTTP 408"),
        (Say(body="not JSON at all"), "not a chat completion"),
        (Say(body='{"error": {"message": "overloaded"}}'), "not a chat completion"),
        (Say(body='{"choices": []}'), "not a chat completion"),
        (Say(body="[1]"), "not a chat completion"),
        (Say('{"n": 1'), "not JSON"),
        (Say('{"n": NaN}'), "not JSON"),
        (Say('{"n": 1', finish="length"), "cut short"),
        (Say('{"n": "one"}'), "breaks the schema"),
        (Say('{"n": 1, "m": 2}'), "breaks the schema"),
        (Say("  "), "empty answer"),
        (Say(seconds=0.6), "timeout"),
    ],
)
def test_what_can_get_better_is_retried_then_counted(serve, tmp_path: Path, bad: Say, reason: str) -> None:
    settings = endpoint(serve(lambda n, _: bad if n < 2 else GOOD).url, timeout=0.3)
    client = Client(settings, tmp_path / "a")
    assert client.ask_all(requests(1)) == [Answer("r0", {"n": 1}, 7, 3)]
    assert client.counts.retries == {reason: 2}
    never = Client(endpoint(serve(lambda *_: bad).url, timeout=0.3, max_retries=1), tmp_path / "b")
    assert never.ask_all(requests(1)) == [Invalid("r0", reason, attempts=2)]
    assert never.counts.invalid == 1 and never.counts.calls == 2
    assert never.estimate(requests(1)).cached == 0  # an invalid answer is asked for again


def test_a_cut_answer_gets_more_room_and_a_malformed_one_a_reminder(serve, tmp_path: Path) -> None:
    script = [Say("{", finish="length"), Say("nonsense"), GOOD]
    server = serve(lambda n, _: script[n])
    Client(endpoint(server.url), tmp_path).ask_all(requests(1))
    assert [b["max_tokens"] for b in server.bodies] == [2048, 4096, 4096]
    texts = [b["messages"][-1]["content"] for b in server.bodies]
    assert texts[0] == "report number 0" and "JSON object only" in texts[1]


def test_a_fenced_answer_is_read(serve, tmp_path: Path) -> None:
    server = serve(lambda *_: Say('```json\n{"n": 4}\n```'))
    assert Client(endpoint(server.url), tmp_path).ask_all(requests(1))[0].value == {"n": 4}


def test_plain_text_without_a_schema(serve, tmp_path: Path) -> None:
    server = serve(lambda *_: Say("words"))
    assert Client(endpoint(server.url), tmp_path).ask_all([Request("a", "hello")])[0].value == "words"
    assert "response_format" not in server.bodies[0]


def test_a_server_without_schemas_gets_the_schema_in_words(serve, tmp_path: Path) -> None:
    def script(_: int, body: dict[str, Any]) -> Say:
        if "response_format" in body:
            return Say(
                status=400, body='{"error": {"message": "unknown field response_format"}}', seconds=0.05
            )
        return GOOD

    server = serve(script)
    results = Client(endpoint(server.url, concurrency=4), tmp_path).ask_all(requests(12))
    assert all(isinstance(r, Answer) for r in results)
    assert sum("response_format" in b for b in server.bodies) == 4  # once a worker, then never again
    assert '"additionalProperties": false' in server.bodies[-1]["messages"][-1]["content"]


def test_a_server_that_wants_the_newer_length_field(serve, tmp_path: Path) -> None:
    def script(_: int, body: dict[str, Any]) -> Say:
        refused = Say(status=400, body='{"error": {"message": "use max_completion_tokens instead"}}')
        return refused if "max_tokens" in body else GOOD

    server = serve(script)
    assert isinstance(Client(endpoint(server.url), tmp_path).ask_all(requests(1))[0], Answer)
    assert server.bodies[-1]["max_completion_tokens"] == 2048


def test_one_refused_request_does_not_stop_the_others(serve, tmp_path: Path) -> None:
    def script(_: int, body: dict[str, Any]) -> Say:
        too_long = Say(
            status=400, body='{"error": {"message": "secret report", "code": "context_length_exceeded"}}'
        )
        return too_long if body["messages"][-1]["content"].endswith(" 2") else GOOD

    server = serve(script)
    results = Client(endpoint(server.url), tmp_path).ask_all(requests(4))
    assert results[2] == Invalid("r2", "HTTP 400 context_length_exceeded", attempts=1)
    assert sum(isinstance(r, Answer) for r in results) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_at_once(serve, tmp_path: Path, status: int) -> None:
    server = serve(lambda *_: Say(status=status, body=json.dumps({"error": {"message": f"wrong key {KEY}"}})))
    with pytest.raises(EndpointError, match=f"HTTP {status}") as caught:
        Client(endpoint(server.url, concurrency=2), tmp_path).ask_all(requests(50))
    assert len(server.bodies) <= 4
    assert KEY not in str(caught.value) and caught.value.__cause__ is None


def test_connection_refused_is_retried_then_gives_up_on_all(tmp_path: Path) -> None:
    with ScriptedServer(lambda *_: GOOD).running() as server:
        closed = server.url
    client = Client(endpoint(closed, max_retries=1, concurrency=2), tmp_path)
    assert client.ask_all(requests(1)) == [Invalid("r0", "no connection", attempts=2)]
    with pytest.raises(EndpointError, match="in a row"):
        client.ask_all(requests(50))
    assert client.counts.calls < 20


def test_never_more_calls_at_once_than_allowed(serve, tmp_path: Path) -> None:
    server = serve(lambda *_: Say('{"n": 1}', seconds=0.03))
    Client(endpoint(server.url, concurrency=3), tmp_path).ask_all(requests(24))
    assert server.most_at_once == 3


def test_equal_requests_are_sent_once(serve, tmp_path: Path) -> None:
    server = serve(lambda *_: GOOD)
    client = Client(endpoint(server.url), tmp_path)
    same = [Request(id=str(i), user="same", schema=SCHEMA) for i in range(6)]
    assert [r.id for r in client.ask_all(same)] == [str(i) for i in range(6)]
    assert len(server.bodies) == 1 and client.counts.repeated == 5


def test_key_and_text_reach_neither_disk_nor_log(serve, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    os.environ["OPENAI_LOG"] = "debug"
    try:
        server = serve(lambda n, _: [Say(status=500, body=KEY), Say("bad answer"), GOOD][n])
        client = Client(endpoint(server.url), tmp_path)
        results = client.ask_all(requests(1))
        refusing = serve(lambda *_: Say(status=401, body=f"your key {KEY}"))
        with pytest.raises(EndpointError) as caught:
            Client(endpoint(refusing.url), tmp_path).ask_all(requests(1))
    finally:
        del os.environ["OPENAI_LOG"]
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    said = caplog.text + repr(results) + repr(client.endpoint) + repr(requests(1)) + repr(caught.value)
    assert written and KEY not in written and "report number" not in written
    assert KEY not in said and "report number" not in said and "bad answer" not in said


def test_a_dry_run_sends_nothing(serve, tmp_path: Path, monkeypatch) -> None:
    server = serve(lambda *_: GOOD)
    Client(endpoint(server.url), tmp_path).ask_all(requests(2))
    monkeypatch.delenv("TEST_LLM_KEY")
    client = Client(endpoint(server.url), tmp_path)
    estimate = client.estimate([*requests(10), *requests(10)])
    assert (estimate.requests, estimate.cached, estimate.to_ask) == (20, 2, 8)
    assert estimate.prompt_tokens == 8 * len("be briefreport number 0") / 4
    assert estimate.most_completion_tokens == 8 * 2048
    assert len(server.bodies) == 2 and "8 to ask" in estimate.summary()
    assert (estimate + estimate).to_ask == 16


def test_killed_and_resumed(serve, tmp_path: Path) -> None:
    """A process is killed in the middle; the next pays for what was not answered, the third for nothing."""
    server = serve(lambda *_: Say('{"n": 1}', seconds=0.05))
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from chestx_jax.llm import Client, Endpoint, Request
        endpoint = Endpoint({server.url!r}, "tiny", api_key_env="TEST_LLM_KEY", concurrency=2, timeout=5.0)
        asked = [Request(id=f"r{{i}}", user=f"report number {{i}}", system="be brief", schema={SCHEMA!r})
                 for i in range(40)]
        Client(endpoint, Path({str(tmp_path)!r})).ask_all(asked)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while len(server.bodies) < 9:
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    time.sleep(0.2)  # the calls under way end on the server
    before = len(server.bodies)
    answered = len(list(tmp_path.rglob("*.json")))
    assert 5 <= answered < 40
    client = Client(endpoint(server.url, concurrency=8), tmp_path)
    assert all(r.value == {"n": 1} for r in client.ask_all(requests(40)))
    assert len(server.bodies) - before == 40 - answered == client.counts.calls
    third = Client(endpoint(server.url), tmp_path)
    third.ask_all(requests(40))
    assert third.counts.calls == 0


def test_a_broken_cache_file_is_asked_for_again(serve, tmp_path: Path, caplog) -> None:
    server = serve(lambda *_: GOOD)
    Client(endpoint(server.url), tmp_path).ask_all(requests(2))
    first, second = sorted(tmp_path.rglob("*.json"))
    first.write_text("")
    second.write_text('{"value": {"n": "x"}, "prompt_tokens": 1, "completion_tokens": 1}')
    client = Client(endpoint(server.url), tmp_path)
    assert all(r.value == {"n": 1} for r in client.ask_all(requests(2)))
    assert client.counts.broken_cache_files == client.counts.calls == 2


def test_processes_may_share_the_cache(tmp_path: Path) -> None:
    """Two processes rewrite one answer while this one reads it: it is always whole."""
    code = (
        "import sys, pathlib; from chestx_jax.llm import AnswerCache\n"
        "cache = AnswerCache(pathlib.Path(sys.argv[1]))\n"
        "for _ in range(300): cache.write('abcd', {'n': list(range(2000))}, 1, 1)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    cache, reads = AnswerCache(tmp_path), 0
    while any(writer.poll() is None for writer in writers):
        stored = cache.read("abcd")
        assert stored is None or stored["value"] == {"n": list(range(2000))}
        reads += stored is not None
    assert reads > 10 and all(writer.returncode == 0 for writer in writers)
    assert len(list(tmp_path.rglob("*.json"))) == 1 and not list(tmp_path.rglob("*.tmp"))


def test_it_works_where_a_loop_is_running(serve, tmp_path: Path) -> None:
    server = serve(lambda *_: GOOD)

    async def notebook() -> list:
        return Client(endpoint(server.url), tmp_path).ask_all(requests(2))

    assert len(asyncio.run(notebook())) == 2


def test_importing_the_room_loads_neither_openai_nor_jax() -> None:
    code = "import sys, chestx_jax.llm; assert not {'openai', 'jsonschema', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        sys.modules["openai"] = None
        from pathlib import Path
        from chestx_jax.llm import Client, Endpoint, MissingExtraError, Request
        try:
            client = Client(Endpoint("http://127.0.0.1:1/v1", "m"), Path({str(tmp_path)!r}))
            client.ask_all([Request("a", "b")])
        except MissingExtraError as error:
            assert "chestx_jax[llm]" in str(error) and "openai" in str(error)
        else:
            raise SystemExit("no error")
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True)
