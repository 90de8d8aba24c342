"""An HTTP server on loopback that answers as it is told, and counts; and a real language model behind `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from textgym.lm.source import resolve_model

Reply = Callable[["Handler"], None]


def said(text: Any, finish_reason: str = "stop") -> Reply:
    """A chat answer (and a completion) that holds `text`."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}, "text": text}
    return body(json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}))


def body(text: str, status: int = 200, content_type: str = "application/json", **headers: str) -> Reply:
    def reply(handler: "Handler") -> None:
        handler.answer(text.encode(), status, content_type, headers)

    return reply


def cut_body(handler: "Handler") -> None:
    """Promise more bytes than are sent, then hang up."""
    handler.answer(b'{"choices": [{"mess', 200, "application/json", {}, promised=500)
    handler.close_connection = True


def hang(handler: "Handler") -> None:
    handler.server.released.wait(30)  # type: ignore[attr-defined]
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        endpoint: Endpoint = self.server.endpoint  # type: ignore[attr-defined]
        with endpoint.lock:
            endpoint.requests.append(request)
            endpoint.headers.append(dict(self.headers))
            endpoint.times.append(time.monotonic())
            endpoint.at_once += 1
            endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
            reply = endpoint.replies.pop(0) if len(endpoint.replies) > 1 else endpoint.replies[0]
        try:
            (endpoint.by_request(request) if endpoint.by_request else reply)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with endpoint.lock:
                endpoint.at_once -= 1

    def answer(self, content: bytes, status: int, content_type: str, headers: dict[str, str], promised: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(promised or len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Endpoint:
    """What the server is to answer, reply by reply (the last one for ever), and what it was asked."""

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.replies: list[Reply] = [said('{"score": 5}')]
        self.by_request: Callable[[Any], Reply] | None = None
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.released = threading.Event()
    http.endpoint = Endpoint(http.server_port)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield http.endpoint
    http.released.set()
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory, smollm2_gguf):
    """Address and model of SmolLM2-135M behind `transformers serve`."""
    pytest.importorskip("fastapi")
    folder = resolve_model(smollm2_gguf)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--device", "cpu", "--host", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with open(log, "wb") as file:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.terminate()
        process.wait(60)
