"""The page's HTTP server: Python's own, on one address, for one person, until it is told to stop.

What keeps others out:

- a token of 128 bits in the address's fragment, which browsers send to nobody; the page gives it with each request in
  a header that no other site's page may set. Without it there is no picture, no state and no writing.
- the Host header must name the address we listen on (a page that has its own name rebound to us has another Host),
  and a request that says where it comes from must come from ourselves.
- a content security policy without inline scripts; nothing is loaded from anywhere else.

Bounds: CONNECTIONS_MAX requests at once, BODY_BYTES_MAX each, IO_S_MAX for a client that neither sends nor reads.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent.errors import ConfigError, Transient, WardpostError
from agent.logs import error_line
from agent.zones_page.desk import Desk, Outdated, Wrong
from agent.zones_page.shapes import Shape

CONNECTIONS_MAX = 8
BODY_BYTES_MAX = 256 * 1024
IO_S_MAX = 10.0
TOKEN_HEADER = "X-Wardpost-Token"  # noqa: S105  (the name of a header)
_PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What the page sends to be checked or saved."""

    digest: str
    shapes: list[Shape]


class Refused(Exception):  # noqa: N818
    """An answer that is not 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:8733` -> host and port; port 0 takes a free one. Raises ConfigError.

    A wildcard is refused: the Host check needs to know by which address we are meant.
    """
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise ConfigError(f"--listen {text}: write an address and a port, as 127.0.0.1:8733") from None
    if address.is_unspecified or not 0 <= number <= 65535:
        raise ConfigError(f"--listen {text}: name one address of this machine, and a port up to 65535")
    if address.version != 4:
        raise ConfigError(f"--listen {text}: an IPv4 address, please")
    return str(address), number


class PageServer:
    """Serves from threads of its own between `open` and `close`."""

    def __init__(
        self,
        desk: Desk | None,
        *,
        token: str,
        boot_ns: Callable[[], int],
        say: Callable[[str], None],
        handler: type[Handler] | None = None,
        device: str = "",
    ) -> None:
        """`say` is told what was written, in words, from any thread. `device`: the one network interface to serve."""
        self.desk, self.token, self.boot_ns, self.say = desk, token, boot_ns, say
        self.last_ns = boot_ns()  # of the last request that was let in
        self.host = ""
        self.device, self.handler = device, handler or Handler
        self._http: Http | None = None
        self._thread: threading.Thread | None = None

    def open(self, host: str, port: int) -> str:
        """Listens; returns the address to open, token included. Raises ConfigError."""
        try:
            self._http = Http((host, port), self)
        except OSError as error:
            raise ConfigError(f"{host}:{port}: cannot listen: {error.strerror}; name another with --listen") from None
        self.host = host
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.2}, name="zones")
        self._thread.start()
        return f"http://{host}:{self._http.server_address[1]}/#{self.token}"

    def close(self) -> None:
        """Stops listening; a request in progress ends with the process."""
        if self._http is not None and self._thread is not None:
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()
            self._http = None

    def admits(self, address: str) -> bool:  # noqa: ARG002
        """Whether a connection from this address is answered at all."""
        return True

    def knows_host(self, host: str) -> bool:
        """Whether a Host header means us. The port may differ: it does behind `ssh -L`."""
        name = urlsplit(f"//{host}").hostname or ""
        loopback = ipaddress.ip_address(self.host).is_loopback
        return name in ({"127.0.0.1", "localhost", self.host} if loopback else {self.host})


class Http(ThreadingMixIn, HTTPServer):
    """At most CONNECTIONS_MAX requests at once, each on a thread of its own."""

    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], page: PageServer) -> None:
        self.page = page
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, page.handler)

    def server_bind(self) -> None:
        """On one interface, where one is named: else an address is served to whoever can route to it."""
        if self.page.device:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.page.device.encode() + b"\0")
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Before a byte is read."""
        return self.page.admits(str(client_address[0]))

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away or sent rubbish is nobody's news."""


class Handler(BaseHTTPRequestHandler):
    """What the zones page asks. `agent/setup_page/server.py` adds to it."""

    server: Http
    server_version = "wardpost"
    sys_version = ""
    timeout = IO_S_MAX

    def setup(self) -> None:
        """One of these lives for one connection, which is one request."""
        super().setup()
        self.more_headers: dict[str, str] = {}

    def do_GET(self) -> None:
        self._answer(self.get)

    def do_POST(self) -> None:
        self._answer(self.post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        """No log: the terminal is the person's."""

    def desk(self) -> Desk:
        """Where shapes are read and written. Raises Refused while there is none."""
        if self.server.page.desk is None:
            raise Refused(503, "zones cannot be drawn here now")
        return self.server.page.desk

    def get(self) -> tuple[str, bytes]:
        """Content type and body. Raises Refused or a WardpostError."""
        if self.path in _PAGES:
            name, kind = _PAGES[self.path]
            return kind, files("agent.zones_page").joinpath(name).read_bytes()
        self.believe()
        if self.path == "/api/state":
            return "application/json", msgspec.json.encode(self.desk().state())
        if self.path in {"/api/picture", "/api/picture/new"}:
            return "image/jpeg", self.desk().picture(new=self.path.endswith("/new"))
        raise Refused(404, "there is nothing here")

    def post(self) -> tuple[str, bytes]:
        """As `get`."""
        self.believe()
        if self.path not in {"/api/check", "/api/save"}:
            raise Refused(404, "there is nothing here")
        try:
            asked = msgspec.json.decode(self.body(), type=_Asked)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"not what the page sends: {error}") from None
        if self.path == "/api/check":
            result: Any = {"complaints": self.desk().check(asked.shapes)}
        else:
            said = self.desk().save(asked.shapes, digest=asked.digest)
            self.server.page.say(said)
            result = {**self.desk().state(), "said": said}
        return "application/json", msgspec.json.encode(result)

    def _meant_for_us(self) -> None:
        if not self.server.page.knows_host(self.headers.get("Host", "")):
            raise Refused(421, "this is not the address that `wardpost zones` listens on")

    def ours(self) -> None:
        """Raises Refused for what a page of another site asks."""
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise Refused(403, "asked by a page of another site")
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
            raise Refused(403, "asked by a page of another site")

    def believe(self) -> None:
        """Raises Refused for whoever is not the person at the page."""
        self.ours()
        given = self.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.server.page.token.encode()):
            raise Refused(403, "open the address that `wardpost zones` has printed, with all that follows the #")
        self.server.page.last_ns = self.server.page.boot_ns()

    def body(self) -> bytes:
        """What was sent, BODY_BYTES_MAX at most. Raises Refused."""
        text = self.headers.get("Content-Length", "")
        length = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
        if not 0 <= length <= BODY_BYTES_MAX:
            raise Refused(413, f"{BODY_BYTES_MAX} bytes at most")
        return self.rfile.read(length)

    def _answer(self, make: Callable[[], tuple[str, bytes]]) -> None:
        status = 200
        try:
            self._meant_for_us()
            kind, body = make()
        except Refused as error:
            status, kind, body = error.status, "application/json", _said(str(error))
        except Outdated as error:
            status, kind, body = 409, "application/json", _said(str(error))
        except Wrong as error:
            status, kind = 422, "application/json"
            body = msgspec.json.encode({"error": str(error), "complaints": error.complaints})
        except Transient as error:
            status, kind, body = 503, "application/json", _said(str(error))
        except WardpostError as error:
            status, kind, body = 400, "application/json", _said(str(error))
        except Exception as error:  # noqa: BLE001  (a bug in one answer must not hide in a closed connection)
            status, kind, body = 500, "application/json", _said(f"a bug: {error_line(error)}")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.more_headers.items():
            self.send_header(name, value)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _said(text: str) -> bytes:
    return msgspec.json.encode({"error": text})
