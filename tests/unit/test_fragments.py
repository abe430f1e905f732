"""The footage file: what FFmpeg muxes, what our boxes prove, and what a scanner believes."""

from __future__ import annotations

import io
import random
import struct
import time
from collections.abc import Sequence

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.assets import Assets
from agent.errors import Corrupt
from agent.recording.fragments import (
    CUT_BYTES,
    FORMAT,
    TRAILER_BYTES,
    FragmentMuxer,
    Header,
    parameter_sets,
    read_fragment,
    scan,
)
from agent.types import NS, Packet
from tests.fakes.packets import encoded, of_file


def header_of(first: Packet) -> Header:
    return Header(
        v=FORMAT,
        source="wardpost/hoa-cuong/cam-1",
        session=1,
        boot_id="a" * 32,
        start_ns=first.boot_ns,
        base_ns=first.dts_ns,
        utc_ns=1_700_000_000 * NS,
        unc_ns=5_000_000,
        utc_source="ntp",
        width=first.video.width,
        height=first.video.height,
    )


def muxed(packets: Sequence[Packet], *, fragment_s: float = 1.0, parameters: bytes = b"") -> bytes:
    muxer = FragmentMuxer(packets[0], parameters, header=header_of(packets[0]), fragment_s=fragment_s)
    pieces = [piece for packet in packets for piece in muxer.mux(packet)]
    return b"".join(piece.data for piece in pieces + muxer.finish())


def stamps(data: bytes) -> list[tuple[int, int, bool]]:
    """(pts, dts, key frame) in microseconds, as an independent demuxer reads them."""
    with av.open(io.BytesIO(data), "r") as container:
        out = []
        for packet in container.demux(video=0):
            if packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                scale = packet.time_base * 1_000_000
                out.append((round(packet.pts * scale), round(packet.dts * scale), bool(packet.is_keyframe)))
        return out


def decoded(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r") as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture(scope="module")
def street(assets: Assets) -> tuple[Packet, ...]:
    """Street footage with B-frames and irregular GOPs of up to 2.2 s."""
    return of_file(assets.footage())


def test_every_packet_comes_back_with_its_time(street: tuple[Packet, ...]) -> None:
    data = muxed(street)
    base_ns = street[0].dts_ns
    expected = [((p.boot_ns - base_ns) // 1000, (p.dts_ns - base_ns) // 1000, p.keyframe) for p in street]
    assert stamps(data) == expected
    assert decoded(data) == len(street)


def test_the_file_carries_the_parameter_sets_of_the_stream(street: tuple[Packet, ...]) -> None:
    """`add_stream` would write those of an encoder of its own: such a file does not play."""
    with av.open(io.BytesIO(muxed(street))) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None
    sps, pps = parameter_sets(street[0].data)[3:].split(b"\0\0\1")
    assert sps in extradata
    assert pps in extradata


@pytest.mark.parametrize(
    ("gop", "fragment_s", "expected"),
    [(10, 1.0, [1.0] * 4), (5, 1.0, [0.5] * 8), (40, 1.0, [1.1, 1.1, 1.1, 0.7])],
)
def test_a_fragment_is_a_gop_or_a_bounded_part_of_one(gop: int, fragment_s: float, expected: list[float]) -> None:
    data = muxed(encoded(seconds=4, gop=gop), fragment_s=fragment_s)
    fragments = scan(io.BytesIO(data)).fragments
    assert [round((f.end_ns - f.start_ns) / NS, 2) for f in fragments] == expected
    starts = {1000 * NS + i * gop * NS // 10 for i in range(40)}
    assert [f.keyframe for f in fragments] == [f.start_ns in starts for f in fragments]


def test_the_trailer_tells_the_times_of_its_own_samples(street: tuple[Packet, ...]) -> None:
    for packets in (street, encoded(seconds=6, gop=17, b_frames=3)):
        data = muxed(packets)
        found = scan(io.BytesIO(data))
        assert found.header is not None
        for fragment in found.fragments:
            inside = stamps(found.init + read_fragment(io.BytesIO(data), fragment))
            times = [found.header.base_ns + pts * 1000 for pts, _, _ in inside]
            assert min(times) == fragment.start_ns
            assert max(times) < fragment.end_ns <= max(times) + NS // 5
            assert inside[0][2] == fragment.keyframe


def test_a_fragment_is_bounded_in_bytes() -> None:
    """A camera that sends 2 MB pictures without a key frame must not fill the memory."""
    first, *rest = encoded(seconds=2, gop=100)
    filler = b"\0\0\0\1\x0c" + b"\xff" * 2_000_000  # a filler NAL unit
    packets = [first, *(Packet(p.boot_ns, p.dts_ns, p.keyframe, p.data + filler, p.video) for p in rest)]
    fragments = scan(io.BytesIO(muxed(packets, fragment_s=60.0))).fragments
    assert len(fragments) > 5
    assert max(f.length for f in fragments) < CUT_BYTES + 2 * len(filler)


def test_a_file_may_begin_without_a_key_frame() -> None:
    packets = encoded(seconds=4, gop=20)
    data = muxed(packets[5:], parameters=parameter_sets(packets[0].data))
    found = scan(io.BytesIO(data))
    assert not found.problem
    assert not found.fragments[0].keyframe
    assert len(stamps(data)) == len(packets) - 5


def test_equal_decoding_stamps_are_made_distinct() -> None:
    packets = list(encoded(seconds=2))
    packets[3] = Packet(packets[2].boot_ns, packets[2].dts_ns, packets[3].keyframe, packets[3].data, packets[3].video)
    assert len(stamps(muxed(packets))) == len(packets)


def test_a_torn_file_is_trusted_up_to_its_last_whole_fragment(street: tuple[Packet, ...]) -> None:
    """Every length that a small file can be torn to, and many of a large one, all those near its boundaries among them."""
    tried = 0
    for packets, every in ((encoded(seconds=9, gop=10, b_frames=2), 1), (street, 997)):
        data = muxed(packets)
        whole = scan(io.BytesIO(data))
        ends = [f.end for f in whole.fragments]
        boundaries = [whole.fragments[0].offset, *ends[-2:]]
        for size in range(len(data)):
            if size % every and min(abs(size - boundary) for boundary in boundaries) > TRAILER_BYTES + 20:
                continue
            found = scan(io.BytesIO(data[:size]), contents=size % 5 == 0)
            good = [end for end in ends if end <= size]
            assert len(found.fragments) == len(good), size
            assert found.trusted == (good[-1] if good else 0), size
            assert bool(found.problem) == (size not in ends), size
            assert found.trailers_after <= 1, size  # a torn tail, never mistaken for damage within
            tried += 1
    assert tried > 7_000
    print(f"{tried} truncations")


def test_no_flipped_bit_is_accepted() -> None:
    data = bytearray(muxed(encoded(seconds=2)))
    whole = scan(io.BytesIO(data))
    for at in range(0, len(data) * 8, 13):
        data[at // 8] ^= 1 << at % 8
        found = scan(io.BytesIO(data))
        before = [f for f in whole.fragments if f.end * 8 <= at]
        assert list(found.fragments) == before, f"bit {at} was accepted"
        assert found.problem
        data[at // 8] ^= 1 << at % 8
    assert scan(io.BytesIO(data)) == whole


def test_fragments_cannot_be_lost_doubled_or_swapped() -> None:
    data = muxed(encoded(seconds=3))
    fragments = scan(io.BytesIO(data)).fragments
    head = data[: fragments[0].offset]
    parts = [data[f.offset : f.end] for f in fragments]
    for order, good in (([0, 2], 1), ([0, 0, 1], 1), ([1, 0], 0), ([0, 1, 3, 2], 2)):
        found = scan(io.BytesIO(head + b"".join(parts[i] for i in order)))
        assert len(found.fragments) == good
        assert "does not fit" in found.problem
    other = muxed(encoded(seconds=3, seed=2))
    foreign = scan(io.BytesIO(other)).fragments[1]
    found = scan(io.BytesIO(head + parts[0] + other[foreign.offset : foreign.end]))
    assert len(found.fragments) == 1, "a fragment of another file was accepted"


def test_the_trailers_alone_already_prove_the_order() -> None:
    """Without reading the media data; what is read later is checked by `read_fragment`."""
    data = bytearray(muxed(encoded(seconds=3)))
    quick = scan(io.BytesIO(data), contents=False)
    assert quick.fragments == scan(io.BytesIO(data)).fragments
    data[quick.fragments[1].offset + 200] ^= 1
    assert len(scan(io.BytesIO(data), contents=False).fragments) == len(quick.fragments)
    with pytest.raises(Corrupt, match=r"fragment 2 at byte .* do not match their hash"):
        read_fragment(io.BytesIO(data), quick.fragments[1])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=4000), st.integers(0, 1 << 30))
def test_rubbish_is_no_footage_and_no_trouble(rubbish: bytes, at: int) -> None:
    assert not scan(io.BytesIO(rubbish)).fragments
    data = muxed(encoded(seconds=1))
    at %= len(data)
    found = scan(io.BytesIO(data[:at] + rubbish + data[at + len(rubbish) :]))
    assert found.trusted <= len(data) + len(rubbish)


def test_hostile_sizes_cost_neither_time_nor_memory() -> None:
    """Boxes that claim to be huge, endless or empty; a header that is not JSON; ten million tiny boxes."""
    data = muxed(encoded(seconds=1))
    first = scan(io.BytesIO(data)).fragments[0]
    head = data[: first.offset]
    began = time.thread_time()
    for size in (0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF):
        for kind in (b"moof", b"mdat", b"uuid", b"free"):
            box = struct.pack(">I4s", size, kind)
            for front in (b"", head, head + data[first.offset : first.offset + 200]):
                assert not scan(io.BytesIO(front + box + bytes(1000))).fragments
    for junk in (b"{", b"[]", b'{"v": "x"}', b"\xff\xfe", b'{"v":1e400}', b"[" * 3000):
        init = scan(io.BytesIO(data)).init
        box = struct.pack(">I4s", 24 + len(junk), b"uuid") + head[len(init) + 8 : len(init) + 24] + junk
        found = scan(io.BytesIO(init + box))
        assert found.header is None and "header" in found.problem
    assert not scan(io.BytesIO(struct.pack(">I4s", 8, b"free") * 1_000_000)).fragments
    assert time.thread_time() - began < 10


def test_what_ffmpeg_refuses_is_one_clear_error() -> None:
    packets = encoded(seconds=1)
    muxer = FragmentMuxer(packets[0], b"", header=header_of(packets[0]), fragment_s=1.0)
    pieces = muxer.mux(packets[0])
    randomness = random.Random(5)
    for packet in packets[1:]:  # rubbish as data is muxed or refused, never a crash
        junk = Packet(packet.boot_ns, packet.dts_ns, packet.keyframe, randomness.randbytes(500), packet.video)
        pieces += muxer.mux(junk)
    pieces += muxer.finish()
    assert not scan(io.BytesIO(b"".join(piece.data for piece in pieces))).problem


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"\0\0\1", b""),
        (b"\0\0\0\1\x67abc\0\0\1\x68de\0\0\0\1\x65slice", b"\0\0\1\x67abc\0\0\1\x68de"),
        (b"\0\0\1\x09\xf0\0\0\1\x27abc", b"\0\0\1\x27abc"),
        (b"\0\0\1\x65slice\0\0\1\x67abc", b""),
    ],
)
def test_parameter_sets_are_found_before_the_first_slice(data: bytes, expected: bytes) -> None:
    assert parameter_sets(data) == expected
