"""A desk with its pages (tests/fakes/desk.py) that has an archive, and a key to sign commands with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.station.live.desk import LiveDesk
from agent.station.live.settings import LiveSettings
from agent.station.signing import Signer
from agent.station.web.desk import Desk, make_desk
from tests.fakes.database import Database
from tests.fakes.desk import Ward
from tests.fakes.footage_desk import FootageDesk


class FootageWard(Ward):
    """Headquarters with footage. `footage`: what fills its archive."""

    site = "ward-7"  # of the pages; a subclass may say that of the footage

    def __init__(self, folder: Path, database: Database, **settings: Any) -> None:
        self.key = folder / "command.pem"
        private = Ed25519PrivateKey.generate()
        self.key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        super().__init__(folder, database, **settings)

    def start(self) -> Any:
        self.footage = FootageDesk(self.folder, database=self.database.setting)
        self.desk = self.desk_with()
        return self.desk

    def desk_with(self, **more: Any) -> Desk:
        """The pages over this archive, with more of what `make_desk` takes."""
        return make_desk(
            self.settings,
            engine=self.engine,
            folder=self.folder,
            site=self.site,
            station="hq",
            clock=self.clock,
            send_verdict=self._send,
            passwords=self.passwords,
            archive=self.footage.archive,
            signer=Signer(site=self.site, key=str(self.key), days=14.0),
            **more,
        )

    def live_desk(self, settings: LiveSettings, new_id: Callable[[], str]) -> LiveDesk:
        """What these pages watch posts by, without a server in between."""
        return LiveDesk(
            settings,
            secret="",
            clock=self.clock,
            site=self.site,
            key=str(self.key),
            new_id=new_id,
            wake=lambda: None,
        )
