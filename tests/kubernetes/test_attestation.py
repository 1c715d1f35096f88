"""A group obtains its report, and a key from a broker that runs as a Deployment; under another policy it does not."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from parma_api.policy.defaults import PRIVILEGED_CAPABILITIES
from parma_api.snp.report import parse
from parma_tenant.claims.encoding import from_b64url
from tests.tools.sidecars import ensure as ensure_sidecars

from . import brokerimage
from .cluster.demo import port_forward
from .conftest import MANIFESTS, Lab, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
ISSUER = "https://broker.default.svc.cluster.local:8443"
SECRET = b"canary: the key to the model, 32"
STUB_ROOT = "/var/lib/parma/stub/Milan.ark.pem"
WANTED = {"maa_endpoint": ISSUER, "akv_endpoint": ISSUER, "kid": "model"}
ANNOTATION = "io.parma/policy"


@dataclass(frozen=True, slots=True)
class Group:
    """A manifest under its policy, and what its reports must say."""

    text: str
    host_data: bytes


@dataclass(frozen=True, slots=True)
class Broker:
    """The Deployment, and the administrator's files."""

    lab: Lab
    folder: Path

    def read(self, name: str) -> str:
        script = f"print(open('/state/broker/{name}').read(), end='')"
        where = ("exec", "deployment/broker", "--", "/usr/bin/python3", "-I", "-S", "-c", script)
        return self.lab.cluster.kubectl(*where)

    def arguments(self) -> str:
        """Of a sidecar that trusts this broker alone."""
        return base64.b64encode(
            json.dumps({"trusted_roots": self.read("root.pem")}).encode()
        ).decode()

    def import_key(self, name: str, policy: dict[str, Any]) -> None:
        """From outside of the cluster, as an administrator does it."""
        options = []
        for file, data in {
            "raw": SECRET,
            "release-policy": json.dumps(policy).encode(),
            "root": self.read("root.pem").encode(),
            "admin-token": self.read("admin.token").encode(),
        }.items():
            path = self.folder / file
            path.write_bytes(data)
            options += [f"--{file}", str(path)]
        with port_forward(self.lab.cluster, "service/broker", 8443) as port:
            parma = str(Path(sys.executable).with_name("parma"))
            command = [parma, "broker", "key", "import", name, *options]
            command += ["--broker", f"https://127.0.0.1:{port}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def broker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """It trusts the stub of this node."""
    lab.cluster.load(brokerimage.ensure(lab.cluster.home.cache / "demo"))
    plain = lab.annotated((MANIFESTS / "plain.yaml").read_text())
    lab.apply(plain)  # the stub's root is made for the first pod
    lab.ready("plain")
    lab.delete(plain)
    root = lab.cluster.node("cat", STUB_ROOT)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stub-root"}}
    text = yaml.safe_dump(config | {"data": {"stub.pem": root}}) + "---\n"
    text += (MANIFESTS / "broker.yaml").read_text()
    lab.delete(text)
    lab.apply(text)
    wait = ("rollout", "status", "deployment/broker", "--timeout=120s")
    lab.cluster.kubectl(*wait, timeout=140)
    yield Broker(lab, tmp_path_factory.mktemp("broker"))
    lab.delete(text)


@pytest.fixture(scope="module")
def sidecars(lab: Lab) -> Path:
    archive: Path = ensure_sidecars(lab.cluster.home.cache)
    lab.cluster.load(archive)
    return archive


def group(lab: Lab, broker: Broker, sidecars: Path, name: str, *options: str) -> Group:
    text = (MANIFESTS / "release.yaml").read_text().replace("ARGUMENTS", broker.arguments())
    text = text.replace("{name: release}", f"{{name: {name}}}")
    options = ("--archive", str(sidecars), "--allow-exec", "work=/bin/sh", *options)
    options = ("--profile", str(node_profile(lab, broker.folder)), *options)
    annotated = lab.annotated(text, *options)
    policy = base64.b64decode(yaml.safe_load(annotated)["metadata"]["annotations"][ANNOTATION])
    return Group(annotated, hashlib.sha256(plain(policy)).digest())


def node_profile(lab: Lab, folder: Path) -> Path:
    """A node in a container has fewer capabilities than there are, and gives a privileged container no more."""
    status = lab.cluster.node("cat", "/proc/1/status")
    bits = int(next(line.split()[1] for line in status.splitlines() if "CapEff" in line), 16)
    names = [name for bit, name in enumerate(PRIVILEGED_CAPABILITIES) if bits >> bit & 1]
    about = {"name": "this-node", "version": "1", "about": "capabilities of a node in a container"}
    path = folder / "this-node@1.json"
    path.write_text(json.dumps({**about, "privilegedCapabilities": names}))
    return path


def plain(policy: bytes) -> bytes:
    return gzip.decompress(policy) if policy.startswith(b"\x1f\x8b") else policy


def release_policy(host_data: bytes) -> dict[str, Any]:
    conditions = [
        {"claim": "x-ms-sevsnpvm-hostdata", "equals": host_data.hex()},
        {"claim": "x-ms-sevsnpvm-is-debuggable", "equals": False},
        {"claim": "x-parma-stub", "equals": True},
    ]
    return {"version": "1.0.0", "anyOf": [{"authority": ISSUER, "allOf": conditions}]}


@pytest.fixture(scope="module")
def right(lab: Lab, broker: Broker, sidecars: Path) -> Iterator[Group]:
    found = group(lab, broker, sidecars, "release")
    broker.import_key("model", release_policy(found.host_data))
    lab.delete(found.text)
    lab.apply(found.text)
    lab.ready("release")
    wait_for(lambda: ask(lab, "release", "/status"), 120)
    yield found
    lab.delete(found.text)


def ask(lab: Lab, pod: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    """What the workload is answered on localhost; of an error the status alone, empty while nobody answers."""
    data = "" if body is None else f"--post-data {shlex.quote(json.dumps(body))}"
    script = f"wget -q -O - {data} http://127.0.0.1:8080{path} 2>&1 || true"
    answer = lab.sh(pod, script, "work")
    if answer.startswith("{"):
        found: dict[str, Any] = json.loads(answer)
        return found
    return {"status": answer.split()[-2]} if "HTTP/" in answer else {}


def test_the_groups_report(lab: Lab, right: Group) -> None:
    runtime = b'{"keys":[]}'
    body = {"runtime_data": base64.b64encode(runtime).decode()}
    report = parse(bytes.fromhex(ask(lab, "release", "/attest/raw", body)["report"]))
    assert report.host_data == right.host_data
    assert report.report_data == hashlib.sha256(runtime).digest() + bytes(32)


def test_a_key_for_the_right_group(lab: Lab, right: Group) -> None:
    answer = ask(lab, "release", "/key/release", WANTED)
    logs = lab.cluster.kubectl("logs", "release", "-c", "skr")
    assert "key" in answer, (answer, logs)
    assert from_b64url(json.loads(answer["key"])["k"], "k") == SECRET
    logs += lab.cluster.kubectl("logs", "deployment/broker")
    assert SECRET.decode() not in logs
    assert base64.b64encode(SECRET).decode().rstrip("=") not in logs


def test_none_for_a_group_under_another_policy(
    lab: Lab, broker: Broker, sidecars: Path, right: Group
) -> None:
    other = group(lab, broker, sidecars, "other", "--allow-exec", "work=/bin/id")
    assert other.host_data != right.host_data
    lab.delete(other.text)
    lab.apply(other.text)
    try:
        lab.ready("other")
        wait_for(lambda: ask(lab, "other", "/status"), 120)
        assert ask(lab, "other", "/key/release", WANTED) == {"status": "403"}
    finally:
        lab.delete(other.text)
