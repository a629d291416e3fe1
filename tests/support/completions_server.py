"""A real HTTP server on loopback with the part of the OpenAI API that scorers use.

It fails on demand. Completions carry the true log-probabilities of a tiny checkpoint, by the whole
model in transformers and none of our code; chat replies are scripted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import reference_model


class Script:
    """What the server does, and what it was asked.

    `faults`: one is used up by each request: (status, headers), "drop", "hang" or "html".
    `fault_of`: the fault of a request's body, or None, once `faults` are used up. `omit`: a
    token id that it never names, in prompts of `omit_in` tokens or in all. `replies`: to chats, the
    last one for good; a function gets the messages. `refuse_over`: tokens of a prompt, as a
    server's window. `texts`: each token's text, for a server that is not vLLM.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.model = reference_model(folder) if folder else None
        self.lock = threading.Lock()
        self.faults: list[Any] = []
        self.fault_of: Callable[[dict[str, Any]], Any] = lambda body: None
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.replies: list[Any] = []
        self.hang_seconds = 0.6
        self.omit: int | None = None
        self.omit_in: int | None = None
        self.refuse_over: int | None = None
        self.vllm = True
        self.texts: dict[int, str] = {}
        self.at_once = 0
        self.most_at_once = 0
        self.url = ""

    def completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids = body["prompt"]
        assert isinstance(ids, list), "expected token ids"
        if self.refuse_over is not None and len(ids) + body["max_tokens"] > self.refuse_over:
            return _error(f"This model's maximum context length is {self.refuse_over} tokens.")
        if self.vllm and not body.get("logprobs"):
            return _error("when using `logprob_token_ids`, `logprobs` must be set")
        if not self.vllm and "logprob_token_ids" in body:
            return _error("Unrecognized request argument supplied: logprob_token_ids")
        with self.lock, torch.no_grad():
            logprobs = self.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)
        if self.vllm:
            tokens = [*body["logprob_token_ids"], int(logprobs.argmax())]
            names = {token: f"token_id:{token}" for token in tokens}
        else:
            tokens = logprobs.topk(body["logprobs"]).indices.tolist()
            names = {token: self.texts[token] for token in tokens}
        named = {
            name: float(logprobs[token])
            for token, name in names.items()
            if not self.omits(token, ids)
        }
        return 200, {"choices": [{"text": "?", "logprobs": {"top_logprobs": [named]}}]}

    def omits(self, token: int, ids: list[int]) -> bool:
        return token == self.omit and self.omit_in in (None, len(ids))

    def chat(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = reply(body["messages"])
        return 200, {"choices": [{"message": {"role": "assistant", "content": reply}}]}


def _error(message: str, status: int = 400) -> tuple[int, Any]:
    return status, {"error": {"message": message}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.script
        with script.lock:
            script.bodies.append(body)
            script.keys.append(self.headers.get("Authorization"))
            script.times.append(time.monotonic())
            fault = script.faults.pop(0) if script.faults else script.fault_of(body)
            script.at_once += 1
            script.most_at_once = max(script.most_at_once, script.at_once)
        try:
            self.answer(body, fault)
        finally:
            with script.lock:
                script.at_once -= 1

    def answer(self, body: dict[str, Any], fault: Any) -> None:
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "hang":
            time.sleep(self.script.hang_seconds)
        if fault == "html":
            self.send(200, b"<html>upstream</html>", {})
            return
        if isinstance(fault, tuple):
            status, headers = fault
            # servers repeat the key in their messages
            _, content = _error(f"told {self.headers.get('Authorization')}")
            self.send(status, json.dumps(content).encode(), headers)
            return
        if self.path == "/v1/completions":
            status, content = self.script.completion(body)
        elif self.path == "/v1/chat/completions":
            status, content = self.script.chat(body)
        else:
            status, content = _error(f"no route {self.path}", 404)
        self.send(status, json.dumps(content).encode(), {})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has gone


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": script}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
