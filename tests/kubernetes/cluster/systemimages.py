"""The images of the control plane, from the built programs, and a containerd that puts them into the node's tree."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from parma_shim.demo.debian import library_entries
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

from .home import ClusterError, Home, run
from .programs import COMMANDS, COREDNS, ETCD, KUBERNETES, KUBERNETES_VERSION, ensure

REGISTRY = "registry.k8s.io"
PAUSE = f"{REGISTRY}/pause:3.10"
"""The name in kind's containerd configuration."""
_IPTABLES = ("iptables", "iptables-save", "iptables-restore")
_PROXY_PROGRAMS = ("usr/sbin/xtables-nft-multi", "usr/sbin/nft", "usr/sbin/conntrack")
_EXTENSIONS = "usr/lib/x86_64-linux-gnu/xtables"
_FOLDERS = [
    Entry(f"{name}/")
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "usr", "usr/bin", "usr/sbin")
]


def preload(home: Home, root: Path, commands: Path, work: Path) -> None:
    """Writes all images that kubeadm asks for into the containerd of the node at `root`. Raises ClusterError."""
    names = run(
        [
            commands / "kubeadm",
            "config",
            "images",
            "list",
            "--kubernetes-version",
            KUBERNETES_VERSION,
        ]
    ).split()
    etcd = next(name for name in names if "/etcd:" in name)
    coredns = next(name for name in names if "/coredns/" in name)
    kubernetes = [name for name in names if "/kube-" in name]
    archive = work / "system.tar"
    write_archive(
        [
            Image(
                PAUSE,
                (_single(Path("/bin/busybox"), "bin/busybox"),),
                _entry("/bin/busybox", "sleep", "2147483647"),
            ),
            Image(etcd, (_single(ensure(home, ETCD), "usr/local/bin/etcd"),), _entry()),
            Image(coredns, (_single(ensure(home, COREDNS), "coredns"),), _entry("/coredns")),
            Image(
                kubernetes[0],
                (_proxy_layer(root), _kubernetes_layer(ensure(home, KUBERNETES))),
                _entry(),
            ),
        ],
        archive,
    )
    with _containerd(root, work) as ctr:
        run([*ctr, "images", "import", archive], timeout=900)
        for name in kubernetes[1:]:
            run([*ctr, "images", "tag", kubernetes[0], name])


def _entry(*words: str) -> ImageConfig:
    return ImageConfig(entrypoint=words)


def _single(program: Path, name: str) -> bytes:
    parents = [f"{parent}/" for parent in reversed(Path(name).parents) if str(parent) != "."]
    folders = [Entry(parent) for parent in parents]
    return layer_tar([*folders, Entry("tmp/", 0o1777), Entry(name, 0o755, program.read_bytes())])


def _kubernetes_layer(program: Path) -> bytes:
    """One program under all its names."""
    place = "usr/local/bin"
    entries = [
        Entry("usr/local/"),
        Entry(f"{place}/"),
        Entry(f"{place}/{KUBERNETES.name}", 0o755, program.read_bytes()),
    ]
    entries += [Entry(f"{place}/{name}", 0o777, link=KUBERNETES.name) for name in COMMANDS]
    return layer_tar(entries)


def _proxy_layer(root: Path) -> bytes:
    """What kube-proxy calls: iptables in its nft form, nft and conntrack, from the node's own packages."""
    extensions = sorted(path.relative_to(root) for path in (root / _EXTENSIONS).glob("*.so"))
    programs = [*_PROXY_PROGRAMS, *map(str, extensions)]
    entries = [
        *_FOLDERS,
        *library_entries(root, programs),
        Entry(f"{_EXTENSIONS}/"),
        Entry("tmp/", 0o1777),
    ]
    entries += [_copied(root, name) for name in programs]
    for command in _IPTABLES:
        for name in (command, command.replace("iptables", "ip6tables")):
            entries.append(Entry(f"usr/sbin/{name}", 0o777, link="xtables-nft-multi"))
    return layer_tar(entries)


def _copied(root: Path, name: str) -> Entry:
    path = root / name
    if path.is_symlink():
        return Entry(name, 0o777, link=str(path.readlink()))
    return Entry(name, 0o755, path.read_bytes())


@contextlib.contextmanager
def _containerd(root: Path, work: Path) -> Iterator[list[str]]:
    """The host's containerd with the node's folder as its own; gives the words of a ctr command."""
    socket, config = work / "c.sock", work / "containerd.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "--config", config, "--root", root / "var/lib/containerd"]
    command += ["--state", work / "state", "--address", socket]
    with (work / "containerd.log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
    ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io"]
    try:
        _wait_for(ctr, process)
        yield ctr
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(ctr: list[str], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            run([*ctr, "version"], timeout=10)
        except ClusterError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
