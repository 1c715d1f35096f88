"""A pod as kubelet gives it to CRI, in a real VM, under the policy that was generated from its manifest."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parma_shim.demo import group, images
from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd, Settings
from parma_shim.demo.story import cache_folder, programs
from parma_tenant.cli.policy import policy

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.root, pytest.mark.timeout(580)]
UID = "3f6c1a52-0000-4000-8000-000000000001"
SCRIPT = (
    'id -u; id -g; echo "$URL"; cat /conf/greeting /one; echo data > /data/x && cat /data/x; '
    "test ! -w /conf/greeting && echo read-only; cat /var/run/secrets/kubernetes.io/serviceaccount/token; sleep 1000"
)
MANIFEST = f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: conf}}
data: {{port: "8080"}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  enableServiceLinks: false
  volumes:
  - name: data
    emptyDir: {{}}
  - name: conf
    configMap: {{name: conf}}
  containers:
  - name: web
    image: {images.BUSYBOX}
    command: [/bin/sh, -c, {json.dumps(SCRIPT)}]
    env:
    - name: PORT
      valueFrom: {{configMapKeyRef: {{name: conf, key: port}}}}
    - name: IP
      valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}
    - name: URL
      value: http://$(IP):$(PORT)/
    volumeMounts:
    - {{name: data, mountPath: /data}}
    - {{name: conf, mountPath: /conf}}
    - {{name: conf, mountPath: /one, subPath: one}}
    livenessProbe:
      exec: {{command: [/bin/cat, /data/x]}}
    securityContext:
      runAsUser: 1000
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL], add: [CHOWN]}}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateContainerd]:
    archive = images.ensure(cache_folder() / "demo", lambda _text: None)
    folder = tmp_path_factory.mktemp("k")
    with PrivateContainerd(Settings(folder, programs(), images.PAUSE)) as started:
        started.ctr("images", "import", str(archive))
        yield started


def kubelet_mounts(root: Path) -> list[dict[str, Any]]:
    """kubelet's folders, and what it asks CRI to mount."""
    pod = root / "pods" / UID
    volumes, empty = pod / "volumes", pod / "volumes/kubernetes.io~empty-dir/data"
    conf = volumes / "kubernetes.io~configmap/conf"
    token = volumes / "kubernetes.io~projected/kube-api-access-x7k2p"
    one = pod / "volume-subpaths/conf/web/2"
    log = pod / "containers/web/0a1b2c3d"
    for folder in (empty, conf, token, one.parent, log.parent):
        folder.mkdir(parents=True)
    empty.chmod(0o777)
    for path, text in (
        (conf / "greeting", "hello\n"),
        (token / "token", "secret\n"),
        (one, "one\n"),
        (log, ""),
    ):
        path.write_text(text)
    return [
        {"container_path": "/data", "host_path": str(empty)},
        {"container_path": "/conf", "host_path": str(conf), "readonly": True},
        {"container_path": "/one", "host_path": str(one), "readonly": True},
        {
            "container_path": "/var/run/secrets/kubernetes.io/serviceaccount",
            "host_path": str(token),
            "readonly": True,
        },
        {"container_path": "/dev/termination-log", "host_path": str(log)},
    ]


def container_config(mounts: list[dict[str, Any]], **changes: Any) -> str:
    variables = {
        "PORT": "8080", "IP": "10.88.7.9", "URL": "http://10.88.7.9:8080/", "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    }  # fmt: skip
    config = {
        "metadata": {"name": "web"},
        "image": {"image": images.BUSYBOX},
        "command": ["/bin/sh", "-c", SCRIPT],
        "envs": [{"key": key, "value": value} for key, value in variables.items()],
        "mounts": mounts,
        "log_path": "web.log",
        "linux": {
            "security_context": {
                "namespace_options": {"pid": 1},
                "run_as_user": {"value": 1000},
                "no_new_privs": True,
                "capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["CHOWN"]},
            }
        },
    }
    return json.dumps(config | changes)


def test_a_pod_of_kubernetes_runs_under_its_policy_and_nothing_else(
    daemon: PrivateContainerd, tmp_path: Path
) -> None:
    manifest, text = tmp_path / "pod.yaml", tmp_path / "p.rego"
    manifest.write_text(MANIFEST)
    store = ("--containerd", str(daemon.folder / "root"), "--offline")
    made = CliRunner().invoke(policy, ["generate", str(manifest), *store, "--output", str(text)])
    assert made.exit_code == 0, made.stderr
    annotations = {group.ANNOTATION: base64.b64encode(text.read_bytes()).decode()}
    sandbox = tmp_path / "sandbox.json"
    sandbox.write_text(group.pod_config("web", tmp_path, annotations))
    mounts = kubelet_mounts(tmp_path / "kubelet")

    def create(config: str) -> str:
        path = tmp_path / "c.json"
        path.write_text(config)
        created = daemon.crictl("create", pod, str(path), str(sandbox)).strip()
        daemon.crictl("start", created)
        return created

    pod = daemon.crictl("runp", "--runtime", "parma", str(sandbox), timeout=300).strip()
    elsewhere = [{**mounts[0], "container_path": "/bin"}, *mounts[1:]]
    writable = [mounts[0], {**mounts[1], "readonly": False}, *mounts[2:]]
    plain = {"security_context": {"namespace_options": {"pid": 1}}}
    attempts: tuple[tuple[list[dict[str, Any]], dict[str, Any], str], ...] = (
        (elsewhere, {}, "process.mounts"),
        (writable, {}, "process.mounts"),
        (mounts, {"envs": [{"key": "KUBERNETES_SERVICE_HOST", "value": "evil"}]}, "process.env"),
        (mounts, {"linux": plain}, "process.user"),
    )
    for number, (asked, changes, code) in enumerate(attempts):
        changes["metadata"] = {"name": f"attempt-{number}"}
        with pytest.raises(CommandFailedError) as refused:
            create(container_config(asked, **changes))
        assert code in refused.value.message
    container = create(container_config(mounts))
    wanted = [
        "1000",
        "1000",
        "http://10.88.7.9:8080/",
        "hello",
        "one",
        "data",
        "read-only",
        "secret",
    ]
    end = time.monotonic() + 60
    while (found := daemon.crictl("logs", container).split()) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.5)
    assert daemon.crictl("exec", "--sync", container, "/bin/cat", "/data/x").strip() == "data"
    with pytest.raises(CommandFailedError, match=r"process\.command"):
        daemon.crictl("exec", "--sync", container, "/bin/sh")
    daemon.crictl("stopp", pod)
    daemon.crictl("rmp", pod)
