"""A private containerd of one version, set up for the suite: the registry beside it, an allow-all policy by default.

critest cannot annotate its pods, so the policy comes from `default_policy` in the configuration of this very daemon's
shims (contracts.md, section 2). That key is absent on every other host.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd, Programs, Settings
from tests.tools.newer_containerd import newer_containerd

from . import images
from .programs import ROOT
from .registry import HOSTS, PORT

ALLOW_ALL = ROOT / "policy_bundles/samples/allow_all.rego"
HOST = "host"


@dataclass(frozen=True, slots=True)
class Version:
    """A containerd: the name of its results, and where it is from."""

    name: str
    suite: str
    """A Debian suite, or HOST: the machine's own."""


VERSIONS = (Version("1.6", HOST), Version("1.7", "trixie"), Version("2.x", "forky"))
"""On a Debian 12 machine; on another the first is what it has. The table gives the versions that answered."""


class SuiteContainerd(PrivateContainerd):
    """As the demo's, with the registry mirrors and the policy."""

    def __init__(self, settings: Settings, archive: Path) -> None:
        super().__init__(settings)
        self._archive = archive
        self._registry: subprocess.Popen[str] | None = None

    def _prepare(self) -> None:
        super()._prepare()
        certs = self.folder / "certs.d"
        for host in HOSTS:
            (certs / host).mkdir(parents=True)
            address = f"http://127.0.0.1:{PORT}"
            (certs / host / "hosts.toml").write_text(
                f'server = "{address}"\n[host."{address}"]\ncapabilities = ["pull", "resolve"]\n'
            )
        with (self.folder / "config.toml").open("a") as config:
            config.write('\n[plugins."io.containerd.grpc.v1.cri".registry]\n')
            config.write(f'  config_path = "{certs}"\n')
        (self.folder / "parma.toml").write_text(
            f'default_policy = {json.dumps(str(ALLOW_ALL))}\nhost_paths = "copy"\n'
        )
        (self.folder / "t").mkdir()
        self._start_registry()

    def _start_registry(self) -> None:
        command = [*self.inside(), sys.executable, "-m", "tests.critest.registry"]
        self._registry = subprocess.Popen(
            [*command, str(self._archive)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._registry.stdout is not None
        assert self._registry.stdout.readline() == "ready\n", "the registry did not start"

    def close(self) -> None:
        """As before, and the registry."""
        super().close()
        if self._registry is not None:
            self._registry.kill()
            self._registry.communicate()

    def server_version(self) -> str:
        """What the daemon calls itself, without the packager's additions."""
        text = self.ctr("version").partition("Server:")[2]
        return text.partition("Version:")[2].split()[0].partition("~")[0].partition("+")[0]

    def sweep(self) -> int:
        """Removes the pods that a failed spec left; their number. Raises CommandFailedError when they stay."""
        left = self.crictl("pods", "-q").split()
        for last in (False, False, True):
            try:
                if pods := self.crictl("pods", "-q").split():
                    self.crictl("rmp", "--force", *pods, timeout=300)
                break
            except CommandFailedError:
                if last:
                    raise
        return len(left)


@contextlib.contextmanager
def running(version: Version, cache: Path, archive: Path) -> Iterator[SuiteContainerd]:
    """The daemon, with the pause image that runc needs. Raises what starting it raises."""
    shims = Path(sys.executable).parent
    folder = Path(tempfile.mkdtemp(prefix="pc-"))
    containerd, ctr, runc_shims = _programs(version, cache)
    chosen = Programs(containerd, ctr, cache / "crictl" / "crictl", shims)
    path = f"{shims}:{runc_shims}:{os.environ.get('PATH', '/usr/sbin:/usr/bin')}"
    settings = Settings(folder, chosen, images.PAUSE, {"PATH": path})
    try:
        with SuiteContainerd(settings, archive) as daemon:
            daemon.crictl("pull", images.PAUSE)
            yield daemon
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(version: Version, cache: Path) -> tuple[Path, Path, Path]:
    """containerd, ctr, and the folder of the runc shim that belongs to it; runc itself is the machine's."""
    if version.suite == HOST:
        found = shutil.which("containerd"), shutil.which("ctr")
        assert found[0], "containerd is missing: run `make env`"
        assert found[1], "ctr is missing: run `make env`"
        return Path(found[0]), Path(found[1]), Path(found[0]).parent
    tools = newer_containerd(cache, version.suite)
    # The shim starts itself anew, which the wrappers' way of loading does not stand; it needs no newer C library.
    return tools / "containerd", tools / "ctr", tools.parent / "usr/bin"
