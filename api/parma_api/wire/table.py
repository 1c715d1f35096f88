"""What may stand in a message: tables made once for each class from betterproto's own metadata."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import betterproto

# How a value is checked: up to BOOL varints told apart by their range, from BYTES on what has a length. Plain ints:
# comparing enum members costs several times as much, and the walk is a hot loop of an emulated guest.
UINT64, UINT32, INT32, ENUM, BOOL, FIXED32, FIXED64 = range(7)
BYTES, STRING, MESSAGE, TIMESTAMP, PACKED = range(7, 12)

VARINT, EIGHT, DELIMITED, FOUR = 0, 1, 2, 5

SCALARS: Final[Mapping[str, tuple[int, int]]] = {
    betterproto.TYPE_UINT64: (VARINT, UINT64),
    betterproto.TYPE_INT64: (VARINT, UINT64),
    betterproto.TYPE_SINT64: (VARINT, UINT64),
    betterproto.TYPE_UINT32: (VARINT, UINT32),
    betterproto.TYPE_SINT32: (VARINT, UINT32),
    betterproto.TYPE_INT32: (VARINT, INT32),
    betterproto.TYPE_ENUM: (VARINT, ENUM),
    betterproto.TYPE_BOOL: (VARINT, BOOL),
    betterproto.TYPE_FLOAT: (FOUR, FIXED32),
    betterproto.TYPE_FIXED32: (FOUR, FIXED32),
    betterproto.TYPE_SFIXED32: (FOUR, FIXED32),
    betterproto.TYPE_DOUBLE: (EIGHT, FIXED64),
    betterproto.TYPE_FIXED64: (EIGHT, FIXED64),
    betterproto.TYPE_SFIXED64: (EIGHT, FIXED64),
    betterproto.TYPE_BYTES: (DELIMITED, BYTES),
    betterproto.TYPE_STRING: (DELIMITED, STRING),
}


class Entry(NamedTuple):
    """One legal tag of a message."""

    kind: int
    name: str
    once: int | str
    """The field's number or its oneof's name, which may come once; 0: a list."""
    number: int
    child: Table | None
    """Of a nested message."""
    values: frozenset[int]
    """Of an enum."""
    packed: int
    """Kind of the elements of a packed list."""


class Table:
    """What may stand in a message of one class."""

    __slots__ = ("by_number", "by_tag", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_tag: dict[int, Entry] = {}
        self.by_number: dict[int, str] = {}


_TABLES: Final[dict[type[betterproto.Message], Table]] = {}


def timestamp_class() -> type[betterproto.Message]:
    from betterproto.lib.google.protobuf import Timestamp

    return Timestamp


def table_of(cls: type[betterproto.Message]) -> Table:
    """The class's table, made at its first use. Raises TypeError for kinds of field that no proto of ours has."""
    table = _TABLES.get(cls)
    if table is None:
        made: dict[type[betterproto.Message], Table] = {}
        table = _make_table(cls, made)
        _TABLES.update(made)  # whole tables only: another thread may look
    return table


def _make_table(
    cls: type[betterproto.Message], made: dict[type[betterproto.Message], Table]
) -> Table:
    table = _TABLES.get(cls) or made.get(cls)
    if table is None:
        table = made[cls] = Table(cls.__name__)
        meta: betterproto.ProtoClassMetadata = cls._betterproto  # type: ignore[arg-type]
        for name, field in meta.meta_by_field_name.items():
            _add_field(table, name, field, meta, made)
    return table


def _add_field(
    table: Table,
    name: str,
    field: betterproto.FieldMetadata,
    meta: betterproto.ProtoClassMetadata,
    made: dict[type[betterproto.Message], Table],
) -> None:
    """A field's tags: one, or two for a list that may be packed."""
    if field.wraps:
        raise TypeError(f"{table.name}.{name}: wrapper types are not in use")
    cls = meta.cls_by_field[name]
    values: frozenset[int] = frozenset()
    child: Table | None = None
    if field.proto_type in (betterproto.TYPE_MESSAGE, betterproto.TYPE_MAP):
        wire_type, kind = DELIMITED, MESSAGE
        if cls is datetime:
            cls, kind = timestamp_class(), TIMESTAMP
        if not issubclass(cls, betterproto.Message):
            raise TypeError(f"{table.name}.{name}: {cls.__name__} is not in use")
        child = _make_table(cls, made)
    else:
        wire_type, kind = SCALARS[field.proto_type]
        if field.proto_type == betterproto.TYPE_ENUM:
            values = frozenset(int(member) for member in cls)
    repeated = field.proto_type == betterproto.TYPE_MAP or meta.default_gen[name] is list
    once: int | str = 0 if repeated else field.group or field.number
    entry = Entry(kind, name, once, field.number, child, values, 0)
    table.by_number[field.number] = name
    table.by_tag[field.number << 3 | wire_type] = entry
    if repeated and field.proto_type in betterproto.PACKED_TYPES:
        # betterproto keeps the last packed piece only, so there must be one: `once` counts it.
        packed = entry._replace(kind=PACKED, packed=kind, once=field.number)
        table.by_tag[field.number << 3 | DELIMITED] = packed
