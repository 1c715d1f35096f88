"""The handler's entry: added once, to every form of the file, with nothing lost."""

from __future__ import annotations

import tomllib

import pytest

from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_shim.doctor.containerd_config import BEGIN, CRI, END, WANTED, plan

DEBIAN = """version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""
KUBEADM = """version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
"""


def runtimes(text: str) -> dict[str, dict[str, object]]:
    document = tomllib.loads(text)
    return document["plugins"][CRI[document["version"]]]["containerd"]["runtimes"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "text",
    [
        "",
        DEBIAN,
        KUBEADM,
        DEBIAN.rstrip("\n"),
        DEBIAN.replace("version = 2", "version = 3"),
        "version = 3\n",
    ],
)
def test_added_and_nothing_lost(text: str) -> None:
    result = plan(text)
    assert result.text.startswith(text.rstrip("\n"))
    after = runtimes(result.text)
    assert after["parma"] == WANTED
    assert after["runc"]["runtime_type"] == "io.containerd.runc.v2"
    assert plan(result.text) == type(result)(result.text, ())


def test_runcs_own_options_stay() -> None:
    result = plan(KUBEADM)
    assert result.changes == ("runtime parma",)
    assert runtimes(result.text)["runc"] == {
        "runtime_type": "io.containerd.runc.v2",
        "options": {"SystemdCgroup": True},
    }


def test_a_new_file_has_the_version_asked_for() -> None:
    assert tomllib.loads(plan("", 3).text)["version"] == 3


def test_an_older_block_of_ours_is_renewed_where_it_stands() -> None:
    old = plan(DEBIAN).text.replace("io.parma/*", "io.older/*") + "\n[debug]\n  level = 'info'\n"
    renewed = plan(old)
    assert renewed.changes == ("runtime parma",)
    assert renewed.text.count(BEGIN) == renewed.text.count(END) == 1
    assert runtimes(renewed.text)["parma"] == WANTED
    assert tomllib.loads(renewed.text)["debug"] == {"level": "info"}
    assert plan(renewed.text).changes == ()


def test_a_complete_entry_by_hand_is_enough() -> None:
    by_hand = plan(KUBEADM).text.replace(BEGIN, "").replace(END, "")
    assert plan(by_hand).changes == ()


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("a = [", InvalidArgumentError, "not TOML"),
        ("root = '/x'\n", FailedPreconditionError, "config migrate"),
        ("version = 9\n", FailedPreconditionError, "version 9"),
        ("version = 2\ndisabled_plugins = ['cri']\n", FailedPreconditionError, "disables CRI"),
        ("version = 2\n" + BEGIN + "\n", FailedPreconditionError, "half a block"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.parma]\nruntime_type = "x"\n',
            FailedPreconditionError,
            "somebody's own",
        ),
    ],
)
def test_what_is_left_alone(text: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        plan(text)


def test_inline_tables_cannot_be_extended() -> None:
    text = 'version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {containerd = {runtimes = {}}}}\n'
    with pytest.raises((FailedPreconditionError, InvalidArgumentError)):
        plan(text)
