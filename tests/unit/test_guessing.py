"""Who guesses waits, whatever else he may do; nobody makes others wait for long, and the audit log stays readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.station.people.oidc.refusals import NOTED_MAX, WINDOW_S, Refusals
from agent.station.people.oidc.settings import OidcSettings
from agent.station.people.roles import Role
from agent.station.people.throttle import ACCOUNT_WAIT_S_MAX, FREE_FAILURES, Throttle, network_of
from agent.station.web.gate import last_hop
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.desk import ORIGIN, Ward

OFFICE = "192.0.2.7"


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database)
    made.person("chief", Role.SUPERVISOR)
    made.person("school", Role.SCHOOL, "gate-2")
    yield made
    made.close()


# -- behind one address with others -----------------------------------------------------------------------------------


def test_an_account_of_ones_own_buys_no_guesses_at_anothers(ward: Ward) -> None:
    """All of the office has one address. The chief has logged in from there; a school that may, too, guesses."""
    ward.visitor("chief", address=OFFICE)
    guesses: Counter[int] = Counter()
    for turn in range(8):
        for number in range(3):
            guesses[ward.visitor(address=OFFICE).log_in("chief", f"guess {turn} {number}").status_code] += 1
        assert ward.visitor(address=OFFICE).log_in("school").status_code == 303, "his own failures are none"
    assert guesses[403] == FREE_FAILURES + 1 and guesses[429] == 24 - guesses[403]
    assert ward.visitor(address="192.0.2.99").log_in("chief").status_code == 303, "from elsewhere he goes on working"
    ward.clock.advance(ACCOUNT_WAIT_S_MAX)
    assert ward.visitor(address=OFFICE).log_in("chief").status_code == 303, "and here he waits, but is not locked out"


def test_a_success_forgives_its_own_failures_and_no_others() -> None:
    clock = FakeClock()
    throttle = Throttle(boot_ns=clock.boot_ns)
    for _ in range(4):
        throttle.failed("chief", OFFICE)
    throttle.failed("school", OFFICE)
    throttle.succeeded("school", OFFICE)
    assert throttle.wait_s("chief", OFFICE) > 0 and throttle.wait_s("lan", OFFICE) > 0, "four failures still count here"
    throttle.succeeded("", OFFICE)
    assert throttle.wait_s("lan", OFFICE) > 0, "nor does one who came by the provider forgive them"
    throttle.succeeded("chief", OFFICE)
    assert throttle.wait_s("chief", OFFICE) == throttle.wait_s("lan", OFFICE) == 0
    assert throttle.wait_s("chief", "203.0.113.1") == 0, "at the account, too, they were his own"


def test_who_is_known_at_an_address_does_not_wait_for_what_others_do_there() -> None:
    """... and waits for failures at his own account there, by ACCOUNT_WAIT_S_MAX at the most."""
    clock = FakeClock()
    throttle = Throttle(boot_ns=clock.boot_ns)
    throttle.succeeded("chief", OFFICE)
    for number in range(50):
        throttle.failed(f"login-{number}", OFFICE)
    assert throttle.wait_s("lan", OFFICE) > ACCOUNT_WAIT_S_MAX and throttle.wait_s("chief", OFFICE) == 0
    for _ in range(50):
        throttle.failed("chief", OFFICE)
    assert throttle.wait_s("chief", OFFICE) == ACCOUNT_WAIT_S_MAX


# -- the page of one's own password -----------------------------------------------------------------------------------


def test_the_page_of_the_own_password_is_no_place_to_guess_it(ward: Ward) -> None:
    """Somebody sits down at a board that was left open: he finds out the password no faster than at the login."""
    visitor = ward.visitor("school", address="192.0.2.9")
    visitor.get("/account")
    change: dict[str, Any] = {"new": "three geese on the roof", "again": "three geese on the roof"}
    answers = [visitor.post("/account/password", old=f"guess {number} xxxxxx", **change) for number in range(12)]
    assert [one.status_code for one in answers] == [403] * (FREE_FAILURES + 1) + [429] * 8
    assert int(answers[-1].headers["retry-after"]) >= 1 and "Too many attempts" in answers[-1].text
    refused = [line for line in ward.trail() if line["kind"] == "password-refused"]
    assert [(one["who"], one["address"]) for one in refused] == [("school", "192.0.2.9")] * (FREE_FAILURES + 1)
    assert visitor.post("/account/password", old="a goose on the roof", **change).status_code == 429, (
        "the right one, too"
    )
    assert ward.visitor(address="192.0.2.9").log_in("school").status_code == 429, "and a guess here counts at the login"
    ward.clock.advance(ACCOUNT_WAIT_S_MAX)
    assert visitor.post("/account/password", old="a goose on the roof", **change).status_code == 303


def test_who_knows_his_password_may_try_new_ones_as_often_as_he_must(ward: Ward) -> None:
    visitor = ward.visitor("school")
    visitor.get("/account")
    tries = [visitor.post("/account/password", old="a goose on the roof", new="1", again="1") for _ in range(6)]
    assert [one.status_code for one in tries] == [400] * 6
    assert "password-refused" not in ward.kinds()


# -- one who has many addresses, or says so ---------------------------------------------------------------------------


def test_the_addresses_of_one_customer_are_counted_as_one(ward: Ward) -> None:
    """A provider gives each customer a /64 of IPv6: 2^64 addresses of one desk."""
    guesses = [
        ward.visitor(address=f"2001:db8:1:2::{n:x}").log_in(f"nobody{n}", "a guess").status_code for n in range(9)
    ]
    assert guesses == [403] * (FREE_FAILURES + 1) + [429] * 5
    assert ward.visitor(address="2001:db8:1:3::1").log_in("nobody", "a guess").status_code == 403, "a neighbour"
    refused = [line["address"] for line in ward.trail() if line["kind"] == "login-refused"]
    assert refused[:2] == ["2001:db8:1:2::0", "2001:db8:1:2::1"], "on record he stands as he came"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_by_what_an_address_is_counted(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["203.0.113.5"], "203.0.113.5"),
        (["10.9.9.9, 203.0.113.5"], "203.0.113.5"),
        (["10.9.9.9", "203.0.113.5"], "203.0.113.5"),
        (["10.9.9.9, 10.8.8.8", "10.7.7.7,203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5:40112"], "203.0.113.5"),
        (["[2001:db8::1]:40112"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["10.9.9.9", ""], "127.0.0.1"),
        (["203.0.113.5,"], "127.0.0.1"),
        ([], "127.0.0.1"),
        (["x" * 100], "x" * 64),
    ],
)
def test_of_what_is_forwarded_the_last_hop_counts_which_the_proxy_wrote(lines: list[str], address: str) -> None:
    """A proxy may add a line of its own behind the visitor's; a port is another for each connection."""
    assert last_hop(lines, "127.0.0.1") == address


def test_a_visitor_who_forges_where_he_comes_from_waits_all_the_same(ward: Ward) -> None:
    visitor = ward.visitor(address="127.0.0.1")
    visitor.get("/login")
    answers = []
    for number in range(8):
        headers = [("origin", ORIGIN), ("x-forwarded-for", f"10.0.0.{number}"), ("x-forwarded-for", "203.0.113.10")]
        fields = {"form": visitor.form(), "login": f"nobody{number}", "password": "a guess"}
        answers.append(visitor.send("POST", "/login", headers=headers, data=fields).status_code)
    assert answers == [403] * (FREE_FAILURES + 1) + [429] * 4
    assert ward.trail()[-1]["address"] == "203.0.113.10"


def test_ways_back_that_nobody_was_sent_leave_a_few_lines_and_a_count(tmp_path: Path, database: Database) -> None:
    """Whoever has many networks can come back from a provider for ever; the audit log is for what people did."""
    provider = OidcSettings(issuer="https://sso.example", client_id="x")
    ward = Ward(tmp_path, database, oidc=provider)
    for number in range(NOTED_MAX + 30):
        asked = ward.visitor(address=f"2001:db8:{number:x}::1").get("/login/oidc/back?state=x&code=y")
        assert asked.status_code == 403
    lines = [line for line in ward.trail() if line["kind"] == "login-refused"]
    assert len(lines) == NOTED_MAX and lines[-1]["counted_s"] > 0, "the last one says that more are only counted"
    ward.clock.advance(WINDOW_S)
    ward.visitor(address="192.0.2.1").get("/login/oidc/back?state=x&code=y")
    assert ward.trail()[-1]["untold"] == 30
    ward.visitor(address="192.0.2.2").get("/login/oidc/back?state=x&code=y")
    assert "untold" not in ward.trail()[-1]
    ward.close()


def test_refusals_of_one_reason_hide_none_of_another() -> None:
    refusals = Refusals(boot_ns=FakeClock().boot_ns)
    noted = [refusals.note("stale") for _ in range(NOTED_MAX + 1)]
    assert noted[0] == {} and noted[-1] is None
    assert refusals.note("unknown") == {}
