"""The host's OCI document as values of the types that the rest of the agent works with. Pure.

Fields that are constant in the guest are not even read; what is refused or unknown is told apart by
`parma_guest.policy.fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parma_api.policy.decision import Capabilities
from parma_api.policy.defaults import SETS
from parma_api.policy.seccomp_digest import canonical_profile
from parma_api.status import InvalidArgumentError
from parma_guest.oci.document import read_document
from parma_guest.policy.fields import OCI, check_fields

MAX_LIST: Final = 4096
MAX_ID: Final = 2**32 - 2
_INT64: Final = 2**63
_REFUSED_ACTION: Final = "SCMP_ACT_NOTIFY"


@dataclass(frozen=True, slots=True)
class User:
    """Numbers, or a name to be looked up; umask None: not stated."""

    uid: int
    gid: int
    additional: tuple[int, ...]
    umask: int | None
    username: str


@dataclass(frozen=True, slots=True)
class Process:
    """The fields of an OCI process that are judged or bounded."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    terminal: bool
    no_new_privileges: bool
    user: User
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Mount:
    """As the host writes it."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What is bounded by the guest; 0 and "": not stated."""

    memory_limit: int = 0
    memory_reservation: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpus: str = ""
    pids_limit: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A container's document."""

    process: Process
    root_path: str
    root_readonly: bool
    mounts: tuple[Mount, ...]
    seccomp: Mapping[str, object] | None
    """The canonical object: what is hashed, and what is put in force."""
    resources: ResourceRequest


def parse_container(data: bytes) -> Document:
    """Raises InvalidArgumentError, ResourceExhaustedError."""
    document = read_document(data, "OCI document")
    check_fields(document, OCI)
    root, linux = _object(document, "root"), _object(document, "linux")
    return Document(
        process=_process(_object(document, "process"), "process"),
        root_path=_text(root, "path"),
        root_readonly=_flag(root, "readonly"),
        mounts=tuple(_mount(raw) for raw in _list(document, "mounts")),
        seccomp=_seccomp(linux.get("seccomp")),
        resources=_resources(_object(linux, "resources")),
    )


def parse_exec(data: bytes) -> Process:
    """The process object of an exec. Raises InvalidArgumentError, ResourceExhaustedError."""
    document = read_document(data, "OCI process")
    check_fields(document, OCI, "process")
    return _process(document, "process")


def _process(raw: Mapping[str, object], what: str) -> Process:
    args, cwd = _texts(raw, "args"), _text(raw, "cwd")
    if not args or not args[0]:
        raise InvalidArgumentError(f"{what}.args: a process needs a command")
    if not cwd.startswith("/"):
        raise InvalidArgumentError(f"{what}.cwd: {cwd!r} is not absolute")
    return Process(
        args=args,
        env=_texts(raw, "env"),
        cwd=cwd,
        terminal=_flag(raw, "terminal"),
        no_new_privileges=_flag(raw, "noNewPrivileges"),
        user=_user(_object(raw, "user")),
        capabilities=_capabilities(raw.get("capabilities")),
    )


def _user(raw: Mapping[str, object]) -> User:
    additional = tuple(_id(number, "additionalGids") for number in _list(raw, "additionalGids"))
    umask = raw.get("umask")
    if umask is not None and not 0 <= _number(raw, "umask") <= 0o777:
        raise InvalidArgumentError("process.user.umask: out of range")
    return User(
        uid=_id(raw.get("uid", 0), "uid"),
        gid=_id(raw.get("gid", 0), "gid"),
        additional=additional,
        umask=None if umask is None else _number(raw, "umask"),
        username=_text(raw, "username"),
    )


def _capabilities(raw: object) -> Capabilities:
    if raw is None:
        raise InvalidArgumentError(
            "process.capabilities: missing; name the five sets, empty ones too, so that they can be judged"
        )
    if not isinstance(raw, Mapping):
        raise InvalidArgumentError("process.capabilities: not an object")
    return Capabilities(**{name: _texts(raw, name) for name in SETS})


def _mount(raw: object) -> Mount:
    if not isinstance(raw, Mapping):
        raise InvalidArgumentError("mounts: not a list of objects")
    return Mount(
        destination=_text(raw, "destination"),
        type=_text(raw, "type"),
        source=_text(raw, "source"),
        options=_texts(raw, "options"),
    )


def _seccomp(raw: object) -> Mapping[str, object] | None:
    profile = canonical_profile(raw)
    if profile is None:
        return None
    actions = [profile["defaultAction"]]
    rules = profile.get("syscalls", [])
    assert isinstance(rules, list)
    for rule in rules:
        actions.append(rule["action"])
        if not rule["names"]:
            raise InvalidArgumentError("linux.seccomp.syscalls: a rule names no system call")
    if _REFUSED_ACTION in actions:
        raise InvalidArgumentError(
            f"linux.seccomp: {_REFUSED_ACTION} is refused: a listener would decide outside the policy"
        )
    return profile


def _resources(raw: Mapping[str, object]) -> ResourceRequest:
    memory, cpu, pids = (_object(raw, name) for name in ("memory", "cpu", "pids"))
    return ResourceRequest(
        memory_limit=_number(memory, "limit"),
        memory_reservation=_number(memory, "reservation"),
        cpu_shares=_number(cpu, "shares"),
        cpu_quota=_number(cpu, "quota"),
        cpu_period=_number(cpu, "period"),
        cpus=_text(cpu, "cpus"),
        pids_limit=_number(pids, "limit"),
    )


def _object(source: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = source.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"{name}: not an object")
    return value


def _list(source: Mapping[str, object], name: str) -> list[object]:
    value = source.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise InvalidArgumentError(f"{name}: not a list of at most {MAX_LIST}")
    return value


def _texts(source: Mapping[str, object], name: str) -> tuple[str, ...]:
    items = _list(source, name)
    if not all(isinstance(item, str) for item in items):
        raise InvalidArgumentError(f"{name}: not a list of texts")
    return tuple(str(item) for item in items)


def _text(source: Mapping[str, object], name: str) -> str:
    value = source.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name}: not a text")
    return value


def _flag(source: Mapping[str, object], name: str) -> bool:
    value = source.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name}: not true or false")
    return value


def _number(source: Mapping[str, object], name: str) -> int:
    value = source.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < 2 * _INT64:
        raise InvalidArgumentError(f"{name}: not a number of 64 bits")
    return value


def _id(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise InvalidArgumentError(f"process.user.{name}: not a user or group number")
    return value
