"""Who may log in: roles, passwords, delays, sessions. The registry and the sessions on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from agent.errors import ConfigError, Transient
from agent.station.people.passwords import HASHING_MAX, Passwords
from agent.station.people.roles import Role, Scope, check_login, check_name, check_role, scope_of
from agent.station.people.sessions import PER_PERSON_MAX, form_fits, form_token
from agent.station.people.throttle import ACCOUNT_WAIT_S_MAX, ADDRESS_WAIT_S_MAX, ENTRIES_MAX, FORGET_S, Throttle
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.desk import PASSWORD, Ward, quick


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database)
    yield made
    made.close()


# -- roles ------------------------------------------------------------------------------------------------------------


def test_a_school_without_posts_and_what_is_no_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="its own posts only"):
        scope_of(Role.SCHOOL, [])
    with pytest.raises(ConfigError, match="post"):
        scope_of(Role.SCHOOL, ["gate-1", "../gate"])
    for bad in ("", "Minh", "minh nguyen", "-minh", "m" * 33, "minh\n", "мinh"):
        with pytest.raises(ConfigError):
            check_login(bad)
    for bad in ("", " ", "a\nb", "x" * 61, "a\u202eb"):
        with pytest.raises(ConfigError):
            check_name(bad)
    with pytest.raises(ConfigError, match="operator, supervisor"):
        check_role("root")
    assert check_name(" Nguye\u0302\u0303n Lan ") == "Nguyễn Lan"
    assert not Scope(whole_site=False).covers("gate-1"), "an empty scope holds nothing"
    assert scope_of(Role.OPERATOR, []).covers("made-tomorrow")


# -- passwords --------------------------------------------------------------------------------------------------------


def test_a_password_fits_only_itself_however_it_was_typed() -> None:
    passwords = quick()
    kept = passwords.hash("con đường làng mưa")
    assert passwords.fits(kept, "con đường làng mưa")
    assert passwords.fits(kept, "con đu\u031bo\u031b\u0300ng làng mưa"), "the same letters from another keyboard"
    assert not passwords.fits(kept, "con đường làng mua")
    assert not passwords.fits(None, "con đường làng mưa"), "nobody has a password"
    assert not passwords.fits("not a hash", "con đường làng mưa")
    assert not passwords.fits(kept, "x" * 10_000)
    assert not passwords.fits(kept, "\ud800" * 12), "half a character"


@pytest.mark.parametrize("bad", ["short", "password123", "MATKHAU123", "aaaaaaaaaaaaa", "x" * 600, "\ud800abcdefghijk"])
def test_passwords_that_anybody_would_try_are_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="password"):
        quick().hash(bad)


def test_the_default_costs_are_those_of_rfc_9106() -> None:
    assert Passwords()._hasher.memory_cost == 65536
    assert (Passwords()._hasher.time_cost, Passwords()._hasher.parallelism) == (3, 4)


def test_more_hashing_at_once_than_the_machine_has_room_for_is_refused_not_queued_for_ever() -> None:
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1), wait_s=0.01)
    for _ in range(HASHING_MAX):
        passwords._room.acquire()
    with pytest.raises(Transient, match="too many logins"):
        passwords.fits(None, PASSWORD)


# -- delays -----------------------------------------------------------------------------------------------------------


def test_guessing_costs_more_each_time_and_is_bounded() -> None:
    clock = FakeClock()
    throttle = Throttle(boot_ns=clock.boot_ns)
    waits = []
    for _ in range(15):
        waits.append(throttle.wait_s("minh", "192.0.2.1"))
        clock.advance(waits[-1])
        throttle.failed("minh", "192.0.2.1")
    assert waits[:4] == [0, 0, 0, 0], "people mistype"
    assert waits[4:7] == [2, 4, 8]
    assert max(waits) == ADDRESS_WAIT_S_MAX
    clock.advance(FORGET_S + ADDRESS_WAIT_S_MAX)
    throttle.failed("minh", "192.0.2.1")
    assert throttle.wait_s("minh", "192.0.2.1") == 0, "forgotten after an hour of peace"


def test_nobody_can_shut_the_owner_out_who_has_logged_in_from_there_before() -> None:
    clock = FakeClock()
    throttle = Throttle(boot_ns=clock.boot_ns)
    throttle.failed("minh", "192.0.2.1")
    throttle.succeeded("minh", "192.0.2.1")
    for number in range(1000):
        throttle.failed("minh", f"198.51.100.{number}")
    assert throttle.wait_s("minh", "192.0.2.1") == 0
    assert 0 < throttle.wait_s("minh", "203.0.113.1") <= ACCOUNT_WAIT_S_MAX, "a stranger waits, but never long"
    assert throttle.wait_s("lan", "203.0.113.1") == 0, "others do not wait at all"


def test_the_memory_of_failures_is_bounded() -> None:
    throttle = Throttle(boot_ns=FakeClock().boot_ns)
    for number in range(ENTRIES_MAX + 50):
        throttle.failed(f"login-{number}", f"address-{number}")
        throttle.succeeded(f"login-{number}", f"from-{number}")
    assert len(throttle._accounts) <= ENTRIES_MAX and len(throttle._addresses) <= ENTRIES_MAX
    assert len(throttle._known) <= ENTRIES_MAX and len(throttle._pairs) <= ENTRIES_MAX


# -- the registry -----------------------------------------------------------------------------------------------------


def test_people_are_added_changed_and_shut_out_and_each_change_is_on_record(ward: Ward) -> None:
    registry = ward.desk.registry
    ward.person("minh", Role.OPERATOR, name="Nguyễn Minh")
    ward.person("school", Role.SCHOOL, "gate-1", "gate-2")
    with pytest.raises(ConfigError, match="not used twice"):
        ward.person("minh", Role.ADMIN)
    with pytest.raises(ConfigError, match="nobody has this login"):
        registry.set_role("nobody", Role.ADMIN, Scope(True), by="account:test")
    found = {one.login: one for one in registry.people()}
    assert found["school"].scope == Scope(False, frozenset({"gate-1", "gate-2"}))
    registry.set_role("school", Role.SCHOOL, scope_of(Role.SCHOOL, ["gate-3"]), by="account:test")
    assert registry.find("school").scope.posts == {"gate-3"}
    registry.set_disabled("minh", disabled=True, by="account:test")
    assert registry.password("minh") is None, "who is shut out has no password"
    with pytest.raises(ConfigError, match="not used twice"):
        ward.person("minh", Role.ADMIN)
    said = [(line["kind"], line.get("login")) for line in ward.trail()[1:]]
    assert said == [
        ("person-added", "minh"),
        ("person-added", "school"),
        ("role-changed", "school"),
        ("person-disabled", "minh"),
    ]
    assert all(line["who"] == "account:test" for line in ward.trail()[1:])
    assert "argon2" not in str(ward.trail()), "no password, not even hashed, on the audit log"


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_ends_when_idle_and_after_a_shift(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    sessions = ward.desk.sessions
    token = sessions.begin("minh")
    for _ in range(13):
        ward.clock.advance(50 * 60)
        assert sessions.find(token) is not None, "in use"
    ward.clock.advance(61 * 60)
    assert sessions.find(token) is None
    token = sessions.begin("minh")
    for _ in range(24):
        ward.clock.advance(30 * 60 + 1)
        last = sessions.find(token)
    assert last is None, "twelve hours are over, however busy they were"


def test_a_session_made_by_a_clock_that_ran_ahead_ends(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    ward.clock.step_utc(86_400)
    token = ward.desk.sessions.begin("minh")
    assert ward.desk.sessions.find(token) is not None
    ward.clock.step_utc(-86_400)
    assert ward.desk.sessions.find(token) is None


@pytest.mark.parametrize("act", ["password", "role", "disable"])
def test_all_sessions_end_with_what_they_were_given_for(ward: Ward, act: str) -> None:
    ward.person("minh", Role.OPERATOR)
    ward.person("lan", Role.OPERATOR)
    tokens = [ward.desk.sessions.begin("minh") for _ in range(3)]
    other = ward.desk.sessions.begin("lan")
    registry = ward.desk.registry
    if act == "password":
        registry.set_password("minh", ward.passwords.hash("another good one"), by="minh")
    elif act == "role":
        registry.set_role("minh", Role.AUDITOR, Scope(True), by="account:test")
    else:
        registry.set_disabled("minh", disabled=True, by="account:test")
    assert [ward.desk.sessions.find(token) for token in tokens] == [None] * 3
    assert ward.desk.sessions.find(other) is not None


def test_the_database_holds_no_token_and_a_person_few_sessions(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    tokens = []
    for _ in range(PER_PERSON_MAX + 5):
        tokens.append(ward.desk.sessions.begin("minh"))
        ward.clock.advance(1)
    rows = ward.database.rows("select * from session")
    assert len(rows) == ward.desk.sessions.count("minh") == PER_PERSON_MAX
    assert not any(token in str(rows) for token in tokens)
    assert ward.desk.sessions.find(tokens[0]) is None and ward.desk.sessions.find(tokens[-1]) is not None
    for bad in ("", "x", tokens[-1] + "x", tokens[-1][:-1] + "!", "' or 1=1 --", rows[0][0]):
        assert ward.desk.sessions.find(bad) is None


def test_the_token_of_a_form_belongs_to_one_session() -> None:
    assert form_fits("one", form_token("one"))
    assert not form_fits("one", form_token("another")) and not form_fits("one", "") and not form_fits("one", "é")
    assert "one" not in form_token("one")
