"""A desk with every route there is: footage, cases, live views, feeds, a map, schools, a provider to log in by; and with
something on each page: two schools' posts of which one must never hear of the other's, and somebody of every role.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from agent import wire
from agent.evidence.chain import What
from agent.station.archive_retention import Policy
from agent.station.db.engine import writing
from agent.station.db.tables import receipt
from agent.station.intake import StatusIn
from agent.station.ledgers import Alarm, Ledgers
from agent.station.live.settings import LiveSettings
from agent.station.outward.settings import FeedSettings, SchoolSettings
from agent.station.outward.tokens import Tokens
from agent.station.people.oidc.settings import OidcSettings
from agent.station.people.roles import Role
from agent.station.store import Batch
from agent.station.web.tiles import PNG
from tests.fakes.database import Database
from tests.fakes.desk import JPEG, ORIGIN, incident
from tests.fakes.evidence_post import NODE, UTC_0, EvidencePost
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.footage_ward import FootageWard
from tests.fakes.oidc_provider import CLIENT, SECRET, FakeProvider
from tests.fakes.packets import encoded

OWN, OTHER = POST, "elm-gate-9"
"""Posts: of the school and the household; and of another school."""
PLACES = {OWN: "Oak gate", OTHER: "Elm yard of others"}
SECRETS = (PLACES[OTHER], "Elm school of others", "elm-head@others.example")
"""What nobody sends, and who is bound to OWN never sees."""
RANGE = {"from": "2023-11-14T22:13:10", "to": "2023-11-14T22:15:00"}
"""In which both posts have recorded."""
SCHOOL_MAIL = "mailto://127.0.0.1:9?from=desk@example.org&mode=insecure\n"
"""Nobody listens there: nothing leaves this machine."""
TILE = PNG + b"a street"


class WholeWard(FootageWard):
    """Headquarters with everything. `footage`: what fills its archive; `provider`: by whom people may log in, too."""

    site = NODE.partition("/")[0]

    def __init__(self, folder: Path, database: Database) -> None:
        (folder / "mail").write_text(SCHOOL_MAIL)
        (folder / "oidc.secret").write_text(SECRET + "\n")
        (folder / "tiles" / "0" / "0").mkdir(parents=True)
        (folder / "tiles" / "0" / "0" / "0.png").write_bytes(TILE)
        self.views = iter(range(0x1000, 0x100000))
        self.provider: FakeProvider | None = None
        super().__init__(folder, database, tiles=str(folder / "tiles"))
        self.footage.engine.dispose()
        self.provider = FakeProvider(self.clock)
        oidc = OidcSettings(
            issuer=self.provider.issuer, client_id=CLIENT, secret_file=str(folder / "oidc.secret"), name="Ward accounts"
        )
        self.settings = type(self.settings)(origin=ORIGIN, behind_proxy=True, tiles=str(folder / "tiles"), oidc=oidc)
        self.start()

    def start(self) -> Any:
        self.footage = FootageDesk(self.folder, database=self.database.setting)
        live = self.live_desk(LiveSettings(), lambda: incident(next(self.views)))
        self.desk = self.desk_with(
            feeds=FeedSettings(sender="desk@ward.example", per_minute_max=6000),
            watch=live,
            retention=Policy(days=36_500),
            contacts=[("duty", 0.0)],
            schools=SchoolSettings(mail_url_file=str(self.folder / "mail"), hosts=("127.0.0.1:9",)),
        )
        self.tokens = Tokens(self.engine, trail=self.desk.trail, clock=self.clock)
        return self.desk

    def close(self) -> None:
        if self.provider is not None:
            self.provider.close()
        self.footage.engine.dispose()
        super().close()

    def fill(self, folder: Path) -> None:
        """What a week brings: people, posts, alerts with pictures, footage, an evidence alarm each, contacts."""
        for post, place in PLACES.items():
            status = wire.Status(state="online", node=post, bootid="f" * 32, session=1, version="1", place=place)
            self.store.commit(Batch(taken=[StatusIn(post, status, retained=False)]))
            self._film(post, folder)
        for number, post in enumerate((OWN, OTHER, OWN, OTHER), 1):
            severity = "bell" if number < 3 else "alert"
            self.hear(number, node=post, severity=severity, place=PLACES[post], summary=f"Somebody at {PLACES[post]}")
            picture = base64.b64encode(JPEG).decode()
            self.hear(number, node=post, severity="thumbnail", jpeg=picture, place=PLACES[post])
        self.searchable()
        with writing(self.engine, "raise alarms") as db:
            for post, place in PLACES.items():
                Ledgers.raise_alarm(db, Alarm(post, What.FOOTAGE, f"a file of {place}"), self.clock.utc().utc_ns)
        for role in Role:
            self.person(role.value, role, *([OWN] if role in (Role.SCHOOL, Role.HOUSEHOLD) else []))
        self.person("elm", Role.SCHOOL, OTHER, name="Elm school of others")
        supervisor = self.visitor("supervisor")

        def done(page: str, form: str, **fields: str) -> None:
            supervisor.get(page)
            known: dict[str, Any] = fields
            assert supervisor.post(form, **known).is_redirect, form

        for school, address in (("school", "0912 345 678"), ("elm", "0912 345 679")):
            phone = {"contact": "Head", "how": "phone", "address": address, "after": "0"}
            done("/schools", "/schools/contacts", school=school, **phone)
        mail = {"contact": "Head", "how": "email", "address": "elm-head@others.example", "after": "0"}
        done("/schools", "/schools/contacts", school="elm", **mail)
        removal = {"post": OTHER, "reason": "a child, by its parents' wish", "authority": "decision 12"}
        done("/archive", "/archive/removals", **removal, **RANGE)
        for posts in (OWN, f"{OWN} {OTHER}"):
            case = {"number": "12/2026", "reason": "a bicycle was stolen", "place": "a street", "posts": posts}
            done("/cases", "/cases", **case, **RANGE)

    def _film(self, post: str, folder: Path) -> None:
        """Four seconds of footage are here, with its ledger and the receipts for it."""
        made = EvidencePost(folder / f"of-{post}", node=f"{self.site}/{post}")
        made.feed(encoded(seconds=4), receipt_every=20)
        made.seal()
        self.footage.hear(made, of=post)
        self.footage.take_all(made, of=post)
        with made.disk.open("ledger/receipts.jsonl") as file, writing(self.engine, "sign") as db:
            for seq, raw in enumerate(file.read().splitlines(), 1):
                db.execute(insert(receipt).values(node=post, root="a" * 64, seq=seq, utc_ns=UTC_0, body=raw))


@contextmanager
def whole_ward(folder: Path, database: Database) -> Iterator[WholeWard]:
    """Filled."""
    made = WholeWard(folder, database)
    try:
        made.fill(folder)
        yield made
    finally:
        made.close()
