"""Envelopes: one spelling, one signature, and the real openssl agrees."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Corrupt
from agent.evidence import dsse
from agent.evidence.keys import generate, public_pem

KEY = generate()
TYPE = "application/vnd.wardpost.record+json;v=1"
LINE = dsse.sign(TYPE, b'{"a":1}', KEY)


def test_the_published_example_of_the_encoding() -> None:
    """From the DSSE specification, protocol.md."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_what_was_signed_comes_back_and_only_its_own_key_fits() -> None:
    envelope = dsse.parse(LINE)
    assert (envelope.payload_type, envelope.payload, envelope.keyid) == (TYPE, b'{"a":1}', KEY.keyid)
    assert envelope.verify(KEY.public)
    assert not envelope.verify(generate().public)
    assert not envelope.verify(b"short")


@pytest.mark.parametrize(
    "other",
    [
        LINE + b"\n",
        b" " + LINE,
        LINE.replace(b'":"', b'": "', 1),
        LINE.replace(b"payloadType", b"payloadtype"),
        LINE[:-1],
        LINE[:-2] + b',{"keyid":"","sig":""}]}',
        json.dumps(json.loads(LINE)).encode(),
        json.dumps(json.loads(LINE) | {"more": 1}, separators=(",", ":")).encode(),
        b"",
        b"\xff\xfe",
        b"[" * 10_000,
        b"x" * (dsse.LINE_BYTES_MAX + 1),
    ],
)
def test_every_other_spelling_is_refused(other: bytes) -> None:
    with pytest.raises(Corrupt):
        dsse.parse(other)


def test_base64_has_no_second_spelling() -> None:
    """The last character of 64 bytes carries four unused bits: setting them must not go unnoticed."""
    told = json.loads(LINE)
    sig = told["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = sig[:-3] + alphabet[alphabet.index(sig[-3]) ^ 1] + "=="
    assert base64.b64decode(twin) == base64.b64decode(sig), "another spelling of the same bytes"
    told["signatures"][0]["sig"] = twin
    with pytest.raises(Corrupt, match="another spelling"):
        dsse.parse(json.dumps(told, separators=(",", ":")).encode())


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with suppress(Corrupt):
        dsse.parse(data)


@given(st.integers(0, len(LINE) * 8 - 1))
def test_a_flipped_bit_anywhere_is_noticed(bit: int) -> None:
    altered = bytearray(LINE)
    altered[bit // 8] ^= 1 << bit % 8
    try:
        envelope = dsse.parse(bytes(altered))
    except Corrupt:
        return
    assert envelope.keyid != KEY.keyid or not envelope.verify(KEY.public)


def test_a_line_too_long_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="the limit is"):
        dsse.sign(TYPE, bytes(dsse.LINE_BYTES_MAX), KEY)


def test_openssl_accepts_a_line_and_refuses_an_altered_one(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine")
    envelope = dsse.parse(LINE)
    (tmp_path / "key.pem").write_bytes(public_pem(KEY.public))
    (tmp_path / "sig").write_bytes(envelope.signature)

    def verified(payload: bytes) -> bool:
        (tmp_path / "data").write_bytes(dsse.pae(envelope.payload_type, payload))
        command = "openssl pkeyutl -verify -rawin -pubin -inkey key.pem -in data -sigfile sig"
        return subprocess.run(command.split(), cwd=tmp_path, capture_output=True).returncode == 0

    assert verified(envelope.payload)
    assert not verified(envelope.payload.replace(b"1", b"2"))
