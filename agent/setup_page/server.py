"""The page's HTTP server: that of the zones page (agent/zones_page/server.py), a code in front, a camera behind.

Beyond what keeps others out there: it listens on one address of one network interface, answers peers of that network
only, and believes a token only while the page is on. The zones page itself is served too, at `/zones`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import msgspec

from agent.setup_page.desk import SetupDesk
from agent.setup_page.gate import Shut
from agent.setup_page.link import Link
from agent.setup_page.view import age_ms
from agent.zones_page.desk import Desk
from agent.zones_page.server import TOKEN_HEADER, Handler, PageServer, Refused

SCENE_HEADER = "X-Wardpost-Scene"
NUMBER_HEADER = "X-Wardpost-Number"
AGE_HEADER = "X-Wardpost-Age-Ms"
log = logging.getLogger(__name__)
_OWN = {
    "/": ("setup.html", "text/html; charset=utf-8"),
    "/setup.js": ("setup.js", "text/javascript; charset=utf-8"),
    "/setup.css": ("setup.css", "text/css; charset=utf-8"),
    "/words.en.json": ("words.en.json", "application/json"),
    "/words.vi.json": ("words.vi.json", "application/json"),
}


class _Entering(msgspec.Struct, forbid_unknown_fields=True):
    """What is typed to be let in."""

    code: str
    name: str


class _Trying(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be tried out."""

    what: str


class SetupServer(PageServer):
    """One link's server; see PageServer."""

    def __init__(
        self, setup: SetupDesk, link: Link, *, device: str, boot_ns: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        super().__init__(None, token="", boot_ns=boot_ns, say=say, handler=SetupHandler, device=device)
        self.setup, self.link = setup, link

    def admits(self, address: str) -> bool:
        return self.link.admits(address)


class SetupHandler(Handler):
    """What the page asks."""

    @property
    def setup_page(self) -> SetupServer:
        """The server with its own type."""
        page = self.server.page
        assert isinstance(page, SetupServer)  # noqa: S101
        return page

    def desk(self) -> Desk:
        return self.setup_page.setup.zones()

    def get(self) -> tuple[str, bytes]:
        if self.path in _OWN:
            name, kind = _OWN[self.path]
            return kind, files("agent.setup_page").joinpath(name).read_bytes()
        if self.path == "/zones":
            return "text/html; charset=utf-8", files("agent.zones_page").joinpath("page.html").read_bytes()
        setup = self.setup_page.setup
        if self.path == "/setup/state":
            self.believe()
            return "application/json", msgspec.json.encode(setup.state())
        if self.path.startswith("/setup/still/"):
            self.believe()
            return self._still(setup)
        return super().get()

    def post(self) -> tuple[str, bytes]:
        setup = self.setup_page.setup
        if self.path == "/setup/enter":
            self.ours()
            asked = self._sent(_Entering)
            try:
                token = setup.page.enter(asked.code, asked.name, str(self.client_address[0]))
            except Shut as error:
                if error.wait_s:
                    self.more_headers["Retry-After"] = str(round(error.wait_s) + 1)
                raise Refused(429 if error.wait_s else 403, str(error)) from None
            return "application/json", msgspec.json.encode({"token": token})
        if self.path == "/setup/try":
            self.believe()
            return "application/json", msgspec.json.encode(setup.try_out(self._sent(_Trying).what))
        if self.path == "/setup/done":
            self.believe()
            setup.page.finish()
            return "application/json", b"{}"
        return super().post()

    def believe(self) -> None:
        self.ours()
        if not self.setup_page.setup.page.knows(self.headers.get(TOKEN_HEADER, "")):
            raise Refused(401, "type the code of the label inside the box")
        self.server.page.last_ns = self.server.page.boot_ns()

    def _still(self, setup: SetupDesk) -> tuple[str, bytes]:
        number = self.path.rpartition("/")[2]
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise Refused(400, "a picture's number")
        still = setup.still(int(number))
        if still is None:
            raise Refused(404, "no picture")
        self.more_headers[SCENE_HEADER] = msgspec.json.encode(still.scene).decode()
        self.more_headers[NUMBER_HEADER] = str(still.number)
        self.more_headers[AGE_HEADER] = str(age_ms(still, self.server.page.boot_ns()))
        return "image/jpeg", still.jpeg

    def _sent(self, kind: Any) -> Any:
        try:
            return msgspec.json.decode(self.body(), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"not what the page sends: {error}") from None


def listen(
    setup: Callable[[], SetupDesk], link: Link, device: str, *, port: int, boot_ns: Callable[[], int]
) -> SetupServer:
    """Serves on a link until `close`. Raises ConfigError when the address cannot be had."""
    server = SetupServer(setup(), link, device=device, boot_ns=boot_ns, say=log.warning)
    server.open(link.address, port)
    return server
