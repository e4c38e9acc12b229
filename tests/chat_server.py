"""A vision-language model behind HTTP, as far as its client can tell: a server on this machine with written answers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer(ThreadingHTTPServer):
    """Gives `answers` in order, each an HTTP status, a text and perhaps headers; `requests`: path, headers and body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.answers: list[tuple[Any, ...]] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        status, text, *headers = self.server.answers.pop(0)
        content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(*headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
