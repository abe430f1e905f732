"""`wardpost redraw`: the whole draw of a week, taken from the page to a machine that has nothing else."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.cli import EX_CONFIG, main
from agent.station.people.roles import Role
from tests.fakes.desk import Ward
from tests.unit.test_inspection_draw import POSTS, came, desk, sha256, ward  # noqa: F401  (a fixture)


@pytest.fixture
def whole(ward: Ward, tmp_path: Path) -> Path:  # noqa: F811
    """What the page gives of a draw; of five posts there are files, two more have nothing that could be looked at."""
    for number, node in enumerate(POSTS[:5]):
        came(ward, node, 3 + number)
    for node in POSTS[5:7]:
        came(ward, node, 4, state="pending")
    auditor = ward.visitor("mai")
    week = desk(ward).week()
    assert auditor.get(f"/inspection/draw.json?week={week}").status_code == 404, "nobody has drawn yet"
    auditor.get("/inspection")
    auditor.post("/inspection/draw")
    page = auditor.get("/inspection").text
    assert f'href="/inspection/draw.json?week={week}"' in page and f"wardpost redraw wardpost-draw-{week}.json" in page
    answer = auditor.get(f"/inspection/draw.json?week={week}")
    assert answer.headers["content-disposition"] == f'attachment; filename="wardpost-draw-{week}.json"'
    ((sealed,),) = [(line["sha256"],) for line in ward.trail() if line["kind"] == "inspection-draw"]
    assert hashlib.sha256(answer.content).hexdigest() == sealed, "byte for byte what the audit log vouches for"
    file = tmp_path / "draw.json"
    file.write_bytes(answer.content)
    return file


def again(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["redraw", str(file)])
    return code, capsys.readouterr().out


def test_the_same_comes_out_and_the_hash_is_told_that_the_audit_log_must_have(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = again(whole, capsys)
    assert code == 0 and "The same comes out again." in said
    assert hashlib.sha256(whole.read_bytes()).hexdigest() in said.splitlines()[-1]
    told = json.loads(whole.read_text())
    for one in (*told["drawn_posts"], *told["drawn_footage"]):
        assert f"  {one['node']} {one['ref']}".rstrip() in said.splitlines()
    assert len(told["drawn_footage"]) == 5 and len(told["drawn_posts"]) == 5


def put_in_front(told: dict[str, Any]) -> None:
    told["drawn_posts"][0] = next(one for one in told["posts"] if one not in told["drawn_posts"])


def weigh_more(told: dict[str, Any]) -> None:
    told["footage"][0]["weight"] *= 1000


def spare_a_post(told: dict[str, Any]) -> None:
    told["passed_over"].append(told["drawn_senders"].pop(0))


def another_number(told: dict[str, Any]) -> None:
    told["seed"] = "cd" * 32


def another_file(told: dict[str, Any]) -> None:
    told["drawn_footage"].reverse()


def a_foreign_file(told: dict[str, Any]) -> None:
    told["footage"].append({"node": POSTS[9], "ref": sha256(POSTS[9], 0), "weight": 1.0, "why": "one of 1 files"})


def pass_over_the_last(told: dict[str, Any]) -> None:
    told["passed_over"].append(POSTS[9])


@pytest.mark.parametrize(
    "lie",
    [put_in_front, weigh_more, spare_a_post, another_number, another_file, a_foreign_file, pass_over_the_last],
    ids=lambda lie: lie.__name__,
)
def test_whoever_chose_instead_of_drawing_is_found_out(
    whole: Path, lie: Callable[[dict[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(whole.read_text())
    lie(told)
    whole.write_text(json.dumps(told))
    code, said = again(whole, capsys)
    assert code == 1 and "WRONG: " in said and "The same comes out again." not in said


def test_who_sees_some_posts_only_is_not_given_the_names_of_all(whole: Path, ward: Ward) -> None:  # noqa: F811
    ward.person("some", Role.AUDITOR, POSTS[0])
    some = ward.visitor("some")
    week = desk(ward).week()
    assert "draw.json" not in some.get("/inspection").text
    assert some.get(f"/inspection/draw.json?week={week}").status_code == 404
    assert ward.visitor("mai").get("/inspection/draw.json?week=x").status_code == 400
    assert whole.exists()


def test_a_draw_of_version_1_is_repeated_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    from agent.station.inspection.sample import Candidate, draw

    rng = random.Random(seed)
    posts = [{"node": f"p-{n}", "ref": "", "weight": rng.uniform(0.1, 9), "why": "x"} for n in range(50)]
    files = [{"node": f"p-{n % 50}", "ref": f"{n:064x}", "weight": rng.uniform(0.1, 9), "why": "x"} for n in range(90)]

    def hit(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
        chosen = draw("ward-7", "2026-W47", [Candidate(**one) for one in of], 5)
        return [one for post in chosen for one in of if (one["node"], one["ref"]) == (post.node, post.ref)]

    told = {"site": "ward-7", "week": "2026-W47", "posts": posts, "footage": files}
    file = tmp_path / "old.json"
    file.write_text(json.dumps(told | {"drawn_posts": hit(posts), "drawn_footage": hit(files)}))
    assert again(file, capsys)[0] == 0
    file.write_text(json.dumps(told | {"drawn_posts": hit(posts), "drawn_footage": hit(files)[::-1]}))
    assert again(file, capsys)[0] == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "\x00", "[" * 100_000, '{"site":"a","week":"x","posts":[],"footage":[],"drawn_posts":[],"drawn_footage":[]}',
     '{"site":"a","week":"2026-W47","posts":[{"node":"a","ref":"","weight":0,"why":""}],"footage":[],"drawn_posts":[],"drawn_footage":[]}',
     '{"site":"a","week":"2026-W47","posts":[{"node":"a","ref":"","weight":-1e999,"why":""}],"footage":[],"drawn_posts":[],"drawn_footage":[]}'],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_draw_is_said_to_be_none(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "what.json"
    file.write_text(text)
    assert main(["redraw", str(file)]) == EX_CONFIG
    said = capsys.readouterr().err
    assert "what.json" in said and "Traceback" not in said
    assert main(["redraw", str(tmp_path / "none.json")]) == EX_CONFIG
    assert "none.json" in capsys.readouterr().err
