"""Zones drawn on a picture: what is written into the file, what is refused, and who is let in."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from agent.cli import main
from agent.clock import SystemClock
from agent.errors import ConfigError, Corrupt, Transient
from agent.zones_page import edit
from agent.zones_page.command import from_file, zones
from agent.zones_page.desk import Desk, Outdated, Wrong, replace
from agent.zones_page.edit import edited
from agent.zones_page.server import CONNECTIONS_MAX, TOKEN_HEADER, PageServer, parse_listen
from agent.zones_page.shapes import Shape, read, tidy, wanted

ROOT = Path(__file__).parents[2]
SQUARE = [(0.1, 0.1), (0.4, 0.1), (0.4, 0.4), (0.1, 0.4)]
TOKEN = "a-token-that-nobody-guesses"

TEXT = """\
# The north gate. Ask Minh before you move the camera.
[node]
site = "ward-7"
id = "gate-north"   # as on the certificate
data = "{data}"

[camera]
driver = "stream"
url = "{data}/film.mp4"
privacy_masks = [
  # the neighbour's window
  [[0.8, 0.1], [0.9, 0.1], [0.9, 0.2]],
  [[0.1, 0.8], [0.2, 0.8], [0.2, 0.9]],  # the toilet
]

[uplink]
brokers = ["mqtt://127.0.0.1:1883"]

# where people wait
[[zones]]
name = "gate"        # do not rename
polygon = [[0.1, 0.4], [0.6, 0.4], [0.6, 1.0], [0.1, 1.0]]

[[zones]]
name = "yard"
polygon = [[0.7, 0.4], [0.9, 0.4], [0.9, 1.0]]

[health]
heartbeat_s = 15.0  # patience
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "film.mp4").write_bytes(b"x")
    path = tmp_path / "node.toml"
    path.write_text(TEXT.format(data=tmp_path / "data"))
    return path


def drawn(file: Path) -> list[Shape]:
    return read(tomllib.loads(file.read_text()))


def a_desk(file: Path) -> Desk:
    return Desk(file, clock=SystemClock(), picture=lambda: b"jpeg", live=False)


# -- the text ---------------------------------------------------------------------------------------------------------


def test_a_file_from_windows_keeps_its_line_ends_in_what_is_added_too(file: Path) -> None:
    text = file.read_text().replace("\n", "\r\n")
    after = edited(text, [*drawn(file), Shape(kind="zone", name="road", points=SQUARE)])
    assert after.count("\n") == after.count("\r\n") > text.count("\n")
    mixed = text + "# a bare end\n"
    assert edited(mixed, drawn(file)) == mixed


def test_what_is_not_drawn_anew_stays_to_the_byte(file: Path) -> None:
    text = file.read_text()
    shapes = drawn(file)
    assert edited(text, shapes) == text
    gate, yard, window, toilet = shapes
    moved = Shape(kind="zone", name="gate", points=[(0.2, 0.5), *gate.points[1:]], was=0)
    new = Shape(kind="zone", name="road", points=SQUARE)
    mask = Shape(kind="privacy", points=SQUARE)
    after = edited(text, [moved, yard, new, window, toilet, mask])
    gone = set(text.splitlines()) - set(after.splitlines())
    assert gone == {"polygon = [[0.1, 0.4], [0.6, 0.4], [0.6, 1.0], [0.1, 1.0]]"}
    for comment in ("# do not rename", "# the neighbour's window", "# the toilet", "# patience", "# where people wait"):
        assert after.count(comment) == 1
    assert tomllib.loads(after)["zones"] == [
        {"name": "gate", "polygon": [[0.2, 0.5], [0.6, 0.4], [0.6, 1.0], [0.1, 1.0]]},
        {"name": "yard", "polygon": [[0.7, 0.4], [0.9, 0.4], [0.9, 1.0]]},
        {"name": "road", "polygon": [list(point) for point in SQUARE]},
    ]
    assert tomllib.loads(after)["camera"]["privacy_masks"][2] == [list(point) for point in SQUARE]
    assert tomllib.loads(after)["health"] == {"heartbeat_s": 15.0}


def test_what_is_deleted_is_gone_and_the_rest_keeps_its_order(file: Path) -> None:
    _, yard, _, toilet = drawn(file)
    after = edited(file.read_text(), [yard, toilet])
    tables = tomllib.loads(after)
    assert [zone["name"] for zone in tables["zones"]] == ["yard"]
    assert tables["camera"]["privacy_masks"] == [[list(point) for point in toilet.points]]
    none = edited(after, [])
    assert "zones" not in tomllib.loads(none) and tomllib.loads(none)["camera"]["privacy_masks"] == []
    assert "# patience" in none


def test_keys_that_the_page_does_not_know_stay_with_their_zone() -> None:
    tables = {"zones": [{"name": "a", "polygon": [], "night": True}, {"name": "b", "polygon": []}]}
    assert wanted(tables, [Shape(kind="zone", name="c", points=SQUARE, was=0)])["zones"] == [
        {"name": "c", "polygon": [list(point) for point in SQUARE], "night": True}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zones = []\n",
        'zones = [{name = "a", polygon = [[0, 0], [1, 0], [1, 1]]}]\n[camera]\nprivacy_masks = []',
        "camera.driver = 'stream'\n",
        "[camera]\r\ndriver = 'stream' # mine\r\n",
        "[camera]\n",
        (ROOT / "deploy/node.example.toml").read_text(),
    ],
)
def test_every_way_to_write_the_file_takes_a_zone_and_a_mask(text: str) -> None:
    shapes = [*read(tomllib.loads(text)), Shape(kind="zone", name="n", points=SQUARE)]
    shapes.append(Shape(kind="privacy", points=SQUARE))
    after = edited(text, shapes)
    assert tomllib.loads(after) == wanted(tomllib.loads(text), shapes)
    for line in text.splitlines():
        if "#" in line and "masks" not in line:
            assert line in after
    again = edited(after, [shape for shape in read(tomllib.loads(after)) if shape.kind == "zone"])
    assert tomllib.loads(again).get("camera", {})["privacy_masks"] == []


def test_a_hundred_random_drawings_mean_what_was_drawn(file: Path, seed: int) -> None:
    rng = random.Random(seed)
    text = file.read_text()
    for _ in range(100):
        shapes = [shape for shape in read(tomllib.loads(text)) if rng.random() < 0.8]
        for _ in range(rng.randrange(3)):
            points = [(round(rng.random(), 4), round(rng.random(), 4)) for _ in range(rng.randint(3, 6))]
            kind = rng.choice(["zone", "privacy"])
            name = f"z{rng.randrange(10**6)}" if kind == "zone" else ""
            shapes.append(Shape(kind=kind, name=name, points=points))
        goal = wanted(tomllib.loads(text), shapes)
        text = edited(text, shapes)
        assert tomllib.loads(text) == goal
        assert "# patience" in text and text.startswith("# The north gate.")


def test_an_edit_that_went_wrong_is_noticed_before_it_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "_rewrite", lambda *_: None)
    with pytest.raises(Corrupt, match="nothing was changed"):
        edited(file.read_text(), [])


def test_a_line_and_an_ignore_mask_have_their_own_places(file: Path) -> None:
    shapes = [
        *drawn(file),
        Shape(kind="line", name="door", points=[(0.2, 0.5), (0.4, 0.6)]),
        Shape(kind="ignore", points=SQUARE),
    ]
    desk = a_desk(file)
    desk.save(shapes, digest=desk.state()["digest"])
    tables = tomllib.loads(file.read_text())
    assert tables["lines"] == [{"name": "door", "points": [[0.2, 0.5], [0.4, 0.6]]}]
    assert tables["vision"]["ignore_masks"] == [[list(point) for point in SQUARE]]
    assert len(tables["camera"]["privacy_masks"]) == 2, "to ignore is not to hide"
    assert {shape.kind for shape in drawn(file)} == {"zone", "line", "ignore", "privacy"}


def test_a_zone_that_a_rule_names_cannot_be_deleted_or_renamed_behind_its_back(file: Path) -> None:
    file.write_text(file.read_text() + '\n[[rules]]\nname = "r"\nkind = "enters"\nzones = ["gate"]\n')
    desk = a_desk(file)
    gate, *others = drawn(file)
    for shapes in (others, [Shape(kind="zone", name="door", points=gate.points, was=0), *others]):
        (complaint,) = [one for one in desk.check(shapes) if one.blocks]
        assert complaint.shape is None and "'gate'" in complaint.text
        with pytest.raises(Wrong):
            desk.save(shapes, digest=desk.state()["digest"])


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (Shape(kind="zone", name="bow", points=[(0.1, 0.1), (0.5, 0.5), (0.5, 0.1), (0.1, 0.5)]), "crosses itself"),
        (Shape(kind="zone", name="gate", points=SQUARE), "there twice"),
        (Shape(kind="zone", name="Süd", points=SQUARE), "lower-case letters"),
        (Shape(kind="zone", name="", points=SQUARE), "lower-case letters"),
        (Shape(kind="zone", name="thin", points=SQUARE[:2]), "length >= 3"),
        (Shape(kind="zone", name="out", points=[(1.2, 0.1), *SQUARE[1:]]), "<= 1.0"),
        (Shape(kind="privacy", points=SQUARE[:2]), "2 corners"),
    ],
)
def test_a_bad_shape_is_named_and_nothing_is_written(file: Path, shape: Shape, says: str) -> None:
    desk, before = a_desk(file), file.read_bytes()
    shapes = [*drawn(file), shape]
    with pytest.raises(Wrong, match=says) as refused:
        desk.save(shapes, digest=desk.state()["digest"])
    assert file.read_bytes() == before
    blamed = {complaint.shape for complaint in refused.value.complaints if complaint.blocks}
    assert 4 in blamed, "the page shows it beside the shape that is wrong"
    assert any(complaint.blocks for complaint in desk.check(shapes) if complaint.shape == 4)


def test_troubles_that_were_there_before_do_not_stop_a_drawing(file: Path) -> None:
    (file.parent / "data" / "film.mp4").unlink()  # the camera's film is elsewhere: `check` says so, we need not
    desk = a_desk(file)
    new = Shape(kind="zone", name="new", points=SQUARE)
    assert "written, 5 shapes" in desk.save([*drawn(file), new], digest=desk.state()["digest"])
    assert [shape.name for shape in drawn(file) if shape.kind == "zone"] == ["gate", "yard", "new"]


@pytest.mark.parametrize(
    "shapes",
    [
        [Shape(kind="hole", points=SQUARE)],
        [Shape(kind="zone", name="a", points=SQUARE, was=7)],
        [Shape(kind="zone", name="a", points=SQUARE, was=-1)],
        [Shape(kind="zone", name="a", points=SQUARE, was=0), Shape(kind="zone", name="b", points=SQUARE, was=0)],
        [Shape(kind="zone", name="a", points=[(float("nan"), 0.1), *SQUARE])],
        [Shape(kind="zone", name="a", points=SQUARE * 30)],
        [Shape(kind="privacy", points=SQUARE)] * 129,
    ],
)
def test_what_no_page_sends_is_one_line(file: Path, shapes: list[Shape]) -> None:
    with pytest.raises(ConfigError) as refused:
        a_desk(file).check(shapes)
    assert "\n" not in str(refused.value)


def test_coordinates_are_rounded_as_on_the_wire() -> None:
    assert tidy([Shape(kind="privacy", points=[(0.123456, 1 / 3)])])[0].points == [(0.1235, 0.3333)]


def test_somebody_elses_change_is_not_overwritten(file: Path) -> None:
    desk = a_desk(file)
    digest = desk.state()["digest"]
    file.write_text(file.read_text() + "\n# Lan was here\n")
    with pytest.raises(Outdated, match="changed by somebody else"):
        desk.save([], digest=digest)
    assert file.read_text().endswith("# Lan was here\n")


def test_the_file_keeps_its_mode_and_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    file.chmod(0o604)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    desk = a_desk(link)
    desk.save([], digest=desk.state()["digest"])
    assert link.is_symlink() and file.stat().st_mode & 0o777 == 0o604
    assert drawn(file) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "link.toml", "node.toml"], "nothing is left over"


def test_a_write_that_fails_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Transient, match="No space left"):
        replace(file, b"half a fil")
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir() if p.name.startswith(".")] == []


# -- who is let in ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(file: Path) -> Iterator[tuple[PageServer, int]]:
    page = PageServer(a_desk(file), token=TOKEN, boot_ns=SystemClock().boot_ns, say=lambda _line: None)
    address = page.open("127.0.0.1", 0)
    assert address.endswith(f"/#{TOKEN}")
    yield page, int(address.split(":")[2].split("/")[0])
    page.close()


def asked(port: int, path: str, *, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"Host": f"127.0.0.1:{port}", TOKEN_HEADER: TOKEN}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.putrequest("GET" if data is None else "POST", path, skip_host=True)
    for name, value in (sent | ({} if data is None else {"Content-Length": str(len(data))})).items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    result = (answer.status, dict(answer.getheaders()), answer.read())
    connection.close()
    return result


def test_the_page_comes_with_a_strict_policy_and_no_secret(server: tuple[PageServer, int]) -> None:
    _, port = server
    for path in ("/", "/page.js", "/page.css"):
        status, headers, body = asked(port, path, X_Wardpost_Token="")
        assert status == 200 and TOKEN.encode() not in body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["Cache-Control"] == "no-store"
    html = asked(port, "/")[2].decode()
    assert html.count("<script") == 1 and "onclick" not in html and "style=" not in html


def test_without_the_token_there_is_no_picture_no_state_and_no_writing(
    server: tuple[PageServer, int], file: Path
) -> None:
    _, port = server
    before = file.read_bytes()
    body = {"digest": "", "shapes": []}
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "t\xf6ken"):
        for path, sent in (("/api/state", None), ("/api/picture", None), ("/api/check", body), ("/api/save", body)):
            assert asked(port, path, body=sent, X_Wardpost_Token=token)[0] == 403
    assert file.read_bytes() == before
    assert asked(port, "/api/state")[0] == 200 and asked(port, "/api/picture")[2] == b"jpeg"


def test_another_site_is_refused_whatever_it_knows(server: tuple[PageServer, int]) -> None:
    _, port = server
    assert asked(port, "/", Host="evil.example")[0] == 421, "a name rebound to our address"
    assert asked(port, "/api/state", Host=f"evil.example:{port}")[0] == 421
    assert asked(port, "/", Host="")[0] == 421
    assert asked(port, "/api/state", Host="localhost:9000")[0] == 200, "through ssh -L 9000"
    assert asked(port, "/api/state", Origin="https://evil.example")[0] == 403
    assert asked(port, "/api/state", Origin=f"http://127.0.0.1:{port + 1}")[0] == 403
    assert asked(port, "/api/state", Sec_Fetch_Site="cross-site")[0] == 403
    assert asked(port, "/api/state", Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0] == 200


def test_a_shape_is_checked_saved_and_conflicts_are_told_apart(server: tuple[PageServer, int], file: Path) -> None:
    _, port = server
    state = json.loads(asked(port, "/api/state")[2])
    assert [kind["id"] for kind in state["kinds"]][:1] == ["zone"] and len(state["shapes"]) == 4
    bow = {"kind": "zone", "name": "bow", "points": [[0.1, 0.1], [0.5, 0.5], [0.5, 0.1], [0.1, 0.5]]}
    body = {"digest": state["digest"], "shapes": [*state["shapes"], bow]}
    status, _, answer = asked(port, "/api/check", body=body)
    assert status == 200 and "crosses itself" in json.loads(answer)["complaints"][-1]["text"]
    status, _, answer = asked(port, "/api/save", body=body)
    assert status == 422 and json.loads(answer)["complaints"]
    body["shapes"][-1] = bow | {"points": [list(point) for point in SQUARE]}
    status, _, answer = asked(port, "/api/save", body=body)
    assert status == 200 and json.loads(answer)["digest"] != state["digest"]
    assert asked(port, "/api/save", body=body)[0] == 409, "the page did not know of its own writing"
    assert "bow" in file.read_text()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[]", b'{"digest": 1, "shapes": []}', b'{"shapes": []}', b"[" * 50_000]
)
def test_rubbish_is_one_line_and_the_server_goes_on(server: tuple[PageServer, int], body: bytes) -> None:
    _, port = server
    status, _, answer = asked(port, "/api/save", body=body)
    assert status == 400 and "error" in json.loads(answer)
    assert asked(port, "/api/save", body=b"x", Content_Length="-1")[0] in {400, 413}
    assert asked(port, "/api/none")[0] == 404
    assert asked(port, "/../../etc/passwd")[0] in {403, 404}
    assert asked(port, "/api/state")[0] == 200


def test_many_idle_connections_do_not_lock_the_person_out_for_long(server: tuple[PageServer, int]) -> None:
    import socket

    _, port = server
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS_MAX + 4)]
    for one in idle:
        one.close()
    for _ in range(3_000):
        try:
            if asked(port, "/api/state")[0] == 200:
                return
        except (ConnectionError, http.client.HTTPException):
            threading.Event().wait(0.01)
    raise AssertionError("locked out")


@pytest.mark.parametrize(
    "listen", ["", "8733", "localhost:8733", "0.0.0.0:8733", "127.0.0.1:x", "127.0.0.1:70000", "[::1]:80"]
)
def test_an_address_that_cannot_be_is_one_line(listen: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        parse_listen(listen)


# -- the command ------------------------------------------------------------------------------------------------------


def test_it_ends_when_nobody_uses_it(file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "view.png"
    cv2.imwrite(str(picture), np.full((60, 80, 3), 99, np.uint8))
    said: list[str] = []
    code = zones(file, snapshot=picture, listen="127.0.0.1:0", idle_s=0.1, out=said.append, stop=threading.Event())
    assert code == 0 and said[0].startswith("draw on http://127.0.0.1:") and said[-1] == "not used for 0.1 s"


def test_a_film_gives_its_first_picture_and_other_files_one_line(assets: Any, tmp_path: Path) -> None:
    jpeg = from_file(assets.footage())
    shape = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape  # type: ignore[union-attr]
    assert shape == (272, 640, 3)
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear Sir")
    for path in (letter, tmp_path / "none.jpg", tmp_path):
        with pytest.raises(ConfigError, match=path.name):
            from_file(path)


def test_a_broken_file_is_told_before_anything_is_served(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace("heartbeat_s", "hartbeat_s"))
    assert main(["zones", "--config", str(file), "--snapshot", str(tmp_path / "x.jpg")]) == 78
    assert "did you mean health.heartbeat_s?" in capsys.readouterr().err
