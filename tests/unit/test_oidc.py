"""Logging in by an OpenID Connect provider: who gets in, who does not, and what a hostile or absent provider comes to."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from agent.cli import main
from agent.errors import ConfigError, Corrupt
from agent.station.people.oidc import provider as provider_module
from agent.station.people.oidc.claims import Claims
from agent.station.people.oidc.flow import LASTS_S, Flows
from agent.station.people.oidc.links import Link, Links, link_of
from agent.station.people.oidc.settings import OidcSettings, check, discovery_of, parse_url
from agent.station.people.oidc.token import SKEW_S_MAX, read_keys, read_token
from agent.station.people.passwords import Passwords
from agent.station.people.registry import NO_PASSWORD
from agent.station.people.roles import Person, Role, Scope
from agent.station.web.routes import ANYBODY
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.desk import ORIGIN, PASSWORD, Visitor, Ward
from tests.fakes.oidc_provider import CLIENT, SECRET, FakeProvider, unsigned

COOKIE = "__Host-wardpost-oidc"


class Sso:
    """A ward whose people log in by a provider, and the provider."""

    def __init__(self, folder: Path, database: Database, **changes: Any) -> None:
        (folder / "oidc.secret").write_text(SECRET + "\n")
        self.ward = Ward(folder, database)
        self.provider = FakeProvider(self.ward.clock)
        asked: dict[str, Any] = {
            "issuer": self.provider.issuer,
            "client_id": CLIENT,
            "secret_file": str(folder / "oidc.secret"),
            "name": "Ward 7 accounts",
            "timeout_s": 20.0,
        } | changes
        self.ward.settings = type(self.ward.settings)(origin=ORIGIN, behind_proxy=True, oidc=OidcSettings(**asked))
        self.ward.start()
        self.links = Links(self.ward.engine, trail=self.ward.desk.trail, issuer=self.provider.issuer)

    def close(self) -> None:
        self.provider.close()
        self.ward.close()

    def begin(self, visitor: Visitor) -> str:
        """The way there; returns its address."""
        answer = visitor.get("/login/oidc")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def enter(self, visitor: Visitor, subject: str, **claims: Any) -> httpx.Response:
        """There and back."""
        return visitor.get(way(self.provider.log_in(self.begin(visitor), subject, **claims)))

    def refusals(self) -> list[str]:
        return [line["why"] for line in self.ward.trail() if line["kind"] == "login-refused"]


def way(url: str) -> str:
    """Path and query of where the provider sends the browser."""
    assert url.startswith(f"{ORIGIN}/login/oidc/back?")
    return url.removeprefix(ORIGIN)


@pytest.fixture
def sso(tmp_path: Path, database: Database) -> Iterator[Sso]:
    made = Sso(tmp_path, database)
    made.ward.person("lan", Role.OPERATOR)
    made.links.put("lan", Link(subject="248289761001"), by="account:test")
    yield made
    made.close()


# -- who gets in ------------------------------------------------------------------------------------------------------


def test_somebody_whom_the_admin_has_linked_logs_in_and_out_and_it_is_on_record(sso: Sso) -> None:
    visitor = sso.ward.visitor()
    assert "Log in by Ward 7 accounts instead" in visitor.get("/login").text
    answer = sso.enter(visitor, "248289761001")
    assert answer.status_code == 200 and 'content="0; url=/"' in answer.text
    page = visitor.get("/")
    assert page.status_code == 200 and "Log out" in page.text
    assert "Lan" in visitor.get("/account").text
    assert COOKIE not in visitor.cookies
    assert visitor.post("/logout").status_code == 303
    assert visitor.get("/").status_code == 303
    said = [line for line in sso.ward.trail() if line["kind"] in ("login", "logout")]
    assert [(line["kind"], line["who"], line.get("how")) for line in said] == [
        ("login", "lan", "oidc"),
        ("logout", "lan", None),
    ]
    assert visitor.log_in("lan").status_code == 303, "the password is as good as before"


def test_the_cookies_on_the_way_are_for_this_host_over_tls_and_not_for_scripts(sso: Sso) -> None:
    visitor = sso.ward.visitor()
    answer = visitor.get("/login/oidc")
    mine = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE))
    assert all(word in mine for word in ("Secure", "HttpOnly", "Path=/", f"Max-Age={LASTS_S}"))
    assert "SameSite=lax" in mine and "Domain" not in mine, "the provider's site leads back to us"
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    cookie = visitor.cookies[COOKIE]
    assert not any(cookie in value or cookie.partition(".")[0] in value for (value,) in asked.values())
    assert asked["redirect_uri"] == [f"{ORIGIN}/login/oidc/back"] and asked["prompt"] == ["login"]
    entered = visitor.get(way(sso.provider.log_in(answer.headers["location"], "248289761001")))
    session = next(one for one in entered.headers.get_list("set-cookie") if one.startswith("__Host-wardpost="))
    assert "SameSite=strict" in session


def test_the_two_routes_are_for_anybody_and_who_is_in_is_sent_to_his_own_page(sso: Sso) -> None:
    may = {one.path: one.may for one in sso.ward.desk.routes if one.path.startswith("/login/oidc")}
    assert may == {"/login/oidc": ANYBODY, "/login/oidc/back": ANYBODY}
    for role, page in ((Role.ADMIN, "/account"), (Role.AUDITOR, "/")):
        sso.ward.person(role.value, role)
        visitor = sso.ward.visitor(role.value)
        assert visitor.get("/login/oidc").headers["location"] == page
        assert visitor.post("/login/oidc").status_code == 405
    assert sso.provider.asked == [], "nobody is asked for it"


def test_nobody_signs_himself_up(sso: Sso) -> None:
    sso.ward.person("minh", Role.ADMIN)
    for claims in ({}, {"email": "lan@ward-7.example", "email_verified": True}, {"preferred_username": "minh"}):
        visitor = sso.ward.visitor(address="192.0.2.66")
        answer = sso.enter(visitor, "minh", **claims)
        assert answer.status_code == 403 and "Ask its admin to link you" in answer.text
        assert "__Host-wardpost" not in visitor.cookies
    assert {one.login for one in sso.ward.desk.registry.people()} == {"lan", "minh"}
    refused = [line for line in sso.ward.trail() if line["kind"] == "login-refused"]
    assert refused[-1]["subject"] == "minh", "with it the admin can link him"


def test_who_is_disabled_is_told_the_same_as_who_is_unknown(sso: Sso) -> None:
    sso.ward.desk.registry.set_disabled("lan", disabled=True, by="account:test")
    disabled = sso.enter(sso.ward.visitor(), "248289761001")
    unknown = sso.enter(sso.ward.visitor(), "somebody else")
    assert (disabled.status_code, unknown.status_code) == (403, 403)
    assert "Ask its admin to link you" in disabled.text and "Ask its admin to link you" in unknown.text


def test_an_e_mail_counts_once_and_only_when_the_provider_has_verified_it(sso: Sso) -> None:
    sso.ward.person("minh", Role.OPERATOR)
    sso.links.put("minh", link_of("", "Minh@Ward-7.example"), by="account:test")
    mail = "minh@ward-7.example"
    visitor = sso.ward.visitor()
    for verified in (None, False, "true", 1):
        assert sso.enter(sso.ward.visitor(), "s-1", email=mail, email_verified=verified).status_code == 403
        sso.ward.clock.advance(400)
    assert sso.enter(visitor, "s-1", email="MINH@ward-7.example", email_verified=True).status_code == 200
    assert "Minh" in visitor.get("/account").text
    assert sso.links.all()["minh"] == Link("s-1", mail)
    assert sso.enter(sso.ward.visitor(), "s-1").status_code == 200, "the subject is enough from now on"
    somebody = sso.enter(sso.ward.visitor(), "s-2", email=mail, email_verified=True)
    assert somebody.status_code == 403, "the address was given to another: he is not Minh"
    assert [one["who"] for one in sso.ward.trail() if one["kind"] == "oidc-linked"][-1] == "minh"


def test_one_at_the_provider_is_one_person_and_a_link_that_is_taken_back_ends_the_sessions(sso: Sso) -> None:
    sso.ward.person("minh", Role.OPERATOR)
    with pytest.raises(ConfigError, match="that is lan already"):
        sso.links.put("minh", Link(subject="248289761001"), by="account:test")
    with pytest.raises(ConfigError, match="nobody has this login"):
        sso.links.put("nobody", Link(subject="x"), by="account:test")
    visitor = sso.ward.visitor()
    sso.enter(visitor, "248289761001")
    assert visitor.get("/").status_code == 200
    sso.links.put("lan", None, by="account:test")
    assert visitor.get("/").status_code == 303
    assert sso.enter(visitor, "248289761001").status_code == 403
    assert sso.ward.kinds().count("oidc-unlinked") == 1
    other = Links(sso.ward.engine, trail=sso.ward.desk.trail, issuer="https://other.example")
    other.put("lan", Link(subject="248289761001"), by="account:test")
    assert sso.links.login_of(Claims("248289761001", "")) == "", "the same number at another provider is another"


def test_who_has_no_password_is_let_in_by_none(sso: Sso) -> None:
    new = Person("tuan", "Tuấn", Role.OPERATOR, Scope(whole_site=True))
    sso.ward.desk.registry.add(new, password=NO_PASSWORD, by="account:test")
    assert sso.ward.desk.registry.password("tuan") is None
    for number, guess in enumerate((NO_PASSWORD, "", "nobody has this password", PASSWORD)):
        assert sso.ward.visitor(address=f"198.51.100.{number}").log_in("tuan", guess).status_code == 403
        sso.ward.clock.advance(400)


# -- forged ways back -------------------------------------------------------------------------------------------------


def test_an_answer_belongs_to_the_browser_that_asked_and_to_one_login_of_it(sso: Sso) -> None:
    attacker, victim = sso.ward.visitor(), sso.ward.visitor(address="192.0.2.8")
    stolen = way(sso.provider.log_in(sso.begin(attacker), "248289761001"))
    assert victim.get(stolen).status_code == 403, "a login that somebody else has begun"
    sso.begin(victim)
    assert victim.get(stolen).status_code == 403, "... also when a login of his own is open"
    assert "__Host-wardpost" not in victim.cookies
    cookie = attacker.cookies[COOKIE]
    assert attacker.get(stolen).status_code == 200
    attacker.cookies.set(COOKIE, cookie, domain="desk.example")
    again = attacker.get(stolen)
    assert again.status_code == 403 and "That login is over" in again.text
    assert sso.provider.asked.count("/token") == 1, "a code is shown to the provider once"


def test_a_code_of_another_login_does_not_fit_the_browsers_own_state(sso: Sso) -> None:
    attacker, victim = sso.ward.visitor(), sso.ward.visitor(address="192.0.2.8")
    theirs = parse_qs(urlsplit(sso.provider.log_in(sso.begin(attacker), "248289761001")).query)
    mine = parse_qs(urlsplit(sso.begin(victim)).query)
    answer = victim.get(f"/login/oidc/back?code={theirs['code'][0]}&state={mine['state'][0]}&iss={sso.provider.issuer}")
    assert answer.status_code == 403 and sso.refusals() == ["it refuses the code: invalid_grant"], "PKCE"


WAYS_BACK = (
    ("", "belongs to no login"),
    ("code=x", "belongs to no login"),
    ("state=x&code=x", "belongs to no login"),
    ("state={state}&code=x", "another provider's"),
    ("state={state}&iss={iss}", "no code"),
    ("state={state}&iss={iss}&code=", "no code"),
    ("state={state}&iss={iss}&code=" + "x" * 3000, "no code"),
    ("state={state}&iss={iss}&code=never-given", "invalid_grant"),
    ("state={state}&iss=https://evil.example&code=x", "another provider's"),
    ("state={state}&error=access_denied&error_description=<script>", "let nobody in"),
    ("state={state}%00&iss={iss}&code=x", "belongs to no login"),
    ("state=%ff%fe&code=%00", "belongs to no login"),
)


def test_ways_back_that_nobody_has_sent(sso: Sso) -> None:
    for query, why in WAYS_BACK:
        visitor = sso.ward.visitor()
        state = parse_qs(urlsplit(sso.begin(visitor)).query)["state"][0]
        filled = query.replace("{state}", state).replace("{iss}", sso.provider.issuer)
        answer = visitor.get("/login/oidc/back?" + filled)
        assert answer.status_code == 403 and "<script>" not in answer.text, query
        assert why in sso.refusals()[-1], query
        assert "__Host-wardpost" not in visitor.cookies and 'name="password"' in answer.text
        sso.ward.clock.advance(400)  # else the next one would have to wait
    assert len(sso.refusals()) == len(WAYS_BACK)


def test_a_login_that_takes_too_long_or_outlives_the_station_is_begun_again(sso: Sso) -> None:
    visitor = sso.ward.visitor()
    late = way(sso.provider.log_in(sso.begin(visitor), "248289761001"))
    sso.ward.clock.advance(LASTS_S + 1)
    assert "Begin again" in visitor.get(late).text
    unfinished = way(sso.provider.log_in(sso.begin(visitor), "248289761001"))
    sso.ward.start()
    assert "Begin again" in visitor.get(unfinished).text
    assert sso.enter(visitor, "248289761001").status_code == 200


def test_guessing_at_ways_back_gets_slower_and_makes_nobody_else_wait(sso: Sso) -> None:
    visitor = sso.ward.visitor()
    answers = [visitor.get(f"/login/oidc/back?state={number}&code=x") for number in range(6)]
    assert [one.status_code for one in answers] == [403] * 4 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert visitor.get("/login/oidc").status_code == 429 and visitor.log_in("lan").status_code == 429
    other = sso.ward.visitor(address="192.0.2.99")
    assert sso.enter(other, "248289761001").status_code == 200
    sso.ward.clock.advance(400)
    assert sso.enter(visitor, "248289761001").status_code == 200


# -- a provider that is down, or hostile ------------------------------------------------------------------------------


def test_a_provider_that_is_down_is_one_sentence_and_passwords_go_on(sso: Sso) -> None:
    visitor = sso.ward.visitor()
    back = way(sso.provider.log_in(sso.begin(visitor), "248289761001"))
    sso.provider.answers["/token"] = (502, b"<html>")
    answer = visitor.get(back)
    assert answer.status_code == 503 and "The provider cannot be reached" in answer.text
    sso.ward.clock.advance(3600)  # its addresses are asked for anew
    sso.provider.close()
    for _ in range(6):
        answer = visitor.get("/login/oidc")
        assert answer.status_code == 503 and "Use your password" in answer.text, "and nobody is made to wait for it"
    assert visitor.log_in("lan").status_code == 303


BROKEN = (
    (200, b"x" * (provider_module.BYTES_MAX + 1)),
    (200, b""),
    (200, b"null"),
    (200, b"[]"),
    (200, b"{}"),
    (200, b'{"issuer": 1, "id_token": [], "keys": {}}'),
    (200, b'{"id_token": "' + b"a" * 100_000 + b'", "keys": [1, null, "x"]}'),
    (200, b'{"keys": [{"kty": "EC"}, {"kty": "RSA", "n": "AQAB"}], "id_token": "a.b.c"}'),
    (200, b"[" * 100_000),
    (200, b"\xff\xfe{}"),
    (302, b""),
    (400, b'{"error": "<script>"}'),
    (500, b"Traceback"),
)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_answers_that_are_none_let_nobody_in_and_break_nothing(
    sso: Sso, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = path == "/.well-known/openid-configuration"
    for status, body in BROKEN:
        visitor = sso.ward.visitor()
        url = "" if first else sso.begin(visitor)
        sso.provider.answers[path] = (status, body)
        answer = visitor.get("/login/oidc" if first else way(sso.provider.log_in(url, "248289761001")))
        assert answer.status_code in ((503,) if first else (403, 503)), body[:40]
        assert "<script>" not in "".join(sso.refusals()) and all(len(one) <= 200 for one in sso.refusals())
        assert "__Host-wardpost" not in visitor.cookies and "Traceback" not in caplog.text
        del sso.provider.answers[path]
        sso.ward.clock.advance(400)
    assert len(sso.refusals()) == (0 if first else len(BROKEN))


def test_an_answer_that_never_ends_is_given_up_in_time(tmp_path: Path, database: Database) -> None:
    sso = Sso(tmp_path, database, timeout_s=1.0)
    try:
        sso.provider.stalls.add("/.well-known/openid-configuration")
        answer = sso.ward.visitor().get("/login/oidc")
        assert answer.status_code == 503, "a byte now and then keeps nobody waiting"
    finally:
        sso.close()


ADDRESSES: tuple[dict[str, Any], ...] = (
    {"issuer": "https://evil.example"},
    {"issuer": None},
    {"authorization_endpoint": "javascript:alert(1)"},
    {"authorization_endpoint": "http://sso.example.org/authorize"},
    {"token_endpoint": "http://evil.example/token"},
    {"token_endpoint": "https://user:word@evil.example/token"},
    {"token_endpoint": "file:///etc/passwd"},
    {"jwks_uri": "https://evil.example/\r\nX: y"},
    {"jwks_uri": "https://[::1"},
    {"jwks_uri": "https://evil.example:99999/"},
)


def test_a_provider_leads_to_no_address_that_is_not_safe(sso: Sso) -> None:
    for metadata in ADDRESSES:
        sso.provider.metadata = metadata
        assert sso.ward.visitor().get("/login/oidc").status_code == 503, metadata
    sso.provider.metadata = {}
    assert sso.ward.visitor().get("/login/oidc").status_code == 303


def test_a_provider_elsewhere_has_no_business_on_this_machine(tmp_path: Path) -> None:
    asked = OidcSettings(issuer="https://sso.example.org", client_id="x")
    made = provider_module.Provider(asked, back="https://desk.example/login/oidc/back", clock=FakeClock())
    with pytest.raises(Corrupt, match="no business"):
        made._endpoint("http://127.0.0.1:8086/token")


HOSTILE: dict[str, dict[str, Any]] = {
    "another's nonce": {"nonce": "0" * 43},
    "no nonce": {"nonce": None},
    "a list of nonces": {"nonce": ["0" * 43]},
    "another audience": {"aud": "somebody-else"},
    "no audience": {"aud": None},
    "an audience of numbers": {"aud": [1, CLIENT]},
    "several audiences, and nobody's": {"aud": [CLIENT, "somebody-else"]},
    "several audiences, another's": {"aud": [CLIENT, "x"], "azp": "x"},
    "made for another": {"azp": "somebody-else"},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is none": {"sub": 248289761001},
    "a subject of other letters": {"sub": "\uff12\uff14\uff18"},
    "a subject without end": {"sub": "2" * 256},
    "never expires": {"exp": None},
    "expires in words": {"exp": "tomorrow"},
    "expires at infinity": {"exp": float("inf")},
    "made in no time": {"iat": None},
}


def test_a_token_that_is_not_for_this_login_lets_nobody_in(sso: Sso) -> None:
    for what, claims in HOSTILE.items():
        sso.provider.claims = claims
        visitor = sso.ward.visitor()
        answer = sso.enter(visitor, "248289761001")
        assert answer.status_code == 403 and "has not vouched for you" in answer.text, what
        assert sso.refusals()[-1].startswith("the token "), what
        assert "__Host-wardpost" not in visitor.cookies
        sso.ward.clock.advance(400)
    assert len(sso.refusals()) == len(HOSTILE)
    sso.provider.claims = {}
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 200


def test_clocks_may_differ_by_a_minute_and_no_more(sso: Sso) -> None:
    now_s = sso.ward.clock.utc().utc_ns // NS
    for changed, status in (
        ({"exp": now_s - SKEW_S_MAX + 5}, 200),
        ({"exp": now_s - SKEW_S_MAX - 5}, 403),
        ({"iat": now_s + SKEW_S_MAX - 5}, 200),
        ({"iat": now_s + SKEW_S_MAX + 5}, 403),
        ({"nbf": now_s + SKEW_S_MAX + 5}, 403),
    ):
        sso.provider.claims = changed
        assert sso.enter(sso.ward.visitor(), "248289761001").status_code == status, changed


def test_signatures_that_anybody_could_have_made_count_for_nothing(sso: Sso) -> None:
    public = json.dumps(sso.provider.keys[0]).encode()

    def by_another_key(header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode(header, claims, ECKey.generate_key("P-256", {"kid": "one"}))

    def by_the_public_key(_header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "HS256", "kid": "one"}, claims, OctKey.import_key(public), algorithms=["HS256"])

    def with_its_own_key(_header: dict[str, Any], claims: dict[str, Any]) -> str:
        own = ECKey.generate_key("P-256", {"kid": "one"})
        return jwt.encode({"alg": "ES256", "kid": "one", "jwk": own.as_dict(private=False)}, claims, own)

    def stripped(header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode(header, claims, sso.provider.key).rpartition(".")[0] + "."

    def changed(header: dict[str, Any], claims: dict[str, Any]) -> str:
        head, _, signature = jwt.encode(header, claims | {"sub": "nobody"}, sso.provider.key).split(".")
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"{head}.{body}.{signature}"

    for sign in (unsigned, by_another_key, by_the_public_key, with_its_own_key, stripped, changed):
        sso.provider.sign = sign
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library does not like what the forger does
            assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 403, sign.__name__
        sso.ward.clock.advance(400)
    sso.provider.sign = None
    sso.provider.header = {"alg": "ES256", "kid": "two"}
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 403, "a key that is not published"


def test_keys_are_replaced_without_a_restart_and_strange_ones_beside_them_do_no_harm(sso: Sso) -> None:
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 200
    sso.provider.key = ECKey.generate_key("P-256", {"kid": "next", "use": "sig"})
    sso.provider.header = {"alg": "ES256", "kid": "next"}
    ours = dict(sso.provider.key.as_dict(private=False))
    sso.provider.keys = [
        {"kty": "PQC", "kid": "x"},
        {"kty": "oct", "k": "AAAA"},
        ours | {"use": "enc", "kid": "e"},
        ours,
    ]
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 200


def test_the_secret_goes_as_the_provider_wants_it_and_may_be_replaced_in_place(sso: Sso, tmp_path: Path) -> None:
    sso.provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 200
    (tmp_path / "oidc.secret").write_text("a wrong one\n")
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 403
    assert sso.refusals() == ["it refuses the code: invalid_client"]
    (tmp_path / "oidc.secret").unlink()
    assert sso.enter(sso.ward.visitor(), "248289761001").status_code == 503
    assert not any(SECRET in str(line) or "a wrong one" in str(line) for line in sso.ward.trail())


def test_logins_that_wait_for_the_provider_are_bounded(sso: Sso) -> None:
    assert sso.ward.settings.oidc is not None
    provider = provider_module.Provider(sso.ward.settings.oidc, back=ORIGIN, clock=sso.ward.clock)
    for _ in range(provider_module.AT_ONCE_MAX):
        provider._room.acquire()
    with pytest.raises(Exception, match="wait for it already"):
        provider.login_url(Flows(boot_ns=sso.ward.clock.boot_ns).begin())


# -- the pure parts ---------------------------------------------------------------------------------------------------


def test_a_flow_tells_nothing_of_its_secrets_and_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.station.people.oidc.flow.SPENT_MAX", 50)
    clock = FakeClock()
    flows = Flows(boot_ns=clock.boot_ns)
    one = flows.begin()
    assert len({one.cookie, one.state, one.nonce, one.verifier, one.challenge}) == 5
    hashed = hashlib.sha256(one.verifier.encode()).digest()
    assert one.challenge == base64.urlsafe_b64encode(hashed).decode().rstrip("=")
    assert flows.take(one.cookie, one.state) == one and flows.take(one.cookie, one.state) is None
    other = Flows(boot_ns=clock.boot_ns)
    assert other.take(one.cookie, one.state) is None, "another process has another key"
    older = flows.begin()
    renewed = f"{older.cookie.partition('.')[0]}.{10**9}"
    assert flows.take(renewed, older.state) is None, "the browser cannot make it younger"
    for _ in range(55):
        made = flows.begin()
        assert flows.take(made.cookie, made.state)
    assert len(flows._spent) == 50


KEYS = KeySet([ECKey.generate_key("P-256", {"kid": "one"})])


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda raw: raw.decode("latin-1"))), st.booleans())
def test_no_bytes_break_the_reading_of_tokens_and_keys(text: str, dotted: bool) -> None:
    if dotted:
        text = ".".join(base64.urlsafe_b64encode(part.encode()).decode() for part in (text, text[::-1], text[:7]))
    with pytest.raises(Corrupt):
        read_token(text, keys=KEYS, issuer="i", client="c", nonce="n", now_s=0)
    with pytest.raises(Corrupt):
        read_keys(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "issuer",
    ["", "sso.example.org", "http://sso.example.org", "https://", "https://u:p@sso.example.org", "https://a/#b",
     "https://sso.example.org/?x=1", "ftp://127.0.0.1", "https://sso.example.org/\n", "http://127.0.0.1.evil.example"],
)  # fmt: skip
def test_an_issuer_that_is_none_or_in_clear_is_refused_at_the_start(issuer: str) -> None:
    with pytest.raises(ConfigError, match=r"web\.oidc\.issuer"):
        discovery_of(OidcSettings(issuer=issuer, client_id="x"))


def test_an_issuer_on_this_machine_may_be_in_clear() -> None:
    for issuer in ("http://127.0.0.1:9400", "http://[::1]:9400", "http://localhost:9400", "https://sso.example.org/r"):
        assert discovery_of(OidcSettings(issuer=issuer, client_id="x")).url.endswith(
            "/.well-known/openid-configuration"
        )
    assert parse_url("https://sso.example.org/r?x=1").target == "/r?x=1"


def test_settings_that_cannot_work_are_told_at_the_start(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"issuer": "https://sso.example.org", "client_id": "x"}
    check(OidcSettings(**asked))
    for changes, said in (
        ({"secret_file": str(tmp_path / "none")}, "cannot be read"),
        ({"secret_file": str(tmp_path)}, "cannot be read"),
        ({"name": "a\nb"}, r"web\.oidc\.name"),
    ):
        with pytest.raises(ConfigError, match=said):
            check(OidcSettings(**asked | changes))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        check(OidcSettings(**asked, secret_file=str(tmp_path / "empty")))
    with pytest.raises(ConfigError, match=r"web\.oidc\.ca"):
        provider_module.Provider(OidcSettings(**asked, ca=str(tmp_path / "none")), back="", clock=FakeClock())


@pytest.mark.parametrize(
    ("subject", "email"), [("", ""), ("a", "a@b"), ("é", ""), ("x" * 256, ""), ("", "lan"), ("", "a b@c")]
)
def test_a_link_is_to_one_and_can_be_one(subject: str, email: str) -> None:
    with pytest.raises(ConfigError):
        link_of(subject, email)


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(
        f'[station]\nsite = "ward-7"\nid = "hq"\ndata = "{tmp_path}"\n[broker]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
        '[web]\norigin = "https://desk.example"\nbehind_proxy = true\n'
        '[web.oidc]\nissuer = "https://sso.example.org"\nclient_id = "wardpost"\n'
    )
    return path


def test_the_admin_adds_and_links_people_and_nobody_without_a_provider(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*argv: str) -> int:
        return main(["user", *argv, "--config", str(toml)])

    assert run("add", "lan", "--role", "operator", "--oidc-email", "Lan@Ward-7.example") == 0, "without a password"
    assert "at the provider lan@ward-7.example" in capsys.readouterr().out
    assert run("oidc", "lan", "--oidc-subject", "248289761001") == 0
    assert run("list", "--json") == 0
    told = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert [(one["login"], one["oidc"]["subject"]) for one in told] == [("lan", "248289761001")]
    assert run("oidc", "lan") == run("oidc", "lan", "--off", "--oidc-subject", "x") == 78
    assert run("oidc", "lan", "--off") == 0
    assert run("list") == 0 and "at the provider" not in capsys.readouterr().out.rpartition("\n")[0].rpartition("\n")[2]
    toml.write_text(toml.read_text().partition("[web.oidc]")[0])
    assert run("oidc", "lan", "--oidc-subject", "x") == 78
    assert "no [web.oidc]" in capsys.readouterr().err
    assert run("oidc", "lan", "--off") == 0, "what is left over can be taken back"


def test_a_login_page_without_a_provider_has_no_way_there(tmp_path: Path, database: Database) -> None:
    ward = Ward(tmp_path, database)
    try:
        visitor = ward.visitor()
        assert "/login/oidc" not in visitor.get("/login").text
        assert visitor.get("/login/oidc").status_code == visitor.get("/login/oidc/back?code=x").status_code == 404
        assert isinstance(ward.passwords, Passwords)
    finally:
        ward.close()
