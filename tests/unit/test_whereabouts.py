"""What a post shares with its neighbours: written down, changed without a new card, and kept by registers of before."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent.cli import main
from agent.errors import Corrupt
from agent.site import founding
from agent.site.folder import open_site
from agent.site.register import SCHEMA, Node, Register
from agent.site.whereabouts import parse_position
from tests.unit.test_site import provisioned, site  # noqa: F401  (a fixture)

# The table as `wardpost site init` made it before house, pole, provider and position were known of.
OLD_NODE = """
create table node (
  node text primary key,
  generation integer not null check (generation > 0),
  state text not null check (state in ('provisioned', 'enrolled', 'revoked')),
  device text not null default '', place text not null default '', custodian text not null default '',
  consent text not null default '', profile text not null default '', made_utc_ns integer not null
) strict, without rowid
"""


def of(root: Path, node: str) -> Node:
    register = founding.open_register(open_site(root))
    try:
        found = register.node(node)
    finally:
        register.close()
    assert found is not None
    return found


def where(node: Node) -> tuple[object, ...]:
    return node.house, node.pole, node.provider, node.lat, node.lon


def grown_old(root: Path) -> Path:
    """The site's register, as a program of before has left it."""
    path = root / "register.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma foreign_keys=off")
        columns = "node, generation, state, device, place, custodian, consent, profile, made_utc_ns"
        rows = db.execute(f"select {columns} from node").fetchall()
        db.execute("drop table node")
        db.execute(OLD_NODE)
        db.executemany("insert into node values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("update meta set value = '1' where key = 'schema'")
    return path


def test_a_provisioned_post_tells_its_neighbourhood(site: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    words = ("--house", "12 Lý Thái Tổ", "--pole", "7", "--provider", "Viettel", "--position", "21.0285,105.8542")
    assert main(["provision", "gate-2", "--site", str(site), "--ethernet", *words]) == 0
    assert where(of(site, "gate-2")) == ("12 Lý Thái Tổ", "7", "Viettel", 21.0285, 105.8542)
    capsys.readouterr()
    assert main(["site", "show", str(site)]) == 0
    assert "house 12 Lý Thái Tổ, pole 7, provider Viettel, at 21.0285,105.8542" in capsys.readouterr().out
    assert main(["site", "show", str(site), "--json"]) == 0
    [node] = json.loads(capsys.readouterr().out)["nodes"]
    assert (node["house"], node["pole"], node["provider"]) == ("12 Lý Thái Tổ", "7", "Viettel")
    assert node["position"] == [21.0285, 105.8542]


def test_a_new_card_hangs_where_the_old_one_hung_unless_somebody_says_otherwise(site: Path) -> None:  # noqa: F811
    first = ("--house", "12", "--provider", "Viettel", "--position=-1.5,2")
    again = ["provision", "gate-2", "--site", str(site), "--ethernet", "--again"]
    assert main([*again[:-1], *first]) == 0
    assert main([*again, "--house", "14"]) == 0
    assert where(of(site, "gate-2")) == ("14", "", "Viettel", -1.5, 2.0)


def test_place_changes_what_is_given_and_takes_back_what_is_empty(
    site: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    provisioned(site, "gate-2")
    place = ["site", "place", str(site), "gate-2"]
    assert main([*place, "--house", "12", "--pole", "7", "--position", "1,2"]) == 0
    assert main([*place, "--house", "", "--provider", "VNPT"]) == 0
    assert where(of(site, "gate-2")) == ("", "7", "VNPT", 1.0, 2.0)
    assert of(site, "gate-2").state == "enrolled" and of(site, "gate-2").generation == 1, "no new card"
    assert main([*place, "--position", "", "--pole", "", "--provider", ""]) == 0
    assert where(of(site, "gate-2")) == ("", "", "", None, None)
    assert "nothing is known" in capsys.readouterr().out
    register = founding.open_register(open_site(site))
    assert [what for _, what, node, _ in register.audit() if node == "gate-2"][:3] == ["located"] * 3
    register.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [((), "give --house"), (("--position", "91,0"), "--position"), (("--position", "1,2,3"), "--position"),
     (("--position", "nan,nan"), "--position"), (("--position", "north"), "--position"),
     (("--house", "a\nb"), "--house"), (("--pole", "x" * 201), "--pole")],
)  # fmt: skip
def test_what_is_no_place_is_refused_in_one_line(
    site: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    provisioned(site, "gate-2")
    assert main(["site", "place", str(site), "gate-2", *words]) == 78
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert where(of(site, "gate-2")) == ("", "", "", None, None)


def test_place_names_a_post_that_the_register_has_not(site: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert main(["site", "place", str(site), "nobody", "--house", "12"]) == 78
    assert "nobody: no post of that name" in capsys.readouterr().err


def test_a_register_of_before_is_brought_up_to_date_with_all_that_is_in_it(site: Path) -> None:  # noqa: F811
    serials = provisioned(site, "gate-2")
    before = of(site, "gate-2")
    grown_old(site)
    assert of(site, "gate-2") == before
    assert main(["site", "place", str(site), "gate-2", "--house", "12"]) == 0
    assert of(site, "gate-2").house == "12"
    register = founding.open_register(open_site(site))
    assert (register.meta("schema"), register.meta("site")) == (SCHEMA, "ward-7")
    assert {c.serial for c in register.certificates_of("gate-2")} == set(serials), "rows that hang on it are there"
    register.close()


def test_an_upgrade_that_is_cut_has_not_begun(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    provisioned(site, "gate-2")
    path = grown_old(site)
    whole = Register._transaction

    class Cut(BaseException):
        pass

    @contextmanager
    def cut(self: Register, what: str) -> Iterator[sqlite3.Connection]:
        with whole(self, what) as db:
            yield db
            raise Cut

    monkeypatch.setattr(Register, "_transaction", cut)
    with pytest.raises(Cut):
        Register(path).open()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select value from meta where key = 'schema'").fetchone() == ("1",)
        assert "house" not in {row[1] for row in db.execute("pragma table_info(node)")}
    monkeypatch.undo()
    assert of(site, "gate-2").house == ""


def test_a_register_of_a_later_program_is_left_alone(site: Path) -> None:  # noqa: F811
    with closing(sqlite3.connect(site / "register.db", isolation_level=None)) as db:
        db.execute("update meta set value = '99' where key = 'schema'")
    with pytest.raises(Corrupt, match="schema '99'"):
        founding.open_register(open_site(site))


def test_positions_are_degrees() -> None:
    assert parse_position("") == (None, None)
    assert parse_position(" 21.0285 , 105.8542 ") == (21.0285, 105.8542)
