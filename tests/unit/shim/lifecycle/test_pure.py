"""The parts of the command line that need no process. Numbers: reference/containerd.md 6.1."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from betterproto.lib.google.protobuf import Any
from hypothesis import given
from hypothesis import strategies as st

from parma_api.gen.containerd.runtime.bootstrap import v1 as bootstrap_v1
from parma_api.gen.containerd.types import RuntimeInfo
from parma_api.gen.runtimeoptions.v1 import Options
from parma_shim.errors import UsageError
from parma_shim.lifecycle import delete, state
from parma_shim.lifecycle.arguments import parse_arguments
from parma_shim.lifecycle.bootstrap import Bootstrap, parse_bootstrap
from parma_shim.lifecycle.info import VERSION, runtime_info
from parma_shim.lifecycle.launcher import import_folders, launcher_text, write_launcher
from parma_shim.lifecycle.logfifo import MAX_LINE, FifoHandler
from parma_shim.lifecycle.mounts import mounts_below
from parma_shim.lifecycle.places import Group, group_of_bundle, group_places, membership
from parma_shim.lifecycle.protowire import bytes_field, number_field, read_fields


def test_flags_as_go_reads_them() -> None:
    words = [
        "-namespace",
        "ns",
        "--address=/c",
        "-publish-binary",
        "/x",
        "-debug",
        "-id=a",
        "start",
    ]
    found = parse_arguments(words)
    assert (found.namespace, found.address, found.id, found.action) == ("ns", "/c", "a", "start")
    assert found.debug
    assert parse_arguments(["-v"]).version
    assert not parse_arguments(["-debug=false", "start"]).debug
    for bad in (["-nope"], ["-id"]):
        with pytest.raises(UsageError):
            parse_arguments(bad)


def options_any(body: bytes) -> bytes:
    options = Options(type_url="x", config_body=body)
    return bytes(Any(type_url="runtimeoptions.v1.Options", value=bytes(options)))


RUNC = bytes(Any(type_url="containerd.runc.v1.Options", value=b"\x1a\x05/pods"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Bootstrap()),
        (options_any(b'ShimCgroup = "/pods"\nother = 1'), Bootstrap("/pods")),
        (options_any(b"policy = 'x'"), Bootstrap()),
        (RUNC, Bootstrap("/pods")),
        (bytes(Any(type_url="a", value=b"ns")), Bootstrap()),
        (bytes(Any(type_url="id", value=b"ns")), Bootstrap(is_params=True)),
    ],
)
def test_15_standard_input(data: bytes, expected: Bootstrap) -> None:
    assert parse_bootstrap(data, "id", "ns") == expected


def test_15_bootstrap_params() -> None:
    params = bootstrap_v1.BootstrapParams(
        instance_id="id",
        namespace="ns",
        extensions=[bootstrap_v1.Extension(value=Any().parse(RUNC))],
    )
    assert parse_bootstrap(bytes(params), "id", "ns") == Bootstrap("/pods", is_params=True)
    assert not parse_bootstrap(bytes(params), "other", "ns").is_params


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_fields(data)
    except UsageError:
        return


@given(st.integers(1, 2**63), st.binary(min_size=1, max_size=300))
def test_wire_round_trip(number: int, value: bytes) -> None:
    assert read_fields(number_field(1, number) + bytes_field(20, value)) == {
        1: [number],
        20: [value],
    }


def test_info_is_the_message() -> None:
    found = RuntimeInfo().parse(runtime_info())
    assert found.name == "io.containerd.parma.v2"
    assert json.loads(found.features.value)["linux"]["cgroup"] == {"v1": False, "v2": True}


def test_version_is_the_projects(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_groups() -> None:
    assert membership({}, "c") == ("c", False)
    cri = {"io.kubernetes.cri.sandbox-id": "p", "io.kubernetes.cri.container-type": "container"}
    assert membership(cri, "c") == ("p", True)
    assert membership({"io.containerd.runc.v2.group": "g"}, "c") == ("g", False)
    places = {
        group_places("/run/parma", *x) for x in (("a", "n", "g"), ("b", "n", "g"), ("a", "m", "g"))
    }
    assert len(places) == 3
    with pytest.raises(UsageError, match="too long"):
        group_places("/x" * 60, "a", "n", "g")


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("unix:///run/p/" + "a" * 32 + "/s", True),
        ("unix:///run/p/" + "A" * 32 + "/s", False),
        ("unix:///run/p/../etc/s", False),
        ("unix:///run/q/" + "a" * 32 + "/s", False),
        ("/run/p/" + "a" * 32 + "/s", False),
        ("", False),
    ],
)
def test_only_our_own_groups_are_found(tmp_path: Path, address: str, ours: bool) -> None:
    (tmp_path / "address").write_text(address)
    expected = Group("/run/p/" + "a" * 32) if ours else None
    assert group_of_bundle(str(tmp_path), "/run/p") == expected


def test_mounts_below() -> None:
    info = (
        "1 0 8:1 / / rw - ext4 d rw\n2 1 8:1 / /b/rootfs rw - ext4 d rw\n"
        "3 1 8:1 / /b/rootfs/in\\040side rw - ext4 d rw\n4 1 8:1 / /bb rw - ext4 d rw\nbroken\n"
    )
    assert mounts_below("/b", info) == ["/b/rootfs/in side", "/b/rootfs"]


def test_state_on_disk(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    assert state.read_state(path) == state.GroupState()
    wanted = state.GroupState(1, 2, 3, 4, "/netns", ("/a", "/b"), "pod")
    state.write_state(path, wanted)
    assert state.read_state(path) == wanted
    for text in ("", "[]", "{}", '{"shim_pid": "x"}', "\xff"):
        (tmp_path / "state.json").write_text(text)
        assert state.read_state(path) == state.GroupState()
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_process_is_its_number_and_its_start() -> None:
    own = os.getpid()
    assert state.is_alive(own, state.start_time(own))
    assert not state.is_alive(own, state.start_time(own) + 1)
    assert not state.is_alive(own, 0)
    assert not state.is_alive(0, 1)


def test_31_lines_without_a_reader(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    handler = FifoHandler(str(fifo), "id=c")
    record = logging.LogRecord("n", logging.INFO, "p", 1, 'say "%s"\n', ("x" * 9000,), None)
    handler.emit(record)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    handler.emit(record)
    line = os.read(reader, 65536)
    assert len(line) <= MAX_LINE
    assert line.endswith(b'xxx" id=c\n')
    assert b'msg="say \\"xxx' in line
    for _ in range(40):
        handler.emit(record)  # full: dropped
    os.close(reader)
    handler.emit(record)  # EPIPE: forgotten, and nobody is there to open it for
    assert handler.dropped > 20
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    handler.emit(record)
    assert os.read(reader, 65536).endswith(b"id=c\n")
    os.close(reader)
    handler.close()


@pytest.mark.parametrize("folder", ["short", "with space", "l" * 140])
def test_the_launcher_runs_from_anywhere(tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder
    home.mkdir()
    python = home / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    program = home / "containerd-shim-parma-v2"
    write_launcher(program, str(python), import_folders())
    done = subprocess.run([str(program), "-v"], capture_output=True, check=False, env={})
    assert (done.returncode, done.stderr) == (0, b"")
    assert VERSION.encode() in done.stdout
    assert launcher_text("/x/python", ["a"]).startswith("#!/x/python -IS\n")


def test_a_folder_that_two_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`delete` and a shim that ends by itself: what one finds the other may have taken."""
    group = Group(str(tmp_path / "group"))
    (tmp_path / "group" / "deep").mkdir(parents=True)
    for name in ("lock", "deep/a", "deep/b", "shim.err"):
        (tmp_path / "group" / name).touch()
    unlink = os.unlink

    def late(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", late)
    delete._remove(group)
    assert list(tmp_path.iterdir()) == []
