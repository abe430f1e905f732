"""One connection of the machine to one port of this computer: python relay.py HOST PORT, started by QEMU for each.

QEMU gives it the machine's side as its standard input and output. So the machine reaches this one port and nothing
else: its network has `restrict=on`.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))

    def down() -> None:
        while data := sock.recv(65536):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
        os._exit(0)

    threading.Thread(target=down, daemon=True).start()
    while data := os.read(0, 65536):
        sock.sendall(data)
    os._exit(0)


if __name__ == "__main__":
    main()
