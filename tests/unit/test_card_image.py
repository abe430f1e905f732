"""What a person names as the card: refused, with the reason and the cure, unless it is one. No device is touched here."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.card import mbr
from agent.card.flash import Bar, Flasher
from agent.card.image import Host, find_target, open_stock, read_layout, run_tool
from agent.errors import ConfigError, Corrupt, WardpostError
from tests.fakes.clock import FakeClock
from tests.fakes.kit import NOW, write_kit

MIB = 1 << 20
SIZE = 40 * MIB


def sector(*entries: tuple[int, int, int]) -> bytes:
    """A partition table; entries: type, first sector, sectors."""
    rows = b"".join(struct.pack("<B3xB3xLL", 0, *entry) for entry in entries)
    return bytes(446) + rows.ljust(64, b"\0") + b"\x55\xaa"


def fat_head(*, total: int = 32768, sectors_per_fat: int = 260, per_cluster: int = 1) -> bytes:
    """The first sector of a small FAT32."""
    head = b"\xeb\x58\x90mkfs.fat" + struct.pack("<HBHBHHBH", 512, per_cluster, 32, 2, 0, 0, 0xF8, 0)
    return (head + bytes(8) + struct.pack("<LL", total, sectors_per_fat)).ljust(510, b"\0") + b"\x55\xaa"


def card(path: Path, *, table: bytes = b"", head: bytes = b"", size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.write(table or sector((0x0C, 16384, 32768), (0x83, 49152, 16384)))
        file.seek(16384 * 512)
        file.write(head or fat_head())
        file.truncate(size)
    return path


def test_a_good_card_is_understood(tmp_path: Path) -> None:
    layout = read_layout(card(tmp_path / "c.img"))
    assert (layout.boot.offset, layout.boot.size) == (8 * MIB, 16 * MIB)
    assert layout.root is not None and layout.root.offset == 24 * MIB
    assert layout.fat.clusters == 32768 - 32 - 2 * 260
    assert layout.free == layout.fat.clusters * 512  # nothing is taken


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"table": bytes(512)}, "no partition table: this is not the image of a card"),
        ({"table": b"PK\x03\x04".ljust(512, b"x")}, "no partition table"),
        ({"table": sector()}, "an empty partition table"),
        ({"table": sector((0xEE, 1, 1000))}, "a GPT partition table"),
        ({"table": sector((0x83, 16384, 32768))}, "no FAT partition"),
        ({"table": sector((0x0C, 0, 32768))}, "partition 1 makes no sense"),
        ({"table": sector((0x0C, 16384, 32768), (0x83, 40000, 16384))}, "partitions 1 and 2 overlap"),
        ({"size": 30 * MIB}, "partition 2 ends at 32 MiB, there are 30 MiB: the card is too small, or the image"),
        ({"head": bytes(512)}, "the boot partition holds no FAT file system"),
        (
            {"head": fat_head(total=99999, sectors_per_fat=800)},
            "the FAT file system says 48 MiB, its partition has 16 MiB",
        ),
        ({"head": fat_head(sectors_per_fat=10)}, "makes no sense"),
        ({"head": fat_head(per_cluster=3)}, "makes no sense"),
        ({"size": 0, "table": b"x"}, "ends at 0 bytes"),
    ],
)
def test_what_is_no_card_is_refused_with_the_reason(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Corrupt) as caught:
        read_layout(card(tmp_path / "c.img", **changed))
    assert said in str(caught.value) and "c.img" in str(caught.value) and "\n" not in str(caught.value)


def test_two_file_tables_that_differ_are_damage(tmp_path: Path) -> None:
    path = card(tmp_path / "c.img")
    with path.open("r+b") as file:
        file.seek(8 * MIB + (32 + 260) * 512 + 100)
        file.write(b"\x01")
    with pytest.raises(Corrupt, match="the two file tables of the boot partition differ"):
        read_layout(path)


@given(st.binary(min_size=512, max_size=512), st.binary(min_size=512, max_size=512), st.integers(0, 1 << 40))
def test_no_bytes_are_more_than_one_line(table: bytes, head: bytes, size: int) -> None:
    for read in (
        lambda: mbr.partitions(table[:510] + b"\x55\xaa", size),
        lambda: mbr.fat(b"\xeb" + head[1:510] + b"\x55\xaa", size),
    ):
        said = ""
        try:
            read()
        except Corrupt as error:
            said = str(error)
        assert "\n" not in said


# -- devices: sysfs and procfs of a computer with one card reader ------------------------------------------------------


class Computer:
    """A Host whose files say what a test wants; /dev/zero's number stands for the card's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = Host(proc=folder / "proc", sys=folder / "sys")
        self.node = folder / "sys/devices/pci/usb1/block/sdb"
        self.path = card(folder / "sdb")
        self.write(self.node / "dev", "8:16")
        self.write(self.node / "removable", "1")
        self.write(self.node / "device/model", "Card Reader ")
        self.write(self.node / "sdb1/partition", "1")
        self.write(self.node / "sdb1/dev", "8:17")
        link = folder / "sys/dev/block/8:16"
        link.parent.mkdir(parents=True)
        link.symlink_to(self.node)
        (link.parent / "8:17").symlink_to(self.node / "sdb1")
        self.write(folder / "proc/swaps", "Filename Type Size\n")
        self.mounts("21 1 8:1 / / rw - ext4 /dev/sda1 rw")
        self.number = os.makedev(8, 16)
        real = Path.stat

        def as_device(path: Path, **kwargs: Any) -> os.stat_result:
            result = real(path, **kwargs)
            if path != self.path:
                return result
            fields = list(result)
            fields[0] = stat.S_IFBLK | 0o660
            return os.stat_result(fields, {"st_rdev": self.number})

        monkeypatch.setattr(Path, "stat", as_device)

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mounts(self, *lines: str) -> None:
        self.write(self.host.proc / "self/mountinfo", "\n".join(lines) + "\n")

    def refused(self) -> str:
        with pytest.raises(ConfigError) as caught:
            find_target(self.path, self.host)
        return str(caught.value)


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(tmp_path, monkeypatch)


def test_a_card_in_a_reader_is_taken(computer: Computer) -> None:
    found = find_target(computer.path, computer.host)
    assert found.device and found.size == SIZE and "Card Reader" in found.name


def test_a_mounted_card_is_refused_and_the_mount_named(computer: Computer) -> None:
    computer.mounts("30 1 8:17 / /media/lan/bootfs rw - vfat /dev/sdb1 rw")
    assert "mounted at /media/lan/bootfs; unmount it first" in computer.refused()


@pytest.mark.parametrize("place", ["/", "/boot/firmware", "/home"])
def test_the_disk_of_this_computer_is_refused(computer: Computer, place: str) -> None:
    computer.mounts(f"30 1 8:17 / {place} rw - ext4 /dev/sdb1 rw")
    assert f"is the disk of this computer (it holds {place})" in computer.refused()


def test_swap_is_the_disk_of_this_computer(computer: Computer) -> None:
    computer.write(computer.host.proc / "swaps", "Filename Type Size\n/dev/sdb1 partition 100\n")
    assert "holds swap space" in computer.refused()


def test_a_part_of_lvm_or_raid_is_refused(computer: Computer) -> None:
    computer.write(computer.node / "sdb1/holders/dm-0", "")
    assert "in use by dm-0" in computer.refused()


def test_a_partition_is_not_the_card(computer: Computer) -> None:
    computer.number = os.makedev(8, 17)
    assert "is one partition; name the whole card: /dev/sdb" in computer.refused()


def test_a_disk_that_is_built_in_is_refused(computer: Computer) -> None:
    computer.write(computer.node / "removable", "0")
    moved = computer.host.sys / "devices/pci/ata1/block/sdb"
    moved.parent.mkdir(parents=True)
    computer.node.rename(moved)
    (computer.host.sys / "dev/block/8:16").unlink()
    (computer.host.sys / "dev/block/8:16").symlink_to(moved)
    assert "a disk that is built in" in computer.refused()


def test_a_write_protected_card_and_an_empty_reader_are_told(computer: Computer) -> None:
    computer.write(computer.node / "ro", "1")
    assert "write-protected" in computer.refused()
    computer.write(computer.node / "ro", "0")
    computer.path.write_bytes(b"")
    assert "there is no card in the reader" in computer.refused()


def test_what_is_neither_file_nor_device_is_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "is a folder"), (Path("/dev/null"), "is neither"), (tmp_path / "no", "no such file")):
        with pytest.raises(ConfigError, match=said):
            find_target(path, Host())


def test_an_image_that_is_a_loop_device_now_is_refused(tmp_path: Path) -> None:
    path = card(tmp_path / "c.img")
    backing = tmp_path / "sys/block/loop3/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{path}\n")
    with pytest.raises(ConfigError, match="in use by /dev/loop3"):
        find_target(path, Host(sys=tmp_path / "sys"))


# -- the command -------------------------------------------------------------------------------------------------------


def flasher(answers: list[str] | None) -> Flasher:
    ask = None if answers is None else lambda _question: answers.pop()
    return Flasher(
        clock=FakeClock(utc_ns=round(NOW.timestamp() * 1e9)), out=lambda _line: None, ask=ask, tell=lambda *_: None
    )


@pytest.mark.parametrize(
    ("answers", "said"), [(None, "say --yes if that is meant"), (["no"], "left as it is"), ([""], "left as it is")]
)
def test_a_card_is_overwritten_only_when_somebody_says_yes(
    computer: Computer, tmp_path: Path, answers: list[str] | None, said: str
) -> None:
    write_kit(tmp_path / "site")
    before = computer.path.read_bytes()
    made = Flasher(
        clock=FakeClock(utc_ns=round(NOW.timestamp() * 1e9)), out=lambda _line: None, tell=lambda *_: None,
        ask=None if answers is None else lambda _question: answers.pop(), host=computer.host,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        made.flash(computer.path, "gate-north", site=tmp_path / "site", bundle=None, stock=None, yes=False)
    assert computer.path.read_bytes() == before


def test_a_bad_kit_is_told_before_the_card_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; make the site"):
        flasher(None).flash(tmp_path / "none", "n", site=tmp_path / "site", bundle=None, stock=None, yes=True)


def test_an_image_is_not_copied_onto_itself(tmp_path: Path) -> None:
    write_kit(tmp_path / "site")
    path = card(tmp_path / "c.img")
    with pytest.raises(ConfigError, match="copied onto itself"):
        flasher(None).flash(path, "gate-north", site=tmp_path / "site", bundle=None, stock=path, yes=True)


def test_a_missing_tool_says_how_to_get_it() -> None:
    with pytest.raises(ConfigError, match="sudo apt install mtools"):
        run_tool(("wardpost-no-such-tool",), {})


def test_a_stock_image_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WardpostError, match="No such file"), open_stock(tmp_path / "none.img.xz"):
        pass


def test_the_bar_is_for_terminals() -> None:
    class Screen:
        def __init__(self, *, terminal: bool) -> None:
            self.text, self.terminal = "", terminal

        def isatty(self) -> bool:
            return self.terminal

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    pipe, screen = Screen(terminal=False), Screen(terminal=True)
    for stream in (pipe, screen):
        bar = Bar(stream)  # type: ignore[arg-type]
        bar("writing", 50 * MIB, 100 * MIB)
        bar("writing", 100 * MIB, 100 * MIB)
    assert pipe.text == ""
    assert " 50 % 50 MiB" in screen.text and screen.text.endswith("\r\x1b[K")


def test_the_room_behind_the_system_becomes_the_data_partition(tmp_path: Path) -> None:
    table = sector((0x0C, 16384, 32768), (0x83, 49152, 16384))
    place = mbr.data_place(mbr.partitions(table, 4096 * MIB), 4096 * MIB)
    assert place is not None and place.offset == 32 * MIB and place.offset + place.size == 4096 * MIB
    made = mbr.with_partition(table, place)
    assert made[:462] == table[:462] and made[494:] == table[494:], "only the entry of partition 3 is another one"
    assert mbr.partitions(made, 4096 * MIB)[2] == place
    assert mbr.data_place(mbr.partitions(made, 4096 * MIB), 4096 * MIB) is None, "it is made once"
    assert mbr.data_place(mbr.partitions(table, 900 * MIB), 900 * MIB) is None, "too little to be worth it"
    huge = mbr.data_place(mbr.partitions(table, 4 << 40), 4 << 40)
    assert huge is not None and huge.offset + huge.size <= (2**32 - 1) * 512, "an MBR counts to 2 TiB"
