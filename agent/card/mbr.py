"""The partition table of a card, and the head of its FAT partition: read and judged as pure functions.

Formats: the master boot record of the PC (446 bytes of code, four entries of 16 bytes, 55 AA), as all stock images of
Raspberry Pi OS have it; Microsoft's FAT specification (BIOS parameter block) for FAT16 and FAT32.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

from agent.errors import Corrupt

SECTOR = 512
FAT_TYPES = frozenset({0x04, 0x06, 0x0B, 0x0C, 0x0E})
LINUX_TYPE = 0x83
_GPT = 0xEE
_BOOT_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry; offsets in bytes from the start of the card."""

    number: int  # 1 to 4
    kind: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Fat:
    """What the head of a FAT file system says of itself; offsets in bytes from the start of the partition."""

    cluster_bytes: int
    fat_offset: int
    fat_bytes: int
    copies: int
    clusters: int
    bits: int  # 16 or 32


def partitions(sector: bytes, size: int) -> list[Partition]:
    """The entries of the first sector of a card of `size` bytes. Raises Corrupt in words."""
    if len(sector) < SECTOR or sector[510:512] != b"\x55\xaa":
        raise Corrupt("no partition table: this is not the image of a card")
    found = []
    for number in range(1, 5):
        one = _entry(number, sector[446 + 16 * (number - 1) :][:16])
        if one is not None:
            found.append(one)
    if not found:
        raise Corrupt("an empty partition table: write a stock image first (--image)")
    for one in found:
        if one.offset + one.size > size:
            raise Corrupt(
                f"partition {one.number} ends at {(one.offset + one.size) >> 20} MiB, there are {size >> 20} MiB:"
                " the card is too small, or the image is not whole"
            )
    ordered = sorted(found, key=lambda one: one.offset)
    for one, following in itertools.pairwise(ordered):
        if one.offset + one.size > following.offset:
            raise Corrupt(f"partitions {one.number} and {following.number} overlap: the table is damaged")
    return found


def _entry(number: int, entry: bytes) -> Partition | None:
    kind = entry[4]
    start, count = struct.unpack("<LL", entry[8:16])
    if kind == _GPT:
        raise Corrupt("a GPT partition table: Raspberry Pi OS images have an MBR; is this another system's image?")
    if kind == 0 and count == 0:
        return None
    if entry[0] not in {0x00, 0x80} or start == 0 or count == 0:
        raise Corrupt(f"partition {number} makes no sense: this is not the image of a card, or it is damaged")
    return Partition(number, kind, start * SECTOR, count * SECTOR)


def boot_partition(found: list[Partition]) -> Partition:
    """The first FAT partition, from which the Raspberry Pi boots. Raises Corrupt."""
    for one in found:
        if one.kind in FAT_TYPES:
            return one
    raise Corrupt("no FAT partition: a Raspberry Pi boots from one; this is another system's image")


DATA_BYTES_MIN = 1 << 30  # less than that is not worth a partition
_DATA_ALIGN = 4 << 20  # erase blocks of cards
_DATA_NUMBER = 3
_SECTORS_MAX = 2**32 - 1


def data_place(found: list[Partition], size: int) -> Partition | None:
    """Where a partition for footage goes: all the room behind the others. None: there is one, or no room."""
    if any(one.number >= _DATA_NUMBER for one in found):
        return None
    end = max(one.offset + one.size for one in found)
    start = -(-end // _DATA_ALIGN) * _DATA_ALIGN
    room = min(size, _SECTORS_MAX * SECTOR) // _DATA_ALIGN * _DATA_ALIGN - start
    return Partition(_DATA_NUMBER, LINUX_TYPE, start, room) if room >= DATA_BYTES_MIN else None


def with_partition(sector: bytes, one: Partition) -> bytes:
    """The first sector with an entry more. It is one sector, so a card has either this one or the one before."""
    no_chs = b"\xfe\xff\xff"  # addresses of cylinders and heads, which nobody has used for decades
    numbers = struct.pack("<LL", one.offset // SECTOR, one.size // SECTOR)
    at = 446 + 16 * (one.number - 1)
    return sector[:at] + b"\x00" + no_chs + bytes([one.kind]) + no_chs + numbers + sector[at + 16 :]


def fat(sector: bytes, size: int) -> Fat:
    """The head of a FAT partition of `size` bytes. Raises Corrupt in words."""
    if len(sector) < _BOOT_SECTOR_BYTES or sector[510:512] != b"\x55\xaa" or sector[0] not in {0xEB, 0xE9}:
        raise Corrupt("the boot partition holds no FAT file system: the image is damaged, or not a card's")
    sector_bytes, per_cluster, reserved, copies, root_entries, small_total, _media, small_fat = struct.unpack(
        "<HBHBHHBH", sector[11:24]
    )
    large_total, large_fat = struct.unpack("<LL", sector[32:40])
    total, fat_sectors = small_total or large_total, small_fat or large_fat
    sane = (
        sector_bytes in {512, 1024, 2048, 4096}
        and per_cluster in {1, 2, 4, 8, 16, 32, 64, 128}
        and 0 < reserved < total
        and copies in {1, 2}
        and fat_sectors > 0
    )
    data = total - reserved - copies * fat_sectors - -(-root_entries * 32 // sector_bytes) if sane else 0
    clusters = data // per_cluster if sane else 0
    bits = 16 if clusters < 65525 and root_entries else 32
    if not sane or clusters < 16 or (clusters + 2) * bits // 8 > fat_sectors * sector_bytes:
        raise Corrupt("the head of the FAT file system makes no sense: the image is damaged")
    if total * sector_bytes > size:
        raise Corrupt(
            f"the FAT file system says {total * sector_bytes >> 20} MiB, its partition has {size >> 20} MiB:"
            " the image is damaged"
        )
    return Fat(
        cluster_bytes=per_cluster * sector_bytes,
        fat_offset=reserved * sector_bytes,
        fat_bytes=fat_sectors * sector_bytes,
        copies=copies,
        clusters=clusters,
        bits=bits,
    )


def free_bytes(table: bytes, head: Fat) -> int:
    """Room in a FAT file system, from its first table."""
    width = head.bits // 8
    cells = memoryview(table[: (head.clusters + 2) * width]).cast("H" if width == 2 else "I")
    mask = 0xFFFF if width == 2 else 0x0FFFFFFF
    return sum(1 for cell in cells[2:] if cell & mask == 0) * head.cluster_bytes
