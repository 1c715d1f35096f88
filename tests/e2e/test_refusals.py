"""Bad input that no VM is needed for: a specific line at the caller, and nothing left behind."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim.demo import images
from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd, run_checked
from parma_shim.demo.group import pod_config
from tests.tools.oci_image import Image, layer_tar

from .conftest import ANNOTATION, Store, annotation, policy_text
from .observe import configured, leavings, wait_as_before

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(120)]
TRUE = ("/bin/true",)
RUNTIME = "io.containerd.parma.v2"


@pytest.fixture(scope="module")
def good(store: Store) -> str:
    return annotation(policy_text(store.container("box", images.BUSYBOX, TRUE)))


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: PrivateContainerd) -> Iterator[None]:
    before = leavings(daemon)
    yield
    wait_as_before(daemon, before)


def refused_pod(daemon: PrivateContainerd, folder: Path, **changes: object) -> str:
    """The line that crictl shows of a pod that is refused."""
    (folder / "logs").mkdir(exist_ok=True)
    config = json.loads(pod_config(f"bad-{os.urandom(4).hex()}", folder / "logs", {}))
    (folder / "bad.json").write_text(json.dumps(config | changes))
    with pytest.raises(CommandFailedError) as caught:
        daemon.crictl("runp", "--runtime", "parma", str(folder / "bad.json"))
    return caught.value.message.splitlines()[-1]


def refused_run(daemon: PrivateContainerd, policy: str, image: str = images.BUSYBOX) -> str:
    """The line that ctr shows of a container that is refused; its record is removed."""
    name = f"bad-{os.urandom(4).hex()}"
    options = ("--rm", "--runtime", RUNTIME, "--annotation", f"{ANNOTATION}={policy}")
    try:
        with pytest.raises(CommandFailedError) as caught:
            daemon.ctr("run", *options, image, name, *TRUE, namespace="default")
    finally:
        with contextlib.suppress(CommandFailedError):
            daemon.ctr("containers", "delete", name, namespace="default")
    return caught.value.message.splitlines()[-1]


POLICIES = {
    "broken": ("not!base64", "annotation io.parma/policy is not base64"),
    "empty": ("", "annotation io.parma/policy holds an empty policy"),
    "oversized": (
        base64.b64encode(b"#" * ((2 << 20) + 1)).decode(),
        "annotation io.parma/policy is too long: at most 2097152 bytes",
    ),
    "bomb": (
        base64.b64encode(gzip.compress(b"#" * ((2 << 20) + 1))).decode(),
        "the policy has more than 2097152 bytes unpacked",
    ),
    "cut": (
        base64.b64encode(gzip.compress(b"package policy")[:-3]).decode(),
        "the gzip in it is cut short",
    ),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_a_bad_policy_annotation(daemon: PrivateContainerd, tmp_path: Path, kind: str) -> None:
    value, expected = POLICIES[kind]
    assert expected in refused_pod(daemon, tmp_path, annotations={ANNOTATION: value})


def test_no_policy_at_all(daemon: PrivateContainerd, tmp_path: Path) -> None:
    line = refused_pod(daemon, tmp_path)
    assert "no policy: annotate the pod with io.parma/policy" in line
    assert "default_policy" in line


@pytest.mark.parametrize(
    ("kind", "name"), [("network", "hostNetwork"), ("pid", "hostPID"), ("ipc", "hostIPC")]
)
def test_namespaces_of_the_host(
    daemon: PrivateContainerd, tmp_path: Path, good: str, kind: str, name: str
) -> None:
    context = {"security_context": {"namespace_options": {"pid": 1, kind: 2}}}
    line = refused_pod(daemon, tmp_path, annotations={ANNOTATION: good}, linux=context)
    assert f"{name} is not possible: a utility VM has namespaces of its own" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('qemu = "/nonexistent/qemu"\n', "/nonexistent/qemu is not there: apt install"),
        ("nonsense = 1\n", "unknown key 'nonsense'"),
        ("not toml", "is not TOML"),
    ],
    ids=["no-qemu", "unknown-key", "no-toml"],
)
def test_a_bad_configuration(
    daemon: PrivateContainerd, tmp_path: Path, good: str, text: str, expected: str
) -> None:
    with configured(daemon, text):
        line = refused_pod(daemon, tmp_path, annotations={ANNOTATION: good})
    assert expected in line


_scripts = tempfile.TemporaryDirectory(prefix="parma-stub-")


def _program(body: str) -> Path:
    """A program that QEMU's own user may run."""
    folder = Path(_scripts.name)
    folder.chmod(0o755)
    path = folder / f"qemu-{len(list(folder.iterdir()))}"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH | stat.S_IROTH)
    return path


SILENT = {
    "sleeps": ("exec sleep 1000", "no answer in 1 s"),
    "garbage": (
        "head -c 100000 /dev/urandom >&5; exec sleep 1000",
        "did not come up: the channel to the agent ended before its first answer",
    ),
    "zeros": (
        "head -c 8000000 /dev/zero >&5; exec sleep 1000",
        "did not come up: the channel to the agent ended before its first answer",
    ),
    "ends": ("echo no such machine >&2; exit 3", "exit status 3; QEMU's last words: no such"),
}


@pytest.mark.parametrize("kind", SILENT)
def test_a_guest_that_never_answers(
    daemon: PrivateContainerd, tmp_path: Path, good: str, kind: str
) -> None:
    """Twice: a boot that fails before the first answer is tried once more."""
    body, expected = SILENT[kind]
    with configured(daemon, f'qemu = "{_program(body)}"\nboot_deadline = 1\n'):
        line = refused_pod(daemon, tmp_path, annotations={ANNOTATION: good})
    assert expected in line


def test_the_release_image_without_snp(
    daemon: PrivateContainerd, tmp_path: Path, good: str
) -> None:
    """Its absence is a table of tests/unit/shim/vmm; this is the choice that the host cannot follow."""
    with configured(daemon, 'image = "release"\n'):
        line = refused_pod(daemon, tmp_path, annotations={ANNOTATION: good})
    assert "no SEV-SNP: " in line


def test_an_image_without_layers(daemon: PrivateContainerd, tmp_path: Path, good: str) -> None:
    name = "parma.example/hollow:1"
    archive = Image([]).write(tmp_path / "hollow.tar", name)
    daemon.ctr("images", "import", "--no-unpack", str(archive), namespace="default", timeout=60)
    try:
        line = refused_run(daemon, good, name)
    finally:
        daemon.ctr("images", "rm", "--sync", name, namespace="default")
    assert "the image has no layers" in line


def test_a_missing_blob(daemon: PrivateContainerd, tmp_path: Path, good: str) -> None:
    """Unpacked by containerd, then gone from its store: as with discard_unpacked_layers."""
    name = "parma.example/gone:1"
    made = Image([layer_tar("file", os.urandom(100))])
    archive = made.write(tmp_path / "gone.tar", name)
    daemon.ctr("images", "import", str(archive), namespace="default")
    blob = next(
        key for key, data in made.blobs.items() if data.startswith(b"\x1f\x8b")
    ).removeprefix("sha256:")
    try:
        daemon.ctr("content", "rm", f"sha256:{blob}", namespace="default")
        line = refused_run(daemon, good, name)
    finally:
        daemon.ctr("images", "rm", "--sync", name, namespace="default")
    assert f"containerd's content store lacks sha256:{blob}: pull the image again" in line


def test_a_full_disk(daemon: PrivateContainerd, good: str) -> None:
    layers = daemon.folder / "lib/layers"
    layers.mkdir(parents=True, exist_ok=True)
    run_checked(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(layers)])
    try:
        line = refused_run(daemon, good)
        left = [path for path in layers.rglob("*") if path.is_file() and path.stat().st_size]
    finally:
        subprocess.run(["umount", "-l", str(layers)], check=True)
    assert f"no room left in {layers}: free some" in line
    assert left == []


def test_a_policy_that_is_no_rego(daemon: PrivateContainerd, tmp_path: Path) -> None:
    """The one refusal here that needs a VM: the guest reads the text."""
    policy = annotation(b"package policy\n\nthis is no rule (\n")
    line = refused_pod(daemon, tmp_path, annotations={ANNOTATION: policy})
    assert "policy.invalid: the text is refused: line " in line
