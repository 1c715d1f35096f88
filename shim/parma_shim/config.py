"""The host's configuration: /etc/parma/config.toml over defaults, each value with where it came from.

Every key has a default that works. An unknown key or a value of the wrong kind is an error: a typing mistake must not
mean "default". The environment moves files and folders only, for tests and the demo: PARMA_CONFIG, PARMA_RUN, PARMA_LIB
(and PARMA_UVM, which `parma_shim.vmm.image` reads). PARMA_QEMU is where an installation that brings its own QEMU has
it: the file's `qemu` comes before it.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from parma_api.launch import VmSize
from parma_api.status import InvalidArgumentError
from parma_shim.vmm.accel import AcceleratorSetting, ImageSetting
from parma_shim.vmm.config import MAX_MEMORY_MIB, MIN_MEMORY_MIB

CONFIG_FILE = Path("/etc/parma/config.toml")
MAX_CONFIG = 1 << 20
DEFAULT = "default"

UID_BASE = 0x70000000
"""QEMU's user is this plus the shim's pid: no two living VMs share a user, so none can signal or trace another. The
range is above those that systemd and container runtimes hand out (systemd, docs/UIDS-GIDS.md)."""
MAX_UID_BASE = 0x7FFFFFFF - (1 << 22)
"""pid_max is at most 2^22, and ids from 2^31 on are trouble."""


class ChannelSetting(enum.StrEnum):
    """`channel` in config.toml."""

    AUTO = "auto"
    VSOCK = "vsock"
    VIRTIO_SERIAL = "virtio-serial"


class HostPaths(enum.StrEnum):
    """`host_paths` in config.toml: what becomes of a hostPath volume."""

    REFUSE = "refuse"
    COPY = "copy"
    """The guest gets a copy, made when the container is created; nothing goes back."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of the host. Field names are the keys of config.toml, but for the two directories."""

    run_dir: Path = Path("/run/parma")
    lib_dir: Path = Path("/var/lib/parma")
    image: ImageSetting = ImageSetting.AUTO
    accelerator: AcceleratorSetting = AcceleratorSetting.AUTO
    channel: ChannelSetting = ChannelSetting.AUTO
    qemu: Path = Path("/usr/bin/qemu-system-x86_64")
    firmware: Path = Path("/usr/share/parma/ovmf/OVMF.amdsev.fd")
    size: VmSize = VmSize.MEDIUM
    memory_mib: int = 2048
    boot_deadline: int = 120
    """Seconds until the agent's first answer; under TCG on a busy machine it takes tens of them."""
    boots_at_once: int = 0
    """How many pods of this host may boot at the same time; 0: one for each CPU under TCG, else no limit."""
    uid_base: int = UID_BASE
    layer_cache_mib: int = 20480
    scratch_mib: int = 8192
    """Size of a pod's scratch disk; the file is sparse."""
    host_paths: HostPaths = HostPaths.REFUSE
    default_policy: Path | None = None
    certificates: Path | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where a value comes from, by field name; DEFAULT where nothing is said."""

    def source_of(self, name: str) -> str:
        """Where the value of a field comes from."""
        return self.sources.get(name, DEFAULT)

    def explain(self) -> tuple[tuple[str, str, str], ...]:
        """Name, value and source of each setting."""
        names = [spec.name for spec in fields(self) if spec.name != "sources"]
        return tuple((name, str(getattr(self, name) or ""), self.source_of(name)) for name in names)


def load_config(environment: Mapping[str, str]) -> Config:
    """The configuration of this host. A missing default file means defaults.

    Raises InvalidArgumentError for a file that PARMA_CONFIG names and cannot be read, and for anything malformed.
    """
    named = environment.get("PARMA_CONFIG")
    path = Path(named) if named else CONFIG_FILE
    text = _read(path, required=bool(named))
    values = parse_config(text, path) if text is not None else {}
    sources = dict.fromkeys(values, str(path))
    for variable, name in (("PARMA_RUN", "run_dir"), ("PARMA_LIB", "lib_dir")):
        if folder := environment.get(variable):
            values[name] = Path(folder)
            sources[name] = f"environment {variable}"
    if "qemu" not in values and (program := environment.get("PARMA_QEMU")):
        values["qemu"] = Path(program)
        sources["qemu"] = "environment PARMA_QEMU"
    return Config(**values, sources=sources)  # type: ignore[arg-type]


def parse_config(text: str, path: Path) -> dict[str, object]:
    """The fields that a config.toml sets. Raises InvalidArgumentError naming file and key."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"{path} is not TOML: {error}") from error
    values: dict[str, object] = {}
    for key, value in document.items():
        reader = _READERS.get(key)
        if reader is None:
            raise InvalidArgumentError(
                f"{path}: unknown key {key!r}; known: {', '.join(sorted(_READERS))}"
            )
        try:
            values[key] = reader(value, path.parent)
        except ValueError as error:
            raise InvalidArgumentError(f"{path}: {key}: {error}") from error
    return values


def _read(path: Path, *, required: bool) -> str | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG + 1)
        if len(data) > MAX_CONFIG:
            raise InvalidArgumentError(f"{path} has more than {MAX_CONFIG} bytes")
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path} is not UTF-8") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not required:
            return None
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}") from error


def _path(value: object, folder: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    return folder / value


def _number(low: int, high: int) -> Callable[[object, Path], int]:
    def read(value: object, _folder: Path) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a number from {low} to {high}")
        return value

    return read


def _choice(kind: type[enum.StrEnum]) -> Callable[[object, Path], enum.StrEnum]:
    def read(value: object, _folder: Path) -> enum.StrEnum:
        try:
            return kind(str(value))
        except ValueError as error:
            raise ValueError(f"must be one of {', '.join(kind)}") from error

    return read


_READERS: Mapping[str, Callable[[object, Path], object]] = {
    "image": _choice(ImageSetting),
    "accelerator": _choice(AcceleratorSetting),
    "channel": _choice(ChannelSetting),
    "qemu": _path,
    "firmware": _path,
    "size": _choice(VmSize),
    "memory_mib": _number(MIN_MEMORY_MIB, MAX_MEMORY_MIB),
    "boot_deadline": _number(1, 3600),
    "boots_at_once": _number(0, 4096),
    "uid_base": _number(1, MAX_UID_BASE),
    "layer_cache_mib": _number(64, 1 << 30),
    "scratch_mib": _number(64, 1 << 24),
    "host_paths": _choice(HostPaths),
    "default_policy": _path,
    "certificates": _path,
}
