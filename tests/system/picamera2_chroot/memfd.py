"""A buffer allocator for picamera2 on machines without /dev/dma_heap: buffers are memfds. Shared with tests/fakes."""

from __future__ import annotations

import mmap
import os
from typing import Any


def memfd_allocator(planes: int) -> Any:
    """A picamera2 Allocator whose frame buffers have one plane (Raspberry Pi) or two (NV12 of `virtual`) in one memfd."""
    import libcamera
    from picamera2.allocators.allocator import Allocator

    class MemfdSync:
        def __init__(self, allocator: Any, buffer: Any, write: bool) -> None:
            self.allocator = allocator
            self.buffer = buffer

        def __enter__(self) -> Any:
            return self.allocator.mapped_buffers[self.buffer]

        def __exit__(self, *details: object) -> None:
            pass

    class MemfdAllocator(Allocator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mapped_buffers: dict[Any, mmap.mmap] = {}
            self.frame_buffers: dict[Any, list[Any]] = {}
            self.fds: list[int] = []
            self.sync = MemfdSync

        def allocate(self, configs: Any, use_case: Any) -> None:
            for config in configs:
                size = config.frame_size
                buffers = []
                for number in range(config.buffer_count):
                    fd = os.memfd_create(f"frame-{number}")
                    os.ftruncate(fd, size)
                    self.fds.append(fd)
                    parts = [(0, size)]
                    if planes == 2:
                        luma = config.stride * config.size.height
                        parts = [(0, luma), (luma, size - luma)]
                    made = []
                    for offset, length in parts:
                        plane = libcamera.FrameBuffer.Plane()
                        plane.fd, plane.offset, plane.length = fd, offset, length
                        made.append(plane)
                    buffer = libcamera.FrameBuffer(made)
                    self.mapped_buffers[buffer] = mmap.mmap(fd, size)
                    buffers.append(buffer)
                self.frame_buffers[config.stream] = buffers

        def buffers(self, stream: Any) -> Any:
            return self.frame_buffers[stream]

        def close(self) -> None:
            self.frame_buffers = {}
            while self.fds:
                os.close(self.fds.pop())

        def __del__(self) -> None:
            self.close()

    return MemfdAllocator()
