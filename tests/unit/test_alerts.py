"""The board's alerts: what becomes one, who sees it, who has it, and what is on record of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from agent.station.db.engine import open_engine, writing
from agent.station.db.tables import event
from agent.station.people.roles import Role, Scope, scope_of
from tests.fakes.database import Database
from tests.fakes.desk import JPEG, PNG_LIE, Ward, incident

WHOLE = Scope(whole_site=True)


def b64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database, bell_deadline_s=60, alert_deadline_s=300)
    yield made
    made.close()


def shown(ward: Ward, scope: Scope = WHOLE) -> list[str]:
    return [one.incident for one in ward.desk.alerts.board(scope, 0)]


def steps(ward: Ward, which: str) -> list[str]:
    return [one.what for one in ward.desk.alerts.steps(WHOLE, which)]


def test_alerts_and_bells_come_onto_the_board_and_nothing_else_does(ward: Ward) -> None:
    ward.hear(1, severity="notice")
    ward.hear(2, severity="record")
    ward.hear(3, severity="thumbnail", jpeg=b64(JPEG))
    alert = ward.hear(4)
    ward.clock.advance(1)
    bell = ward.hear(5, severity="bell")
    ward.clock.advance(1)
    newer = ward.hear(6)
    assert shown(ward) == [bell, newer, alert], "bells first, then the newest"
    [one] = [a for a in ward.desk.alerts.board(WHOLE, 0) if a.incident == alert]
    assert one.told is not None and one.told.data.place == "School gate" and not one.has_picture


def test_a_notice_that_becomes_an_alert_brings_its_picture_along(ward: Ward) -> None:
    ward.hear(1, severity="notice")
    ward.hear(1, severity="thumbnail", jpeg=b64(JPEG))
    assert shown(ward) == []
    ward.hear(1, severity="alert", phase="updated")
    assert ward.desk.alerts.picture(WHOLE, incident(1)) == JPEG


def test_what_is_no_picture_hides_none_that_came_before_the_alert(ward: Ward) -> None:
    ward.hear(1, severity="thumbnail", jpeg=b64(JPEG))
    ward.hear(1, severity="thumbnail", jpeg="not base64!")
    ward.hear(1, severity="thumbnail", jpeg=b64(PNG_LIE))
    ward.hear(1, node="gate-9", severity="thumbnail", jpeg=b64(JPEG))
    ward.hear(1)
    assert ward.desk.alerts.picture(WHOLE, incident(1)) == JPEG


def test_what_an_earlier_release_did_not_understand_is_on_the_board_of_one_that_does(
    ward: Ward, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored without its incident; what came for that before and behind it belongs to it all the same."""
    with monkeypatch.context() as away:
        away.setattr(ward.desk.alerts, "take_in", lambda: False)  # the station is updated meanwhile
        for severity in ("thumbnail", "alert", "thumbnail", "notice"):
            ward.hear(1, severity=severity, jpeg=b64(JPEG) if severity == "thumbnail" else None)
        ward.hear(2, severity="notice")
        ward.hear(3)
    with writing(engine := open_engine(database.url, pooled=False), "as an earlier release") as db:
        db.execute(update(event).where(event.c.sequence.in_((2, 3))).values(incident=None))
    engine.dispose()
    while ward.desk.alerts.take_in():
        pass
    assert sorted(shown(ward)) == [incident(1), incident(3)]
    assert [one.what for one in ward.desk.alerts.steps(WHOLE, incident(1))] == ["raised"]
    assert ward.desk.alerts.picture(WHOLE, incident(1)) == JPEG
    assert ward.desk.alerts.newest_step() == 4, "raised, its second picture, updated; and the other one raised"


def test_pictures_and_ends_of_an_alert_change_it_and_a_lie_is_no_picture(ward: Ward) -> None:
    one = ward.hear(1)
    ward.hear(1, severity="thumbnail", jpeg=b64(PNG_LIE))
    ward.hear(1, severity="thumbnail", jpeg="not base64!")
    assert ward.desk.alerts.picture(WHOLE, one) is None
    ward.hear(1, severity="thumbnail", jpeg=b64(JPEG))
    ward.hear(1, phase="ended", summary="The person has left")
    found = ward.desk.alerts.find(WHOLE, one)
    assert found is not None and found.ended and found.has_picture
    assert found.told is not None and found.told.data.summary == "The person has left"
    assert steps(ward, one) == ["raised", "ended"]


def test_another_node_cannot_speak_for_an_alert_that_is_not_its_own(ward: Ward) -> None:
    one = ward.hear(1, node="gate-2")
    ward.hear(1, node="gate-9", phase="ended", summary="All is well, go home")
    ward.hear(1, node="gate-9", severity="thumbnail", jpeg=b64(JPEG))
    found = ward.desk.alerts.find(WHOLE, one)
    assert found is not None and not found.ended and not found.has_picture
    assert found.told is not None and found.told.data.summary == "A person at the gate"


def test_a_restart_neither_loses_nor_doubles_an_alert(ward: Ward) -> None:
    one = ward.hear(1)
    ward.start()
    while ward.desk.alerts.take_in():
        pass
    other = ward.hear(2)
    assert sorted(shown(ward)) == sorted([one, other])
    assert steps(ward, one) == ["raised"]


def test_nobody_acknowledges_in_time(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    bell, alert = ward.hear(1, severity="bell"), ward.hear(2)
    ward.clock.advance(59)
    assert ward.desk.alerts.note_overdue() == 0
    ward.clock.advance(1)
    assert ward.desk.alerts.note_overdue() == 1
    assert ward.desk.alerts.note_overdue() == 0, "once"
    ward.clock.advance(240)
    assert ward.desk.alerts.note_overdue() == 1
    assert {one.incident for one in ward.desk.alerts.board(WHOLE, 0) if one.overdue} == {bell, alert}
    assert [line["incident"] for line in ward.trail() if line["kind"] == "overdue"] == [bell, alert]
    minh = ward.desk.registry.find("minh")
    assert minh is not None
    ward.desk.alerts.acknowledge(minh, bell)
    assert not ward.desk.alerts.find(WHOLE, bell).overdue


def test_two_people_acknowledge_at_once_and_one_has_it(ward: Ward) -> None:
    people = [ward.person(f"person-{number}", Role.OPERATOR) for number in range(6)]
    one = ward.hear(1)
    answers: list[str | None] = []
    begin = threading.Barrier(len(people))

    def press(number: int) -> None:
        begin.wait()
        answers.append(ward.desk.alerts.acknowledge(people[number], one))

    threads = [threading.Thread(target=press, args=(number,)) for number in range(len(people))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6 and len(set(answers)) == 1, "all are told the same name"
    assert ward.kinds().count("acknowledged") == 1
    assert steps(ward, one) == ["raised", "acknowledged"]


def test_who_sees_what_is_decided_by_the_scope(ward: Ward) -> None:
    mine, other = ward.hear(1, node="gate-1"), ward.hear(2, node="gate-2")
    ward.hear(2, node="gate-2", severity="thumbnail", jpeg=b64(JPEG))
    school = ward.person("school", Role.SCHOOL, "gate-1")
    alerts = ward.desk.alerts
    assert shown(ward, school.scope) == [mine]
    assert shown(ward, Scope(whole_site=False)) == []
    assert alerts.find(school.scope, other) is None
    assert alerts.picture(school.scope, other) is None and alerts.picture(WHOLE, other) == JPEG
    assert alerts.steps(school.scope, other) == [] and alerts.answering(school.scope, other) == []
    assert [one.incident for one in alerts.changed_since(school.scope, 0, 10)] == [mine]
    before = ward.trail()
    assert alerts.acknowledge(school, other) is None
    assert not alerts.judge(school, other, "false", "") and not alerts.comment(school, other, "x")
    assert not alerts.hand_over(school, other, "school")
    assert ward.trail() == before
    assert alerts.acknowledge(school, mine) == "school"


def test_an_alert_is_handed_only_to_who_may_answer_it(ward: Ward) -> None:
    boss = ward.person("boss", Role.SUPERVISOR)
    ward.person("lan", Role.OPERATOR)
    ward.person("far", Role.SCHOOL, "gate-7")
    ward.person("eye", Role.AUDITOR)
    ward.person("gone", Role.OPERATOR)
    ward.desk.registry.set_disabled("gone", disabled=True, by="account:test")
    one = ward.hear(1)
    assert [other.login for other in ward.desk.alerts.answering(WHOLE, one)] == ["boss", "lan"]
    for login in ("far", "eye", "gone", "nobody", ""):
        assert not ward.desk.alerts.hand_over(boss, one, login)
    assert ward.desk.alerts.hand_over(boss, one, "lan")
    found = ward.desk.alerts.find(WHOLE, one)
    assert found is not None and found.assigned_to == "Lan"
    assert ward.trail()[-1]["to"] == "lan"


def test_every_act_has_a_name_and_a_time_on_record(ward: Ward) -> None:
    minh = ward.person("minh", Role.OPERATOR, name="Nguyễn Minh")
    one = ward.hear(1)
    ward.desk.alerts.comment(minh, one, "on my way")
    ward.desk.alerts.judge(minh, one, "false", "a poster")
    found = ward.desk.alerts.find(WHOLE, one)
    assert found is not None and (found.verdict, found.verdict_by) == ("false", "Nguyễn Minh")
    assert found.acknowledged_by == "Nguyễn Minh", "who judges has taken it on"
    assert [line["kind"] for line in ward.trail()[-3:]] == ["comment", "acknowledged", "verdict"]
    assert all(line["who"] == "minh" and line["node"] == "gate-2" for line in ward.trail()[-3:])
    assert ward.trail()[-1]["reason"] == "a poster"


def test_the_board_shows_what_is_open_however_old_and_forgets_what_is_settled(ward: Ward) -> None:
    minh = ward.person("minh", Role.OPERATOR)
    old, settled = ward.hear(1), ward.hear(2)
    ward.desk.alerts.acknowledge(minh, settled)
    ward.clock.advance(48 * 3600)
    since = ward.clock.utc().utc_ns - 24 * 3600 * 10**9
    assert [one.incident for one in ward.desk.alerts.board(WHOLE, since)] == [old]


def test_an_event_that_the_store_gave_up_leaves_the_alert(ward: Ward) -> None:
    one = ward.hear(1)
    ward.database.run("delete from event")
    found = ward.desk.alerts.find(WHOLE, one)
    assert found is not None and found.told is None and found.node == "gate-2"


def test_a_scope_with_posts_is_not_the_whole_site(ward: Ward) -> None:
    """The same person, with posts and without: only that decides."""
    ward.hear(1, node="gate-1")
    ward.hear(2, node="gate-2")
    assert len(shown(ward, scope_of(Role.OPERATOR, ["gate-2"]))) == 1
    assert len(shown(ward, scope_of(Role.OPERATOR, []))) == 2
