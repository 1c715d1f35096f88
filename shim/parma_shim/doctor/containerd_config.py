"""containerd's config.toml with the handler `parma` in it. Text in, text out; pure.

The file belongs to the administrator: our part is one marked block at its end, everything else stays byte for byte,
and what containerd will read is compared before and after. In containerd 1.6 and 1.7 a file that defines any runtime
loses the built-in `runc` entry, and CRI then fails to load (reference/containerd.md 2.1), so `runc` is written too
where it is not defined.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parma_api.status import FailedPreconditionError, InvalidArgumentError

HANDLER = "parma"
BEGIN = "# parma: begin (written by `parma install`; run it again to renew)"
END = "# parma: end"
CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
MAX_CONFIG = 4 << 20

WANTED: Mapping[str, object] = {
    "runtime_type": "io.containerd.parma.v2",
    "pod_annotations": ["io.parma/*", "io.microsoft.virtualmachine.*"],
    "privileged_without_host_devices": True,
}
RUNC: Mapping[str, object] = {"runtime_type": "io.containerd.runc.v2"}

RUNTIME_CLASS = """\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: parma
handler: parma
overhead:
  podFixed:
    memory: 640Mi
    cpu: 250m
"""
"""Memory: QEMU's own and the guest's kernel, agent and OPA (reference/boot.md 1)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The new text, and what is new in it, in words; nothing when it was complete."""

    text: str
    changes: tuple[str, ...]


def plan(text: str, new_version: int = 2) -> Plan:
    """`text` with the handler. An empty file becomes one of version `new_version`.

    Raises InvalidArgumentError (not TOML), FailedPreconditionError (a version or a handler that we must not touch).
    """
    if len(text) > MAX_CONFIG:
        raise InvalidArgumentError("containerd's configuration is too long")
    if not text.strip():
        text = f"version = {new_version}\n"
    before = _parse(text)
    cri = _cri_plugin(before)
    outside = _without_block(text)
    theirs = _runtimes(_parse(outside), cri)
    wanted = _additions(theirs)
    block = _block(cri, wanted)
    result = outside.rstrip("\n") + "\n\n" + block if wanted else text
    if result == text:
        return Plan(text, ())
    _check(outside, result, cri, wanted)
    known = _runtimes(before, cri)
    changes = tuple(f"runtime {name}" for name, table in wanted.items() if known.get(name) != table)
    return Plan(result, changes or ("the block's form",))


def without(text: str) -> str:
    """`text` without our block; as it was when there is none. Raises FailedPreconditionError for half a block."""
    return _without_block(text)


def _additions(theirs: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    wanted: dict[str, Mapping[str, object]] = {}
    if "runc" not in theirs:
        wanted["runc"] = RUNC
    entry = theirs.get(HANDLER)
    if entry is None:
        wanted[HANDLER] = WANTED
    elif not isinstance(entry, dict) or any(
        entry.get(key) != value for key, value in WANTED.items()
    ):
        raise FailedPreconditionError(
            f"containerd's configuration has a runtime {HANDLER!r} of somebody's own: remove it, or give it "
            + ", ".join(f"{key} = {_value(value)}" for key, value in WANTED.items())
        )
    return wanted


def _cri_plugin(document: Mapping[str, object]) -> str:
    version = document.get("version", 1)
    if version not in CRI:
        raise FailedPreconditionError(
            f"containerd's configuration is of version {version}: `containerd config migrate` makes a newer one"
        )
    disabled = document.get("disabled_plugins", [])
    if isinstance(disabled, list) and {"cri", *CRI.values()} & {str(name) for name in disabled}:
        raise FailedPreconditionError(
            "containerd's configuration disables CRI: take it out of disabled_plugins"
        )
    assert isinstance(version, int)
    return CRI[version]


def _without_block(text: str) -> str:
    start = text.find(BEGIN)
    if start < 0:
        return text
    end = text.find(END, start)
    if end < 0:
        raise FailedPreconditionError(
            "containerd's configuration has half a block of ours: remove it by hand"
        )
    return text[:start].rstrip("\n") + "\n" + text[end + len(END) :].lstrip("\n")


def _block(cri: str, runtimes: Mapping[str, Mapping[str, object]]) -> str:
    lines = [BEGIN]
    for name, table in runtimes.items():
        lines.append(f"[plugins.{_value(cri)}.containerd.runtimes.{name}]")
        lines += [f"  {key} = {_value(value)}" for key, value in table.items()]
    return "\n".join([*lines, END]) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return f'"{value}"'


def _check(outside: str, result: str, cri: str, wanted: Mapping[str, Mapping[str, object]]) -> None:
    """What containerd reads must be the old configuration and our tables, nothing else."""
    expected = copy.deepcopy(_parse(outside))
    place: dict[str, Any] = expected
    for key in ("plugins", cri, "containerd", "runtimes"):
        place = place.setdefault(key, {})
    place.update({name: dict(table) for name, table in wanted.items()})
    if _parse(result) != expected:
        raise FailedPreconditionError(
            "containerd's configuration is written in a way that a block at its end cannot extend (inline tables?): "
            "add the runtime by hand"
        )


def _runtimes(document: Mapping[str, object], cri: str) -> Mapping[str, object]:
    place: object = document
    for key in ("plugins", cri, "containerd", "runtimes"):
        place = place.get(key, {}) if isinstance(place, dict) else {}
    return place if isinstance(place, dict) else {}


def _parse(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"containerd's configuration is not TOML: {error}") from error
