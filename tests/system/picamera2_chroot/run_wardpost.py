"""The `wardpost` command in the chroot, with the virtual camera in place of the Raspberry Pi's. Arguments as usual."""

from __future__ import annotations

import sys

import shims  # type: ignore[import-not-found]  # beside this file in the chroot

shims.make_scene()
shims.install()

from agent.cli import main  # noqa: E402

sys.exit(main())
