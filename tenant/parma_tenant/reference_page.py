"""docs/policy-reference.md: `python -m parma_tenant.reference_page > docs/policy-reference.md`.

Points come from the api table, inputs from the forms that the gate checks, the framework's codes from its own texts;
the agent's codes are described here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from parma_api.policy.inputs import FORMS
from parma_api.policy.points import TABLE, Missing, Point, PointRow

TEXTS: Final = Path("framework/reason/texts.rego")
_TEXT: Final = re.compile(r'^\t"([a-z0-9_]+\.[a-z0-9_]+)": "([^"]+)",$', re.MULTILINE)

WHEN: Final[Mapping[Point, str]] = {
    Point.MOUNT_DEVICE: "a read-only layer device is to be mounted",
    Point.UNMOUNT_DEVICE: "a layer device is to be unmounted",
    Point.RW_MOUNT_DEVICE: "the pod's writable device is to be mounted",
    Point.RW_UNMOUNT_DEVICE: "the writable device is to be unmounted",
    Point.MOUNT_BLOCKDEV: "a device is to appear as a node; always refused by the framework",
    Point.UNMOUNT_BLOCKDEV: "such a node is to go",
    Point.SCRATCH_MOUNT: "a container's writable folder is put to use",
    Point.SCRATCH_UNMOUNT: "a container's writable folder is given up",
    Point.MOUNT_OVERLAY: "a container's root file system is assembled from layers",
    Point.UNMOUNT_OVERLAY: "a root file system is taken apart",
    Point.CREATE_CONTAINER: "a container is to be created",
    Point.EXEC_IN_CONTAINER: "a further process is to run in a container",
    Point.SIGNAL_CONTAINER_PROCESS: "a process is to get a signal",
    Point.SHUTDOWN_CONTAINER: "a container is to be ended",
    Point.EXEC_EXTERNAL: "a process is to run in the machine itself",
    Point.PLAN9_MOUNT: "a host share is to be attached",
    Point.PLAN9_UNMOUNT: "a host share is to be detached",
    Point.GET_PROPERTIES: "the host wants statistics or a list of processes",
    Point.DUMP_STACKS: "the host wants the agent's stacks",
    Point.RUNTIME_LOGGING: "asked once: may the agent's log go to the host",
    Point.HOST_NETWORK: "a pod without a network namespace of its own",
    Point.LOAD_FRAGMENT: "a signed addition to the policy is to be loaded",
    Point.LOAD_TRANSPARENCY_TRUST_LIST: "keys of transparency ledgers are to be loaded",
    Point.PORT_FORWARD: "the host wants a connection to a port of the pod's loopback",
}
AGENT_CODES: Final[Mapping[str, str]] = {
    "api.version_ahead": "at load: the policy's api_version is newer than the agent",
    "api.version_invalid": "at load: api_version is no version",
    "framework.version_ahead": "at load: the policy's framework_version is newer than the agent",
    "framework.version_invalid": "at load: framework_version is no version",
    "fragment.envelope": "the envelope, its chain of certificates or its signature does not hold",
    "fragment.invalid": "the fragment's text does not compile",
    "fragment.issuer_unproven": "the chain of certificates does not prove the issuer",
    "fragment.names_missing": "the envelope states no issuer or no feed",
    "fragment.namespace_in_use": "a module of this name is loaded already",
    "fragment.namespace_invalid": "the first line is not `package NAME`",
    "fragment.namespace_reserved": "the name belongs to the agent's own modules",
    "fragment.parameters_namespace": "several sets of parameters, and a module that would stay",
    "policy.already_set": "a policy is set once",
    "policy.bad_result": "the policy's answer, or a member of it, has the wrong type",
    "policy.default_deny": "the policy is older than the point, does not define it, and the default is no",
    "policy.denied": "a rule of the policy itself refused and says nothing about why",
    "policy.evaluation": "the evaluation failed, or took too long",
    "policy.host_data_mismatch": "the text's SHA-256 is not HOST_DATA of the report",
    "policy.invalid": "at load: the text is empty, too large, not UTF-8, does not compile, or calls what is outside",
    "policy.metadata_failed": "a command that changes the policy's state cannot be applied",
    "policy.no_api_version": "the policy states no api_version",
    "policy.not_loaded": "no policy is set yet",
    "policy.rule_missing": "the policy's version covers the point, and the policy does not define it",
    "request.invalid": "the request is not one that the point has",
    "state.inconsistent": "an undo failed earlier: nothing is changed any more",
}
"""Codes of the agent's own checks; those of the framework describe themselves."""
_DEFAULT: Final = {
    Missing.ALLOW: "allowed",
    Missing.REFUSE: "refused",
    Missing.FRAMEWORK: "the framework's rule",
}
_HEAD: Final = """\
# Enforcement points and reason codes

Made by `python -m parma_tenant.reference_page`; do not edit. How to use them: [policy guide](policy-guide.md).

## Enforcement points

A policy defines a point as a rule of that name in `package policy`, usually `point := data.framework.point`. A policy
that states a newer or equal `api_version` and does not define the point is refused at it; an older one gets what the
last column says.
"""


def framework_codes(bundles: Path) -> dict[str, str]:
    """The framework's reason codes and their texts. Raises OSError."""
    return dict(_TEXT.findall((bundles / TEXTS).read_text(encoding="utf-8")))


def render(bundles: Path) -> str:
    """The page; `bundles` is the framework's folder. Raises OSError."""
    codes = {**framework_codes(bundles), **AGENT_CODES}
    return "\n".join((_HEAD, *_points(), "", "## Reason codes", "", *_codes(codes), ""))


def _points() -> Iterator[str]:
    yield "| point | asked when | input | since | older policies |"
    yield "|---|---|---|---|---|"
    for point in Point:
        members = ", ".join(f"`{name}`" for name in FORMS[point]) or "none"
        row = TABLE[point]
        yield f"| `{point}` | {WHEN[point]} | {members} | {row.introduced} | {_default(row)} |"


def _default(row: PointRow) -> str:
    return f"{_DEFAULT[row.missing]}{' (also newer ones)' if row.optional else ''}"


def _codes(codes: Mapping[str, str]) -> Iterator[str]:
    yield "Codes are stable, texts are not. `parma policy explain` says more about a denial at hand."
    yield ""
    yield "| code | meaning |"
    yield "|---|---|"
    for code, text in sorted(codes.items()):
        yield f"| `{code}` | {text} |"


if __name__ == "__main__":
    from parma_tenant.cli.policy import find_bundles

    sys.stdout.write(render(find_bundles()))
