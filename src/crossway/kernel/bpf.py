"""Load the data plane into the kernel, fill its tables, put its hooks in place.

libbpf (through ctypes) opens, relocates and loads; this module sets the
configuration, reuses pinned tables, and packs rows by the object's own BTF.
Errors are OSError with the kernel's errno and, where there is one, the end of
libbpf's log.
"""

from __future__ import annotations

import ctypes as c
import errno
import hashlib
import os
import re
import struct
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from crossway import settings
from crossway.kernel.btf import STRUCT, Btf, Layout
from crossway.model.rows import TABLES, Key, Value

LOCKDOWN = Path("/sys/kernel/security/lockdown")
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
P = c.c_void_p
U32 = c.c_uint32
BATCH = 4096
# What the programs write themselves: connections, and what was counted. Nobody
# could fill them again.
KEPT = (
    "flows_assured",
    "flows",
    "translations_assured",
    "translations",
    "shares",
    "charges",
    "fragments",
    "drops",
    "generations",
)
SHOT, REDIRECT, UNSPEC = 2, 7, 0xFFFFFFFF  # TC_ACT_* verdicts, linux/pkt_cls.h; the last: what comes next may judge
CONTEXT_SIZE = 192  # sizeof(struct __sk_buff), linux/bpf.h
CONTEXT = {"mark": 8, "priority": 32, "ingress_ifindex": 36, "ifindex": 40, "cb": 48, "gso_segs": 164, "gso_size": 176}


class _TestRun(c.Structure):
    _fields_ = (
        ("sz", c.c_size_t),
        ("data_in", P),
        ("data_out", P),
        ("data_size_in", U32),
        ("data_size_out", U32),
        ("ctx_in", P),
        ("ctx_out", P),
        ("ctx_size_in", U32),
        ("ctx_size_out", U32),
        ("retval", U32),
        ("repeat", c.c_int),
        ("duration", U32),
        ("flags", U32),
        ("cpu", U32),
        ("batch_size", U32),
    )


class _MapInfo(c.Structure):  # the beginning of struct bpf_map_info, linux/bpf.h
    _fields_ = (
        ("type", U32),
        ("id", U32),
        ("key_size", U32),
        ("value_size", U32),
        ("max_entries", U32),
        ("map_flags", U32),
        ("name", c.c_char * 16),
        ("ifindex", U32),
        ("btf_vmlinux_value_type_id", U32),
        ("netns_dev", c.c_uint64),
        ("netns_ino", c.c_uint64),
        ("btf_id", U32),
        ("btf_key_type_id", U32),
        ("btf_value_type_id", U32),
    )


class _TcHook(c.Structure):
    _fields_ = (("sz", c.c_size_t), ("ifindex", c.c_int), ("attach_point", c.c_int), ("parent", U32))


class _TcOpts(c.Structure):
    _fields_ = (
        ("sz", c.c_size_t),
        ("prog_fd", c.c_int),
        ("flags", U32),
        ("prog_id", U32),
        ("handle", U32),
        ("priority", U32),
    )


TC_INGRESS, TC_EGRESS, TC_REPLACE = 1, 2, 1

# Where our programs are among others' filters on a link. What a workload sends
# is judged before anybody else can let it in; on the host's own devices those
# filters come first that have asked for it by a low number.
PRIORITIES = {"from_workload": 1, "from_overlay": 1, "from_uplink": 9697}
HANDLE = 0xC7  # others' programs of the same priority have others: by default 1


def _libbpf() -> c.CDLL:
    lib = c.CDLL("libbpf.so.1", use_errno=True)
    for name in (
        "bpf_object__open_file",
        "bpf_object__find_map_by_name",
        "bpf_object__find_program_by_name",
        "bpf_object__next_map",
        "bpf_object__next_program",
        "bpf_object__btf",
        "bpf_map__initial_value",
        "btf__raw_data",
        "btf__load_from_kernel_by_id",
    ):
        getattr(lib, name).restype = P
        getattr(lib, name).argtypes = None
    for name in ("bpf_map__name", "bpf_program__name"):
        getattr(lib, name).restype = c.c_char_p
    return lib


lib = _libbpf()
_log: list[str] = []
_libc = c.CDLL(None)
_PRINT = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, P)


def _print(level: int, form: bytes, args: int | None) -> int:
    if level > 1:
        return 0
    text = c.create_string_buffer(65536)
    _libc.vsnprintf(text, c.c_size_t(65536), form, P(args))
    _log.append(text.value.decode(errors="replace"))
    del _log[:-200]
    return 0


_printer = _PRINT(_print)
lib.libbpf_set_print(_printer)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = -result if result != -1 else c.get_errno() or errno.EIO
        said = "".join(_log)[-4000:]
        raise OSError(code, f"{what}: {os.strerror(code)}" + (f"\n{said}" if said else ""))
    return result


def object_path() -> Path:
    """Return the path of the data plane: the one that this package carries, or the one that is set."""
    if chosen := settings.OBJECT.value():
        return Path(chosen)
    return Path(str(resources.files("crossway"))) / "bpf" / "crossway.bpf.o"


class Verdict(NamedTuple):
    """What a test run gave: a TC_ACT_* number, the packet as it left, nanoseconds a run."""

    verdict: int
    packet: bytes
    nanoseconds: int


class Table:
    """One map of a loaded object: rows are NamedTuples of `model.rows`, or ints."""

    def __init__(self, name: str, fd: int, key: Layout, value: Layout, size: int = 0) -> None:
        self.name, self.fd, self.key, self.value = name, fd, key, value
        self.size = size  # rows that it can hold

    def put(self, rows: Mapping[Key, Value]) -> None:
        """Write rows, new or in place of old ones."""
        items = list(rows.items())
        for start in range(0, len(items), BATCH):
            part = items[start : start + BATCH]
            keys = b"".join(self.key.pack(k) for k, _ in part)
            values = b"".join(self.value.pack(v) for _, v in part)
            if len(part) == 1:
                _check(lib.bpf_map_update_elem(self.fd, keys, values, c.c_uint64(0)), f"put into {self.name}")
                continue
            done = 0
            while done < len(part):
                n = U32(len(part) - done)
                result = lib.bpf_map_update_batch(
                    self.fd, keys[done * self.key.size :], values[done * self.value.size :], c.byref(n), None
                )
                done += n.value
                if result and result != -errno.EINTR:
                    _check(result, f"put into {self.name}")

    def put_raw(self, key: bytes, value: bytes) -> None:
        """Write the row of a packed key."""
        _check(lib.bpf_map_update_elem(self.fd, key, value, c.c_uint64(0)), f"put into {self.name}")

    def delete(self, keys: Iterable[Key]) -> None:
        """Delete rows; one that is not there is no error."""
        for key in keys:
            self.delete_raw(self.key.pack(key))

    def delete_raw(self, key: bytes) -> None:
        """Delete the row of a packed key; that it is not there is no error."""
        result = lib.bpf_map_delete_elem(self.fd, key)
        if result and -result != errno.ENOENT and c.get_errno() != errno.ENOENT:
            _check(result, f"delete from {self.name}")

    def get(self, key: Key) -> Value | None:
        """Return the row of *key*, for a longest-prefix table the best match, or None."""
        raw = self.get_raw(self.key.pack(key))
        return None if raw is None else self.value.unpack(raw)

    def get_raw(self, key: bytes) -> bytes | None:
        """Return the packed row of a packed key, or None."""
        out = c.create_string_buffer(self.value.size)
        return None if lib.bpf_map_lookup_elem(self.fd, key, out) else out.raw

    def read(self) -> dict[Key, Value]:
        """Return all rows."""
        return {self.key.unpack(k): self.value.unpack(v) for k, v in self.read_raw()}

    def read_raw(self) -> list[tuple[bytes, bytes]]:
        """Return all rows as packed bytes."""
        rows: list[tuple[bytes, bytes]] = []
        ks, vs = self.key.size, self.value.size
        size = BATCH
        keys, values = c.create_string_buffer(ks * size), c.create_string_buffer(vs * size)
        token = c.create_string_buffer(max(ks, 16))
        first = True
        while True:
            n = U32(size)
            result = lib.bpf_map_lookup_batch(self.fd, None if first else token, token, keys, values, c.byref(n), None)
            if result == -errno.ENOSPC:  # one bucket of the hash is fuller than the batch
                size *= 4
                keys, values = c.create_string_buffer(ks * size), c.create_string_buffer(vs * size)
                continue
            if result not in (0, -errno.ENOENT, -errno.EINTR):
                _check(result, f"read {self.name}")
            raw_keys, raw_values = keys.raw, values.raw
            rows += [
                (raw_keys[i * ks : i * ks + ks], raw_values[i * vs : i * vs + vs])
                for i in range(n.value if result != -errno.EINTR else 0)
            ]
            if result == -errno.ENOENT:
                return rows
            first = False


def describe(btf: Btf, id: int) -> str:
    """Return a type as text that is the same if, and only if, it is laid out in the same way."""
    _, t, _ = btf.plain(id)
    if t.kind != STRUCT:
        return f"{t.name}:{btf.size(id)}"
    return f"{t.name}{{{','.join(f'{n}@{o}:{describe(btf, i)}' for n, i, o in btf.members(id))}}}"


def pinned_layout(path: Path) -> str:
    """Return how a pinned table is laid out, as its own BTF in the kernel tells."""
    fd = _check(lib.bpf_obj_get(str(path).encode()), f"open {path}")
    try:
        info, size = _MapInfo(), U32(c.sizeof(_MapInfo))
        _check(lib.bpf_obj_get_info_by_fd(fd, c.byref(info), c.byref(size)), f"look at {path}")
    finally:
        os.close(fd)
    loaded = lib.btf__load_from_kernel_by_id(info.btf_id)
    if not loaded:
        return ""
    length = U32()
    raw = lib.btf__raw_data(P(loaded), c.byref(length))
    btf = Btf(c.string_at(raw, length.value))
    lib.btf__free(P(loaded))
    key, value = describe(btf, info.btf_key_type_id), describe(btf, info.btf_value_type_id)
    return f"{info.type} {info.max_entries} {key} {value}"


def schemas(pins: Path) -> list[Path]:
    """Return the directories of tables that builds have pinned; `tc` makes some of its own where it finds room."""
    made = re.compile(r"[0-9a-f]{12}(-part)?")
    return [p for p in pins.iterdir() if made.fullmatch(p.name) and p.is_dir()] if pins.exists() else []


def casts() -> bool:
    """Return whether programs may look into the kernel's own record of a packet, as they may since 6.2."""
    return b"\0bpf_cast_to_kern_ctx\0" in KERNEL_BTF.read_bytes()


def hidden() -> bool:
    """Return whether programs cannot see that record at all: a kernel in lockdown refuses those that read memory."""
    try:
        return "[confidentiality]" in LOCKDOWN.read_text() and not casts()
    except FileNotFoundError:  # it has no lockdown
        return False


class Object:
    """A loaded data plane: its tables to fill, its programs to attach or to run.

    *config* sets members of `struct config` by name. With *pins*, the tables of
    `TABLES` are pinned in a directory of it (of a bpf file system) that is named
    by their schema, and those that are pinned there already are taken over with
    their rows: an object of another schema leaves them alone. *sizes* sets the
    number of rows that a new table can hold.
    """

    def __init__(
        self,
        path: Path | None = None,
        config: Mapping[str, int] | None = None,
        pins: Path | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self._stages: Path | None = None
        self.path = path or object_path()
        self.build_id = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        del _log[:]
        opened = lib.bpf_object__open_file(str(self.path).encode(), None)
        if not opened:
            code = c.get_errno()
            raise OSError(code, f"cannot open {self.path}: {os.strerror(code)}")
        self._object = P(opened)
        try:
            self.btf = self._read_btf()
            self._configure({"casts": casts(), "sums_hidden": hidden(), **(config or {})})
            self._tables = {name: self._table(name, *shapes) for name, shapes in TABLES.items()}
            self.pins = pins / self.schema if pins else None
            if pins and self.pins:
                if not self.pins.exists():
                    self._inherit(pins, self.pins)
                for name in TABLES:
                    _check(lib.bpf_map__set_pin_path(self._map(name), str(self.pins / name).encode()), f"pin {name}")
            for name, rows in (sizes or {}).items():
                _check(lib.bpf_map__set_max_entries(self._map(name), U32(rows)), f"size of {name}")
            _check(lib.bpf_object__load(self._object), f"load {self.path.name}")
            for name, table in self._tables.items():
                table.fd = lib.bpf_map__fd(self._map(name))
                table.size = lib.bpf_map__max_entries(self._map(name))
            if pins:
                self._keep_stages(pins)
        except BaseException:
            self.close()
            raise

    def _keep_stages(self, pins: Path) -> None:
        """Pin the array of tail calls: the kernel empties it when no process and no pin holds it any more.

        It is this load's own, unlike the tables: what programs of an earlier
        load call stays theirs until `alone`.
        """
        m = self._map("stages")
        info, size = _MapInfo(), U32(c.sizeof(_MapInfo))
        _check(lib.bpf_obj_get_info_by_fd(lib.bpf_map__fd(m), c.byref(info), c.byref(size)), "look at stages")
        self._stages = pins / f"stages-{info.id}"
        _check(lib.bpf_map__pin(m, str(self._stages).encode()), f"pin {self._stages}")

    def alone(self) -> None:
        """Take note that no program of an earlier load is on any hook: what those called goes."""
        if self._stages is None:
            return
        for earlier in self._stages.parent.glob("stages-*"):
            if earlier != self._stages:
                earlier.unlink()

    def close(self) -> None:
        """Let go of programs and tables; what is attached or pinned stays."""
        if self._object:
            lib.bpf_object__close(self._object)
            self._object = P()

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_btf(self) -> Btf:
        size = U32()
        raw = lib.btf__raw_data(P(lib.bpf_object__btf(self._object)), c.byref(size))
        return Btf(c.string_at(raw, size.value))

    def _map(self, name: str) -> P:
        found = lib.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise KeyError(f"{self.path.name} has no table {name}")
        return P(found)

    def _table(self, name: str, key: type, value: type) -> Table:
        m = self._map(name)
        return Table(
            name,
            lib.bpf_map__fd(m),
            self.btf.layout(lib.bpf_map__btf_key_type_id(m), key),
            self.btf.layout(lib.bpf_map__btf_value_type_id(m), value),
        )

    def _configure(self, config: Mapping[str, int]) -> None:
        memory, members = self._config()
        for name, value in config.items():
            offset, width = members[name]
            c.memmove(memory + offset, value.to_bytes(width, "little"), width)

    def configured(self) -> dict[str, int]:
        """Return the members of `struct config` as the programs have them."""
        memory, members = self._config()
        return {n: int.from_bytes(c.string_at(memory + o, width), "little") for n, (o, width) in members.items()}

    def _config(self) -> tuple[int, dict[str, tuple[int, int]]]:
        """Return where the configuration is in memory, and the offset and size of each member."""
        at = self.btf.variable_offset(".rodata", "cfg")
        members = {n: (o, self.btf.size(t)) for n, t, o in self.btf.members(self.btf.find("config", STRUCT))}
        size = c.c_size_t()
        rodata = lib.bpf_object__next_map(self._object, None)
        while rodata and not lib.bpf_map__name(P(rodata)).endswith(b".rodata"):
            rodata = lib.bpf_object__next_map(self._object, P(rodata))
        return lib.bpf_map__initial_value(P(rodata), c.byref(size)) + at, members

    @property
    def schema(self) -> str:
        """Return a short hash of all tables' kinds and layouts: what must agree to share pinned tables."""
        text = []
        for name in TABLES:
            m = self._map(name)
            t = self._tables[name]
            text.append(f"{name} {lib.bpf_map__type(m)} {describe(self.btf, lib.bpf_map__btf_key_type_id(m))}")
            text.append(f"{describe(self.btf, lib.bpf_map__btf_value_type_id(m))} {t.key.size} {t.value.size}")
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]

    def _inherit(self, pins: Path, to: Path) -> None:
        """Make the directory of a new schema; share what flows and counters an older one has, if they look the same."""
        older = schemas(pins)
        new = pins / f"{to.name}-part"  # a bpf file system knows no names with dots
        if new in older:  # someone was killed here
            for pinned in new.iterdir():
                pinned.unlink()
            older.remove(new)
        new.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            for directory in older:
                if (directory / name).exists() and pinned_layout(directory / name) == self._layout(name):
                    os.link(directory / name, new / name)
                    break
        new.rename(to)

    def _layout(self, name: str) -> str:
        m = self._map(name)
        key, value = (lib.bpf_map__btf_key_type_id(m), lib.bpf_map__btf_value_type_id(m))
        size = lib.bpf_map__max_entries(m)
        return f"{lib.bpf_map__type(m)} {size} {describe(self.btf, key)} {describe(self.btf, value)}"

    def table(self, name: str) -> Table:
        """Return one of the tables of `TABLES`."""
        return self._tables[name]

    def ring(self, name: str, record: str, shape: type) -> tuple[int, Layout]:
        """Return a ring buffer's descriptor, and how its records, `struct record`, become *shape*."""
        found = lib.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise KeyError(f"{self.path.name} has no ring buffer {name}")
        return int(lib.bpf_map__fd(P(found))), self.btf.layout(self.btf.find(record, STRUCT), shape)

    def _program(self, name: str) -> int:
        found = lib.bpf_object__find_program_by_name(self._object, name.encode())
        if not found:
            raise KeyError(f"{self.path.name} has no program {name}")
        return int(lib.bpf_program__fd(P(found)))

    def attach(self, program: str, ifindex: int, point: int = TC_INGRESS) -> bool:
        """Put a program on a link's clsact hook in this network namespace; return whether the clsact was made.

        The same program of another build is replaced atomically: no packet
        meets none. Others' filters stay.
        """
        hook = _TcHook(sz=c.sizeof(_TcHook), ifindex=ifindex, attach_point=TC_INGRESS | TC_EGRESS)
        made = lib.bpf_tc_hook_create(c.byref(hook))
        if made not in (0, -errno.EEXIST):
            _check(made, f"clsact on link {ifindex}")
        hook.attach_point = point
        opts = _TcOpts(
            sz=c.sizeof(_TcOpts),
            prog_fd=self._program(program),
            flags=TC_REPLACE,
            handle=HANDLE,
            priority=PRIORITIES[program],
        )
        _check(lib.bpf_tc_attach(c.byref(hook), c.byref(opts)), f"attach {program} to link {ifindex}")
        return bool(made == 0)

    def stage(self, program: str, *, called: bool) -> None:
        """Have tail calls of a program lead to it, as they do at first, or go on behind the call."""
        slot = U32(self.btf.enum("stage")[program.upper()])
        stages = lib.bpf_map__fd(self._map("stages"))
        if called:
            what = U32(self._program(program))
            _check(lib.bpf_map_update_elem(stages, c.byref(slot), c.byref(what), c.c_uint64(0)), f"call {program}")
        elif lib.bpf_map_delete_elem(stages, c.byref(slot)) and c.get_errno() != errno.ENOENT:
            raise OSError(c.get_errno(), f"cannot leave out {program}: {os.strerror(c.get_errno())}")

    def run(self, program: str, packet: bytes, *, repeat: int = 1, cb: tuple[int, ...] = (), **context: int) -> Verdict:
        """Run a program on one packet, attached to nothing (BPF_PROG_TEST_RUN).

        *context* may hold ifindex (of a link in this namespace), mark, gso_size
        and the like. The kernel refuses a frame shorter than an Ethernet header
        and a truncated IP header with EINVAL.
        """
        ctx = bytearray(CONTEXT_SIZE)
        for name, value in context.items():
            struct.pack_into("<I", ctx, CONTEXT[name], value)
        struct.pack_into(f"<{len(cb)}I", ctx, CONTEXT["cb"], *cb)
        raw = (c.c_char * CONTEXT_SIZE).from_buffer(ctx)
        out = c.create_string_buffer(max(2048, len(packet) + 512))
        opts = _TestRun(
            sz=c.sizeof(_TestRun),
            data_in=c.cast(c.c_char_p(packet), P),
            data_size_in=len(packet),
            data_out=c.cast(out, P),
            data_size_out=len(out),
            ctx_in=c.cast(raw, P),
            ctx_size_in=CONTEXT_SIZE,
            repeat=repeat,
        )
        _check(lib.bpf_prog_test_run_opts(self._program(program), c.byref(opts)), f"test run of {program}")
        return Verdict(opts.retval, out.raw[: opts.data_size_out], opts.duration)


def detach(ifindex: int, priority: int, handle: int) -> None:
    """Take one program off a link's ingress; that there is none is no error."""
    hook = _TcHook(sz=c.sizeof(_TcHook), ifindex=ifindex, attach_point=TC_INGRESS)
    opts = _TcOpts(sz=c.sizeof(_TcOpts), handle=handle, priority=priority)
    result = lib.bpf_tc_detach(c.byref(hook), c.byref(opts))
    if result not in (0, -errno.ENOENT, -errno.ENODEV, -errno.EINVAL):
        _check(result, f"detach from link {ifindex}")


def remove_clsact(ifindex: int) -> None:
    """Take a link's clsact away, with all filters that are on it; that there is none is no error."""
    hook = _TcHook(sz=c.sizeof(_TcHook), ifindex=ifindex, attach_point=TC_INGRESS | TC_EGRESS)
    result = lib.bpf_tc_hook_destroy(c.byref(hook))
    if result not in (0, -errno.ENOENT, -errno.ENODEV, -errno.EINVAL):
        _check(result, f"take the clsact of link {ifindex}")
