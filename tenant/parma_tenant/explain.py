"""What a denial means: the container that came closest, what differs, and the line of the policy to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from parma_tenant.denial import Denial, listed
from parma_tenant.generate.rules import mount_admitted, name_admitted
from parma_tenant.generate.written import Written, WrittenContainer, read_policy

MAX_DIFFERENCES: Final = 3
_MEMBERS: Final = {
    "process.command": "command",
    "process.working_dir": "working_dir",
    "process.user": "user",
    "process.no_new_privileges": "no_new_privileges",
    "process.privileged": "allow_elevated",
    "process.seccomp": "seccomp_profile_sha256",
    "process.mounts": "mounts",
    "process.env": "env_rules",
    "process.env_required": "env_rules",
    "process.env_undecidable": "env_rules",
    "process.capabilities": "capabilities",
    "process.capabilities_undecidable": "capabilities",
    "process.stdio_undecidable": "allow_stdio_access",
    "signal.not_allowed": "signals",
    "overlay.no_match": "layers",
    "device.hash_unknown": "layers",
}
"""Reason code -> the member of a container's description that decides."""
_FLAGS: Final = {
    "get_properties": "allow_properties_access",
    "dump_stacks": "allow_dump_stacks",
    "runtime_logging": "allow_runtime_logging",
    "host_network": "allow_host_network",
    "rw_mount_device": "allow_unencrypted_scratch",
    "scratch_mount": "allow_unencrypted_scratch",
}
_ADVICE: Final = {
    "device.hash_unknown": "the image has a layer that the policy does not know: it changed since the policy was "
    "made (pin the image's digest), or the host gave another one; generate the policy again if the change is yours",
    "overlay.no_match": "the layers are known, but no container consists of them in this order",
    "process.command": "the command must be equal, argument by argument",
    "process.env": "a variable fits no rule: if the platform adds it, generate the policy with that node's --profile",
    "process.mounts": "a mount fits no rule: destination, type, options and source must all fit",
    "process.capabilities": "the five capability sets must be equal to the policy's",
    "process.user": "user and groups are looked up in the image: give runAsUser and runAsGroup, and generate again",
    "signal.not_allowed": "a container's `signals` list what may be sent to it; 9 and 15 end it",
    "port.not_allowed": "generate the policy with --allow-port-forward PORT",
    "flag.off": "the policy's flag for this is false",
    "container.not_started": "no container of this id was started under this policy",
    "container.already_started": "an id can be used once: the host tried to start a container again",
    "policy.not_loaded": "no policy was set: give the pod the annotation io.parma/policy",
    "policy.host_data_mismatch": "the text is not the one that the VM was launched with",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not fit; `line` of the policy, 0 where it is not known."""

    what: str
    expected: object
    got: object
    line: int = 0

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {"what": self.what, "expected": self.expected, "got": self.got, "line": self.line}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer."""

    denial: Denial
    container: str | None
    line: int
    differences: tuple[Difference, ...]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As `parma policy explain --json` prints it."""
        return {
            "point": self.denial.point,
            "reason_codes": list(self.denial.codes),
            "container": self.container,
            "line": self.line,
            "differences": [difference.to_json() for difference in self.differences],
            "advice": list(self.advice),
        }


def explain(denial: Denial, policy: str | None = None) -> Explanation:
    """With the policy's text the lines are known, and containers are compared that the record has no room for."""
    written = read_policy(policy) if policy is not None else None
    advice = tuple(_ADVICE[code] for code in denial.codes if code in _ADVICE)
    if written is None:
        return _from_record(denial, advice)
    nearest = _nearest(denial, written)
    if nearest is None:
        return Explanation(denial, None, _top_line(denial, written), (), advice or denial.texts)
    container, differences = nearest
    line = differences[0].line if differences else container.line
    return Explanation(denial, container.title, line, tuple(differences[:MAX_DIFFERENCES]), advice)


def _from_record(denial: Denial, advice: tuple[str, ...]) -> Explanation:
    if not denial.candidates:
        return Explanation(denial, None, 0, (), (*advice, *denial.texts))
    nearest = denial.candidates[0]
    found = [
        Difference(str(item.get("check")), item.get("expected"), item.get("got"))
        for item in listed(nearest.get("differs"))
        if isinstance(item, dict)
    ]
    variables = listed(nearest.get("variables"))
    if variables:
        found.append(Difference("process.env", "a rule for each variable", variables))
    name = str(nearest.get("container") or "") or None
    return Explanation(denial, name, 0, tuple(found[:MAX_DIFFERENCES]), advice)


def _top_line(denial: Denial, written: Written) -> int:
    """For what no container decides."""
    if "port.not_allowed" in denial.codes:
        return written.lines.get("allow_port_forward", 0)
    flag = _FLAGS.get(denial.point, "")
    return written.lines.get(flag, 0) or written.lines.get(denial.point, 0)


def _nearest(denial: Denial, written: Written) -> tuple[WrittenContainer, list[Difference]] | None:
    if not any(code in _MEMBERS for code in denial.codes) and not denial.candidates:
        return None
    named = {str(candidate.get("container")) for candidate in denial.candidates}
    found = []
    for order, container in enumerate(written.containers):
        differences = list(_differences(denial, container, written))
        distance = sum(_distance(difference) for difference in differences)
        rank = (named != set() and container.title not in named, distance, order)
        found.append((rank, container, differences))
    if not found:
        return None
    _, container, differences = min(found, key=lambda item: item[0])
    return container, differences


def _distance(difference: Difference) -> float:
    """How far a command, or a set of layers, is off, from 0 to 2; anything else counts 1."""
    expected, got = difference.expected, difference.got
    if not isinstance(expected, list) or not isinstance(got, list):
        return 1.0
    if expected and isinstance(expected[0], list):
        return min(_distance(Difference("", option, got)) for option in expected)
    same = sum(1 for left, right in zip(expected, got, strict=False) if left == right)
    return 2.0 - 2.0 * same / max(len(expected), len(got), 1)


def _differences(
    denial: Denial, container: WrittenContainer, written: Written
) -> Iterator[Difference]:
    request, value = denial.request, container.value
    is_exec = denial.point == "exec_in_container"

    def differing(code: str, expected: object, got: object, member: str = "") -> Difference:
        line = container.lines.get(member or _MEMBERS[code], container.line)
        return Difference(code, expected, got, line)

    if "argList" in request and denial.point in ("create_container", "exec_in_container"):
        commands = [entry.get("command") for entry in value.get("exec_processes") or ()]
        expected = commands if is_exec else value.get("command")
        if request["argList"] not in (commands if is_exec else [expected]):
            yield differing(
                "process.command", expected, request["argList"], "exec_processes" if is_exec else ""
            )
    if "workingDir" in request and value.get("working_dir") != request["workingDir"]:
        yield differing("process.working_dir", value.get("working_dir"), request["workingDir"])
    if request.get("privileged") is True and not value.get("allow_elevated"):
        yield differing("process.privileged", expected=False, got=True)
    if value.get("no_new_privileges") and request.get("noNewPrivileges") is False:
        yield differing("process.no_new_privileges", expected=True, got=False)
    seccomp = request.get("seccompProfileSHA256")
    if seccomp is not None and seccomp != value.get("seccomp_profile_sha256", ""):
        yield differing("process.seccomp", value.get("seccomp_profile_sha256", ""), seccomp)
    unlisted = list(_unlisted(request, container, written))
    yield from unlisted
    if "process.env" in denial.codes and not any(d.what == "process.env" for d in unlisted):
        yield differing(
            "process.env", "the values that the rules allow", "another value (records hold none)"
        )
    for code in denial.codes:
        if code in ("process.user", "process.capabilities", "signal.not_allowed"):
            member = _MEMBERS[code]
            yield differing(code, value.get(member), _got(code, request))


def _got(code: str, request: Mapping[str, Any]) -> object:
    if code == "process.user":
        return {key: request.get(key) for key in ("user", "groups", "umask")}
    return request.get("capabilities" if code == "process.capabilities" else "signal")


def _unlisted(
    request: Mapping[str, Any], container: WrittenContainer, written: Written
) -> Iterator[Difference]:
    """Mounts, and variables by their names: values are not in the record."""
    mounts = [*(container.value.get("mounts") or ()), *written.platform("mounts")]
    wrong = [
        mount
        for mount in request.get("mounts") or ()
        if str(mount.get("source", "")).startswith("/") and not mount_admitted(mounts, mount)
    ]
    if wrong:
        expected = [rule.get("destination") for rule in mounts]
        line = container.lines.get("mounts", container.line)
        yield Difference("process.mounts", expected, wrong, line)
    rules = [*(container.value.get("env_rules") or ()), *written.platform("env_rules")]
    names = [str(text).partition("=")[0] for text in request.get("envList") or ()]
    unknown = [name for name in names if not name_admitted(rules, name)]
    if unknown:
        line = container.lines.get("env_rules", container.line)
        yield Difference("process.env", "a rule for each variable", unknown, line)


def lines(explanation: Explanation, policy_name: str | None) -> Sequence[str]:
    """The answer for people."""
    denial = explanation.denial
    found = [f"{denial.point} was denied: {', '.join(denial.codes) or 'no reason code'}"]
    if explanation.container is not None:
        found.append(f"nearest container: {explanation.container}")
    for difference in explanation.differences:
        place = f" ({policy_name}:{difference.line})" if policy_name and difference.line else ""
        found.append(f"  {difference.what}: expected {_short(difference.expected)}{place}")
        found.append(f"  {'':{len(difference.what)}}  got      {_short(difference.got)}")
    if policy_name and explanation.line:
        found.append(f"look at {policy_name}:{explanation.line}")
    found += list(explanation.advice)
    if policy_name is None and explanation.container is None:
        found.append("give the policy's text with --policy to see the line")
    return found


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."
