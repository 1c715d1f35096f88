"""A private containerd: own root, state, socket and network namespace; nothing of the host's is touched.

The demo, `parma attack`, the benchmarks and the end-to-end tests run in it. Everything that it made is removed by
`close()`, which is safe to call at any moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from parma_api.status import InternalError

HANDLER = "parma"
_SUBNET = ("10.88.7.0/24", "fd00:88:7::/64")
_MNT_DETACH = 2
TIMED_OUT = 124
"""The status that timeout(1) gives."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that take part; each can be another version's."""

    containerd: Path
    ctr: Path
    crictl: Path
    shim_folder: Path
    """Holds `containerd-shim-parma-v2`."""
    cni_folder: Path = Path("/usr/lib/cni")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one private containerd is set up."""

    folder: Path
    programs: Programs
    pause_image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """For containerd and so for the shim: PARMA_RUN, PARMA_LIB, PARMA_CONFIG, PARMA_UVM ..."""


class PrivateContainerd:
    """A running private containerd; use it as a context manager. Raises InternalError when it does not come up."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.folder
        self.socket = settings.folder / "c.sock"
        self.netns = f"parma-{os.getpid()}-{settings.folder.name[-6:]}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log(self) -> Path:
        """containerd's own log, the shims' lines in it."""
        return self.folder / "containerd.log"

    def _prepare(self) -> None:
        for name in ("root", "state", "cni", "run", "lib"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "parma.toml").touch()
        (self.folder / "config.toml").write_text(_containerd_config(self.settings))
        (self.folder / "cni" / "10-demo.conflist").write_text(json.dumps(_cni_config(self.folder)))
        (self.folder / "crictl.yaml").write_text(_crictl_config(self.socket))
        run_checked(["ip", "netns", "add", self.netns])
        run_checked([*self.inside(), "ip", "link", "set", "lo", "up"])
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            run_checked([*self.inside(), "sh", "-c", f"echo 1 > /proc/sys/net/{name}"])

    def inside(self) -> list[str]:
        """The command prefix that runs something in the daemon's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--"]

    def start(self) -> None:
        """Starts the daemon and waits until it answers."""
        environment = {
            "PATH": f"{self.settings.programs.shim_folder}:{os.environ.get('PATH', '/usr/sbin:/usr/bin')}",
            "HOME": os.environ.get("HOME", "/"),
            "PARMA_RUN": str(self.folder / "run"),
            "PARMA_LIB": str(self.folder / "lib"),
            "PARMA_CONFIG": str(self.folder / "parma.toml"),
            **self.settings.environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside(), str(self.settings.programs.containerd), *self._flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._wait_ready()

    def _flags(self) -> tuple[str, str]:
        return "--config", str(self.folder / "config.toml")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            done = subprocess.run(
                [*self.crictl_command(), "info"], capture_output=True, check=False, timeout=30
            )
            if done.returncode == 0:
                return
            time.sleep(0.1)
        raise InternalError(f"containerd did not come up: read {self.log}")

    def stop(self) -> None:
        """Ends the daemon alone; shims and their pods live on (as when a node's containerd restarts)."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None

    def ctr(self, *arguments: str, namespace: str = "k8s.io", timeout: float = 120) -> str:
        """Runs ctr; its standard output. Raises CommandFailedError."""
        program = [str(self.settings.programs.ctr), "--address", str(self.socket)]
        return run_checked([*program, "--namespace", namespace, *arguments], timeout=timeout)

    def crictl(self, *arguments: str, timeout: float = 250) -> str:
        """Runs crictl; its standard output. Raises CommandFailedError."""
        return run_checked([*self.crictl_command(), *arguments], timeout=timeout)

    def crictl_command(self) -> list[str]:
        """The words before crictl's own arguments."""
        program = str(self.settings.programs.crictl)
        config = str(self.folder / "crictl.yaml")
        # containerd's streaming server listens on the loopback of its own namespace.
        return [*self.inside(), program, "--config", config, "--timeout", "240s"]

    def close(self) -> None:
        """Removes pods, containers, the daemon, mounts, network namespaces and the folder. Never raises."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(CommandFailedError):
                self.crictl("rmp", "--all", "--force", timeout=60)
            self._remove_tasks()
            self.stop()
        for mount in sorted(_mounts_below(self.folder), reverse=True):
            ctypes.CDLL(None).umount2(mount.encode(), _MNT_DETACH)
        subprocess.run(["ip", "netns", "delete", self.netns], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_tasks(self) -> None:
        for namespace in ("k8s.io", "default"):
            with contextlib.suppress(CommandFailedError):
                for name in self.ctr("tasks", "ls", "-q", namespace=namespace).split():
                    self.ctr("tasks", "delete", "--force", name, namespace=namespace, timeout=30)


class CommandFailedError(InternalError):
    """A program ended with another status than 0; the message is what it wrote."""

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        name = next(
            (Path(word).name for word in command if "crictl" in word or "ctr" in word), command[0]
        )
        super().__init__(output.strip() or f"{name} ended with status {status}")
        self.status = status
        self.command = tuple(command)


def run_checked(command: Sequence[str], timeout: float = 60) -> str:
    """Runs a command; its standard output as text. Raises CommandFailedError, after `timeout` seconds too."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        late = f"{command[0]} did not end in {timeout:g} s: {' '.join(command)[-200:]}"
        raise CommandFailedError(command, TIMED_OUT, late) from None
    if done.returncode != 0:
        raise CommandFailedError(command, done.returncode, done.stderr + done.stdout)
    return done.stdout


def _mounts_below(folder: Path) -> Iterator[str]:
    prefix = str(folder) + "/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4]
        if target.startswith(prefix):
            yield target


def _containerd_config(settings: Settings) -> str:
    folder = settings.folder
    return f"""\
version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{folder}/c.sock"

[ttrpc]
  address = "{folder}/c.sock.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{settings.pause_image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{settings.programs.cni_folder}"
  conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{HANDLER}]
  runtime_type = "io.containerd.parma.v2"
  privileged_without_host_devices = true
  pod_annotations = ["io.parma/*", "io.microsoft.virtualmachine.*"]
"""


def _cni_config(folder: Path) -> dict[str, object]:
    ranges = [[{"subnet": subnet}] for subnet in _SUBNET]
    return {
        "cniVersion": "0.4.0",
        "name": "parma-demo",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "parma0",
                "isGateway": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "cni-data"),
                    "ranges": ranges,
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _crictl_config(socket: Path) -> str:
    address = f"unix://{socket}"
    return f"runtime-endpoint: {address}\nimage-endpoint: {address}\n"
