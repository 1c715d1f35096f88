"""The text of a policy: readable Rego, the same bytes for the same model (policy.md section 15)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from parma_tenant.generate.model import API_VERSION, FLAGS, FRAMEWORK_VERSION, Policy

POINTS = (
    "mount_device rw_mount_device mount_blockdev unmount_device rw_unmount_device unmount_blockdev mount_overlay "
    "unmount_overlay create_container exec_in_container exec_external shutdown_container "
    "signal_container_process plan9_mount plan9_unmount get_properties dump_stacks runtime_logging host_network "
    "port_forward load_fragment load_transparency_trust_list scratch_mount scratch_unmount"
).split()
"""Points that a policy binds to the framework; a test holds this list against the api table."""


def render(policy: Policy) -> str:
    """The policy's text, UTF-8, ending in a line feed."""
    parts = [
        *(_comment(line) for line in policy.header),
        *([""] if policy.header else []),
        "package policy",
        "",
        f"api_version := {_json(API_VERSION)}",
        "",
        f"framework_version := {_json(FRAMEWORK_VERSION)}",
        "",
        _list("fragments", policy.fragments),
        "",
        *_platform_rules(policy),
        _list("containers", [container.value() for container in policy.containers]),
        "",
        _list("external_processes", policy.external_processes),
        "",
        *_spaced(f"{flag} := {_json(flag in policy.flags)}" for flag in FLAGS),
        _list("allow_port_forward", policy.allow_port_forward),
        "",
        *_spaced(f"{point} := data.framework.{point}" for point in POINTS),
        "reason := data.framework.reason",
    ]
    return "\n".join(parts) + "\n"


def _comment(line: str) -> str:
    """No text of a stranger's ends the comment: only plain characters, others as JSON has them."""
    return f"# {_json(line)[1:-1]}".rstrip()


def _platform_rules(policy: Policy) -> Iterable[str]:
    if policy.platform_rules:
        yield _list("platform_rules", [rule.value() for rule in policy.platform_rules])
        yield ""


def _spaced(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        yield line
        yield ""


def _list(name: str, values: Sequence[object]) -> str:
    if not values:
        return f"{name} := []"
    body = ",\n".join(_indented(value) for value in values)
    return f"{name} := [\n{body},\n]"


def _indented(value: object) -> str:
    if not isinstance(value, dict):
        return "\t" + _json(value)
    lines = []
    for key, member in value.items():
        lines.append(f"\t\t{_json(key)}: {_member(member)},")
    return "\t{\n" + "\n".join(lines) + "\n\t}"


def _member(value: object) -> str:
    """A list of objects on several lines, all else on one."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        body = "\n".join(f"\t\t\t{_json(element)}," for element in value)
        return f"[\n{body}\n\t\t]"
    return _json(value)


def _json(value: object) -> str:
    """JSON, which is Rego for every value; ASCII, so that no reader can mistake a character."""
    return json.dumps(value, ensure_ascii=True)
