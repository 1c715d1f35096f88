"""The plain container-group file: YAML or JSON, described in docs/policy-guide.md."""

from __future__ import annotations

import re
from typing import Final

from parma_tenant.generate.model import ExecRule, MountRule
from parma_tenant.source.expansion import Text
from parma_tenant.source.fields import Fields
from parma_tenant.source.model import CapabilityChange, ContainerSpec, EnvVar, GroupSpec, RunAs

_GROUP: Final = frozenset({"containers", "allowPortForward"})
_CONTAINER: Final = frozenset(
    "name image command args env workingDir exec user group supplementalGroups privileged "
    "noNewPrivileges stdio capabilities mounts seccomp signals".split()
)
_SHA256: Final = re.compile("[0-9a-f]{64}")
ENV_NAME: Final = re.compile(r"[^\0=]+")


def parse_group(root: Fields) -> GroupSpec:
    """Raises SourceError."""
    root.refuse_unknown(_GROUP)
    containers = tuple(_container(fields) for fields in root.objects("containers"))
    if not containers:
        root.fail("a group needs a list `containers` with at least one container")
    names = [container.name for container in containers]
    for fields, name in zip(root.objects("containers"), names, strict=True):
        if names.count(name) > 1:
            fields.fail(f"two containers are called {name}", "name")
    return GroupSpec(root.file, containers, port_forward=_ports(root))


def _ports(root: Fields) -> tuple[int, ...]:
    ports = root.numbers("allowPortForward")
    if not all(0 < port < 65536 for port in ports):
        root.fail("a port is a number from 1 to 65535", "allowPortForward")
    return ports


def _container(fields: Fields) -> ContainerSpec:
    fields.refuse_unknown(_CONTAINER)
    return ContainerSpec(
        name=fields.label("name"),
        image=fields.text("image"),
        command=fields.texts("command") if fields.has("command") else None,
        args=fields.texts("args") if fields.has("args") else None,
        env=tuple(_variable(entry) for entry in fields.objects("env")),
        working_dir=fields.text("workingDir", "") or None,
        execs=tuple(ExecRule(command) for command in fields.lists("exec")),
        run_as=_run_as(fields),
        capabilities=_capabilities(fields.object("capabilities")),
        privileged=fields.flag("privileged"),
        no_new_privileges=fields.flag("noNewPrivileges"),
        stdio=fields.flag("stdio", default=True),
        mounts=tuple(_mount(entry) for entry in fields.objects("mounts")),
        seccomp=_seccomp(fields),
        signals=_signals(fields),
    )


def _mount(entry: Fields) -> MountRule:
    """As the agent sees it; a source beneath `sandbox://` is a pattern."""
    entry.refuse_unknown(("destination", "source", "options", "type"))
    destination, source = entry.text("destination"), entry.text("source")
    kind = entry.text("type", "bind")
    if not destination.startswith("/"):
        entry.fail("a destination begins with a slash", "destination")
    if kind == "bind" and not source.startswith("sandbox:///"):
        entry.fail("the source of a bind mount begins with sandbox:///", "source")
    return MountRule(destination, source, entry.texts("options"), kind)


def _seccomp(fields: Fields) -> str:
    digest = fields.text("seccomp", "")
    if digest and not _SHA256.fullmatch(digest):
        fields.fail("this must be the SHA-256 of a profile, in hexadecimal", "seccomp")
    return digest


def _signals(fields: Fields) -> tuple[int, ...]:
    signals = fields.numbers("signals")
    if not all(0 < number < 65 for number in signals):
        fields.fail("a signal is a number from 1 to 64", "signals")
    return signals


def _variable(entry: Fields) -> EnvVar:
    entry.refuse_unknown(("name", "value"))
    name = entry.text("name")
    if not ENV_NAME.fullmatch(name):
        entry.fail("this is no name of a variable", "name")
    return EnvVar(name, Text.known(entry.text("value", "")))


def _run_as(fields: Fields) -> RunAs:
    user = fields.number("user") if fields.has("user") else None
    group = fields.number("group") if fields.has("group") else None
    return RunAs(user, group, fields.numbers("supplementalGroups"))


def _capabilities(fields: Fields | None) -> CapabilityChange:
    if fields is None:
        return CapabilityChange()
    fields.refuse_unknown(("add", "drop"))
    return CapabilityChange(fields.texts("add"), fields.texts("drop"))
