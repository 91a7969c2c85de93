"""Read C layouts from BTF and pack Python tuples by them.

Knows the BTF encoding (Documentation/bpf/btf.rst) and nothing of what the
layouts are for. Integers are in host byte order unless their C type is __be16.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from socket import htons
from typing import Any, NamedTuple

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
WORDS_AFTER = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
WORDS_PER_MEMBER = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
INTEGER = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Type(NamedTuple):
    name: str
    kind: int
    size_or_type: int
    words: tuple[int, ...]
    members: int


class Leaf(NamedTuple):
    path: str  # dotted, as `attrgetter` reads it; "" for a bare value
    offset: int
    code: str  # of the struct module
    fix: str  # "", "swap" for __be16, "join" for arrays of bytes


@dataclass(frozen=True)
class Layout:
    """How one C type stands in memory: `size` bytes, `pack` and `unpack`."""

    name: str
    size: int
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


class Btf:
    """The types of one object file, from its raw .BTF section."""

    def __init__(self, raw: bytes) -> None:
        magic, _, _, head, types, types_len, strings, strings_len = struct.unpack_from("<HBBIIIII", raw)
        if magic != 0xEB9F:
            raise ValueError("not little-endian BTF")
        names = raw[head + strings : head + strings + strings_len]
        self.types: list[Type] = [Type("void", 0, 0, (), 0)]
        at, end = head + types, head + types + types_len
        while at < end:
            name, info, size = struct.unpack_from("<III", raw, at)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            n = WORDS_AFTER.get(kind, 0) + WORDS_PER_MEMBER.get(kind, 0) * members
            words = struct.unpack_from(f"<{n}I", raw, at + 12)
            self.types.append(Type(self._text(names, name), kind, size, words, members))
            at += 12 + 4 * n
        self._names = names

    @staticmethod
    def _text(names: bytes, at: int) -> str:
        return names[at : names.index(b"\0", at)].decode()

    def find(self, name: str, kind: int) -> int:
        """Return the id of the type of that name and kind, or raise KeyError."""
        for i, t in enumerate(self.types):
            if t.name == name and t.kind == kind:
                return i
        raise KeyError(name)

    def enum(self, name: str) -> dict[str, int]:
        """Return an enum's constants."""
        t = self.types[self.find(name, ENUM)]
        return {self._text(self._names, t.words[i]): t.words[i + 1] for i in range(0, len(t.words), 2)}

    def plain(self, id: int) -> tuple[int, Type, set[str]]:
        """Return what stands behind typedefs and qualifiers, and the names met on the way."""
        met = set()
        t = self.types[id]
        while t.kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
            met.add(t.name)
            id = t.size_or_type
            t = self.types[id]
        return id, t, met

    def size(self, id: int) -> int:
        """Return a type's size in bytes."""
        _, t, _ = self.plain(id)
        if t.kind == ARRAY:
            return self.size(t.words[0]) * t.words[2]
        if t.kind == PTR:
            return 8
        return t.size_or_type

    def members(self, id: int) -> list[tuple[str, int, int]]:
        """Return a struct's members as (name, type id, offset in bytes)."""
        _, t, _ = self.plain(id)
        return [
            (self._text(self._names, t.words[i]), t.words[i + 1], t.words[i + 2] // 8)
            for i in range(0, len(t.words), 3)
        ]

    def variable_offset(self, section: str, name: str) -> int:
        """Return where a variable stands in a data section."""
        t = self.types[self.find(section, DATASEC)]
        for i in range(0, len(t.words), 3):
            if self.types[t.words[i]].name == name:
                return t.words[i + 1]
        raise KeyError(name)

    def layout(self, id: int, shape: type) -> Layout:
        """Return how to pack a *shape* (a NamedTuple class, int or bytes) as type *id*.

        Raise TypeError where the names of the fields differ from the C members.
        """
        leaves: list[Leaf] = []
        build = self._walk(id, shape, "", 0, leaves)
        size = self.size(id)
        code, at = "<", 0
        for leaf in leaves:
            code += "x" * (leaf.offset - at) + leaf.code
            at = leaf.offset + struct.calcsize("<" + leaf.code)
        packer = struct.Struct(code + "x" * (size - at))
        fixes = [(i, leaf.fix) for i, leaf in enumerate(leaves) if leaf.fix]
        if len(leaves) == 1 and leaves[0].path == "":
            return Layout(shape.__name__, size, packer.pack, lambda raw: packer.unpack(raw)[0])
        get = attrgetter(*(leaf.path for leaf in leaves))
        single = len(leaves) == 1

        def pack(row: Any) -> bytes:
            values: list[Any] = [get(row)] if single else list(get(row))
            for i, fix in fixes:
                values[i] = htons(values[i]) if fix == "swap" else b"".join(values[i])
            return packer.pack(*values)

        def unpack(raw: bytes) -> Any:
            values: list[Any] = list(packer.unpack(raw))
            for i, fix in fixes:
                if fix == "swap":
                    values[i] = htons(values[i])
                else:
                    values[i] = tuple(values[i][k : k + 16] for k in range(0, len(values[i]), 16))
            return build(values)

        return Layout(shape.__name__, size, pack, unpack)

    def _walk(self, id: int, shape: type, path: str, offset: int, leaves: list[Leaf]) -> Callable[[list[Any]], Any]:
        _, t, met = self.plain(id)
        index = len(leaves)
        if t.kind == STRUCT and t.name != "addr":
            fields = getattr(shape, "_fields", None)
            members = [m for m in self.members(id) if not m[0].startswith("pad")]
            if fields != tuple(m[0] for m in members):
                raise TypeError(f"{shape.__name__} has fields {fields}, struct {t.name} has {[m[0] for m in members]}")
            hints = {n: _class_of(shape, n) for n in fields}
            parts = [
                self._walk(m[1], hints[m[0]], f"{path}.{m[0]}".lstrip("."), offset + m[2], leaves) for m in members
            ]
            return lambda values: shape(*(part(values) for part in parts))
        if t.kind == ARRAY and self.plain(t.words[0])[1].name == "addr":
            leaves.append(Leaf(path, offset, f"{self.size(id)}s", "join"))
        elif t.kind == ARRAY or t.kind == STRUCT:
            leaves.append(Leaf(path, offset, f"{self.size(id)}s", ""))
        elif t.kind in (INT, ENUM):
            leaves.append(Leaf(path, offset, INTEGER[self.size(id)], "swap" if "__be16" in met else ""))
        else:
            raise TypeError(f"cannot pack {t.name or t.kind} at {path}")
        return lambda values: values[index]


def _class_of(shape: type, field: str) -> type:
    from typing import get_type_hints

    hint = get_type_hints(shape)[field]
    return hint if isinstance(hint, type) else tuple
