"""Figure 4 of the article, whole: a model that only the group with the right policy can use.

The tenant trains a model, puts it into an encrypted volume and gives the key to a broker under a release policy that
names the group's policy and the VM's measurement. The host stores the volume. In the VM one container makes an RSA
key and gets a report over it; the broker verifies it and releases the volume's key, wrapped to the RSA key; the
sidecar attaches and mounts the volume; an inference server in a container of its own loads the model and answers.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parma_api.cli import run
from parma_api.launch import read_image
from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Settings
from parma_shim.demo.group import Member
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive
from parma_tenant.claims.encoding import to_b64url
from parma_tenant.volume.release import key_from_jwk
from tests.e2e.conftest import Pod, Store, programs
from tests.e2e.observe import ended
from tests.tools import glyphs
from tests.tools.broker import BrokerProcess, broker_beside, policy_for
from tests.tools.ovmf_amdsev import ovmf_amdsev
from tests.tools.sidecars import VOLUME, ensure
from tests.tools.volume_group import (
    PLACE,
    Plan,
    blobs_beside,
    create_volume,
    import_key,
    kubelet_folder,
    log_of,
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
INFERENCE = "parma.example/inference:1"
PORT = 9000
SERVER = Member(
    "inference",
    INFERENCE,
    ("/usr/bin/python3", "-I", "/srv/server.py", f"{PLACE}/model/model.json", str(PORT)),
)
ASK = """\
import json, sys, urllib.request
for line in sys.stdin:
    with urllib.request.urlopen(sys.argv[1], line.encode(), timeout=60) as answer:
        print(answer.read().decode())
"""


@pytest.fixture(scope="module")
def archives(cache: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The sidecars, this module's own copy; and the inference server, on the same Python."""
    folder = tmp_path_factory.mktemp("images")
    sidecars = folder / "sidecars.tar"
    sidecars.write_bytes(ensure(cache).read_bytes())
    python = gzip.decompress(Store(sidecars).image(VOLUME)[1][0])
    program = (repository / "tests/fixtures/inference_server.py").read_bytes()
    layer = layer_tar([Entry("srv/"), Entry("srv/server.py", 0o644, program)])
    server = folder / "server.tar"
    write_archive([Image(INFERENCE, (python, layer), ImageConfig(cmd=SERVER.command))], server)
    return [sidecars, server]


@pytest.fixture(scope="module")
def daemon(cache: Path, archives: list[Path]) -> Iterator[PrivateContainerd]:
    folder = Path(tempfile.mkdtemp(prefix="f4-"))
    with PrivateContainerd(Settings(folder, programs(cache), images.PAUSE)) as running:
        for archive in (*archives, images.ensure(cache / "demo", lambda _text: None)):
            running.ctr("images", "import", str(archive))
        (folder / "parma.toml").write_text(f'firmware = "{ovmf_amdsev(cache)}"\n')
        yield running


@pytest.fixture(scope="module")
def broker(
    daemon: PrivateContainerd, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerProcess]:
    """It expects the measurement that `parma measure` computes for the stub image with two vCPUs."""
    folder = tmp_path_factory.mktemp("broker")
    image = read_image(cache / "uvm/stub/current").directory
    words = ["--image", str(image), "--ovmf", str(ovmf_amdsev(cache)), "--vcpus", "2", "--json"]
    with pytest.MonkeyPatch.context() as patch, (folder / "measured").open("w") as stream:
        patch.setattr("sys.stdout", stream)
        assert run(["measure", *words]) == 0
    measured = json.loads((folder / "measured").read_text())["measurements"]["2"]
    with broker_beside(daemon, folder / "state", {"measurement": measured}) as running:
        yield running


@dataclass(frozen=True)
class Stage:
    """All that was there before a VM was."""

    plan: Plan
    policy: bytes
    model: dict[str, Any]
    blob: Path
    key: bytes
    """Its secret."""
    shared: Path


@pytest.fixture(scope="module")
def stage(
    daemon: PrivateContainerd,
    broker: BrokerProcess,
    archives: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """The tenant's part: a model that is trained here, its volume, and its key under the policy of this very group."""
    folder = tmp_path_factory.mktemp("tenant")
    source, store = folder / "model", folder / "store"
    source.mkdir()
    store.mkdir()
    trained = glyphs.train(glyphs.samples(1500, seed=1))
    (source / "model.json").write_text(json.dumps(trained))
    create_volume(store / "model.blob", folder / "model.jwk", "--from", str(source))
    with blobs_beside(daemon, store) as url, kubelet_folder(folder / "kubelet") as shared:
        volume = {"url": f"{url}model.blob", "kid": "model", "mount_point": f"{PLACE}/model"}
        plan = Plan(Store(archives[0]), Store(archives[1]), broker, settings([volume]), SERVER)
        policy = plan.policy()
        digest = hashlib.sha256(policy).digest()
        import_key(broker, "model", folder / "model.jwk", policy_for(digest))
        key = key_from_jwk(json.loads((folder / "model.jwk").read_text()))
        yield Stage(plan, policy, trained, store / "model.blob", key.secret, shared)


def ask(pod: Pod, questions: list[list[int]]) -> list[dict[str, Any]]:
    """The server's answers, asked for from outside over the pod's network."""
    lines = "".join(json.dumps({"pixels": pixels}) + "\n" for pixels in questions)
    url = f"http://{pod.address}:{PORT}/classify"
    command = [*pod.daemon.inside(), sys.executable, "-c", ASK, url]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_right_group_uses_the_model(
    daemon: PrivateContainerd, stage: Stage, tmp_path: Path
) -> None:
    pod, _ = start(daemon, tmp_path / "right", stage.plan, stage.policy, stage.shared)
    try:
        wait_for_line(pod, "inference", "serving 10 labels")
        unseen = glyphs.samples(40, seed=2)
        answers = ask(pod, [pixels for pixels, _ in unseen])
        for (pixels, _), answer in zip(unseen, answers, strict=True):
            assert answer["scores"] == glyphs.scores(stage.model, pixels)
        right = sum(a["label"] == truth for a, (_, truth) in zip(answers, unseen, strict=True))
        assert right >= 36
        assert "released model" in log_of(pod, "skr")
        assert f"model is mounted at {PLACE}/model, read-only" in log_of(pod, "volume")
        said = "".join(log_of(pod, name) for name in ("skr", "volume", "inference"))
    finally:
        pod.remove()
    logs = said + daemon.log.read_text(errors="replace") + stage.plan.broker.log
    for form in (stage.key.hex(), base64.b64encode(stage.key).decode(), to_b64url(stage.key)):
        assert form not in logs
    assert b'"weights"' not in stage.blob.read_bytes()
    assert '"weights"' not in logs


def test_one_byte_of_the_policy_changed_and_there_is_no_key(
    daemon: PrivateContainerd, stage: Stage, tmp_path: Path
) -> None:
    assert stage.policy.endswith(b"\n")
    changed = stage.policy[:-1] + b" "
    pod, ids = start(daemon, tmp_path / "changed", stage.plan, changed, stage.shared)
    try:
        status = ended(daemon, ids["volume"], 240)
        said = log_of(pod, "volume")
        assert status["exitCode"] == 1, said
        assert "parma-volume: the key-release sidecar says 403" in said
        assert "mounted" not in said
        assert "serving" not in log_of(pod, "inference")
        assert "do not satisfy the key's release policy" in log_of(pod, "skr")
    finally:
        pod.remove()
