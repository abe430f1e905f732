"""Memory of mapped files is given back, and nothing but that."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from agent import mapped

ROOT = Path(__file__).parents[2]
SMAPS = """\
10000-30000 r-xp 00000000 fe:00 26723                      /usr/lib/libwhole.so
Rss:                 100 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
30000-40000 r--p 00020000 fe:00 26723                      /usr/lib/libwhole.so
Rss:                  64 kB
Anonymous:             4 kB
40000-50000 rw-p 00030000 fe:00 26723                      /usr/lib/libwhole.so
Rss:                  64 kB
Anonymous:             0 kB
50000-60000 r--p 00000000 fe:00 31                         /home/a b/model.tflite
Rss:                   8 kB
Anonymous:             0 kB
60000-70000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
Anonymous:             0 kB
70000-80000 rw-p 00000000 00:00 0
Rss:                  64 kB
Anonymous:            64 kB
80000-90000 r--s 00000000 00:05 77                         /dev/dma_heap/linux,cma
Rss:                  64 kB
Anonymous:             0 kB
90000-a0000 r--p 00000000 fe:00 32                         /usr/lib/libunread.so
Rss:                   0 kB
Anonymous:             0 kB
"""


def test_only_what_is_a_mere_copy_of_a_file_is_given_back() -> None:
    assert mapped._clean(SMAPS) == [(0x10000, 0x30000, 100 * 1024), (0x50000, 0x60000, 8 * 1024)]
    assert mapped._clean("") == []


@pytest.mark.skipif(sys.platform != "linux", reason="smaps is Linux's")
def test_a_process_that_has_given_back_is_smaller_and_works_on() -> None:
    code = (
        "import json, ssl, cv2, numpy as np, psutil\n"
        "from agent import mapped\n"
        "picture = np.arange(90_000, dtype=np.uint8).reshape(300, 300)\n"
        "before, rss = cv2.resize(picture, (100, 100)), psutil.Process().memory_info().rss\n"
        "given_mb = mapped.give_back()\n"
        "left = psutil.Process().memory_info().rss\n"
        "assert np.array_equal(cv2.resize(picture, (100, 100)), before)\n"
        "ssl.create_default_context()\n"
        "print(json.dumps([given_mb, (rss - left) / 1e6]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    given_mb, smaller_mb = (float(word) for word in done.stdout.strip(" []\n").split(","))
    assert given_mb > 5
    assert 0.5 * given_mb < smaller_mb < 1.5 * given_mb  # what runs on comes back at once


def test_bytes_of_a_file_come_back_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(range(256)) * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as view:
        before = bytes(view)
        mapped.give_back()
        assert bytes(view) == before == path.read_bytes()


def test_a_system_that_is_not_linux_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_args: object, **_options: object) -> str:
        raise FileNotFoundError("/proc/self/smaps")

    monkeypatch.setattr(Path, "read_text", nothing)
    assert mapped.give_back() == 0.0
