"""Byte streams: real ones are understood, rubbish gives nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.camera import h264
from tests.fakes.camera import access_units

UNITS = access_units(320, 240, 10)
SETS = h264.parameter_sets(UNITS[0][1])


def test_parameter_sets_of_a_real_stream() -> None:
    kinds = [nal[0] & 0x1F for nal in h264.nals(SETS)]
    assert kinds == [h264.SPS, h264.PPS]
    assert h264.parameter_sets(UNITS[1][1]) == b"", "a picture between key frames carries none"


def test_avcc_and_annex_b_are_the_same_sets() -> None:
    sps, pps = h264.nals(SETS)
    avcc = bytes([1, *sps[1:4], 0xFF, 0xE1]) + len(sps).to_bytes(2, "big") + sps
    avcc += b"\x01" + len(pps).to_bytes(2, "big") + pps
    assert h264.from_avcc(avcc) == SETS
    assert h264.from_avcc(SETS) == SETS
    for cut in range(len(avcc)):
        assert h264.from_avcc(avcc[:cut]) in {b"", SETS}


def test_sets_go_into_every_key_frame_that_lacks_them() -> None:
    bare = UNITS[0][1].replace(SETS, b"", 1)
    assert h264.parameter_sets(bare) == b""
    band = h264.InBand(SETS)
    assert h264.parameter_sets(band.complete(bare, keyframe=True)) == SETS
    assert band.complete(UNITS[1][1], keyframe=False) == UNITS[1][1]
    other = h264.parameter_sets(access_units(160, 120, 10)[0][1])
    band.complete(access_units(160, 120, 10)[0][1], keyframe=True)
    assert h264.parameter_sets(band.complete(bare, keyframe=True)) == other, "the newest ones count"


@given(st.binary(max_size=200))
def test_rubbish_is_no_exception(data: bytes) -> None:
    list(h264.nals(data))
    h264.parameter_sets(data)
    h264.from_avcc(data)
    h264.InBand(data).complete(data, keyframe=True)
