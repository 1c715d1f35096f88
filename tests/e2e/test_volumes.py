"""Volumes as kubelet binds them: content arrives and is renewed, emptyDir is the guest's own, hostPath is refused."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd

from .conftest import Pod
from .members import BOX, CONFIG_MAP, READER, SCRATCH, SECRET, WRITER
from .observe import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(300)]
TOKEN = secrets.token_hex(8)


class Kubelet:
    """A pod's folder as kubelet makes it."""

    def __init__(self, root: Path) -> None:
        self.volumes = root / "pods" / "11111111-2222-3333-4444-555555555555" / "volumes"

    def path(self, plugin: str, name: str) -> Path:
        return self.volumes / f"kubernetes.io~{plugin}" / name

    def publish(self, plugin: str, name: str, version: str, files: dict[str, str]) -> Path:
        """Writes a version and turns `..data` to it, as kubelet's atomic writer does."""
        folder = self.path(plugin, name)
        (folder / f"..{version}").mkdir(parents=True)
        for file, content in files.items():
            (folder / f"..{version}" / file).write_text(content)
            link = folder / file
            if not link.is_symlink():
                link.symlink_to(f"..data/{file}")
        (folder / "..data_tmp").symlink_to(f"..{version}")
        (folder / "..data_tmp").replace(folder / "..data")
        return folder


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Kubelet:
    made = Kubelet(tmp_path_factory.mktemp("kubelet"))
    made.publish("configmap", "settings", "2026_1", {"mode": "first", "other": "same"})
    made.publish("secret", "token", "2026_1", {"token": TOKEN})
    made.path("empty-dir", "shared").mkdir(parents=True)
    return made


def mount(place: tuple[str, str, str], source: Path) -> dict[str, object]:
    destination, _, access = place
    return {
        "container_path": destination,
        "host_path": str(source),
        "readonly": access == "ro",
    }


@pytest.fixture(scope="module")
def reader(daemon: PrivateContainerd, shared_pod: Pod, kubelet: Kubelet) -> Iterator[str]:
    mounts = [
        mount(CONFIG_MAP, kubelet.path("configmap", "settings")),
        mount(SECRET, kubelet.path("secret", "token")),
        mount(SCRATCH, kubelet.path("empty-dir", "shared")),
    ]
    made = shared_pod.run(READER, mounts=mounts)
    yield made
    daemon.crictl("rm", "--force", made)


def test_content_arrives(shared_pod: Pod, reader: str) -> None:
    script = "cat /etc/settings/mode /etc/settings/other /etc/token/token; ls -a /etc/settings"
    output = shared_pod.sh(reader, script)
    assert output.startswith(f"firstsame{TOKEN}")
    assert {"..data", "..2026_1", "mode"} <= set(output.split())


def test_content_is_read_only(shared_pod: Pod, reader: str) -> None:
    assert "refused" in shared_pod.sh(reader, "echo x > /etc/settings/mode || echo refused")


def test_content_is_renewed(shared_pod: Pod, reader: str, kubelet: Kubelet) -> None:
    kubelet.publish("configmap", "settings", "2026_2", {"mode": "second", "other": "same"})
    assert wait_for(lambda: shared_pod.sh(reader, "cat /etc/settings/mode") == "second", 60)


def test_an_empty_dir_is_shared_in_the_guest_only(
    daemon: PrivateContainerd, shared_pod: Pod, reader: str, kubelet: Kubelet
) -> None:
    shared = kubelet.path("empty-dir", "shared")
    writer = shared_pod.run(WRITER, mounts=[mount(SCRATCH, shared)])
    shared_pod.sh(writer, "echo from the writer > /shared/file; sync")
    assert shared_pod.sh(reader, "cat /shared/file") == "from the writer\n"
    assert list(shared.iterdir()) == []
    daemon.crictl("rm", "--force", writer)


@pytest.mark.parametrize("source", ["/etc", "/var/run/docker.sock/x"])
def test_a_path_of_the_host_is_refused(
    daemon: PrivateContainerd, shared_pod: Pod, source: str
) -> None:
    entry = {"container_path": "/host", "host_path": source}
    made = shared_pod.create(BOX, metadata={"name": "box", "attempt": 30}, mounts=[entry])
    with pytest.raises(CommandFailedError) as caught:
        daemon.crictl("start", made)
    assert f"mount at /host: {source} is the host's own (hostPath" in caught.value.message
    daemon.crictl("rm", made)


def test_a_volume_that_the_policy_does_not_name(
    daemon: PrivateContainerd, shared_pod: Pod, kubelet: Kubelet
) -> None:
    entry = mount(("/elsewhere", "", "ro"), kubelet.path("secret", "token"))
    made = shared_pod.create(BOX, metadata={"name": "box", "attempt": 31}, mounts=[entry])
    with pytest.raises(CommandFailedError) as caught:
        daemon.crictl("start", made)
    assert "create_container denied by policy: " in caught.value.message
    daemon.crictl("rm", made)
