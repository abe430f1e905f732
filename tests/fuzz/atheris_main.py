"""A fuzzer guided by coverage for one target: python -m tests.fuzz.atheris_main TARGET SECONDS FOLDER.

Needs `atheris`, which tests/fuzz/test_atheris.py installs into an environment of its own. Exits 0 after SECONDS; a
failure exits otherwise and leaves crash-* in FOLDER. Memory is bounded by -rss_limit_mb, one input's time by -timeout.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["agent"]):
    from tests.fuzz import targets


def main() -> None:
    """See the module."""
    name, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    logging.disable(logging.CRITICAL)
    target = next(found for found in targets.make(folder) if found.name == name)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        "fuzz", str(corpus), f"-max_total_time={seconds}", "-rss_limit_mb=1500", "-timeout=20", "-print_final_stats=1",
        f"-artifact_prefix={folder}/crash-", f"-max_len={max(map(len, target.seeds)) + 4096}",
    ]  # fmt: skip
    atheris.Setup(arguments, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
