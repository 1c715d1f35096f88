"""The encrypted volume sidecar in a group: three volumes behind HTTP, and a host that changes what it stores.

One pod: `data` read-only, `broken` the same with one bit flipped on the host, `state` read-write, whose blob outlives
the pod and is opened by the next one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from parma_api.block.integrity import BLOCK
from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Settings
from parma_shim.demo.group import Member
from parma_tenant.volume.key import VolumeKey
from parma_tenant.volume.release import key_from_jwk
from tests.e2e.conftest import Pod, Store, programs
from tests.e2e.observe import wait_for
from tests.tools.broker import BrokerProcess, broker_beside, policy_for
from tests.tools.sidecars import ensure
from tests.tools.volume_group import (
    PLACE,
    Plan,
    blobs_beside,
    create_volume,
    import_key,
    kubelet_folder,
    log_of,
    run_volume_sidecar,
    settings,
    start,
    wait_for_line,
)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.containerd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
USER = Member("user", images.BUSYBOX, ("/bin/sleep", "1000000"), execs=(("/bin/sh",),))
CONTENT = b"".join(b"line %06d of the data\n" % number for number in range(20000))
CANARY = "canary-written-by-the-group"


@pytest.fixture(scope="module")
def sidecars(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This module's own copy."""
    copy = tmp_path_factory.mktemp("images") / "sidecars.tar"
    copy.write_bytes(ensure(cache).read_bytes())
    return copy


@pytest.fixture(scope="module")
def daemon(cache: Path, sidecars: Path) -> Iterator[PrivateContainerd]:
    folder = Path(tempfile.mkdtemp(prefix="ev-"))
    with PrivateContainerd(Settings(folder, programs(cache), images.PAUSE)) as running:
        for archive in (sidecars, images.ensure(cache / "demo", lambda _text: None)):
            running.ctr("images", "import", str(archive))
        yield running


@pytest.fixture(scope="module")
def broker(
    daemon: PrivateContainerd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerProcess]:
    """It expects nothing of the measurement: the release policies alone decide (figure 4 has both)."""
    with broker_beside(daemon, tmp_path_factory.mktemp("broker") / "state", {}) as running:
        yield running


@dataclass(frozen=True)
class Stage:
    plan: Plan
    policy: bytes
    store: Path
    keys: dict[str, VolumeKey]
    shared: Path


@pytest.fixture(scope="module")
def stage(
    daemon: PrivateContainerd,
    broker: BrokerProcess,
    sidecars: Path,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("tenant")
    source, store = folder / "files", folder / "store"
    for made in (source, store):
        made.mkdir()
    (source / "large").write_bytes(CONTENT)
    (source / "small").write_text("small file\n")
    keys = {}
    for name, words in (
        ("data", ["--from", str(source)]),
        ("broken", ["--from", str(source)]),
        ("state", ["--from", str(source), "--read-write", "--size", "16M"]),
    ):
        create_volume(store / name, folder / f"{name}.jwk", *words)
        keys[name] = key_from_jwk(json.loads((folder / f"{name}.jwk").read_text()))
    flip(store / "broken", 40 * BLOCK + 7)
    with blobs_beside(daemon, store) as url, kubelet_folder(folder / "kubelet") as shared:
        rows = [
            {"url": url + name, "kid": name, "mount_point": f"{PLACE}/{name}"}
            | ({"read_write": True} if name == "state" else {})
            for name in keys
        ]
        users = Store(images.ensure(cache / "demo", lambda _text: None))
        plan = Plan(Store(sidecars), users, broker, settings(rows), USER)
        policy = plan.policy()
        release = policy_for(hashlib.sha256(policy).digest())
        # The broker expects no measurement, so its tokens do not say that the VM complies with one.
        conditions = release["anyOf"][0]["allOf"]
        conditions[:] = [row for row in conditions if "compliance" not in row["claim"]]
        for name in keys:
            import_key(broker, name, folder / f"{name}.jwk", release)
        yield Stage(plan, policy, store, keys, shared)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def has_ended(daemon: PrivateContainerd, container: str) -> bool:
    status = json.loads(daemon.crictl("inspect", container))["status"]
    return bool(status["state"] == "CONTAINER_EXITED")


def kill_and_restart(
    daemon: PrivateContainerd, stage: Stage, pod: Pod, ids: dict[str, str]
) -> None:
    """SIGKILL, and the sidecar's next life in the same pod, as kubelet makes it."""
    daemon.crictl("stop", "--timeout", "0", ids["volume"], timeout=150)
    assert wait_for(lambda: has_ended(daemon, ids["volume"]), 60)
    broken = pod.sh(ids["user"], f"cat {PLACE}/data/large >/dev/null 2>&1 || echo gone")
    assert broken in ("", "gone\n")
    said = log_of(pod, "volume")
    ids["volume"] = run_volume_sidecar(pod, stage.plan, stage.shared, attempt=1)
    wait_for_line(pod, "volume", "ready", skip=len(said))


def digest(pod: Pod, container: str, path: str) -> str:
    return pod.sh(container, f"sha256sum {PLACE}/{path} 2>&1 || true").split()[0]


def test_volumes_of_a_group(daemon: PrivateContainerd, stage: Stage, tmp_path: Path) -> None:
    wanted = hashlib.sha256(CONTENT).hexdigest()
    pod, ids = start(daemon, tmp_path / "first", stage.plan, stage.policy, stage.shared)
    try:
        wait_for_line(pod, "volume", "ready")
        user = ids["user"]
        assert digest(pod, user, "data/large") == wanted
        assert pod.sh(user, f"cat {PLACE}/broken/small") == "small file\n"
        broken = pod.sh(user, f"cat {PLACE}/broken/large 2>&1 >/dev/null || true")
        assert "I/O error" in broken or "Input/output error" in broken
        refused = pod.sh(user, f"(echo x > {PLACE}/data/small) 2>&1 || true")
        assert "Read-only file system" in refused

        script = (
            f"cd {PLACE}/state && echo {CANARY} > new && rm small && mkdir d && cp large d/ && sync"
        )
        pod.sh(user, script)
        absent = pod.sh(user, "ls /dev/mapper /dev/nbd0 2>&1 || true")
        assert absent.count("No such file") == 2, "they are the sidecar's"
        assert "parma-volume" not in pod.sh(user, "ls /dev")

        kill_and_restart(daemon, stage, pod, ids)
        assert digest(pod, user, "data/large") == wanted
        assert pod.sh(user, f"cat {PLACE}/state/new") == f"{CANARY}\n"

        daemon.crictl("stop", "--timeout", "60", ids["volume"], timeout=150)
        assert has_ended(daemon, ids["volume"])
        left = pod.sh(user, f"ls {PLACE} {PLACE}/data {PLACE}/state")
        assert "large" not in left, "an ordered end takes the volumes away from everybody"
    finally:
        pod.remove()
    blob = (stage.store / "state").read_bytes()
    assert CANARY.encode() not in blob
    assert blob[:BLOCK] == stage.keys["state"].layout.superblock()

    pod, ids = start(daemon, tmp_path / "second", stage.plan, stage.policy, stage.shared)
    try:
        wait_for_line(pod, "volume", "ready")
        listed = pod.sh(ids["user"], f"cd {PLACE}/state && cat new && ls && sha256sum d/large")
        assert listed.startswith(f"{CANARY}\n")
        assert listed.split()[-2] == wanted
        assert "small" not in listed.split()
    finally:
        pod.remove()


def test_a_changed_superblock(daemon: PrivateContainerd, stage: Stage, tmp_path: Path) -> None:
    """Refused before anything is mounted, and the sidecar says why."""
    flip(stage.store / "state", 24)
    pod, ids = start(daemon, tmp_path / "third", stage.plan, stage.policy, stage.shared)
    try:
        assert wait_for(lambda: has_ended(daemon, ids["volume"]), 240)
        assert "the blob's integrity superblock is not what the volume's key says" in log_of(
            pod, "volume"
        )
        assert pod.sh(ids["user"], f"ls {PLACE}/state 2>/dev/null || true") == ""
    finally:
        pod.remove()
