"""One request to the provider, by h11 over asyncio: bounded in time as a whole, and in bytes.

A deadline for each read is not enough: a server that sends a byte before each of them is never late. No redirect is
followed, no cookie kept, no proxy asked.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import h11

from agent.errors import Corrupt, Transient
from agent.station.people.oidc.settings import Address

HEAD_BYTES_MAX = 16 * 1024
_READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole of it."""

    status: int
    body: bytes


def fetch(
    at: Address,
    *,
    context: ssl.SSLContext,
    within_s: float,
    bytes_max: int,
    form: Mapping[str, str] | None = None,
    authorization: str = "",
) -> Answer:
    """GET, or POST of a form. Blocks for `within_s` at most, and for the name's resolution.

    Raises Transient (nobody answers, too late, its certificate is not believed), Corrupt (no HTTP, or too much).
    """
    body = b"" if form is None else urlencode(form).encode()
    request = h11.Request(
        method="GET" if form is None else "POST",
        target=at.target,
        headers=[
            ("Host", at.authority),
            ("Accept", "application/json"),
            ("User-Agent", "wardpost"),
            ("Connection", "close"),
            *([] if form is None else [("Content-Type", "application/x-www-form-urlencoded")]),
            *([] if form is None else [("Content-Length", str(len(body)))]),
            *([("Authorization", authorization)] if authorization else []),
        ],
    )
    try:
        return asyncio.run(_within(at, request, body, context, within_s, bytes_max))
    except TimeoutError:
        raise Transient(f"{at.host} does not answer within {within_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise Transient(f"{at.host}: its certificate is not believed: {error.verify_message}") from None
    except OSError as error:
        raise Transient(f"{at.host} cannot be reached: {error.strerror or type(error).__name__}") from None
    except h11.ProtocolError:
        raise Corrupt(f"{at.host} does not answer in HTTP, or with too long a head") from None


async def _within(
    at: Address, request: h11.Request, body: bytes, context: ssl.SSLContext, within_s: float, bytes_max: int
) -> Answer:
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_connection(at.host, at.port, ssl=context if at.secure else None)
        try:
            return await _exchanged(reader, writer, request, body, bytes_max)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # it closes in the loop's next round


async def _exchanged(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request, body: bytes, bytes_max: int
) -> Answer:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    for part in (request, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    status, found = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            found += event.data
            if len(found) > bytes_max:
                raise Corrupt(f"its answer is longer than {bytes_max} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(found))
        elif not isinstance(event, h11.InformationalResponse):
            raise Transient("it has hung up in the middle of its answer")
