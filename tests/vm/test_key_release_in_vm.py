"""A key for the right group and for no other: sidecar in a real VM, broker on the host, reached over the pod's network.

The sidecar gets reports by the kernel's interfaces; the workload beside it asks on localhost, as under ACI. The same
run under a policy with one byte changed ends with no key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_api.cli import run
from parma_api.launch import read_image
from parma_api.snp.report import parse
from parma_shim.demo import images
from parma_shim.demo.daemon import PrivateContainerd, Settings
from parma_shim.demo.group import Member, pod_config
from parma_tenant.claims.encoding import from_b64url
from parma_tenant.generate import model, rego
from tests.e2e.conftest import ANNOTATION, Pod, Store, annotation, programs
from tests.tools.broker import ISSUER, BrokerProcess, broker_beside, policy_for
from tests.tools.ovmf_amdsev import ovmf_amdsev
from tests.tools.sidecars import SKR, SKR_COMMAND, ensure

pytestmark = [
    pytest.mark.vm,
    pytest.mark.containerd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]
SECRET = b"canary: the key to the model, 32"
PRIVILEGED = {"privileged": True, "namespace_options": {"pid": 1}}
SLEEP = ("/bin/sleep", "1000000")
WORK = Member("work", images.BUSYBOX, SLEEP)
_FLAGS = frozenset(
    "allow_properties_access allow_runtime_logging allow_capability_dropping".split()
)


@pytest.fixture(scope="module")
def sidecars(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's archive, this module's own: a change of a source must not change it between two uses."""
    return Path(shutil.copy(ensure(cache), tmp_path_factory.mktemp("sidecars")))


@pytest.fixture(scope="module")
def daemon(cache: Path, sidecars: Path) -> Iterator[PrivateContainerd]:
    folder = Path(tempfile.mkdtemp(prefix="kr-"))
    with PrivateContainerd(Settings(folder, programs(cache), images.PAUSE)) as running:
        for archive in (sidecars, images.ensure(cache / "demo", lambda _text: None)):
            running.ctr("images", "import", str(archive))
        (folder / "parma.toml").write_text(f'firmware = "{ovmf_amdsev(cache)}"\n')
        yield running


def measurement(cache: Path, out: Path) -> str:
    """Of the stub image with two vCPUs, by `parma measure`."""
    image = read_image(cache / "uvm/stub/current").directory
    words = ["--image", str(image), "--ovmf", str(ovmf_amdsev(cache)), "--vcpus", "2", "--json"]
    with pytest.MonkeyPatch.context() as patch, out.open("w") as stream:
        patch.setattr("sys.stdout", stream)
        assert run(["measure", *words]) == 0
    found: str = json.loads(out.read_text())["measurements"]["2"]
    return found


@pytest.fixture(scope="module")
def broker(
    daemon: PrivateContainerd, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("broker")
    expect = {"measurement": measurement(cache, folder / "measured")}
    with broker_beside(daemon, folder / "state", expect) as running:
        yield running


@pytest.fixture(scope="module")
def policy(cache: Path, sidecars: Path, broker: BrokerProcess) -> bytes:
    """Of the group: the sidecar, which may have reports and trusts that broker, and a workload."""
    sidecar, demo = Store(sidecars), Store(images.ensure(cache / "demo", lambda _text: None))
    arguments = f"SkrSideCarArgs={broker.skr_arguments()}"
    containers = (
        sidecar.container("skr", SKR, SKR_COMMAND, env=[arguments], allow_elevated=True),
        demo.container("work", images.BUSYBOX, SLEEP, execs=[["/bin/sh"]]),
    )
    return rego.render(model.Policy(containers, flags=_FLAGS)).encode()


Started = Callable[[bytes], tuple[Pod, str]]


@pytest.fixture(scope="module")
def group(
    daemon: PrivateContainerd, broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    """Starts the group under a policy: pod, and the workload's container."""
    pods: list[Pod] = []

    def start(policy: bytes) -> tuple[Pod, str]:
        folder = tmp_path_factory.mktemp("pod")
        (folder / "logs").mkdir()
        name = f"release-{len(pods)}"
        document = json.loads(pod_config(name, folder / "logs", {ANNOTATION: annotation(policy)}))
        document["linux"]["security_context"] = PRIVILEGED
        config = folder / "pod.json"
        config.write_text(json.dumps(document))
        pod = daemon.crictl("runp", "--runtime", "parma", str(config)).strip()
        pods.append(Pod(daemon, folder, pod, config))
        environment = (("SkrSideCarArgs", broker.skr_arguments()),)
        skr = Member("skr", SKR, SKR_COMMAND, environment)
        pods[-1].run(skr, linux={"security_context": PRIVILEGED})
        return pods[-1], pods[-1].run(WORK)

    yield start
    for pod in pods:
        pod.remove()


def ask(pod: Pod, work: str, path: str, **body: str) -> dict[str, Any]:
    """What the workload is answered on localhost, by busybox's wget; of an error the status alone."""
    data = shlex.quote(json.dumps(body))
    script = f"wget -q -O - --post-data {data} http://127.0.0.1:8080{path} 2>&1 || true"
    answer = pod.sh(work, script, timeout=240)
    if not answer.startswith("{"):
        return {"status": answer.split()[-2]}
    found: dict[str, Any] = json.loads(answer)
    return found


def sidecar_log(pod: Pod) -> str:
    return (pod.folder / "logs/skr.log").read_text()


def wait_until_it_answers(pod: Pod, work: str) -> None:
    for _ in range(60):
        done = pod.sh(work, "wget -q -O - http://127.0.0.1:8080/status || true")
        if done:
            assert json.loads(done) == {"message": "Status OK"}
            return
        time.sleep(1)
    pytest.fail(f"the sidecar does not answer: {sidecar_log(pod)}")


def test_a_key_for_the_right_group(
    group: Started, broker: BrokerProcess, policy: bytes, tmp_path: Path
) -> None:
    broker.import_key("model", SECRET, policy_for(hashlib.sha256(policy).digest()))
    pod, work = group(policy)
    wait_until_it_answers(pod, work)
    wanted = {"maa_endpoint": ISSUER, "akv_endpoint": ISSUER, "kid": "model"}
    answer = ask(pod, work, "/key/release", **wanted)
    assert "key" in answer, (answer, sidecar_log(pod), broker.log)
    assert from_b64url(json.loads(answer["key"])["k"], "k") == SECRET

    runtime = b'{"keys":[]}'
    text = base64.b64encode(runtime).decode()
    raw = ask(pod, work, "/attest/raw", runtime_data=text)
    report = parse(bytes.fromhex(raw["report"]))
    assert report.report_data == hashlib.sha256(runtime).digest() + bytes(32)
    assert report.host_data == hashlib.sha256(policy).digest()
    attested = ask(pod, work, "/attest/maa", maa_endpoint=ISSUER, runtime_data=text)
    claims = json.loads(from_b64url(attested["token"].split(".")[1], "payload"))
    assert claims["x-ms-sevsnpvm-hostdata"] == hashlib.sha256(policy).hexdigest()
    assert claims["x-parma-stub"] is True

    assert ask(pod, work, "/key/release", **wanted | {"kid": "other"}) == {"status": "403"}
    logs = sidecar_log(pod) + broker.log + pod.daemon.log.read_text()
    assert "released model" in sidecar_log(pod)
    assert "reports come from /sys/kernel/config/tsm/report" in sidecar_log(pod)
    for encoded in (SECRET, base64.b64encode(SECRET).rstrip(b"="), SECRET.hex().encode()):
        assert encoded.decode() not in logs


def test_no_key_with_one_byte_of_the_policy_changed(
    group: Started, broker: BrokerProcess, policy: bytes
) -> None:
    broker.import_key("model", SECRET, policy_for(hashlib.sha256(policy).digest()))
    assert policy.endswith(b"\n")
    pod, work = group(policy[:-1] + b" ")
    wait_until_it_answers(pod, work)
    wanted = {"maa_endpoint": ISSUER, "akv_endpoint": ISSUER, "kid": "model"}
    assert ask(pod, work, "/key/release", **wanted) == {"status": "403"}
    assert "do not satisfy the key's release policy" in sidecar_log(pod)
