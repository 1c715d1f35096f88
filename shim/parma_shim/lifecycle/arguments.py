"""The command line in Go's `flag` style: `-name value`, `-name=value`, one or two dashes, flags before the action.

On the path of `start` and `delete`: imports next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from parma_shim.errors import UsageError

_VALUES = {
    "namespace",
    "address",
    "publish-binary",
    "id",
    "bundle",
    "socket",
    "debug-socket",
    "shim-cgroup",
}
_SWITCHES = {"debug", "v", "version", "info"}


class Arguments(NamedTuple):
    """One invocation. Empty texts: not given."""

    action: str = ""
    namespace: str = ""
    address: str = ""
    """containerd's gRPC socket: a path."""
    id: str = ""
    bundle: str = ""
    shim_cgroup: str = ""
    debug: bool = False
    version: bool = False
    info: bool = False


def parse_arguments(words: list[str]) -> Arguments:
    """Raises UsageError, as Go's flag package would end the program."""
    values: dict[str, str] = {}
    switches: set[str] = set()
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name in _SWITCHES:
            if not equals or value in ("1", "t", "T", "true", "TRUE", "True"):
                switches.add(name)
        elif name in _VALUES:
            if not equals:
                if not rest:
                    raise UsageError(f"flag needs an argument: -{name}")
                value = rest.pop(0)
            values[name] = value
        else:
            raise UsageError(f"flag provided but not defined: -{name[:64]}")
    return Arguments(
        action=rest[0] if rest else "",
        namespace=values.get("namespace", ""),
        address=values.get("address", ""),
        id=values.get("id", ""),
        bundle=values.get("bundle", ""),
        shim_cgroup=values.get("shim-cgroup", ""),
        debug="debug" in switches,
        version=bool(switches & {"v", "version"}),
        info="info" in switches,
    )


def require_identity(arguments: Arguments) -> None:
    """Raises UsageError unless namespace and id are there and can be part of a path."""
    if not arguments.namespace:
        raise UsageError("shim namespace cannot be empty")
    for name, value in (("namespace", arguments.namespace), ("id", arguments.id)):
        if not value or "/" in value or "\0" in value or value in (".", "..") or len(value) > 256:
            raise UsageError(f"-{name} {value[:64]!r} is not one that containerd gives")
