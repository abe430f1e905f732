"""The address to which nodes send footage: tus 1.0.0 over HTTPS (see agent/tus.py for the contract).

No library is used for tus: tuspyserver 4.4, the one in the registry that is kept up, needs FastAPI, knows no checksums,
and takes the size of a file for its offset, which after a power cut may be zeros.

A request is answered within BODY_S_MAX or given up; its body is CHUNK_BYTES_MAX at most, and kept in memory until its
checksum is right. Nothing that a node says becomes a path: see `tus.parse_id`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from agent import tus
from agent.clock import Clock
from agent.errors import Corrupt, Transient
from agent.station.uploads_access import Access
from agent.station.uploads_staging import Info, NotTaken, Staging, Why
from agent.types import NS

BODY_S_MAX = 60.0
RETRY_S = "30"
STATUS = {
    Why.UNKNOWN: 404,
    Why.CONFLICT: 409,
    Why.BUSY: 423,
    Why.TOO_LARGE: 413,
    Why.TOO_MANY: 429,
    Why.TOO_MUCH: 429,
    Why.NOT_ASKED: 403,
    Why.NOT_YET: 409,
    Why.NO_ROOM: 507,
}
CHECKSUM_MISMATCH = 460
"""tus, checksum."""
Kept = Callable[[str, str], int | None]
"""Of a node and a digest: the size of a file that the archive has already. Raises Transient."""

log = logging.getLogger(__name__)


class Admission(Protocol):
    """Which files may come (agent/station/uploads_admission.py). Any thread."""

    def check(self, node: str, size: int, footage: tus.Footage, on_the_way: Sequence[Info]) -> None: ...

    def also(self, node: str, footage: tus.Footage) -> None: ...


class _Refused(Exception):  # noqa: N818
    """Ends a request with this answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def make_app(
    *, access: Access, admission: Admission, staging: Staging, kept: Kept, clock: Clock, file_bytes_max: int
) -> Starlette:
    """The application. Its handlers block in threads, never in the loop."""
    desk = _Desk(access, admission, staging, kept, clock, file_bytes_max)
    return Starlette(
        routes=[
            Route(tus.CHALLENGE, desk.answered(desk.challenge), methods=["POST"]),
            Route(tus.TOKEN, desk.answered(desk.token), methods=["POST"]),
            Route(tus.FILES, desk.answered(desk.options), methods=["OPTIONS"]),
            Route(tus.FILES, desk.answered(desk.create), methods=["POST"]),
            Route(tus.FILES + "/{upload}", desk.answered(desk.options), methods=["OPTIONS"]),
            Route(tus.FILES + "/{upload}", desk.answered(desk.head), methods=["HEAD"]),
            Route(tus.FILES + "/{upload}", desk.answered(desk.patch), methods=["PATCH"]),
        ]
    )


class _Desk:
    def __init__(
        self,
        access: Access,
        admission: Admission,
        staging: Staging,
        kept: Kept,
        clock: Clock,
        file_bytes_max: int,
    ) -> None:
        self._access, self._admission, self._staging = access, admission, staging
        self._kept, self._clock = kept, clock
        self._file_bytes_max = file_bytes_max
        self._announcing = threading.Lock()  # or two announcements could each have the last bytes of a day

    def answered(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """One line for whoever asks wrongly, whatever goes wrong; nothing of ours in it."""

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except _Refused as refused:
                response = _said(refused.status, str(refused))
            except NotTaken as refused:
                response = _said(STATUS[refused.why], str(refused))
            except Corrupt as error:
                response = _said(400, str(error))
            except (TimeoutError, ClientDisconnect):
                response = _said(408, "the request did not come within its time")
            except Transient as error:
                log.warning("upload: %s", error)
                response = _said(503, "not now; later")
            if response.status_code in (429, 503, 507):
                response.headers["Retry-After"] = RETRY_S
            response.headers["Tus-Resumable"] = tus.VERSION
            response.headers["Cache-Control"] = "no-store"
            return response

        return answer

    # -- who ----------------------------------------------------------------------------------------------------------

    async def challenge(self, request: Request) -> Response:
        ask = tus.decode(await _body(request, tus.JSON_BYTES_MAX), tus.Ask)
        return _json(self._access.challenge(ask))

    async def token(self, request: Request) -> Response:
        asked = tus.decode(await _body(request, tus.JSON_BYTES_MAX), tus.Proof)
        try:
            return _json(await run_in_threadpool(self._access.grant, asked))
        except Corrupt as error:
            log.warning("upload: no token for %s: %s", asked.node, error)
            raise _Refused(403, str(error)) from None

    def _node(self, request: Request) -> str:
        """Who asks, by his token, and in our version of tus."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        node = self._access.node_of(token.strip()) if kind.lower() == "bearer" else None
        if node is None:
            raise _Refused(401, "no token, or one that has run out")
        if request.headers.get("tus-resumable") != tus.VERSION:
            raise _Refused(412, f"Tus-Resumable: {tus.VERSION}")
        return node

    def _own(self, request: Request) -> tuple[str, str, str]:
        """(node, upload, digest) of an address that belongs to whoever asks."""
        node = self._node(request)
        upload = str(request.path_params["upload"])
        found = tus.parse_id(upload)
        if found is None or found[0] != node:
            raise _Refused(404, "there is no such upload here")
        return node, upload, found[1]

    # -- tus ----------------------------------------------------------------------------------------------------------

    async def options(self, _request: Request) -> Response:
        return Response(
            status_code=204,
            headers={
                "Tus-Version": tus.VERSION,
                "Tus-Extension": tus.EXTENSIONS,
                "Tus-Max-Size": str(self._file_bytes_max),
                "Tus-Checksum-Algorithm": "sha256",
            },
        )

    async def create(self, request: Request) -> Response:
        node = self._node(request)
        size = _number(request, "upload-length")
        footage = tus.footage_of(request.headers.get("upload-metadata", ""))
        upload = await run_in_threadpool(self._announce, node, size, footage)
        return Response(status_code=201, headers={"Location": f"{tus.FILES}/{upload}", **self._expires()})

    def _announce(self, node: str, size: int, footage: tus.Footage) -> str:
        """The id of the upload of a file that may come, or has. Raises _Refused, NotTaken, Transient."""
        there = self._kept(node, footage.sha256)
        if there is not None:
            if there != size:
                raise _Refused(409, f"a file of this digest with {there} bytes is kept")
            self._admission.also(node, footage)
            return tus.upload_id(node, footage.sha256)  # HEAD says that it is whole
        with self._announcing:
            announced = self._staging.announced(node)
            known = next((one for one in announced if one.footage.sha256 == footage.sha256), None)
            if known is None:
                self._admission.check(node, size, footage, announced)
            elif known.footage.order != footage.order:
                self._admission.also(node, footage)
            return self._staging.create(node, size, footage)

    async def head(self, request: Request) -> Response:
        node, upload, sha256 = self._own(request)
        offset, size = await run_in_threadpool(self._offset, node, upload, sha256)
        expires = self._expires() if offset < size else {}
        return Response(headers={"Upload-Offset": str(offset), "Upload-Length": str(size), **expires})

    def _offset(self, node: str, upload: str, sha256: str) -> tuple[int, int]:
        try:
            return self._staging.offset(upload)
        except NotTaken as refused:
            there = self._kept(node, sha256) if refused.why is Why.UNKNOWN else None
            if there is None:
                raise
            return there, there

    async def patch(self, request: Request) -> Response:
        _, upload, _ = self._own(request)
        if request.headers.get("content-type") != tus.OFFSET_TYPE:
            raise _Refused(415, f"Content-Type: {tus.OFFSET_TYPE}")
        offset = _number(request, "upload-offset", least=0)
        stated = _stated(request)
        data = await _body(request, tus.CHUNK_BYTES_MAX)
        if stated is not None and not hmac.compare_digest(stated, hashlib.sha256(data).digest()):
            raise _Refused(CHECKSUM_MISMATCH, "Upload-Checksum: the chunk was altered on its way; send it again")
        offset = await run_in_threadpool(self._staging.append, upload, offset, data)
        return Response(status_code=204, headers={"Upload-Offset": str(offset), **self._expires()})

    def _expires(self) -> dict[str, str]:
        until = datetime.fromtimestamp(self._clock.utc().utc_ns // NS, UTC) + timedelta(seconds=self._staging.expire_s)
        return {"Upload-Expires": until.strftime("%a, %d %b %Y %H:%M:%S GMT")}


async def _body(request: Request, bytes_max: int) -> bytes:
    """The body. Raises _Refused beyond `bytes_max`; it never holds more."""
    found = bytearray()
    async with asyncio.timeout(BODY_S_MAX):
        async for part in request.stream():
            if len(found) + len(part) > bytes_max:
                raise _Refused(413, f"{bytes_max} bytes at most in one request")
            found += part
    return bytes(found)


def _number(request: Request, header: str, *, least: int = 1) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) >= least):
        raise _Refused(400, f"{header}: a number of bytes")
    return int(text)


def _stated(request: Request) -> bytes | None:
    """The digest in `Upload-Checksum`; None without one."""
    text = request.headers.get("upload-checksum")
    if text is None:
        return None
    kind, _, value = text.partition(" ")
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if kind != "sha256" or len(digest) != hashlib.sha256().digest_size:
        raise _Refused(400, "Upload-Checksum: sha256 and a digest in base64")
    return digest


def _json(told: tus.Challenge | tus.Grant) -> Response:
    return Response(msgspec.json.encode(told), media_type="application/json")


def _said(status: int, text: str) -> Response:
    return Response(f"{text[:300]}\n", status_code=status, media_type="text/plain")
