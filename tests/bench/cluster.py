"""A private containerd with the demo's images, for figures of whole pods."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Programs, Settings
from parma_shim.demo.group import Member, container_config, pod_config
from tests.e2e.conftest import ANNOTATION, Store, annotation, policy_text

ROOT = Path(__file__).resolve().parents[2]
_READY = re.compile(r'msg="(pod|container \w+) ready in ([0-9.]+) s: ([^"]*)"')


@dataclass(slots=True)
class Cluster:
    """The daemon, and policies for what is in its store."""

    daemon: PrivateContainerd
    store: Store
    _read: int = 0

    def policy(self, *members: Member) -> bytes:
        """Allows exactly these."""
        return policy_text(
            *(
                self.store.container(
                    member.name,
                    member.image,
                    member.command,
                    execs=member.execs,
                    env=[f"{name}={value}" for name, value in member.env],
                )
                for member in members
            )
        )

    def run_pod(self, handler: str, *members: Member, policy: bytes | None = None) -> str:
        """A pod with its containers started; its id."""
        folder = Path(tempfile.mkdtemp(prefix="pod-", dir=self.daemon.folder))
        config = folder / "pod.json"
        notes = {} if policy is None else {ANNOTATION: annotation(policy)}
        config.write_text(pod_config(folder.name.replace("_", "-").lower(), folder, notes))
        pod = self.daemon.crictl("runp", "--runtime", handler, str(config)).strip()
        for member in members:
            file = folder / f"{member.name}.json"
            file.write_text(container_config(member))
            created = self.daemon.crictl("create", pod, str(file), str(config)).strip()
            self.daemon.crictl("start", created)
        return pod

    def remove_pod(self, pod: str) -> None:
        """Ends it."""
        self.daemon.crictl("rmp", "--force", pod)

    def phases(self) -> dict[str, float]:
        """Seconds by phase of what the log tells since the last call."""
        text = self.daemon.log.read_text(errors="replace")
        fresh, self._read = text[self._read :], len(text)
        found: dict[str, float] = {}
        for what, _total, parts in _READY.findall(fresh):
            kind = what.split()[0]
            for part in parts.split(", "):
                name, seconds = part.rsplit(" ", 1)
                key = f"{kind}.{name}"
                found[key] = found.get(key, 0.0) + float(seconds)
        return found


def _programs() -> tuple[Programs, Path]:
    cache = Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")
    containerd, ctr = shutil.which("containerd"), shutil.which("ctr")
    assert containerd, "containerd is missing: run `make env`"
    assert ctr, "ctr is missing: run `make env`"
    tools = Path(sys.executable).parent
    return Programs(Path(containerd), Path(ctr), cache / "crictl" / "crictl", tools), cache


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Started, the images imported; everything is gone afterwards."""
    programs, cache = _programs()
    store = Store(images.ensure(cache / "demo", lambda _text: None))
    folder = Path(tempfile.mkdtemp(prefix="pb-"))
    with PrivateContainerd(Settings(folder, programs, images.PAUSE)) as daemon:
        daemon.ctr("images", "import", str(store.archive))
        yield Cluster(daemon, store)


def resident_mib(pid: int) -> float:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} is gone")
