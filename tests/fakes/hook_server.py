"""A real HTTP server that remembers what was posted to it."""

from __future__ import annotations

import http.server
import ssl
import threading
from typing import Any


class HookServer:
    """Answers `status` to each POST, with a Location when there is one."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        owner = self
        self.status = 204
        self.location = ""
        self.got: list[tuple[str, dict[str, str], bytes]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                owner.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(owner.status)
                if owner.location:
                    self.send_header("Location", owner.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
