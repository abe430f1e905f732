"""Keys: made once, durable before their first use, readable by the agent alone."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.evidence import keys
from tests.fakes.disk import FakeDisk, PowerCut


def test_a_key_is_made_once_and_is_the_same_ever_after(tmp_path: Path) -> None:
    disk = PosixDisk(tmp_path)
    (made,) = keys.load_or_make(disk, "node")
    (again,) = keys.load_or_make(disk, "node")
    assert (again.keyid, again.public) == (made.keyid, made.public)
    assert again.sign(b"x") == made.sign(b"x"), "Ed25519 is deterministic"
    (file,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"PRIVATE" in file.read_bytes()
    assert made.private.private_bytes_raw().hex() not in repr(made)


def test_generations_and_names_are_kept_apart(tmp_path: Path) -> None:
    disk = PosixDisk(tmp_path)
    first, second = keys.make(disk, "node"), keys.make(disk, "node")
    other = keys.make(disk, "station")
    assert [key.keyid for key in keys.load(disk, "node")] == [first.keyid, second.keyid]
    assert keys.public_keys([other]) == {other.keyid: other.public}
    (tmp_path / "keys" / "node-000003.pem").write_bytes(b"rubbish")
    (tmp_path / "keys" / "notes.txt").write_bytes(b"")
    assert len(keys.load(disk, "node")) == 2, "an unreadable key is passed over; it signed nothing"
    assert keys.make(disk, "node").keyid
    assert (tmp_path / "keys" / "node-000004.pem").exists(), "and its number is not used again"


def test_somebody_who_makes_keys_without_end_is_stopped() -> None:
    disk = FakeDisk()
    for _ in range(keys.KEYS_MAX):
        keys.make(disk, "node")
    with pytest.raises(Corrupt, match="without need"):
        keys.make(disk, "node")


def test_a_power_cut_at_any_step_leaves_no_key_or_a_durable_one() -> None:
    """Whoever was handed a key finds it again after the cut, whatever the disk forgets."""
    for step in range(1, 20):
        for seed in range(8):
            disk = FakeDisk()

            def cut(what: str, at: int = step) -> None:
                if what.startswith(f"{at} "):
                    raise PowerCut

            disk.crash_point = cut
            handed = None
            try:
                handed = keys.load_or_make(disk, "node")[-1]
                disk.list("more")
            except PowerCut:
                pass
            disk.crash_point = lambda _: None
            disk.power_cut(random.Random(seed).randrange)
            found = keys.load(disk, "node")
            assert handed is None or found[-1].keyid == handed.keyid
            assert keys.load_or_make(disk, "node")


def test_a_disk_that_refuses_gives_no_key() -> None:
    disk = FakeDisk()
    disk.read_only = True
    with pytest.raises(Transient):
        keys.make(disk, "node")


def test_public_keys_travel_as_text() -> None:
    key = keys.generate()
    assert keys.public_of(key.public.hex()) == key.public
    assert keys.keyid_of(key.public) == key.keyid
    assert load_pem_public_key(keys.public_pem(key.public))
    for bad in ("", "0" * 63, "G" * 64, key.public.hex().upper()):
        with pytest.raises(Corrupt):
            keys.public_of(bad)
