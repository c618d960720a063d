"""A real HTTP server with scripted answers, for tests of everything that asks a language model."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Say:
    """One scripted HTTP answer; `content` becomes a chat completion, `body` goes out as it is."""

    content: str = ""
    status: int = 200
    finish: str = "stop"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    seconds: float = 0.0


class ScriptedServer:
    """`script(call number from 0, request body) -> Say`. Keeps what was asked, when, and how many at once."""

    def __init__(self, script: Callable[[int, dict[str, Any]], Say]):
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["ScriptedServer"]:
        """The server on a free port of 127.0.0.1."""
        http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        http.daemon_threads = True
        self.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            http.shutdown()
            http.server_close()
            thread.join()

    def _answer(self, body: dict[str, Any], headers: dict[str, str]) -> Say:
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            say = self.script(number, body)
            time.sleep(say.seconds)
            return say
        finally:
            with self._lock:
                self._now -= 1

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                say = server._answer(body, {k.lower(): v for k, v in self.headers.items()})
                payload = (completion(say) if say.body is None else say.body).encode()
                try:
                    self.send_response(say.status)
                    for name, value in say.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client gave up waiting

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


def completion(say: Say) -> str:
    """The body of a chat completion (OpenAI API reference, "The chat completion object")."""
    message = {"role": "assistant", "content": say.content}
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": say.finish}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
    )


def first_of_each(_: int, body: dict[str, Any]) -> Say:
    """A judge that finds one finding a line, of which the first is recalled, correct, effective."""
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    if "key_conclusion" in properties:
        lines = re.findall(r"^\d+\. (.*)$", body["messages"][-1]["content"], re.MULTILINE)
        found = [{"observation": line, "status": "stated"} for line in lines]
        return Say(json.dumps({"key_conclusion": found}))
    return Say(json.dumps({n: p["enum"][0 if n == "1" else 1] for n, p in properties.items()}))
