"""H.264 byte streams, as far as recording needs them: NAL units of ITU-T H.264 Annex B and of ISO/IEC 14496-15 (avcC).

Pure functions on bytes. Nothing here trusts its input: rubbish gives empty answers, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_START = b"\x00\x00\x00\x01"
_START_CODE = re.compile(rb"\x00\x00\x01")

_HEAD_BYTES = 4096  # delimiters, parameter sets and SEI before the first slice end before this

IDR = 5
SPS = 7
PPS = 8


def nals(data: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B byte stream, without start codes and trailing zero bytes."""
    starts = [match.end() for match in _START_CODE.finditer(data)]
    for index, start in enumerate(starts):
        end = starts[index + 1] - 3 if index + 1 < len(starts) else len(data)
        nal = data[start:end].rstrip(b"\x00")
        if nal:
            yield nal


def parameter_sets(data: bytes) -> bytes:
    """The SPS and PPS of an Annex B access unit, in Annex B form; empty when it does not carry both."""
    found: list[bytes] = []
    kinds: set[int] = set()
    for nal in nals(data):
        kind = nal[0] & 0x1F
        if kind in {SPS, PPS}:
            found.append(_START + nal)
            kinds.add(kind)
        elif 1 <= kind <= IDR:  # a slice: parameter sets come before it
            break
    return b"".join(found) if kinds == {SPS, PPS} else b""


def from_avcc(extradata: bytes) -> bytes:
    """SPS and PPS in Annex B form from codec extradata, which is an avcC box's content or Annex B already."""
    if not extradata or extradata[0] != 1:
        return parameter_sets(extradata)
    found: list[bytes] = []
    position = 5
    for mask in (0x1F, 0xFF):  # number of SPS in five bits, then number of PPS
        if position >= len(extradata):
            return b""
        count = extradata[position] & mask
        position += 1
        for _ in range(count):
            size = int.from_bytes(extradata[position : position + 2], "big")
            nal = extradata[position + 2 : position + 2 + size]
            if len(nal) != size or size == 0:
                return b""
            found.append(_START + nal)
            position += 2 + size
    return parameter_sets(b"".join(found))


def referred(data: bytes) -> int:
    """nal_ref_idc of the first slice of an Annex B access unit: 0 when no other picture refers to it."""
    for match in _START_CODE.finditer(data, 0, _HEAD_BYTES):
        at = match.end()
        if at < len(data) and 1 <= data[at] & 0x1F <= IDR:
            return data[at] >> 5 & 3
    return 0


class InBand:
    """Puts SPS and PPS before every key frame that lacks them: a clip may start at any key frame.

    Many cameras send them once, in the session description only, and a file keeps them in its header.
    """

    def __init__(self, extradata: bytes = b"") -> None:
        """`extradata` is what the source said before the first picture: avcC, Annex B or nothing."""
        self.sets = from_avcc(extradata)  # the newest ones, Annex B

    def complete(self, data: bytes, *, keyframe: bool) -> bytes:
        """The access unit, with parameter sets if it is a key frame. The newest sets seen are the ones used."""
        if not keyframe:
            return data
        own = parameter_sets(data)
        if own:
            self.sets = own
            return data
        return self.sets + data
