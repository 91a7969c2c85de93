"""Hear guests that say where they are now.

When a migrated guest goes on, its QEMU sends RARP in its name (RFC 903), so
that switches learn where it is. An agent that waits for a port takes that for
the moment at which the port moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable

ETH_P_ALL, ETH_P_RARP = 0x0003, 0x8035
SO_ATTACH_FILTER = 26
# Of struct sock_filter (linux/filter.h): load the type of the frame; take 64 bytes if it is RARP, else none.
FILTER = b"".join(
    struct.pack("=HBBI", *row)
    for row in ((0x28, 0, 0, 12), (0x15, 0, 1, ETH_P_RARP), (0x06, 0, 0, 64), (0x06, 0, 0, 0))
)
FRAMES = 16  # that are read in one go


class Ears:
    """Sockets on the devices of ports that may come; *heard* is told of the port that has come, by its MAC."""

    def __init__(self, heard: Callable[[str, str], None]) -> None:
        self._heard = heard
        self._sockets: dict[str, socket.socket] = {}

    def listen(self, port: str, device: str) -> None:
        """Listen on a device for a port; raises OSError when that cannot be."""
        if port in self._sockets:
            return
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            # All frames, as those of one type are taken only after our programs, which drop a waiting port's.
            filter = ctypes.create_string_buffer(FILTER)
            ear.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(FILTER) // 8, ctypes.addressof(filter))
            )
            ear.bind((device, ETH_P_ALL))
        except OSError:
            ear.close()
            raise
        self._sockets[port] = ear
        asyncio.get_running_loop().add_reader(ear.fileno(), self._read, port, ear)

    def stop(self, port: str) -> None:
        """Listen for a port no more.

        Closing a packet socket waits until no CPU may still look at it, some 10 ms: not here, as it is now that the
        port moves.
        """
        if ear := self._sockets.pop(port, None):
            loop = asyncio.get_running_loop()
            loop.remove_reader(ear.fileno())
            loop.run_in_executor(None, ear.close)

    def close(self) -> None:
        """Listen for nobody."""
        for port in list(self._sockets):
            self.stop(port)

    def _read(self, port: str, ear: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(FRAMES):
                try:
                    frame, (_, _, kind, *_) = ear.recvfrom(64)
                except BlockingIOError:
                    raise
                except OSError:  # the device is gone
                    self.stop(port)
                    return
                if kind != socket.PACKET_OUTGOING:
                    self._heard(port, frame[6:12].hex(":"))
