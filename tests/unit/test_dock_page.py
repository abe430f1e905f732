"""The page of dockings: who took in whose card and when, how many files, what did not match; and who may see that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from agent.clock import uuid7_maker
from agent.config import load
from agent.errors import Transient
from agent.login import login
from agent.station.db.engine import writing
from agent.station.db.uploads import footage
from agent.station.dock import command, dockings
from agent.station.dock.card import Passed
from agent.station.dock.dockings import COUNTED_MAX, DockingRecord, Dockings
from agent.station.dock.intake import Intake, Report
from agent.station.dock.naming import NAMED_MAX
from agent.station.main import StationSettings
from agent.station.people.roles import Role, Scope
from tests.fakes.database import Database
from tests.fakes.desk import Visitor
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_station_plans import plans

WHOLE = Scope(whole_site=True)
CONFIG = """\
[station]
site = "hoa-cuong"
id = "hq"
data = "{data}"
database = "{database}"
[broker]
brokers = ["mqtt://127.0.0.1:1883"]
[archive]
free_gb_min = 0
"""


class DockWard(FootageWard):
    """Headquarters with its pages, at whose machine cards are taken in."""

    site = "hoa-cuong"

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(folder, database)
        config = folder / "station.toml"
        config.write_text(CONFIG.format(data=folder, database=database.setting))
        self.config = load(config, StationSettings)

    def dock(self, card: Path, *, custodian: str = "Trần Văn Bình", node: str | None = None) -> int:
        """`wardpost dock`, a minute after what was before."""
        self.clock.advance(60)
        return command.dock(
            self.config, card, custodian=custodian, node=node, as_json=True, clock=self.clock,
            out=lambda _: None, progress=lambda _: None,
        )  # fmt: skip

    def record(self, post: str, *, custodian: str = "Bình") -> DockingRecord:
        """Of a docking without a card."""
        return DockingRecord(
            self.desk.trail, clock=self.clock, number=uuid7_maker(self.clock)(), post=post, custodian=custodian,
            who="account:test", folder="/mnt",
        )  # fmt: skip


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[DockWard]:
    made = DockWard(tmp_path, database)
    made.footage.knows()
    for who, role, posts in (
        ("lan", Role.OPERATOR, ()),
        ("tech", Role.TECHNICIAN, (POST,)),
        ("other", Role.TECHNICIAN, ("lane-1",)),
    ):
        made.person(who, role, *posts)
    yield made
    made.footage.engine.dispose()
    made.close()


@pytest.fixture
def card(tmp_path: Path) -> EvidencePost:
    """A node that has recorded and was switched off. Its data folder is the card."""
    post = EvidencePost(tmp_path / "card")
    post.feed(encoded(seconds=8))
    post.seal()
    return post


def shown(visitor: Visitor, path: str = "/dock") -> list[str]:
    """What the page says of each docking, without its tags."""
    assert visitor.get(path).status_code == 200
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", one)) for one in visitor.page.split('<li class="post ')[1:]]


def spoiled(path: Path) -> None:
    """One bit of it is another."""
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)


def cut_after(files: int) -> Callable[..., Report]:
    """An intake that ends where the card is torn out."""
    real = Intake.run

    def run(self: Intake, node: str, *, tell: Callable[[Report], None]) -> Report:
        def torn(report: Report) -> None:
            tell(report)
            if report.taken + report.duplicates == files:
                raise Transient("dock: segments: Input/output error; is the card still there?")

        return real(self, node, tell=torn)

    return run


# -- what is told -------------------------------------------------------------------------------------------------------


def test_before_the_first_card_the_page_says_how_one_is_taken_in(ward: DockWard) -> None:
    visitor = ward.visitor("tech")
    assert shown(visitor) == []
    assert '<details class="paper" open>' in visitor.page and "wardpost dock /mnt --custodian" in visitor.page
    assert "No card has been docked" in visitor.page
    assert 'href="/dock" aria-current="page"' in visitor.page
    vietnamese = visitor.send("GET", "/dock", headers={"accept-language": "vi"}).text
    assert "Chưa có thẻ nào" in vietnamese and 'lang="vi"' in vietnamese


def test_a_card_and_the_same_again_who_when_how_many(ward: DockWard, card: EvidencePost) -> None:
    ward.footage.hear(card)
    assert ward.dock(card.folder) == 0
    ward.clock.advance(3600)
    assert ward.dock(card.folder, custodian="Lê Thị Hoa") == 0
    visitor = ward.visitor("lan")
    again, first = shown(visitor)
    for one, custodian, when, counts in (
        (again, "Lê Thị Hoa", "12:48:40", "Taken in 0 (0.0 kB) Were here already 4"),
        (first, "Trần Văn Bình", "11:47:40", "Taken in 4 ("),
    ):
        assert "All of it is here, as recorded" in one and f"School gate ({POST})" in one
        assert f"Begun 22.11.2026 {when} Ended 22.11.2026 {when}" in one, one
        assert f"Taken in by {login()} (account at the station&#39;s machine) Custodian until then {custodian}" in one
        assert f"Read from {card.folder} Files on the card 4 {counts}" in one
        assert "As the ledger says 4 Wait for their line 0 Do not match 0 Passed over 0" in one
    assert "What does not match" not in visitor.page and '<details class="paper">' in visitor.page
    assert f'href="/posts/{POST}"' in visitor.page and f'href="/footage?post.{POST}=on"' in visitor.page
    assert visitor.get(f"/posts/{POST}").status_code == visitor.get(f"/footage?post.{POST}=on").status_code == 200
    numbers = [line["dock"] for line in ward.trail() if line["kind"] == "dock-ended"]
    assert numbers[0] in first and numbers[1] in again, "each is found on the audit log"


def test_what_does_not_match_and_what_was_passed_over_is_named(ward: DockWard, card: EvidencePost) -> None:
    ward.footage.hear(card)
    bad = sorted((card.folder / "segments").iterdir())[1]
    spoiled(bad)
    (card.folder / "segments" / "000009-00000001.mp4").write_bytes(b"")
    for _ in range(2):
        assert ward.dock(card.folder) == 1
    visitor = ward.visitor("lan")
    alarm = ward.database.rows("select text, arrived from evidence_alarm")[0]
    for one in shown(visitor):
        assert "Some of it does not match, or was passed over" in one and "Do not match 1 Passed over 1" in one
        assert f"segments/{bad.name}: " in one and f"SHA-256 {alarm[1]}" in one
        assert "segments/000009-00000001.mp4: empty" in one
    (row,) = ward.database.rows("select detail from footage where state = 'mismatch'")
    assert row[0] in alarm[0] and row[0] in shown(visitor)[0], "in the words of the alarm"
    (ended, _) = [line for line in ward.trail() if line["kind"] == "dock-ended"]
    assert ended["not_matching"] == [{"name": f"segments/{bad.name}", "sha256": alarm[1], "why": row[0]}]
    assert [one["name"] for one in ended["not_taken"]] == ["segments/000009-00000001.mp4"]


def test_one_that_was_cut_off_says_so_and_again_it_is_whole(
    ward: DockWard, card: EvidencePost, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.footage.hear(card)
    bad = sorted((card.folder / "segments").iterdir())[1]
    spoiled(bad)
    monkeypatch.setattr(Intake, "run", cut_after(3))
    with pytest.raises(Transient):
        ward.dock(card.folder)
    monkeypatch.undo()
    assert [line["kind"] for line in ward.trail() if "dock" in line["kind"]] == ["dock-begun"]
    visitor = ward.visitor("lan")
    (cut,) = shown(visitor)
    assert "Has not ended: it is going on, or was cut off. Then run it again" in cut and "Ended" not in cut
    assert "Files of it that are here 3 Do not match 1" in cut and f"segments/{bad.name}: " in cut
    assert ward.dock(card.folder) == 1
    whole, cut = shown(visitor)
    assert "Files on the card 4 Taken in 1 (" in whole and "Were here already 3" in whole and "Do not match 1" in whole
    assert "Was cut off; the post was docked again since" in cut and f"segments/{bad.name}: " in cut


# -- to whom ------------------------------------------------------------------------------------------------------------


def test_a_docking_is_shown_to_who_may_see_the_post_and_links_go_where_they_may_go(
    ward: DockWard, card: EvidencePost
) -> None:
    ward.dock(card.folder)
    ward.dock(card.folder, node="lane-9", custodian="Lê Thị Hoa")
    assert shown(ward.visitor("other")) == []
    tech = ward.visitor("tech")
    (mine,) = shown(tech)
    assert "Trần Văn Bình" in mine and "Lê Thị Hoa" not in tech.page and "lane-9" not in tech.page
    assert f'href="/posts/{POST}"' in tech.page and 'href="/footage' not in tech.page, "a technician sees no footage"
    unheard, _ = shown(ward.visitor("lan"))
    assert unheard.startswith(('bad"> lane-9', 'good"> lane-9')) and "Footage of the post" in unheard
    assert 'href="/posts/lane-9"' not in ward.visitor("lan").get("/dock").text, (
        "a post that was never heard has no page"
    )


def test_the_footage_of_a_post_without_a_network_is_seen_and_goes_into_a_case(
    tmp_path: Path, database: Database, card: EvidencePost
) -> None:
    """It is what docking is for: nobody has ever heard the post, its card was carried here."""
    ward = DockWard(tmp_path, database)
    ward.person("sup", Role.SUPERVISOR)
    ward.person("theirs", Role.SUPERVISOR, "lane-1")
    ward.footage.hear(card)  # the card is sealed by a key that the post was given here
    sup, theirs = ward.visitor("sup"), ward.visitor("theirs")
    assert f'name="post.{POST}"' not in sup.get(f"/footage?post.{POST}=on").text, "nothing is known of it yet"
    ward.dock(card.folder)
    for find in ("", "find=cam"):
        sup.get(f"/footage?{find}")
        assert f'name="post.{POST}"' in sup.page, "it is offered, and found"
    sup.get("/dock")
    assert f'href="/footage?post.{POST}=on"' in sup.page and f'href="/posts/{POST}"' not in sup.page
    times = "from=2023-11-14T22:13:00&to=2023-11-14T22:15:00"
    assert sup.get(f"/footage?post.{POST}=on&{times}").status_code == 200
    assert f"/footage/{POST}/" in sup.page, "and it plays"
    assert f'name="post.{POST}"' not in theirs.get("/footage").text
    assert f"/footage/{POST}/" not in theirs.get(f"/footage?post.{POST}=on&{times}").text
    fields: dict[str, Any] = {
        "number": "45/2026", "reason": "a report", "place": "", "posts": POST,
        "from": "2023-11-14T22:13:00", "to": "2023-11-14T22:15:00",
    }  # fmt: skip
    sup.get("/cases")
    assert POST in sup.page, "it is offered there, too"
    made = sup.post("/cases", **fields)
    assert made.status_code == 303, made.text
    assert POST in sup.get(made.headers["location"]).text
    theirs.get("/cases")
    assert theirs.post("/cases", **fields | {"number": "46/2026"}).status_code == 400
    ward.footage.engine.dispose()
    ward.close()


def test_names_on_a_hostile_card_are_cut_cleaned_and_escaped(
    ward: DockWard, card: EvidencePost, tmp_path: Path
) -> None:
    ward.footage.hear(card)
    stick = tmp_path / "<b>stick"
    card.folder.rename(stick)
    for number in range(NAMED_MAX + 5):
        (stick / "segments" / f"<i>{number:02d}\x1b[31m\n\u202e{'ữ' * 70}").write_bytes(b"x")
    assert ward.dock(stick) == 1
    visitor = ward.visitor("lan")
    (one,) = shown(visitor)
    assert "and 5 more" in one and one.count("not the name of footage") == NAMED_MAX
    assert "<i>" not in visitor.page and "segments/&lt;i&gt;00?[31m??ữữ" in one and "ữ" * 45 not in one
    assert "<b>" not in visitor.page and "&lt;b&gt;stick" in one and "\x1b" not in visitor.page


def test_a_line_of_the_audit_log_holds_the_worst_that_a_card_can_say(ward: DockWard) -> None:
    record = ward.record(POST)
    record.begin()
    worst = [Passed("\U0001f43e" * 255, '"\\\x00\udcff' * 500, "f" * 64) for _ in range(1000)]
    record.end(Report(mismatched=1000, passed=1000, not_matching=worst, not_taken=worst))
    (one,) = shown(ward.visitor("lan"))
    assert one.count("and 980 more") == 2 and one.count("\U0001f43e") == 2 * NAMED_MAX * 30


# -- at what cost -------------------------------------------------------------------------------------------------------


def test_a_long_list_comes_in_pages_each_docking_on_one_of_them(
    ward: DockWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dockings, "SHOWN_MAX", 3)
    for number in range(7):
        record = ward.record(POST, custodian=f"Bearer {number}")
        record.begin()
        if number % 2:
            record.end(Report(node=POST))
        ward.record("lane-1").begin()
    visitor = ward.visitor("tech")
    seen, path = [], "/dock"
    for _ in range(3):
        seen += [re.findall(r"Bearer (\d)", one)[0] for one in shown(visitor, path)]
        after = re.search(r'rel="next" href="([^"]+)"', visitor.page)
        path = "" if after is None else after[1]
    assert seen == list("6543210") and not path
    for wrong in ("0", "-1", "x", "1e3", "9" * 16, "%D9%A3"):
        assert visitor.get(f"/dock?before={wrong}").status_code == 404, wrong


def test_of_one_that_goes_on_a_bounded_part_is_counted(ward: DockWard) -> None:
    """A card has tens of thousands of files, and the page is asked for again and again meanwhile."""
    ward.record(POST).begin()
    ((number,),) = ward.database.rows("select number from docking")
    same = {"node": POST, "bytes": 1, "order_id": number, "detail": "another line", "received_utc_ns": 1}
    with writing(ward.engine, "note footage") as db:
        for state, files in (("mismatch", COUNTED_MAX + 10), ("verified", 3 * COUNTED_MAX)):
            names = [f"{state}-{n}" for n in range(files)]
            told = [{"name": name, "announced": name, "sha256": name, "state": state} for name in names]
            db.execute(insert(footage), [same | one | {"checked_utc_ns": 1} for one in told])
    (one,) = shown(ward.visitor("lan"))
    assert "Files of it that are here more than 1000 Do not match more than 1000" in one
    assert one.count(": another line SHA-256") == NAMED_MAX and "and more than 980 more" in one
    if ward.database.kind != "sqlite":
        return
    with plans(ward.engine) as found:
        Dockings(ward.engine).page(WHOLE)
    wrong = [line for line in found if "footage_wrong" in line]
    assert wrong == ["SEARCH footage USING INDEX footage_wrong (order_id=?)"] * 2, "counted, and named"


@pytest.mark.parametrize("posts", [0, 1, 60])
def test_the_page_goes_by_indexes_alone(ward: DockWard, posts: int) -> None:
    if ward.database.kind != "sqlite":
        pytest.skip("SQLite tells its plans in words")
    ward.record(POST).begin()
    scope = WHOLE if not posts else Scope(whole_site=False, posts=frozenset({POST, *map(str, range(posts - 1))}))
    engine: Engine = ward.engine
    with plans(engine) as found:
        (one,), older = Dockings(engine).page(scope, before=10**9)
    assert one.post == POST and older is None
    by = "SEARCH docking USING INTEGER PRIMARY KEY (rowid<?)"
    assert (by if not posts else "SEARCH docking USING COVERING INDEX docking_of (node=? AND n<?)") in found, found
    assert "SEARCH later USING COVERING INDEX docking_of (node=? AND n>?)" in found
    assert any(line.startswith("SEARCH footage USING COVERING INDEX footage_order (order_id=?") for line in found)
    assert "SEARCH footage USING INDEX footage_wrong (order_id=?)" in found
    scanned = {line for line in found if line.startswith("SCAN")}
    assert scanned <= {"SCAN newest", "SCAN some"}, "what is bounded already"
