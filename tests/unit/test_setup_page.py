"""The page of an installation: who is let in, when it is on, what it shows, and that it is off afterwards."""

from __future__ import annotations

import configparser
import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from agent.clock import SystemClock
from agent.config import SetupPageSettings
from agent.errors import ConfigError, Corrupt, Transient
from agent.panel import Edge, Input, Output
from agent.setup_page import network, opening
from agent.setup_page.command import told
from agent.setup_page.desk import SetupDesk, checks
from agent.setup_page.gate import WRONG_MAX, Gate, Shut, spelled
from agent.setup_page.link import Link, interface_of, links
from agent.setup_page.opening import PageState
from agent.setup_page.server import SCENE_HEADER, SetupServer, listen
from agent.setup_page.view import LiveView, scene
from agent.setup_page.worker import FLAG, STATE, PageWorker, request_reader
from agent.types import NS, Bgr, Box, Frame, Label
from agent.vision.tracker import Track
from agent.zones_page.server import TOKEN_HEADER
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk

ROOT = Path(__file__).parents[2]
CODE = "ABCDE-23456"
LO = links(["127.0.0.1/32"])[0]


# -- the gate ---------------------------------------------------------------------------------------------------------


def test_the_code_lets_in_however_it_is_typed() -> None:
    gate = Gate(CODE, nonce=b"n" * 16)
    token = gate.enter(" abcde 23456\n", 0)
    assert token == gate.enter("ABCDE23456", 0) and gate.knows(token) and len(token) == 64
    assert Gate(CODE, nonce=b"n" * 16).knows(token), "the agent was started again: nobody types the code anew"
    assert not Gate(CODE, nonce=b"m" * 16).knows(token), "another time the page is on, another token"
    for other in ("", token[:-1], token.upper(), "ÿ"):
        assert not gate.knows(other)
    gate.close()
    assert not gate.knows(token)
    with pytest.raises(Shut):
        gate.enter(CODE, 0)


def test_a_guesser_waits_twice_as_long_each_time_and_is_shut_out_for_good() -> None:
    gate, now_ns, waits = Gate(CODE, nonce=b"n"), 0, []
    for _ in range(WRONG_MAX):
        with pytest.raises(Shut) as wrong:
            gate.enter("AAAAA-AAAAA", now_ns)
        assert wrong.value.wait_s == 0
        with pytest.raises(Shut) as early:
            gate.enter(CODE, now_ns)
        waits.append(early.value.wait_s)
        now_ns += round(early.value.wait_s * NS) if gate.wrong < WRONG_MAX else 0
    assert waits[:6] == [2, 4, 8, 16, 32, 60] and sum(waits) > 400
    assert gate.worn_out
    with pytest.raises(Shut, match="off"):
        gate.enter(CODE, now_ns + 3600 * NS)


def test_one_who_mistyped_comes_in_after_the_wait() -> None:
    gate = Gate(CODE, nonce=b"n")
    with pytest.raises(Shut):
        gate.enter("", 0)
    assert gate.knows(gate.enter(CODE, 2 * NS))
    assert spelled("abcde23456") == CODE and spelled("") == ""


# -- when it is on ----------------------------------------------------------------------------------------------------


def test_a_request_counts_once_until_it_says_something_else() -> None:
    state = PageState()
    first = opening.requested(state, b"claim-1\n")
    state = opening.begun(state, why="w", minutes=1, boot_id="a", now_ns=0, nonce=b"n" * 16, request=first)
    state = opening.ended(state)
    assert opening.requested(state, b"claim-1\n") == opening.requested(state, b" claim-1") == ""
    assert opening.requested(state, b"again, please") not in {"", first}
    for nothing in (None, b"", b" \n", b"x" * 5000):
        assert opening.requested(state, nothing) == ""


def test_a_restart_keeps_the_time_and_a_reboot_cannot_stretch_it() -> None:
    state = opening.begun(PageState(), why="w", minutes=30, boot_id="a", now_ns=0, nonce=b"n" * 16)
    same = opening.resumed(state, boot_id="a", now_ns=600 * NS, minutes_max=30)
    assert opening.left_s(same, 600 * NS) == 1200
    late = opening.resumed(state, boot_id="a", now_ns=1800 * NS, minutes_max=30)
    assert late.on is None
    rebooted = opening.resumed(opening.noted(state, 1500 * NS), boot_id="b", now_ns=5 * NS, minutes_max=30)
    assert opening.left_s(rebooted, 5 * NS) == 300
    less = opening.resumed(state, boot_id="b", now_ns=0, minutes_max=1)
    assert opening.left_s(less, 0) == 60, "settings that allow less hold at once"
    assert opening.decode(opening.encode(state)) == state
    for rubbish in (b"", b"{", b"[]", b"\xff" * 9, b"x" * 5000, b'{"v": 2}', b'{"on": {"boot_id": 1}}'):
        with pytest.raises(Corrupt):
            opening.decode(rubbish)


class Serving:
    """A server that only remembers."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Post:
    """A PageWorker with a clock that is driven."""

    def __init__(self, disk: FakeDisk | None = None, clock: FakeClock | None = None, **settings: Any) -> None:
        self.clock, self.disk = clock or FakeClock(), disk or FakeDisk()
        self.notes: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.served: list[Serving] = []
        self.request: bytes | None = None
        self.broken = False
        self.shown = 0
        values = {"code": CODE, "addresses": ("127.0.0.1/8",)} | settings
        self.worker = PageWorker(
            settings=SetupPageSettings(**values),
            clock=self.clock,
            disk=self.disk,
            note=self.note,
            tell=self.said.append,
            request=lambda: self.request,
            nonce=lambda: b"n" * 16,
            serve=self.serve,
            shown=lambda: self.shown,
        )

    def note(self, body: bytes) -> None:
        if self.broken:
            raise Transient("the disk refuses")
        self.notes.append(msgspec.json.decode(body))

    def serve(self, link: Link, device: str) -> Serving:
        assert device == "lo"
        self.served.append(Serving())
        return self.served[-1]

    def step(self, seconds: float = 0.0) -> float:
        self.clock.advance(seconds)
        now = self.clock.boot_ns() / NS
        return self.worker.step(now) - now

    def on(self) -> bool:
        return bool(self.worker.told()["on"])


def test_without_a_code_there_is_no_page_whatever_happens() -> None:
    post = Post(code="")
    post.request = b"please"
    post.worker.open()
    assert post.step() > 60 and not post.on() and post.served == [] and post.notes == []
    with pytest.raises(ConfigError, match="code"):
        post.worker.order({"minutes": 5})


def test_a_card_from_flash_opens_the_page_once_and_time_ends_it() -> None:
    post = Post(page_minutes_max=10)
    post.request = b"claim-1"
    post.worker.open()
    post.step()
    assert post.on() and len(post.served) == 1 and FLAG in post.disk.list("setup-page")
    token = post.worker.enter(CODE, " Minh \n", "10.42.77.9")
    assert post.worker.knows(token)
    post.shown = 321
    post.step(599)
    assert post.on() and post.worker.knows(token)
    post.step(2)
    assert not post.on() and not post.worker.knows(token) and post.served[0].closed
    assert FLAG not in post.disk.list("setup-page"), "the hotspot goes too"
    assert [one["page"] for one in post.notes] == ["on", "entered", "off"]
    assert post.notes[1] == {"page": "entered", "by": "Minh", "peer": "10.42.77.9"}
    assert post.notes[2]["pictures"] == 321 and post.notes[2]["why"] == "its time is over"
    assert len(post.said) == 1 and "Minh" in post.said[0]
    post.worker.close()
    post.worker.open()
    assert not post.on(), "the same request is used up"


def test_a_restart_goes_on_and_a_reboot_with_what_was_noted() -> None:
    post = Post(page_minutes_max=10)
    post.worker.open()
    post.worker.order({"minutes": 10})
    token = post.worker.enter(CODE, "Lan", "x")
    for _ in range(5):
        post.step(60)
    post.shown = 7
    post.worker.close()
    assert post.notes[-1] == {"page": "paused", "why": "the agent stops", "pictures": 7}
    again = Post(post.disk, post.clock, page_minutes_max=10)
    again.worker.open()
    assert again.on() and again.worker.knows(token) and again.worker.told()["left_s"] == 300
    rebooted = Post(post.disk, FakeClock(boot_id="e" * 32), page_minutes_max=10)
    rebooted.worker.open()
    assert 300 <= rebooted.worker.told()["left_s"] <= 360


def test_the_bell_held_with_the_lid_open_opens_it_and_only_then() -> None:
    post = Post(hold_s=10)
    post.worker.open()

    def edge(pin: Input, active: bool) -> None:
        post.worker.edge(Edge(pin, active, post.clock.boot_ns()))

    edge(Input.BELL, True)
    post.step(20)
    assert not post.on(), "anybody may hold a bell"
    edge(Input.BELL, False)
    edge(Input.TAMPER, True)
    assert post.step(30) > 60 and not post.on()
    edge(Input.BELL, True)
    assert post.step(9) <= 2 and not post.on()
    post.step(2)
    assert post.on() and "bell" in post.worker.told()["why"]
    post.worker.finish()
    post.step(30)
    assert not post.on(), "one press, one wish"
    assert post.worker.wires()["bell"]["times"] == 2


def test_nobody_is_let_in_who_cannot_be_put_on_record() -> None:
    post = Post()
    post.worker.open()
    post.worker.order({"minutes": 5})
    with pytest.raises(ConfigError, match="name"):
        post.worker.enter(CODE, " \t\x00", "x")
    post.broken = True
    with pytest.raises(Transient):
        post.worker.enter(CODE, "Lan", "x")
    with pytest.raises(Transient):
        post.worker.did("siren")
    post.worker.order({"off": True})
    assert not post.on(), "off is off, even if the disk refuses to write it down"
    other = Post()
    other.broken = True
    other.worker.open()
    with pytest.raises(Transient):
        other.worker.order({"minutes": 5})
    assert not other.on()


def test_too_many_wrong_codes_end_it() -> None:
    post = Post()
    post.worker.open()
    post.worker.order({"minutes": 30})
    for _ in range(WRONG_MAX):
        with pytest.raises(Shut):
            post.worker.enter("nope", "Eve", "x")
        post.clock.advance(61)
    post.step()
    assert (
        not post.on() and post.notes[-1]["why"] == "too many wrong codes" and post.notes[-1]["wrong_codes"] == WRONG_MAX
    )


def test_a_damaged_memory_keeps_it_off_and_does_not_use_the_request_twice() -> None:
    post = Post()
    post.request = b"claim-1"
    post.worker.open()
    post.worker.order({"off": True})
    post.disk.replace(STATE, b"\xff\x00")
    again = Post(post.disk, post.clock)
    again.request = b"claim-1"
    again.worker.open()
    assert not again.on()


@pytest.mark.parametrize("args", [{"minutes": "5"}, {"minutes": True}, {"minutes": -1}, {"minutes": float("nan")}])
def test_an_order_that_is_none_is_refused(args: dict[str, Any]) -> None:
    post = Post()
    post.worker.open()
    with pytest.raises(Corrupt):
        post.worker.order(args)
    assert post.worker.order({"minutes": 1e9})["left_s"] == 1800, "never longer than page_minutes_max"
    assert "on for 30 min" in told(post.worker.told())[0]


def test_only_local_links_are_taken() -> None:
    assert links(["10.42.77.1/24"])[0].admits("10.42.77.200") and not links(["10.42.77.1/24"])[0].admits("10.42.78.2")
    assert not LO.admits("::1") and not LO.admits("rubbish")
    for wrong in ("8.8.8.8/24", "0.0.0.0/0", "10.42.77.1", "10.0.0.1/8", "hotspot", "fe80::1/64", "10.42.77.1/99"):
        with pytest.raises(ConfigError, match=r"setup_page\.addresses"):
            links([wrong])
    assert interface_of("127.0.0.1") == "lo" and interface_of("10.42.77.254") == ""


def test_the_request_is_read_from_the_card(tmp_path: Path) -> None:
    assert request_reader("")() is None and request_reader(str(tmp_path))() is None
    (tmp_path / "r").write_text("x" * 9000)
    assert len(request_reader(str(tmp_path / "r"))() or b"") == opening.REQUEST_BYTES_MAX + 1


# -- what it shows ----------------------------------------------------------------------------------------------------


def a_track(box: Box, label: Label = Label.PERSON, last_ns: int = 0) -> Track:
    return Track(
        id=1, label=label, score=0.9, box=box, first_ns=0, last_ns=last_ns, confirmed=True, moved=True, missed=0, hits=3
    )


def test_a_person_is_measured_against_the_least_height() -> None:
    told_of = scene(540, [], [a_track(Box(0.5, 0.5, 0.1, 0.1)), a_track(Box(0.1, 0.5, 0.1, 0.2))])
    assert told_of["least_px"] == 68
    assert [(one["px"], one["enough"]) for one in told_of["things"]] == [(54, False), (108, True)]
    (car,) = scene(540, [], [a_track(Box(0, 0, 0.1, 0.01), Label.VEHICLE)])["things"]
    assert car["enough"] and car["cut"]


class Source:
    """Counts conversions."""

    def __init__(self) -> None:
        self.crops = 0

    def crop(self, box: Box, px_max: int) -> Bgr:
        self.crops += 1
        return np.full((270, px_max // 2, 3), 90, np.uint8)


def test_vision_converts_nothing_while_nobody_looks_and_four_pictures_a_second_at_most() -> None:
    clock, source = FakeClock(), Source()
    asked: list[int] = []
    view = LiveView(boot_ns=clock.boot_ns, attend=asked.append)

    def seen(n: int) -> None:
        frame = Frame(seq=n, boot_ns=clock.boot_ns(), luma=np.zeros((36, 64), np.uint8), source=source)
        view.seen(frame, [], [], [a_track(Box(0, 0.5, 0.1, 0.3), last_ns=clock.boot_ns())])
        clock.advance(0.05)

    for n in range(20):
        seen(n)
    assert source.crops == 0
    assert view.still(after=0, wait_s=0) is None and asked, "a camera that decodes on demand is asked for pictures"
    for n in range(40):
        seen(n)
    assert 7 <= source.crops <= 9, "two seconds"
    still = view.still(after=0, wait_s=0)
    assert still is not None and still.number == 1 and still.scene["things"][0]["px"] == 81
    picture = cv2.imdecode(np.frombuffer(still.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[1] == 480
    assert view.still(after=1, wait_s=0) is None and view.shown == 1
    clock.advance(10)
    crops = source.crops
    seen(99)
    assert source.crops == crops, "whoever looked has gone"


STATUS = {
    "camera": {"fps": 14.9, "frameagems": 80},
    "vision": {"healthy": True, "inferencems": 40.0},
    "recording": {"recording": True, "fault": "", "privacyleft_s": 0.0},
    "broker": "mqtts://hq",
    "station_silent": False,
    "queue": {"outboxrows": 3},
}


def test_the_checks_name_what_a_post_needs() -> None:
    assert all(one["ok"] for one in checks(STATUS, free_bytes=10**10, unc_ns=5))
    sick = {
        "camera": {"fps": 0, "frameagems": None},
        "vision": {"healthy": False, "inferencems": 0},
        "recording": {"recording": False, "fault": "read-only", "privacyleft_s": 0.0},
        "broker": None,
        "station_silent": True,
        "queue": {"outboxrows": 3},
    }
    assert not any(one["ok"] for one in checks(sick, free_bytes=None, unc_ns=None))
    words = {name: json.loads((ROOT / f"agent/setup_page/words.{name}.json").read_text()) for name in ("en", "vi")}
    for one in checks(STATUS, free_bytes=1, unc_ns=1):
        for end in ("", ".good", ".bad"):
            assert all(f"check.{one['id']}{end}" in found for found in words.values())


def test_both_languages_say_the_same_things_with_the_same_values() -> None:
    words = {name: json.loads((ROOT / f"agent/setup_page/words.{name}.json").read_text()) for name in ("en", "vi")}
    assert words["en"].keys() == words["vi"].keys()
    for key, text in words["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", words["vi"][key])), key
    used = set(re.findall(r'data-word="([\w.]+)"', (ROOT / "agent/setup_page/setup.html").read_text()))
    used |= set(re.findall(r'word\("([\w.]+)"', (ROOT / "agent/setup_page/setup.js").read_text()))
    assert used <= words["en"].keys(), f"no words for {sorted(used - words['en'].keys())}"


# -- who reaches it ---------------------------------------------------------------------------------------------------


class Page:
    """The real server on loopback, on a real port, with a worker of ours behind it."""

    def __init__(self) -> None:
        self.post = Post(clock=None)
        self.post.worker.open()
        self.post.worker.order({"minutes": 5})
        self.switched: list[tuple[str, float]] = []
        clock = SystemClock()
        self.view = LiveView(boot_ns=clock.boot_ns)
        self.desk = SetupDesk(
            page=self.post.worker,
            view=self.view,
            clock=clock,
            about={"node": "w/n", "place": ""},
            status=lambda: STATUS,
            examine=lambda _: {"well": True, "summary": "", "diagnoses": []},
            free_bytes=lambda: 10**9,
            wired=lambda pin: pin is not Output.LAMP,
            outputs={Output.SIREN: lambda s: self.switch("siren", s), Output.LAMP: lambda s: self.switch("lamp", s)},
            zones=self.no_zones,
        )
        self.server: SetupServer = listen(lambda: self.desk, LO, "lo", port=0, boot_ns=clock.boot_ns)
        assert self.server._http is not None
        self.port = self.server._http.server_address[1]

    def switch(self, what: str, seconds: float) -> float:
        self.switched.append((what, seconds))
        return seconds

    def no_zones(self, _picture: object) -> Any:
        raise ConfigError("this node was started without a file of settings")

    def asked(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Host": f"127.0.0.1:{self.port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.putrequest("GET" if data is None else "POST", path, skip_host=True)
        for name, value in (sent | ({} if data is None else {"Content-Length": str(len(data))})).items():
            connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        result = (answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return result

    def enter(self) -> dict[str, str]:
        status, _, body = self.asked("/setup/enter", {"code": CODE, "name": "Lan"})
        assert status == 200
        return {TOKEN_HEADER.replace("-", "_"): json.loads(body)["token"]}


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.server.close()


SECRETS = ("/setup/state", "/setup/still/0", "/api/state", "/api/picture", "/api/picture/new")
ACTS = ("/setup/try", "/setup/done", "/api/check", "/api/save")


def test_nothing_is_shown_or_done_without_the_code(page: Page) -> None:
    for headers in ({}, {"X_Wardpost_Token": "0" * 64}, {"X_Wardpost_Token": ""}):
        for path in SECRETS:
            assert page.asked(path, **headers)[0] == 401
        for path in ACTS:
            assert page.asked(path, {"what": "siren"}, **headers)[0] == 401
    assert page.switched == [] and page.post.on() and page.view.shown == 0


def test_pages_come_with_a_strict_policy_and_load_nothing_from_elsewhere(page: Page) -> None:
    for path in ("/", "/setup.js", "/setup.css", "/words.en.json", "/words.vi.json", "/zones", "/page.js", "/page.css"):
        status, headers, body = page.asked(path)
        assert status == 200 and headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        text = body.decode()
        outside = [part for part in text.split("http://")[1:] if not part.startswith("www.w3.org/2000/svg")]
        assert outside == [] and "https://" not in text and CODE not in text
    html = page.asked("/")[2].decode()
    assert html.count("<script") == 1 and "onclick" not in html and "style=" not in html


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "10.42.77.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
def test_a_page_of_another_site_cannot_even_try_a_code(page: Page, headers: dict[str, str], status: int) -> None:
    asked = page.asked("/setup/enter", {"code": CODE, "name": "Eve"}, **headers)
    assert asked[0] == status and all(one["page"] != "entered" for one in page.post.notes)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"code": 1, "name": "x"}', b'{"code": "x"}', b"[" * 9999]
)
def test_rubbish_at_the_door_is_one_line(page: Page, body: bytes) -> None:
    status, _, answer = page.asked("/setup/enter", body)
    assert status == 400 and "error" in json.loads(answer)
    assert page.post.worker.told()["wrong_codes"] == 0


def test_a_wrong_code_is_said_and_the_next_try_must_wait(page: Page) -> None:
    assert page.asked("/setup/enter", {"code": "AAAAA-AAAAA", "name": "Eve"})[0] == 403
    status, headers, _ = page.asked("/setup/enter", {"code": CODE, "name": "Eve"})
    assert status == 429 and headers["Retry-After"] == "3"
    page.post.clock.advance(2)
    token = page.enter()
    assert page.asked("/setup/state", **token)[0] == 200
    assert page.asked("/setup/enter", {"code": CODE, "name": "  "})[0] == 400


def test_inside_are_state_pictures_and_trials_and_what_is_tried_is_on_record(page: Page) -> None:
    token = page.enter()
    state = json.loads(page.asked("/setup/state", **token)[2])
    assert state["node"] == "w/n" and len(state["checks"]) == 7 and state["wired"]["lamp"] is False
    page.view.still(after=0, wait_s=0)
    frame = Frame(seq=1, boot_ns=0, luma=np.zeros((36, 64), np.uint8), source=Source())
    page.view.seen(frame, [Box(0.1, 0.1, 0.2, 0.2)], [], [])
    status, headers, jpeg = page.asked("/setup/still/0", **token)
    assert status == 200 and jpeg.startswith(b"\xff\xd8") and json.loads(headers[SCENE_HEADER])["motion"]
    assert page.asked("/setup/still/1", **token)[0] == 404
    for odd in ("/setup/still/x", "/setup/still/", "/setup/still/-1", "/setup/still/" + "9" * 30):
        assert page.asked(odd, **token)[0] == 400
    assert page.asked("/setup/try", {"what": "siren"}, **token)[0] == 200 and page.switched == [("siren", 2.0)]
    assert page.asked("/setup/try", {"what": "lamp"}, **token)[0] == 400, "not wired"
    assert page.asked("/setup/try", {"what": "camera"}, **token)[0] == 400
    assert {"page": "did", "what": "siren"} in page.post.notes
    assert page.asked("/api/state", **token)[0] == 400, "no zones here: said in words, and the page goes on"
    assert page.asked("/../etc/passwd", **token)[0] == 404
    page.post.broken = True
    assert page.asked("/setup/try", {"what": "siren"}, **token)[0] == 503 and len(page.switched) == 1


def test_done_is_done(page: Page) -> None:
    token = page.enter()
    assert page.asked("/setup/done", {}, **token)[0] == 200
    for path in SECRETS:
        assert page.asked(path, **token)[0] == 401
    assert page.asked("/setup/enter", {"code": CODE, "name": "Lan"})[0] == 400
    assert page.post.notes[-1]["why"] == "the technician was done"


def test_it_listens_on_its_own_address_only_and_answers_its_own_network_only(page: Page) -> None:
    with socket.socket() as knock:
        knock.settimeout(30)
        with pytest.raises(OSError):  # refused: another address of this very machine
            knock.connect(("127.0.0.2", page.port))
    with socket.socket() as knock:
        knock.settimeout(30)
        knock.bind(("127.0.0.3", 0))
        knock.connect(("127.0.0.1", page.port))
        knock.sendall(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        assert knock.recv(100) == b"", "a peer from outside the link's network is not answered"
    page.server.close()
    with socket.socket() as knock, pytest.raises(ConnectionRefusedError):
        knock.connect(("127.0.0.1", page.port))


# -- the card ---------------------------------------------------------------------------------------------------------


def test_the_hotspot_is_a_keyfile_that_waits_to_be_asked() -> None:
    text = network.hotspot_keyfile("gate-north-of-the-very-long-school-name", "ABCDE-23456")
    found = configparser.ConfigParser(interpolation=None)
    found.read_string(text)
    assert found["connection"]["autoconnect"] == "false" and found["wifi"]["mode"] == "ap"
    assert len(found["wifi"]["ssid"].encode()) <= 32 and found["wifi-security"]["psk"] == "ABCDE23456"
    assert found["wifi-security"]["pmf"] == "1"
    addresses = SetupPageSettings().addresses
    assert found["ipv4"]["method"] == "shared" and (found["ipv4"]["address1"], network.GADGET_ADDRESS) == addresses
    assert network.wifi_qr("gate", CODE) == "WIFI:T:WPA;S:wp-gate;P:ABCDE23456;;"
    assert network.page_qr(CODE, port=8080) == "http://10.42.77.1:8080/#ABCDE-23456"


def test_the_hotspot_is_up_while_the_page_is_on_and_down_after_it(tmp_path: Path) -> None:
    """The real script, with an `nmcli` that writes down what it is asked."""
    flag, log = tmp_path / "on", tmp_path / "log"
    nmcli = tmp_path / "nmcli"
    nmcli.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *"--active"*) exit 0;; esac\n')
    nmcli.chmod(0o755)
    command = ["sh", str(ROOT / "deploy/wardpost-setup-link"), str(flag)]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    def asked() -> list[str]:
        return [line for line in log.read_text().splitlines() if "--active" not in line] if log.exists() else []

    flag.touch()
    running = subprocess.Popen(command, env=path)
    until_ns = SystemClock().boot_ns() + 30 * NS
    while asked() != ["--wait 20 connection up wardpost-setup"]:
        assert SystemClock().boot_ns() < until_ns
    flag.unlink()
    assert running.wait(30) == 0
    assert asked()[1:] == ["--wait 20 connection down wardpost-setup"]

    flag.touch()  # an agent that died with the page on: the hotspot has an end of its own, and does not start again
    assert subprocess.run([*command, "1"], env=path, timeout=30).returncode == 0
    assert not flag.exists() and asked()[-1].endswith("down wardpost-setup")

    flag.touch()
    stopped = subprocess.Popen(command, env=path)
    until_ns = SystemClock().boot_ns() + 30 * NS
    while len(asked()) < 5:
        assert SystemClock().boot_ns() < until_ns
    stopped.terminate()
    assert stopped.wait(30) == 0 and asked()[-1].endswith("down wardpost-setup")


def test_the_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    for kind in ("path", "service"):
        text = (ROOT / f"deploy/wardpost-setup-link.{kind}").read_text()
        (tmp_path / f"wardpost-setup-link.{kind}").write_text(
            text.replace("/usr/local/lib/wardpost/wardpost-setup-link", shutil.which("true") or "/bin/true")
        )
    found = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            str(tmp_path / "wardpost-setup-link.path"),
            str(tmp_path / "wardpost-setup-link.service"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [line for line in found.stderr.splitlines() if "setup-link" in line] == []
    assert FLAG.endswith("setup-page/on")
    assert f"PathExists=/var/lib/wardpost/{FLAG}" in (ROOT / "deploy/wardpost-setup-link.path").read_text()


def test_a_page_that_goes_off_while_the_card_refuses_still_takes_the_hotspot_down() -> None:
    post = Post()
    post.worker.open()
    post.worker.order({"minutes": 5})
    post.broken = True
    post.step(301)
    assert not post.on() and FLAG not in post.disk.list("setup-page")


def test_a_card_that_stalls_while_the_page_goes_on_does_not_hold_up_the_bell() -> None:
    post, writing, over = Post(), threading.Event(), threading.Event()
    post.worker.open()

    def stall(body: bytes) -> None:
        writing.set()
        assert over.wait(120)

    post.worker._note = stall
    asking = threading.Thread(target=post.worker.order, args=({"minutes": 5},))
    asking.start()
    assert writing.wait(30)
    pressing = threading.Thread(target=post.worker.edge, args=(Edge(Input.BELL, True, 1),))
    pressing.start()
    pressing.join(30)
    held_up = pressing.is_alive()
    over.set()
    asking.join(30)
    pressing.join(30)
    assert not held_up and post.worker.wires()["bell"] == {"active": True, "times": 1}
