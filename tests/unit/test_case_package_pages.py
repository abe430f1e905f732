"""Asking for the package of a case, by HTTP on the real desk: nobody waits for the making, and everybody who may is told
how it stands. The thread that makes them is driven step by step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent.station.cases.packing import FAILED_S_MAX, WAITING_MAX, Stage, Why
from agent.station.people.roles import Role
from agent.station.web.words import load
from tests.fakes.desk import Visitor
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_case_pages import XSS, act, film, headquarters, make_packages, opened, visitor


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[FootageWard]:
    with headquarters("sqlite", tmp_path) as made:
        yield made


def part_of(who: Visitor, where: str) -> str:
    """The address that the page's script asks, as the page says it."""
    found = re.search(r'data-part="([^"]+)"', who.get(where).text)
    assert found
    return found[1].replace("&amp;", "&")


def part(who: Visitor, address: str) -> httpx.Response:
    return who.send("GET", address, headers={"x-wardpost-part": "packages"})


def data(html: str, name: str) -> str:
    found = re.search(rf'data-{name}="([^"]*)"', html)
    assert found
    return found[1]


def asked(who: Visitor, where: str, post: str = POST, reason: str = "for the court") -> None:
    assert act(who, where, "copy", post=post, reason=reason).status_code == 303


def test_the_page_tells_who_asked_for_what_since_when_and_shows_the_package_when_it_is_there(
    ward: FootageWard, tmp_path: Path
) -> None:
    for of in (POST, "gate-9"):
        film(ward, tmp_path, of)
    operator, supervisor = visitor(ward, Role.OPERATOR), visitor(ward, Role.SUPERVISOR)
    where = opened(operator, posts=f"{POST} gate-9")
    assert 'data-busy="no"' in operator.get(where).text
    assert "Evidence packages" not in operator.page
    answer = act(operator, where, "copy", post="*", reason="for the court")
    assert (answer.status_code, answer.headers["location"]) == (303, where)
    asked(supervisor, where, POST)
    asked(supervisor, where, "*", "I, too")  # it is asked for already
    address = part_of(supervisor, where)
    page = supervisor.page
    assert 'data-busy="yes"' in page
    assert page.count("Waits to be made") == 2
    assert "for the court" in page
    assert "I, too" not in page
    assert "Asked for by Operator on" in page
    assert f"one package, of: {POST} gate-9" in page
    assert "Packages to be made before it: 1." in page
    html = part(supervisor, address).text
    assert (data(html, "busy"), data(html, "made"), data(html, "seen")) == ("yes", "no", "")

    ward.desk.packer.step(0.0)  # the first one is there
    html = part(supervisor, address).text
    assert (data(html, "busy"), data(html, "made")) == ("yes", "yes")
    assert html.count("download") == 1
    assert html.count("Waits to be made") == 1
    assert int(data(html, "seen")) == int(data(address_of_seen(supervisor.page), "seen")) + 1
    ward.desk.packer.step(0.0)
    html = part(supervisor, address).text
    assert (data(html, "busy"), data(html, "made")) == ("no", "yes")
    (of_all, of_one) = re.findall(rf'href="({where}/copies/[0-9]+)"', html)
    assert operator.get(of_all).status_code == operator.get(of_one).status_code == 200
    page = operator.get(where).text  # loaded again: on the timeline, as ever, and nowhere else
    assert "Evidence packages" not in page
    assert re.findall(rf'href="({where}/copies/[0-9]+)"', page) == [of_all, of_one]
    assert [line["who"] for line in ward.trail() if line.get("act") == "copied"] == ["operator", "supervisor"]


def address_of_seen(page: str) -> str:
    """The act that the page's forms say was seen, in the shape of `data`."""
    found = re.search(r'name="seen" value="([0-9]+)"', page)
    assert found
    return f'data-seen="{found[1]}"'


def test_who_writes_while_a_package_comes_to_be_is_not_refused_for_it_but_for_what_he_was_not_shown(
    ward: FootageWard, tmp_path: Path
) -> None:
    film(ward, tmp_path)
    operator, supervisor = visitor(ward, Role.OPERATOR), visitor(ward, Role.SUPERVISOR)
    where = opened(operator)
    asked(operator, where)
    address = part_of(operator, where)
    old = data(address_of_seen(operator.page), "seen")
    make_packages(ward)
    seen = data(part(operator, address).text, "seen")
    assert act(operator, where, "note", seen=old).status_code == 409
    assert act(operator, where, "note", seen=seen, reason="the owner came").status_code == 303

    asked(operator, where)
    address = part_of(operator, where)
    assert act(supervisor, where, "transfer", recipient="District", reference="D-7").status_code == 303
    make_packages(ward)
    html = part(operator, address).text
    assert data(html, "made") == "yes"
    assert data(html, "seen") == ""  # of the transfer this part has told nothing


def test_nobody_without_the_right_sees_or_loads_it(ward: FootageWard, tmp_path: Path) -> None:
    film(ward, tmp_path)
    operator, auditor, admin = (visitor(ward, role) for role in (Role.OPERATOR, Role.AUDITOR, Role.ADMIN))
    stranger = visitor(ward, Role.SUPERVISOR, "gate-9")
    where = opened(operator)
    asked(operator, where, reason="a secret reason")
    address = part_of(operator, where)
    for who in (auditor, admin):
        assert "a secret reason" not in who.get(where).text
        assert "cases.js" not in who.page
        assert part(who, address).status_code == 403
    assert part(stranger, address).status_code == 404
    assert part(ward.visitor(), address).status_code == 401  # the script loads the page again: that leads to the login
    for wrong in ("after=x", "after=", "", "after=-1", "after=1&after=x"):
        assert part(operator, f"{where}/packages?{wrong}").status_code == 400, wrong
    # It is on record who reads it, once, as of the page.
    other = visitor(ward, Role.SUPERVISOR)
    before = ward.kinds().count("viewed")
    assert part(other, address).status_code == part(other, address).status_code == 200
    assert ward.kinds().count("viewed") == before + 1


def test_when_too_many_wait_one_sentence_says_so(ward: FootageWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    for n in range(WAITING_MAX):
        asked(operator, opened(operator, number=f"{n}/2026"))
    where = opened(operator)
    answer = act(operator, where, "copy", post=POST)
    assert answer.status_code == 409
    assert f"{WAITING_MAX} packages wait already. Ask again when one of them has been made." in answer.text
    ward.desk.packer.step(0.0)
    asked(operator, where)


def test_why_there_is_none_stands_there_in_words_until_somebody_asks_again_or_a_day_is_over(
    ward: FootageWard, tmp_path: Path
) -> None:
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    asked(operator, where, reason=XSS)
    address = part_of(operator, where)
    make_packages(ward)
    html = part(operator, address).text
    assert (data(html, "busy"), data(html, "made")) == ("no", "no")
    assert "No package could be made: export: " in html
    assert "the station has no ledger of this post" in html
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert html.count('role="alert"') == 1
    ward.clock.advance(FAILED_S_MAX - 1)
    operator = ward.visitor("operator")  # a shift is over: the same person logs in anew
    assert "No package could be made" in operator.get(where).text
    ward.clock.advance(2)
    assert "No package could be made" not in operator.get(where).text
    asked(operator, where)
    make_packages(ward)
    assert "No package could be made" in operator.get(where).text
    film(ward, tmp_path)
    asked(operator, where)
    assert "No package could be made" not in operator.get(where).text


def test_who_left_or_may_no_more_before_it_was_made(ward: FootageWard, tmp_path: Path) -> None:
    film(ward, tmp_path)
    operator, supervisor = visitor(ward, Role.OPERATOR), visitor(ward, Role.SUPERVISOR)
    where = opened(operator)
    asked(operator, where)
    operator.get("/account")
    assert operator.post("/logout").status_code == 303
    make_packages(ward)  # he asked by right: whoever may, fetches it
    found = re.search(rf'href="({where}/copies/[0-9]+)"', supervisor.get(where).text)
    assert found
    assert supervisor.get(found[1]).status_code == 200

    operator = ward.visitor("operator")
    asked(operator, where)
    ward.desk.registry.set_disabled("operator", disabled=True, by="account:test")
    make_packages(ward)
    page = supervisor.get(where).text
    assert "Operator may not copy this case any more. Somebody who may must ask for it." in page
    assert [line["who"] for line in ward.trail() if line.get("act") == "copied"] == ["operator"]


def test_an_open_page_goes_on_over_a_restart_of_the_station(ward: FootageWard, tmp_path: Path) -> None:
    film(ward, tmp_path)
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    asked(operator, where)
    address = part_of(operator, where)
    before = part(operator, address).text
    ward.start()
    assert part(operator, address).text == before
    assert data(before, "busy") == "yes"
    make_packages(ward)
    ward.start()
    html = part(operator, address).text
    assert (data(html, "busy"), data(html, "made")) == ("no", "yes")


def test_a_package_that_comes_to_be_while_the_page_is_made_is_told_of_once(ward: FootageWard, tmp_path: Path) -> None:
    film(ward, tmp_path)
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    asked(operator, where)
    n = int(where.rpartition("/")[2])
    of = ward.desk.packer.of

    def slow(case: int) -> object:
        jobs = of(case)
        ward.desk.packer.of = of
        make_packages(ward)  # between the look at what is made and the look at the timeline
        return jobs

    ward.desk.packer.of = slow
    address = part_of(operator, where)
    assert f"{where}/copies/" in operator.page
    html = part(operator, address).text
    assert (data(html, "busy"), data(html, "made")) == ("no", "no")
    assert of(n) == []


def test_every_stage_has_its_words_and_they_are_told_in_vietnamese_too(ward: FootageWard) -> None:
    for words in load().values():
        assert {f"case.package.{stage.value}" for stage in Stage} <= words.keys()
        assert {f"case.package.no.{why.value}" for why in Why} <= words.keys()
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    asked(operator, where)
    operator.get(where)
    assert operator.post("/language", language="vi", back=where).status_code == 303
    assert "Đang chờ được tạo" in operator.get(where).text
    make_packages(ward)
    assert "Không tạo được" in operator.get(where).text
