"""The posts' pages and `wardpost posts`: what is told of a ward in trouble, to whom, and in which words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.cli import main
from agent.clock import SystemClock
from agent.site import founding
from agent.site.folder import open_site
from agent.station.db.engine import open_engine
from agent.station.people.roles import Person, Role, scope_of
from agent.station.posts.plan import HEIGHT, WIDTH, plan
from agent.station.posts.table import posts as tell
from agent.station.web.desk import Desk, make_desk
from agent.station.web.settings import WebSettings
from tests.fakes.database import fresh
from tests.fakes.desk import ORIGIN, PASSWORD, Visitor, quick
from tests.fakes.ward import SITE, Ward, ward
from tests.unit.test_site import provisioned

PLACES: list[tuple[str, dict[str, Any]]] = [
    ("gate-1", {"house": "A", "provider": "V", "lat": 21.0285, "lon": 105.8542}),
    ("gate-2", {"house": "A", "provider": "V", "lat": 21.0286, "lon": 105.8543}),
    ("lane-1", {"house": "B", "provider": "V", "lat": 21.0300, "lon": 105.8560}),
    ("lane-2", {"house": "C", "provider": "F", "lat": 21.0400, "lon": 105.8600}),
]


@pytest.fixture(scope="module")
def register(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder: the same neighbourhood as the posts have."""
    root = tmp_path_factory.mktemp("site") / "ward-7"
    founding.found_site(root, name=SITE, hosts=["hq.example.org"], clock=SystemClock())
    for node, _ in PLACES:
        provisioned(root, node)
    found = founding.open_register(open_site(root))
    for node, spot in PLACES:
        known = found.node(node)
        assert known is not None
        found.located(replace(known, **spot), 1)
    found.close()
    return root


class Office:
    """A ward in trouble, and the desk that shows it: gate-1 has lost its mains, lane-2 its camera."""

    def __init__(self, made: Ward, folder: Path, register: Path) -> None:
        self.ward = made
        made.posts["lane-1"].place = '<b>Lane</b> "12" & more'
        made.flap("lane-1")
        made.posts["gate-1"].lose_mains()
        made.tick()
        made.posts["gate-1"].cut_power()
        camera = made.posts["lane-2"].beats._probes.camera()
        made.posts["lane-2"].parts["camera"] = lambda: msgspec.structs.replace(camera, frameagems=90_000)
        made.tick(8)
        self.passwords = quick()
        self.desk: Desk = make_desk(
            WebSettings(origin=ORIGIN, behind_proxy=True),
            engine=open_engine(made.database.url, pooled=False),
            folder=folder,
            site=SITE,
            station="hq",
            clock=made.clock,
            send_verdict=lambda *_: None,
            passwords=self.passwords,
            register=str(register),
        )

    def visitor(self, role: Role, *posts: str) -> Visitor:
        new = Person(role.value, role.value.capitalize(), role, scope_of(role, posts))
        self.desk.registry.add(new, password=self.passwords.hash(PASSWORD), by="account:test")
        made = Visitor(SimpleNamespace(desk=self.desk), "192.0.2.7")  # type: ignore[arg-type]
        assert made.log_in(role.value).status_code == 303
        return made


@pytest.fixture
def office(tmp_path: Path, register: Path) -> Iterator[Office]:
    with fresh("sqlite", tmp_path) as database, ward(tmp_path, database, PLACES) as made:
        yield Office(made, tmp_path, register)


def text(page: str) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("<main", 1)[1]))


def test_the_list_tells_of_each_post_how_it_is_and_why(office: Office) -> None:
    visitor = office.visitor(Role.TECHNICIAN)
    assert visitor.get("/posts").status_code == 200
    told = text(visitor.page)
    for node, _ in PLACES:
        assert node in told
    assert "dark · no power (sure)" in told and "heard · camera (sure)" in told
    assert "<b>Lane</b>" not in visitor.page and "&lt;b&gt;Lane&lt;/b&gt;" in visitor.page
    visitor.get("/posts?show=dark")
    assert "gate-1" in visitor.page.split('<ul class="posts">')[1].split("</ul>")[0]
    assert "gate-2" not in visitor.page.split('<ul class="posts">')[1].split("</ul>")[0]
    assert visitor.get("/posts?show=trouble").status_code == 200
    assert "hours in 30 days" in text(visitor.get("/posts?show=cost").text)
    assert visitor.get("/posts?show=everything").status_code == 404


def test_the_plan_shows_where_the_posts_are_and_needs_no_map(office: Office) -> None:
    visitor = office.visitor(Role.OPERATOR)
    visitor.get("/posts")
    drawn = visitor.page.split('<svg class="plan"')[1].split("</svg>")[0]
    assert drawn.count("<circle") == 4 and 'class="bad"' in drawn and " style=" not in visitor.page
    found = plan(list(office.ward.views().values()))
    assert found is not None
    at = {dot.view.post.node: (dot.x, dot.y) for dot in found.dots}
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in at.values())
    assert at["lane-2"][1] < at["lane-1"][1] < at["gate-1"][1], "north is up"
    assert at["lane-2"][0] > at["gate-1"][0], "east is right"


def test_one_post_tells_why_with_its_evidence_in_both_languages(office: Office) -> None:
    visitor = office.visitor(Role.SUPERVISOR)
    visitor.get("/posts/gate-1")
    told = text(visitor.page)
    assert (
        "Why it is dark" in told and "It told that the mains was lost" in told and "gate-2, of the same house" in told
    )
    assert "Call the household first" in told and "multimeter" in told
    assert '<svg class="history"' in visitor.page
    vietnamese = text(visitor.send("GET", "/posts/gate-1", headers={"accept-language": "vi"}).text)
    assert "Trạm báo mất điện lưới" in vietnamese and "Why it is dark" not in vietnamese
    assert visitor.get("/posts/nobody").status_code == 404


def test_a_school_sees_its_own_posts_and_hears_of_no_other(office: Office) -> None:
    visitor = office.visitor(Role.SCHOOL, "gate-1")
    for path in ("/posts", "/posts/gate-1", "/posts?show=cost"):
        assert visitor.get(path).status_code == 200
        for node in ("gate-2", "lane-1", "lane-2"):
            assert node not in visitor.page, f"{path} names {node}"
    assert visitor.get("/posts/gate-2").status_code == 404, "as one that does not exist"
    assert visitor.get("/to-do").status_code == 403
    assert "/to-do" not in visitor.page


def test_the_to_do_list_says_what_why_and_what_to_bring(office: Office) -> None:
    visitor = office.visitor(Role.TECHNICIAN)
    visitor.get("/to-do")
    told = text(visitor.page)
    assert told.index("Place gate-1") < told.index("Place lane-2") or "now Place lane-2" in told
    assert "Clean the lens" in told and "ladder" in told and "no power (sure)" in told


def test_a_page_is_as_fresh_as_it_says(office: Office) -> None:
    visitor = office.visitor(Role.AUDITOR)
    visitor.get("/posts")
    office.ward.posts["gate-1"].power_back(0)
    office.ward.tick(3)
    visitor.get("/posts/gate-1")
    assert "heard" in text(visitor.page) and "Why it is dark" not in visitor.page
    assert "no power" in text(visitor.page), "and why it was dark stands in its history"


# -- the command ------------------------------------------------------------------------------------------------------


def printed(office: Office, register: Path, **asked: Any) -> str:
    lines: list[str] = []
    given: dict[str, Any] = {"node": None, "as_todo": False, "by_cost": False, "as_json": False} | asked
    tell(
        office.ward.database.folder,
        database="",
        register=str(register),
        clock=office.ward.clock,
        out=lines.append,
        **given,
    )
    return "\n".join(lines)


def test_the_command_tells_the_same(office: Office, register: Path) -> None:
    whole = printed(office, register)
    assert re.search(
        r"^gate-1 \(Place gate-1\): dark, last heard 20\S+, 4 min ago; why: no power \(sure\);", whole, re.MULTILINE
    )
    assert re.search(r"^gate-2 \(Place gate-2\): heard; footage of \d+", whole, re.MULTILINE)
    one = printed(office, register, node="gate-1")
    assert "    It told that the mains was lost, " in one and "(event of the post, 20" in one
    assert "    to do (now): Call the household first" in one
    todo = printed(office, register, as_todo=True)
    assert "now: gate-1 (Place gate-1): Call the household first" in todo and "bring: power supply" in todo
    assert printed(office, register, by_cost=True).splitlines()[0].partition(" ")[0] in ("gate-1", "lane-2")
    told = {row["node"]: row for row in json.loads(printed(office, register, as_json=True))}
    assert told["gate-1"]["why"]["cause"] == "unplugged" and told["gate-1"]["why"]["confidence"] == 0.95
    assert told["gate-1"]["why"]["evidence"][0]["what"] == "mains_lost"
    assert told["lane-1"]["why"] is None and told["lane-1"]["todo"] is None
    assert told["lane-1"]["footagedays"] > 0 and told["lane-1"]["diskfreebytes"] == 20_000_000_000


def test_the_command_names_what_is_missing(
    office: Office, register: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "station.toml"
    data = tmp_path / "elsewhere"
    data.mkdir()
    config.write_text(f'[station]\nsite = "{SITE}"\nid = "hq"\ndata = "{data}"\n[broker]\nbrokers = ["mqtt://x:1"]\n')
    assert main(["posts", "--config", str(config)]) == 78
    assert "is a station running on this data folder?" in capsys.readouterr().err
    config.write_text(config.read_text().replace(str(data), str(office.ward.database.folder)))
    assert main(["posts", "--config", str(config), "--node", "nobody"]) == 78
    assert "nobody: this station has never heard it" in capsys.readouterr().err
    assert main(["posts", "--config", str(config), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
