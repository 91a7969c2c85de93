"""The bpf file system in which a host's tables are pinned."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

BPF_FS_MAGIC = 0xCAFE4A11
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def is_bpffs(path: Path) -> bool:
    """Return whether a path is in a bpf file system."""
    # struct statfs begins with f_type, a long; 120 bytes on 64-bit Linux.
    raw = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), raw):
        return False
    return int(ctypes.c_long.from_buffer(raw).value) == BPF_FS_MAGIC


def mount(path: Path) -> None:
    """Mount a bpf file system of its own at *path*; adopt the one that is there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_bpffs(path):
        return
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(0), b"mode=0700"):
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount a bpf file system at {path}: {os.strerror(code)}")


def unmount(path: Path) -> None:
    """Remove the bpf file system at *path* with all that is pinned in it; that there is none is no error."""
    while is_bpffs(path):
        # What is pinned there goes with the file system.
        if _libc.umount2(os.fsencode(path), MNT_DETACH):
            code = ctypes.get_errno()
            raise OSError(code, f"cannot unmount {path}: {os.strerror(code)}")
    if path.is_dir():
        path.rmdir()
