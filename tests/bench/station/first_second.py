"""From somebody's request for footage to the first second of it that can be played, with a real node, broker and station.

The node watches the sample footage and has sealed some files, of which it sends none by itself; the range that is asked
for is ten seconds that are sealed. The clock runs from the form that is sent until the playlist names a segment and its bytes are here:
command, hold, token, upload by tus, the ledger's check, archive, page. Beside it: the same bytes fetched once more.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from agent.station.people.roles import Role
from agent.types import NS
from tests.bench.figure import Bench, Row, percentile
from tests.bench.station.served import ORIGIN, Visitor, answers, people
from tests.e2e.brokers import NatsServer, free_port
from tests.e2e.post import Post, recording
from tests.e2e.test_send import Headquarters

WAIT_S_MAX = 120.0
ASKED_S = 10


def measure(bench: Bench) -> list[Row]:
    """Seconds; the median of some requests, each for a range that was not here."""
    bench.assets.model()
    bench.assets.labels()
    os.environ["WARDPOST_CACHE"] = str(bench.assets.cache)
    folder = bench.folder
    (folder / "broker").mkdir()
    server = NatsServer(folder / "broker")
    server.start()
    post = Post(folder, bench.assets.footage(), server.url)
    (folder / "hq").mkdir()
    desk = Headquarters(folder / "hq", server.url)
    taken: list[float] = []
    again: list[float] = []
    try:
        port = _join(desk, post, folder / "keys")
        desk.start()
        _until(lambda: answers(port), "the pages to come up", desk)
        visitor = Visitor(port, "operator")
        post.start()
        post.wait_for(recording)
        for _ in range(bench.size.repeats):
            before = _sealed(post)
            _until(lambda: _sealed(post) >= before + 2, "two sealed files", desk)  # noqa: B023  (called at once)
            one, other = _request(visitor, time.time_ns() - 2 * ASKED_S * NS, desk)
            taken.append(one)
            again.append(other)
    finally:
        desk.end(signal.SIGTERM)
        post.clean_up()
        server.stop()
    what = "from the request for footage to its first second in the page"
    return [
        Row("first-second", what, percentile(taken, 0.5), "s", "its playlist and bytes once they are here",
            percentile(again, 0.5), note=f"{len(taken)} requests; files of 10 s, one machine")
    ]  # fmt: skip


def _join(desk: Headquarters, post: Post, keys: Path) -> int:
    """The node belongs to the site, and the station has pages. Returns their port."""
    desk.enrol("cam-7", keys)
    port = free_port()
    with desk.config.open("a") as file:
        file.write(f'[web]\nlisten = "127.0.0.1:{port}"\norigin = "{ORIGIN}"\nbehind_proxy = true\n')
    people(desk.data, [("operator", Role.OPERATOR, ())], site="ward", station="hq")
    text = post.config.read_text()
    text = text.replace("[uplink]\n", f'[uplink]\ncommand_key = "{desk.root}/station/command.pub"\n').replace(
        "[health]", f'[sending]\nurl = "https://127.0.0.1:{desk.port}"\nkbps_max = 100000\nclips = "none"\n\n[health]'
    )
    tls = f'\n[uplink.tls]\nca = "{keys}/ca.pem"\ncert = "{keys}/node.pem"\nkey = "{keys}/node.key"\n'
    post.config.write_text(text + tls)
    return port


def _sealed(post: Post) -> int:
    return int(post.status().get("recording", {}).get("segments", 0))


def _request(visitor: Visitor, start_utc_ns: int, desk: Headquarters) -> tuple[float, float]:
    """Seconds until the first second of the range is here, and seconds to fetch it again."""
    start, end = (f"{dt.datetime.fromtimestamp(at // NS, dt.UTC):%Y-%m-%dT%H:%M:%S}"
                  for at in (start_utc_ns, start_utc_ns + ASKED_S * NS))  # fmt: skip
    form = re.search(rb'name="form" value="(\w+)"', visitor.get(f"/footage?post.cam-7=on&from={start}&to={end}"))
    if form is None:
        raise RuntimeError("the page has no form")
    fields = {"form": form[1].decode(), "from": start, "to": end, "reason": "how long it takes"}
    began = time.monotonic()
    status, _ = visitor.send("POST", "/footage/cam-7/request", fields)
    if status != 303:
        raise RuntimeError(f"the request is answered with {status}")
    address = f"/footage/cam-7/list.m3u8?from={start}&to={end}"
    _until(lambda: _second(visitor, address), "the first second", desk)
    taken = time.monotonic() - began
    began = time.monotonic()
    if not _second(visitor, address):
        raise RuntimeError("what was here is gone")
    return taken, time.monotonic() - began


def _second(visitor: Visitor, address: str) -> bool:
    """Whether the playlist names a second or more, and the bytes of its first second are here."""
    status, listed = visitor.send("GET", address)
    if status != 200:
        return False
    seconds = 0.0  # the first segment may be no more than the end of a file
    for lasts, count, first, uri in re.findall(
        rb"#EXTINF:([\d.]+),.*?#EXT-X-BYTERANGE:(\d+)@(\d+)\n(\S+)", listed, re.DOTALL
    ):
        status, data = visitor.send("GET", uri.decode(), part=(int(first), int(count)))
        if status != 206 or len(data) != int(count):
            return False
        seconds += float(lasts)
        if seconds >= 1.0:
            return True
    return False


def _until(true: Callable[[], bool], what: str, desk: Headquarters) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {WAIT_S_MAX:g} s for {what}; see {desk.folder / 'station.log'}")
        time.sleep(0.02)
