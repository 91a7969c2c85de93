"""Read what programs put into a ring buffer (BPF_MAP_TYPE_RINGBUF), through libbpf."""

from __future__ import annotations

import ctypes as c
import errno
import os
from collections.abc import Callable

from crossway.kernel.bpf import P, lib

READ_MAX = 1024  # records at a time: who writes without end keeps nobody from doing something else

_SAMPLE = c.CFUNCTYPE(c.c_int, P, P, c.c_size_t)
lib.ring_buffer__new.restype = P


class Ring:
    """A ring buffer's reading end; *take* gets each record's bytes.

    `fileno` is readable when there is something to `read`.
    """

    def __init__(self, fd: int, take: Callable[[bytes], None]) -> None:
        def sample(_: int | None, data: int, size: int) -> int:
            take(c.string_at(data, size))
            self._left -= 1
            return 0 if self._left else -errno.EAGAIN  # libbpf stops behind this record

        self._left = 0
        self._sample = _SAMPLE(sample)  # kept alive as long as the kernel's side may call it
        ring = lib.ring_buffer__new(fd, self._sample, None, None)
        if not ring:
            code = c.get_errno() or errno.EIO
            raise OSError(code, f"cannot read ring buffer {fd}: {os.strerror(code)}")
        self._ring: int | None = ring

    def fileno(self) -> int:
        return int(lib.ring_buffer__epoll_fd(P(self._ring)))

    def read(self) -> None:
        """Hand over the records that are there, up to a bound; `fileno` stays readable while there are more."""
        self._left = READ_MAX
        if self._ring is not None:
            lib.ring_buffer__consume(P(self._ring))

    def close(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            lib.ring_buffer__free(P(ring))
