"""One line ten times a second on the virtual serial port `wardpost`: boot id and CLOCK_BOOTTIME."""

import glob
import time

with open("/proc/sys/kernel/random/boot_id") as file:
    boot_id = file.read().strip().replace("-", "")
port = next(
    "/dev/" + path.split("/")[-2]
    for path in glob.glob("/sys/class/virtio-ports/*/name")
    if open(path).read().strip() == "wardpost"
)
with open(port, "wb", buffering=0) as out:
    while True:
        out.write(f"tick {boot_id} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n".encode())
        time.sleep(0.1)
