"""`python -m agent.demo.child PARENT COMMAND...`: becomes COMMAND, and dies with the process PARENT, however that ends.

prctl(2), PR_SET_PDEATHSIG: the kernel sends the signal when the parent is gone, so that a demo that is killed leaves no
process behind. It survives execve(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Does not return."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the demo has ended already")
    os.execv(command[0], command)  # noqa: S606  (there is no shell on purpose)


if __name__ == "__main__":
    main()
