"""Operations on device-mapper devices, shared by layers and scratch."""

from __future__ import annotations

from dataclasses import dataclass

from parma_api.block.tables import Target
from parma_guest.linux.devmapper import DeviceMapper
from parma_guest.ops import Undo, irreversible


@dataclass(frozen=True, slots=True)
class CreateDevice:
    """A device without a table."""

    name: str

    def describe(self) -> str:
        return f"dm create {self.name}"

    def apply(self) -> Undo:
        mapper = DeviceMapper()
        mapper.create(self.name)
        return lambda: mapper.remove(self.name)


@dataclass(frozen=True, slots=True)
class LoadTable:
    """A table whose devices are known beforehand; read back and compared."""

    name: str
    table: Target
    read_only: bool

    def describe(self) -> str:
        mode = "ro" if self.read_only else "rw"
        return f"dm load {self.name} {mode}: {self.table.describe()}"

    def apply(self) -> None:
        mapper = DeviceMapper()
        mapper.load(self.name, self.table, read_only=self.read_only)
        mapper.require(self.name, self.table)


@dataclass(frozen=True, slots=True)
class RemoveDevice:
    """Take a device down."""

    name: str

    def describe(self) -> str:
        return f"dm remove {self.name}"

    def apply(self) -> Undo:
        DeviceMapper().remove(self.name)
        return irreversible(self.describe())
