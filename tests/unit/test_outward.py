"""What the station tells others: nothing is missing after a crash, nobody waits for another, nothing is tried for ever."""

from __future__ import annotations

import json
import random
import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as happening

from agent.errors import ConfigError, Corrupt
from agent.station.outward import notice as notices
from agent.station.outward import queue as queues
from agent.station.outward.notice import Notice, clean
from agent.station.outward.retry import ATTEMPTS_MAX, BACKOFF_S_MAX, REFUSALS_MAX, Outcome, hopeless, pause_s
from agent.station.outward.worker import OutwardThread
from tests.fakes.database import Database
from tests.fakes.outward_desk import LAN, Board, Listener, board, plan

AWAY = Outcome("later", "no connection")
UNWILLING = Outcome("refused", "it answers 400")


@pytest.fixture
def desk(database: Database) -> Iterator[Board]:
    with board(database) as made:
        yield made


def test_each_destination_is_told_what_it_asked_for_once_and_in_order(desk: Board) -> None:
    everything, bells = Listener(), Listener()
    worker = desk.worker({plan("all"): everything, plan("bells", tell=frozenset({"bell"})): bells})
    desk.happens("alert")
    desk.becomes("gate-9", "late")
    desk.becomes("gate-9", "dark")
    desk.run(worker)
    desk.happens("bell", summary="Somebody pressed the bell")
    desk.happens("notice")
    desk.becomes("gate-9", "online")
    desk.becomes("gate-3", "online")  # it was never said to be silent
    desk.passes(61)
    desk.run(worker, 10)
    assert sorted(everything.kinds) == ["alert", "back", "bell", "dark", "overdue"]
    order = [kind for kind in everything.kinds if kind not in ("dark", "back")]
    assert order == ["alert", "bell", "overdue"], "an alert is due later than a bell"
    assert bells.kinds == ["bell"]
    assert [told.summary for _, told in bells.got] == ["Somebody pressed the bell"]
    keys = [key for key, _ in (*everything.got, *bells.got)]
    assert len(set(keys)) == len(keys)
    assert desk.standing("all").delivered == 5 and desk.standing("all").waiting == 0


def test_a_destination_is_not_told_what_happened_before_it_was_there(desk: Board) -> None:
    desk.happens("bell")
    late = Listener()
    worker = desk.worker({plan(): late})
    desk.run(worker)
    assert late.got == []
    desk.happens("alert")
    desk.run(worker)
    assert late.kinds == ["alert"]


def test_what_waits_survives_the_end_of_the_process_at_any_moment(desk: Board) -> None:
    """Killed before anything was gathered, after it, and between the delivery and its note: told again by one name."""
    desk.worker({plan(): Listener(AWAY)})
    desk.happens("bell")
    away = Listener(AWAY)
    second = desk.worker({plan(): away})
    desk.run(second)
    assert away.attempts >= 1 and desk.standing("hook").waiting == 1

    told = Listener()
    third = desk.worker({plan(): told})
    third.step(desk.clock.boot_ns() / 1e9)  # the hand is done, nobody has written it down
    assert told.kinds == ["bell"] and desk.standing("hook").waiting == 1
    desk.clock.reboot(30)
    fourth = desk.worker({plan(): told})
    desk.run(fourth)
    assert told.kinds == ["bell", "bell"] and len({key for key, _ in told.got}) == 1
    desk.run(fourth, 20)
    assert len(told.got) == 2


def test_a_destination_that_is_away_is_tried_less_and_less_and_holds_nobody_up(desk: Board) -> None:
    gone, there = Listener(AWAY), Listener()
    worker = desk.worker({plan("gone"): gone, plan("there"): there})
    for _ in range(3):
        desk.happens("alert")
    desk.run(worker, 600)
    assert there.kinds == ["alert"] * 3
    assert 5 <= gone.attempts <= 14
    standing = desk.standing("gone")
    assert (standing.waiting, standing.why) == (3, "no connection"), "only the first is tried: the order holds"
    gone.answer = Outcome("delivered")
    desk.run(worker, BACKOFF_S_MAX + 10)
    assert [told.id for _, told in gone.got] == [told.id for _, told in there.got]


def test_a_hand_that_is_stuck_holds_nobody_up(desk: Board) -> None:
    """With real threads: one destination never answers, the other one is told all the same."""
    stuck, free = threading.Event(), Listener()

    def hangs(_told: Notice, _key: str) -> Outcome:
        stuck.wait(120)
        return AWAY

    from agent.station.outward.worker import _threads

    worker = desk.worker({plan("stuck"): hangs, plan("free"): free}, hands=_threads)
    try:
        for _ in range(3):
            desk.happens("alert")
        for _ in range(15_000):
            desk.run(worker, 0.5)
            if len(free.got) == 3:
                break
            threading.Event().wait(0.002)
        assert free.kinds == ["alert"] * 3 and desk.standing("stuck").waiting == 3
    finally:
        stuck.set()
        worker.close()


def test_what_is_too_old_is_given_up_on_record(desk: Board) -> None:
    gone = Listener(AWAY)
    worker = desk.worker({plan(keep_s=3600.0): gone})
    desk.happens("bell")
    desk.run(worker)
    desk.clock.reboot(3700)  # boot time begins anew: the wall clock tells the age
    worker = desk.worker({plan(keep_s=3600.0): gone})
    desk.run(worker)
    line = desk.on_record("outward-given-up")[0]
    assert (line["destination"], line["count"], line["why"]) == ("hook", 1, "not delivered within 1 h")
    assert desk.standing("hook").given_up == 1
    gone.answer = Outcome("delivered")
    desk.happens("alert")
    desk.run(worker, 10)
    assert gone.kinds == ["alert"]


def test_a_long_outage_is_worked_off_at_once(desk: Board) -> None:
    """What is too old goes in one stroke, and what is not follows at the pace of the destination, not of our looks."""
    gone = Listener(AWAY)
    worker = desk.worker({plan(keep_s=3600.0): gone})
    for _ in range(30):
        desk.happens("alert")
    desk.run(worker)
    desk.clock.advance(3700)
    for _ in range(30):
        desk.happens("alert")
    gone.answer = Outcome("delivered")
    desk.run(worker, 3)
    assert desk.standing("hook").given_up == 30 and len(desk.on_record("outward-given-up")) == 1
    assert len(gone.got) == 30


def test_what_is_refused_does_not_keep_the_next_one_waiting_for_ever(desk: Board) -> None:
    fussy = Listener(UNWILLING)
    worker = desk.worker({plan(): fussy})
    desk.happens("alert")
    desk.run(worker, 200)
    assert fussy.attempts == REFUSALS_MAX and desk.standing("hook").given_up == 1
    assert desk.on_record("outward-given-up")[0]["why"] == "it answers 400"


def test_a_sender_that_breaks_is_tried_again_and_its_words_are_kept_out_of_the_books(desk: Board) -> None:
    def breaks(_told: Notice, _key: str) -> Outcome:
        raise RuntimeError("mailto://user:secret@example.org")

    worker = desk.worker({plan(): breaks})
    desk.happens("alert")
    desk.run(worker, 5)
    assert desk.standing("hook").why == "unexpected RuntimeError"


def test_a_flood_is_bounded_and_bells_outlast_it(desk: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "WAITING_MAX", 3)
    worker = desk.worker({plan(): Listener(AWAY)})
    desk.happens("bell")
    for number in range(6):
        desk.becomes(f"gate-{number}", "dark")
    desk.run(worker)
    standing = desk.standing("hook")
    assert (standing.waiting, standing.given_up) == (3, 4)
    left = desk.database.rows("select kind from outward where state = 'waiting' order by n")
    assert ("bell",) in left
    assert desk.on_record("outward-given-up")[0]["count"] == 4


def test_rows_that_are_done_are_forgotten_the_oldest_first(desk: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "ENDED_MAX", 5)
    worker = desk.worker({plan(): Listener()})
    for _ in range(12):
        desk.happens("alert")
        desk.run(worker, 1)
    assert 5 <= desk.database.rows("select count(*) from outward")[0][0] <= 6


def test_a_destination_that_left_the_settings_is_not_told_any_more(desk: Board) -> None:
    desk.worker({plan("old"): Listener(AWAY)})
    desk.happens("bell")
    desk.queue().gather([plan("old")])
    desk.worker({plan("new"): Listener()})
    line = desk.on_record("outward-given-up")[0]
    assert (line["destination"], line["count"]) == ("old", 1)
    desk.worker({plan("old"): Listener()})
    assert desk.standing("old").waiting == 0


def test_a_contact_is_told_in_turn_unless_somebody_has_answered(desk: Board) -> None:
    """An alert is overdue: the first is told at once, the second after ten minutes, the third not at all: it is
    acknowledged by then."""
    first, second, third = Listener(), Listener(), Listener()
    later = {"tell": frozenset({"overdue"}), "unless_answered": True}
    worker = desk.worker(
        {
            plan("first", **later): first,
            plan("second", after_s=600.0, **later): second,
            plan("third", after_s=1200.0, **later): third,
        }
    )
    incident = desk.happens("alert")
    answered = desk.happens("alert")
    desk.run(worker, 100)
    assert first.got == []
    desk.alerts.acknowledge(LAN, answered)
    desk.passes(301)
    desk.run(worker, 500)
    assert [told.incident for _, told in first.got] == [incident]
    assert second.got == []
    desk.run(worker, 200)
    assert [told.incident for _, told in second.got] == [incident]
    desk.alerts.acknowledge(LAN, incident)
    desk.run(worker, 1300)
    assert third.got == []


def test_an_answer_settles_what_still_waits_for_a_contact(desk: Board) -> None:
    gone = Listener(AWAY)
    worker = desk.worker({plan("boss", tell=frozenset({"overdue"}), unless_answered=True): gone})
    incident = desk.happens("bell")
    desk.passes(61)
    desk.run(worker)
    tried = gone.attempts
    assert tried >= 1
    desk.alerts.acknowledge(LAN, incident)
    desk.run(worker, 30)
    assert gone.attempts == tried and desk.standing("boss").settled == 1


def test_a_clock_that_goes_back_makes_no_contact_wait_for_hours(desk: Board) -> None:
    boss = Listener()
    worker = desk.worker({plan("boss", tell=frozenset({"overdue"}), after_s=60.0): boss})
    desk.happens("bell")
    desk.passes(61)
    desk.clock.step_utc(-86_400)
    desk.run(worker)
    assert boss.kinds == ["overdue"]


def test_looking_for_something_new_writes_nothing(desk: Board) -> None:
    """The intake shares the database: an idle queue must not make it wait for a disk."""
    worker = desk.worker({plan("a"): Listener(), plan("b"): Listener()})
    desk.happens("alert")
    desk.run(worker, 3)
    written: list[str] = []

    @happening.listens_for(desk.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.lower().lstrip().startswith("select"):
            written.append(statement)

    desk.run(worker, 20)
    assert [statement for statement in written if statement != "begin"] == []


def test_the_thread_goes_on_after_whatever_befalls_it(desk: Board, caplog: pytest.LogCaptureFixture) -> None:
    """The database breaks a rule that nobody foresaw: the thread says so and begins again; the station lives on."""
    told = Listener()
    worker = desk.worker({plan(): told})
    worker.close()
    desk.happens("alert")
    broken = [RuntimeError("a bug")]
    step = worker.step

    def once(now: float) -> float:
        if broken:
            raise broken.pop()
        return step(now)

    worker.step = once  # type: ignore[method-assign]
    from agent.clock import SystemClock

    class Quick(SystemClock):
        def wait(self, event: threading.Event, timeout_s: float) -> bool:
            return super().wait(event, min(timeout_s, 0.01))

    thread = OutwardThread(worker, clock=Quick())
    thread.start()
    for _ in range(3_000):
        if told.got:
            break
        threading.Event().wait(0.01)
    thread.stop()
    assert told.kinds == ["alert"]
    assert "a bug; next attempt" in caplog.text


@given(said=st.text(max_size=60))
def test_a_nodes_words_are_one_harmless_line(said: str) -> None:
    got = clean(said, 40)
    assert len(got) <= 40 and got == got.strip()
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in got)
    assert "\n" not in got and "\u202e" not in got and "\u2028" not in got
    got.encode()  # no lone surrogates
    assert clean(got, 40) == got


def test_vietnamese_stays_what_it_is() -> None:
    assert clean("Có người ở cổng\r\nBcc: x\u202e", 100) == "Có người ở cổng Bcc: x"


def test_an_event_that_nobody_understands_is_told_by_what_the_station_knows() -> None:
    told = notices.of_alert(
        "bell",
        step=1,
        site="s",
        node="gate-2",
        incident="i",
        severity="bell",
        noticed_utc_ns=0,
        due_utc_ns=60 * 10**9,
        body=b"{",
    )
    assert notices.headline(told) == "HELP CALL at post gate-2"
    assert notices.decode(notices.encode(told)) == told
    with pytest.raises(Corrupt):
        notices.decode("{}")


def test_pauses_grow_to_a_bound_and_never_agree() -> None:
    rng = random.Random(3)
    pauses = [pause_s(n, rng) for n in range(1, 40)]
    assert 1 <= pauses[0] <= 2 and all(150 <= one <= 300 for one in pauses[-20:])
    assert len(set(pauses)) == len(pauses)
    assert hopeless(AWAY, ATTEMPTS_MAX) and not hopeless(AWAY, ATTEMPTS_MAX - 1)
    assert hopeless(UNWILLING, REFUSALS_MAX) and not hopeless(UNWILLING, REFUSALS_MAX - 1)


def test_the_tables_are_what_the_migration_made(database: Database) -> None:
    """Checked against the database itself: names, and columns, of all tables of this area."""
    from sqlalchemy import inspect

    from agent.station.db import migrate, outward
    from agent.station.db.engine import open_engine

    engine = open_engine(database.url, pooled=False)
    migrate.upgrade(engine)
    made = inspect(engine)
    for table in (outward.outward, outward.outward_mark, outward.outward_silent, outward.outward_token):
        there = {column["name"]: column["nullable"] for column in made.get_columns(table.name)}
        assert there == {column.name: column.nullable for column in table.columns}
    engine.dispose()


def test_settings_that_cannot_work_are_refused_with_their_name() -> None:
    from agent.station.outward.settings import ContactSettings, OutwardSettings, WebhookSettings, check

    hook = WebhookSettings(name="a", url="https://example.org", secret_file="/x")
    with pytest.raises(ConfigError, match="a is the name of two"):
        check(OutwardSettings(webhook=(hook, hook)))
    contacts = (
        ContactSettings(name="b", url_file="/x", after_s=60),
        ContactSettings(name="c", url_file="/x", after_s=30),
    )
    with pytest.raises(ConfigError, match="c comes behind b, but after 30 s instead of 60"):
        check(OutwardSettings(contact=contacts))


def test_the_command_says_how_it_stands_with_each_destination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A station's own settings file, its own database, read beside it by the command line."""
    from agent.cli import main

    (tmp_path / "secret").write_text("whsec_" + "A" * 43 + "=\n")
    (tmp_path / "station.toml").write_text(
        f'[station]\nsite = "ward-7"\nid = "hq"\ndata = "{tmp_path}"\n'
        '[broker]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
        f'[[outward.webhook]]\nname = "hook"\nurl = "https://example.org"\nsecret_file = "{tmp_path / "secret"}"\n'
    )
    config = ["--config", str(tmp_path / "station.toml")]
    assert main(["outward", *config]) == 78, "there is no station yet"
    capsys.readouterr()
    with board(Database("sqlite", tmp_path, "")) as desk:
        assert main(["outward", *config]) == 0
        assert capsys.readouterr().out == "hook: 0 waiting, 0 delivered, 0 given up\n"
        worker = desk.worker({plan(): Listener(AWAY)})
        desk.happens("bell")
        desk.run(worker)
        assert main(["outward", "--json", *config]) == 1
        told = json.loads(capsys.readouterr().out)[0]
        assert (told["destination"], told["waiting"], told["why"]) == ("hook", 1, "no connection")

        assert main(["token", "add", "prometheus", "--for", "metrics", *config]) == 0
        shown = capsys.readouterr().out.strip()
        assert shown.startswith("wpt_") and len(shown) == 47
        assert main(["token", "list", *config]) == 0
        listed = capsys.readouterr().out
        assert "prometheus: for metrics" in listed and shown not in listed
        assert main(["token", "revoke", "prometheus", *config]) == 0
        assert main(["token", "revoke", "prometheus", *config]) == 78
        assert main(["token", "add", "x", "--for", "page", *config]) == 78
        capsys.readouterr()
        assert main(["token", "list", "--json", *config]) == 0
        assert json.loads(capsys.readouterr().out)[0]["revoked"] is not None


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    """The part of deploy/station.example.toml, uncommented, is valid and says what the program does without it."""
    from agent.station.main import StationSettings
    from agent.station.outward.settings import check

    text = (Path(__file__).resolve().parents[2] / "deploy" / "station.example.toml").read_text()
    part = text.split("# What the station tells others", 1)[1].split("\n", 1)[1].split("\n\n# What ", 1)[0]
    base = '[station]\nsite = "a"\nid = "hq"\ndata = "/x"\n[broker]\nbrokers = ["mqtt://127.0.0.1"]\n'
    tables = tomllib.loads(base + re.sub(r"(?m)^# ?", "", part))
    settings = msgspec.convert(tables, StationSettings)
    assert settings.outward is not None
    check(settings.outward)
    shown = tables["outward"]
    for told, made in (
        (shown["webhook"][0], settings.outward.webhook[0]),
        (shown["contact"][0], settings.outward.contact[0]),
        (shown["home_assistant"], settings.outward.home_assistant),
        (shown["feeds"], settings.outward.feeds),
    ):
        assert made is not None
        assert set(told) == set(made.__struct_fields__)
        for one in msgspec.structs.fields(type(made)):
            if one.default is not msgspec.NODEFAULT and one.name != "tls":
                default = list(one.default) if isinstance(one.default, tuple) else one.default
                assert told[one.name] == default, one.name
