"""Each field of the OCI schema and of the protocol has a row, and the page shows the rows."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import betterproto
import pytest

from parma_api.gen.parma.agent import v1
from parma_guest.policy.fields import OCI, Kind, check_fields, table
from parma_guest.policy.fields_rpc import RPC, is_answer

# The OCI runtime specification 1.2: config.md, config-linux.md, and the JSON schema beside them.
SCHEMA = """
ociVersion hostname domainname annotations solaris windows vm zos
root: path readonly
process: terminal cwd args commandLine env rlimits apparmorProfile selinuxLabel oomScoreAdj noNewPrivileges scheduler
  ioPriority execCPUAffinity
process.consoleSize: height width
process.user: uid gid umask additionalGids username
process.capabilities: bounding effective inheritable permitted ambient
mounts[]: destination type source options uidMappings gidMappings
hooks: prestart createRuntime createContainer startContainer poststart poststop
linux: namespaces uidMappings gidMappings timeOffsets devices cgroupsPath rootfsPropagation maskedPaths readonlyPaths
  mountLabel personality intelRdt sysctl
linux.seccomp: defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata syscalls
linux.resources: devices blockIO hugepageLimits network rdma unified
linux.resources.memory: limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy
  checkBeforeUpdate
linux.resources.cpu: shares quota burst period realtimeRuntime realtimePeriod cpus mems idle
linux.resources.pids: limit
"""


def schema_paths() -> list[str]:
    text = SCHEMA.replace("\n  ", " ").strip()
    paths = []
    for line in text.splitlines():
        above, colon, names = line.partition(": ")
        paths += [f"{above}.{name}" for name in names.split()] if colon else line.split()
    return paths


def messages() -> list[type[betterproto.Message]]:
    found = [
        made
        for _, made in inspect.getmembers(v1, inspect.isclass)
        if issubclass(made, betterproto.Message) and made.__module__ == v1.__name__
    ]
    assert len(found) > 60
    return found


@pytest.mark.parametrize("path", schema_paths())
def test_each_oci_field_has_a_row(path: str) -> None:
    assert path in OCI


def test_rows_beyond_the_schema_are_refused_ones_of_newer_drafts() -> None:
    newer = OCI.keys() - set(schema_paths())
    assert newer == {"linux.netDevices", "linux.memoryPolicy", "freebsd"}
    assert all(OCI[path].kind is Kind.REFUSED for path in newer)


def test_each_field_of_a_request_has_a_row() -> None:
    fields = {
        f"{made.__name__}.{field.name}"
        for made in messages()
        if not is_answer(made.__name__)
        for field in dataclasses.fields(made)
    }
    assert fields == RPC.keys()


def test_answers_are_answers_only() -> None:
    """No message that the guest fills is part of one that the host fills."""
    for made in messages():
        if is_answer(made.__name__):
            continue
        for field in dataclasses.fields(made):
            assert not is_answer(str(field.type).strip("List[]\"'")), (
                f"{made.__name__}.{field.name}"
            )


def test_each_row_says_something() -> None:
    for row in (*OCI.values(), *RPC.values()):
        assert len(row.detail) > 2


def test_two_rows_for_a_field_are_an_error() -> None:
    with pytest.raises(ValueError, match="two rows"):
        table("a judged x\na refused y")


def test_a_member_below_a_leaf_is_not_looked_at() -> None:
    check_fields({"annotations": {"anything": {"deep": 1}}}, OCI)


def test_the_page_is_fresh(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "parma_guest.policy.fields_page"],
        env={"PYTHONPATH": f"{repository}/api:{repository}/guest"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (repository / "docs/fields.md").read_text()
