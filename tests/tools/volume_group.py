"""A group with the key-release sidecar, the encrypted volume sidecar and a container that uses the volumes."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parma_shim.demo.daemon import PrivateContainerd, run_checked
from parma_shim.demo.group import Member, pod_config
from parma_tenant.generate import model, rego
from tests.e2e.conftest import ANNOTATION, Pod, Store, annotation
from tests.tools.broker import GATEWAY, ISSUER, PARMA, PORT, BrokerProcess
from tests.tools.sidecars import SKR, SKR_COMMAND, VOLUME, VOLUME_COMMAND

PRIVILEGED = {"privileged": True, "namespace_options": {"pid": 1}}
PLACE = "/volumes"
BLOB_PORT = 8480
_SOURCE = "sandbox:///volumes/empty-dir/volumes"
_BIDIRECTIONAL, _HOST_TO_CONTAINER = 2, 1
_FLAGS = frozenset(
    "allow_properties_access allow_runtime_logging allow_capability_dropping".split()
)


@contextlib.contextmanager
def blobs_beside(daemon: PrivateContainerd, folder: Path) -> Iterator[str]:
    """The files of a folder by `parma volume serve`, where pods reach them; the URL before a file's name."""
    blobs = [str(path) for path in sorted(folder.iterdir())]
    command = [*daemon.inside(), PARMA, "volume", "serve", *blobs, "--writable", "--json"]
    command += ["--listen", f"0.0.0.0:{BLOB_PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert len(json.loads(process.stdout.readline())) == len(blobs)
            yield f"http://{GATEWAY}:{BLOB_PORT}/"
        finally:
            process.terminate()
            assert process.wait(30) == 0


@contextlib.contextmanager
def kubelet_folder(root: Path) -> Iterator[Path]:
    """The host's folder of an emptyDir named `volumes`, on a shared mount, as kubelet's are."""
    folder = (
        root / "pods/11111111-2222-3333-4444-555555555555/volumes/kubernetes.io~empty-dir/volumes"
    )
    folder.mkdir(parents=True)
    run_checked(["mount", "--bind", str(root), str(root)])
    try:
        run_checked(["mount", "--make-shared", str(root)])
        yield folder
    finally:
        run_checked(["umount", "--lazy", str(root)])


def create_volume(out: Path, key: Path, *words: str) -> dict[str, Any]:
    """`parma volume create`, as a tenant runs it."""
    command = [PARMA, "volume", "create", str(out), "--key", str(key), "--json", *words]
    found: dict[str, Any] = json.loads(run_checked(command, timeout=300))
    return found


def import_key(broker: BrokerProcess, name: str, jwk: Path, policy: Mapping[str, object]) -> None:
    """`parma broker key import`, as its administrator runs it."""
    file = jwk.with_suffix(".policy")
    file.write_text(json.dumps(policy))
    here = ["--broker", f"https://127.0.0.1:{PORT}", "--root", str(broker.state / "root.pem")]
    here += ["--admin-token", str(broker.state / "admin.token")]
    words = ["--jwk", str(jwk), "--release-policy", str(file)]
    run_checked([*broker.daemon.inside(), PARMA, "broker", "key", "import", name, *here, *words])


def settings(volumes: Sequence[Mapping[str, object]]) -> str:
    """ParmaVolumes."""
    document = {"volumes": list(volumes), "maa_endpoint": ISSUER, "akv_endpoint": ISSUER}
    return base64.b64encode(json.dumps(document).encode()).decode()


@dataclass(frozen=True)
class Plan:
    """What the policy and the requests say of the group."""

    sidecars: Store
    users: Store
    broker: BrokerProcess
    volumes: str
    """ParmaVolumes."""
    user: Member

    def policy(self) -> bytes:
        """It allows exactly this group."""
        skr = self.sidecars.container(
            "skr", SKR, SKR_COMMAND, env=[f"SkrSideCarArgs={self.broker.skr_arguments()}"],
            allow_elevated=True,
        )  # fmt: skip
        volume = self.sidecars.container(
            "volume", VOLUME, VOLUME_COMMAND, env=[f"ParmaVolumes={self.volumes}"],
            allow_elevated=True, mounts=(_rule("rshared", "rw"),), capabilities=_mounting(),
        )  # fmt: skip
        user = self.users.container(
            self.user.name, self.user.image, self.user.command,
            execs=self.user.execs, mounts=(_rule("rslave", "rw"),),
        )  # fmt: skip
        return rego.render(model.Policy((skr, volume, user), flags=_FLAGS)).encode()

    def members(self) -> tuple[Member, Member]:
        """The two sidecars."""
        return (
            Member("skr", SKR, SKR_COMMAND, (("SkrSideCarArgs", self.broker.skr_arguments()),)),
            Member("volume", VOLUME, VOLUME_COMMAND, (("ParmaVolumes", self.volumes),)),
        )


def _mounting() -> model.CapabilityRule:
    """Docker's default ones, and what mounting takes; of the rest of `privileged` the policy leaves nothing."""
    names = tuple(sorted({*model.DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"}))
    return model.CapabilityRule(names, names, (), names, ())


def _rule(propagation: str, access: str) -> model.MountRule:
    return model.MountRule(PLACE, _SOURCE, ("rbind", propagation, access))


def start(
    daemon: PrivateContainerd, folder: Path, plan: Plan, policy: bytes, shared: Path
) -> tuple[Pod, dict[str, str]]:
    """The pod and its containers' ids by name; the user of the volumes starts first and waits for them."""
    (folder / "logs").mkdir(parents=True)
    document = json.loads(
        pod_config(folder.name, folder / "logs", {ANNOTATION: annotation(policy)})
    )
    document["linux"]["security_context"] = PRIVILEGED
    config = folder / "pod.json"
    config.write_text(json.dumps(document))
    pod = Pod(
        daemon, folder, daemon.crictl("runp", "--runtime", "parma", str(config)).strip(), config
    )
    try:
        skr, _ = plan.members()
        ids = {"user": pod.run(plan.user, mounts=[_mount(shared, _HOST_TO_CONTAINER)])}
        ids["skr"] = pod.run(skr, linux={"security_context": PRIVILEGED})
        ids["volume"] = run_volume_sidecar(pod, plan, shared)
    except BaseException:
        pod.remove()
        raise
    return pod, ids


def run_volume_sidecar(pod: Pod, plan: Plan, shared: Path, attempt: int = 0) -> str:
    """The sidecar's container."""
    _, volume = plan.members()
    return pod.run(
        volume,
        metadata={"name": volume.name, "attempt": attempt},
        linux={"security_context": PRIVILEGED},
        mounts=[_mount(shared, _BIDIRECTIONAL)],
    )


def _mount(source: Path, propagation: int) -> dict[str, object]:
    return {"container_path": PLACE, "host_path": str(source), "propagation": propagation}


def log_of(pod: Pod, name: str) -> str:
    """What a container has written."""
    path = pod.folder / f"logs/{name}.log"
    return path.read_text() if path.exists() else ""


def wait_for_line(pod: Pod, name: str, text: str, seconds: float = 240, skip: int = 0) -> str:
    """The container's log once `text` is in it, behind the first letters; the failure shows what there is."""
    deadline = time.monotonic() + seconds
    while text not in (said := log_of(pod, name))[skip:]:
        assert time.monotonic() < deadline, (
            f"{name} does not say {text!r}:\n{said}\n{log_of(pod, 'skr')}"
        )
        time.sleep(0.5)
    return said
