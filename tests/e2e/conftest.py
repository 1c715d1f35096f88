"""A private containerd for the whole run, policies for the demo's images, and pods in real VMs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from parma_api.layer.convert import convert
from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Programs, Settings
from parma_shim.demo.group import Member, container_config, pod_config
from parma_tenant.generate import model, rego

ANNOTATION = "io.parma/policy"
PLATFORM_RULES = (
    model.EnvRule("HOSTNAME=.*", model.Strategy.RE2),
    model.EnvRule("TERM=xterm"),
)


@dataclass(slots=True)
class Store:
    """The demo's images, and the verity roots of their layers."""

    archive: Path
    _roots: dict[str, str] = field(default_factory=dict)

    def container(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        *,
        execs: Sequence[Sequence[str]] = (),
        env: Sequence[str] = (),
        **changes: object,
    ) -> model.Container:
        """The description that allows exactly this."""
        config, layers = self.image(image)
        names = [*config["Env"], *env]
        return model.Container(
            name,
            tuple(self.root(layer) for layer in layers),
            tuple(command),
            (*map(model.EnvRule, names), *PLATFORM_RULES),
            config["WorkingDir"] or "/",
            exec_processes=tuple(model.ExecRule(tuple(words)) for words in execs),
            **changes,  # type: ignore[arg-type]
        )

    def image(self, name: str) -> tuple[dict[str, list[str] | str], list[bytes]]:
        """Configuration and compressed layers, base first."""
        with tarfile.open(self.archive) as archive:

            def blob(digest: str) -> bytes:
                stream = archive.extractfile("blobs/sha256/" + digest.removeprefix("sha256:"))
                assert stream is not None
                return stream.read()

            index = archive.extractfile("index.json")
            assert index is not None
            for row in json.load(index)["manifests"]:
                if row["annotations"]["io.containerd.image.name"] == name:
                    manifest = json.loads(blob(row["digest"]))
                    config = json.loads(blob(manifest["config"]["digest"]))["config"]
                    return config, [blob(layer["digest"]) for layer in manifest["layers"]]
        raise AssertionError(f"no image {name}")

    def root(self, layer: bytes) -> str:
        key = hashlib.sha256(layer).hexdigest()
        if key not in self._roots:
            self._roots[key] = convert(io.BytesIO(gzip.decompress(layer)), None).root_hash
        return self._roots[key]


def policy_text(*containers: model.Container, flags: frozenset[str] | None = None) -> bytes:
    """A policy of these containers."""
    chosen = frozenset({"allow_properties_access"}) if flags is None else flags
    return rego.render(model.Policy(containers, flags=chosen)).encode()


def annotation(policy: bytes) -> str:
    return base64.b64encode(policy).decode()


@dataclass(slots=True)
class Pod:
    """A pod sandbox; containers are made by `create`."""

    daemon: PrivateContainerd
    folder: Path
    id: str
    config: Path
    gone: bool = False

    def remove(self) -> None:
        """Stops and removes the pod, once."""
        if not self.gone:
            self.daemon.crictl("rmp", "--force", self.id)
            self.gone = True

    def create(self, member: Member, **changes: object) -> str:
        """A created container's id."""
        file = self.folder / f"{member.name}-{len(list(self.folder.iterdir()))}.json"
        file.write_text(container_config(member, **changes))
        return self.daemon.crictl("create", self.id, str(file), str(self.config)).strip()

    def run(self, member: Member, **changes: object) -> str:
        """A started container's id."""
        container = self.create(member, **changes)
        self.daemon.crictl("start", container)
        return container

    def sh(self, container: str, script: str, timeout: float = 60) -> str:
        """What a shell of the container prints; the policy must list /bin/sh."""
        command = [*self.daemon.crictl_command(), "exec", "-i", container, "/bin/sh"]
        done = subprocess.run(
            command, input=script.encode(), capture_output=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def address(self) -> str:
        status = json.loads(self.daemon.crictl("inspectp", self.id))["status"]
        return str(status["network"]["ip"])

    @property
    def state(self) -> dict[str, Any]:
        """The shim's own notes about the pod."""
        for path in (self.daemon.folder / "run").glob("*/state.json"):
            state: dict[str, Any] = json.loads(path.read_text())
            if state.get("sandbox_id") == self.id:
                return state
        raise AssertionError(f"no state of pod {self.id}")


@pytest.fixture(scope="session")
def store(cache: Path) -> Store:
    return Store(images.ensure(cache / "demo", lambda _text: None))


def programs(cache: Path) -> Programs:
    containerd, ctr = shutil.which("containerd"), shutil.which("ctr")
    assert containerd, "containerd is missing: run `make env`"
    assert ctr, "ctr is missing: run `make env`"
    tools = Path(sys.executable).parent
    return Programs(Path(containerd), Path(ctr), cache / "crictl" / "crictl", tools)


@pytest.fixture(scope="session")
def daemon(
    cache: Path, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateContainerd]:
    folder = Path(tempfile.mkdtemp(prefix="pe-"))
    settings = Settings(folder, programs(cache), images.PAUSE)
    with PrivateContainerd(settings) as running:
        running.ctr("images", "import", str(store.archive))
        running.ctr("images", "import", str(store.archive), namespace="default")
        yield running
        shutil.copy(running.log, tmp_path_factory.getbasetemp() / "containerd.log")


@pytest.fixture(scope="module")
def start_pod(
    daemon: PrivateContainerd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[bytes], Pod]]:
    """Starts pods under a policy; they are removed when the module ends."""
    started: list[Pod] = []

    def start(policy: bytes, **annotations: str) -> Pod:
        folder = tmp_path_factory.mktemp("pod")
        name = f"pod-{os.urandom(4).hex()}"
        (folder / "logs").mkdir()
        config = folder / "pod.json"
        config.write_text(
            pod_config(name, folder / "logs", {ANNOTATION: annotation(policy), **annotations})
        )
        pod = daemon.crictl("runp", "--runtime", "parma", str(config)).strip()
        started.append(Pod(daemon, folder, pod, config))
        return started[-1]

    yield start
    for pod in started:
        pod.remove()


@pytest.fixture(scope="session")
def shared_pod(
    daemon: PrivateContainerd, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pod]:
    """One pod for the modules that do it no harm: its containers are in `members`."""
    from .members import shared_policy

    folder = tmp_path_factory.mktemp("shared")
    (folder / "logs").mkdir()
    config = folder / "pod.json"
    annotations = {ANNOTATION: annotation(shared_policy(store))}
    document = json.loads(pod_config("shared", folder / "logs", annotations))
    document["linux"]["sysctls"] = {"net.ipv4.ip_unprivileged_port_start": "81"}
    config.write_text(json.dumps(document))
    pod = Pod(
        daemon, folder, daemon.crictl("runp", "--runtime", "parma", str(config)).strip(), config
    )
    yield pod
    pod.remove()
