"""The node as the DaemonSet's container sees it: its root at a folder, its service manager by chroot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from parma_api.status import FailedPreconditionError

DEADLINE = 90.0


Inside = Callable[[Path, Sequence[str]], str]
"""Runs a command beneath a root; its standard output. Raises FailedPreconditionError."""


def chrooted(root: Path, words: Sequence[str]) -> str:
    """`Inside` for a real node."""
    command = [sys.executable, "-IS", "-c", _CHROOT, str(root), *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedPreconditionError(f"{words[1]} did not run on the node: {error}") from error
    if done.returncode != 0:
        told = done.stderr.strip() or f"status {done.returncode}"
        raise FailedPreconditionError(f"{' '.join(words[1:])} failed on the node: {told[:500]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class NodeHost:
    """One node."""

    root: Path = Path("/host")
    containerd_config: str = "/etc/containerd/config.toml"
    unit: str = "containerd"
    inside: Inside = chrooted

    def path(self, name: str) -> Path:
        """A path of the node's, from here."""
        return self.root / name.lstrip("/")

    def restart_containerd(self) -> None:
        """Returns when the daemon says that it is up (Type=notify). Raises FailedPreconditionError."""
        # systemctl does nothing in a chroot unless told; the socket of the node's systemd is beneath the root.
        words = ("/usr/bin/env", "SYSTEMD_IGNORE_CHROOT=1", "systemctl", "restart", self.unit)
        self.inside(self.root, words)

    def containerd_version(self) -> str:
        """What `containerd --version` prints; empty when it is not there."""
        try:
            return self.inside(self.root, ("/usr/bin/env", "containerd", "--version"))
        except FailedPreconditionError:
            return ""

    def commands(self) -> Iterator[bytes]:
        """The command lines of the node's processes, NUL between the words."""
        for path in self.path("/proc").glob("[0-9]*/cmdline"):
            try:
                yield path.read_bytes()
            except OSError:
                continue  # it has ended meanwhile


_CHROOT = """\
import os, sys
os.chroot(sys.argv[1])
os.chdir("/")
os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
os.execve(sys.argv[2], sys.argv[2:], os.environ)
"""
"""The image has no chroot(1). The payload's Python is loaded before the root changes."""
