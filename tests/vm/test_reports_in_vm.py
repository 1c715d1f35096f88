"""Reports as software in a container gets them: by the kernel's own interfaces, through shim, containerd and a real VM.

The client is a static C program that knows nothing of the stub. One pod: a privileged container that the policy allows,
an ordinary one, and what each of them finds; verified by `parma attest verify` with the stub's root named.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parma_api.cli import run
from parma_api.launch import read_image
from parma_api.snp.report import parse
from parma_shim.demo import images
from parma_shim.demo.daemon import CommandFailedError, PrivateContainerd, Settings
from parma_shim.demo.group import Member, pod_config
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive
from parma_tenant.generate import model, rego
from parma_tenant.verify.transcript import head_after, parse_transcript
from tests.e2e.conftest import ANNOTATION, Pod, Store, annotation, programs
from tests.tools.ovmf_amdsev import ovmf_amdsev

pytestmark = [
    pytest.mark.vm,
    pytest.mark.containerd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]
IMAGE = "parma.example/snp-client:1"
SOCKET = "/run/parma/report/agent.sock"
SLEEP = ("/bin/sleep", "1000000")
READER = Member("reader", IMAGE, SLEEP)
OTHER = Member("other", IMAGE, ("/bin/sleep", "2000000"))
EFAULT, EIO, EINVAL, ENOTTY = 14, 5, 22, 25
PRIVILEGED = {"privileged": True, "namespace_options": {"pid": 1}}


@pytest.fixture(scope="module")
def store(cache: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The client in an image of its own, on the demo's busybox."""
    folder = tmp_path_factory.mktemp("client")
    source = repository / "tests/fixtures/snp_client.c"
    command = ["musl-gcc", "-static", "-O2", "-Wall", "-Werror", "-o", folder / "snp", source]
    subprocess.run(command, check=True)
    demo = Store(images.ensure(cache / "demo", lambda _text: None))
    base = gzip.decompress(demo.image(images.BUSYBOX)[1][0])
    client = layer_tar([Entry("bin/snp", 0o755, (folder / "snp").read_bytes())])
    archive = folder / "images.tar"
    write_archive([Image(IMAGE, (base, client), ImageConfig(cmd=("/bin/sh",)))], archive)
    return Store(archive)


@pytest.fixture(scope="module")
def daemon(cache: Path, store: Store) -> Iterator[PrivateContainerd]:
    folder = Path(tempfile.mkdtemp(prefix="pr-"))
    with PrivateContainerd(Settings(folder, programs(cache), images.PAUSE)) as running:
        for archive in (store.archive, images.ensure(cache / "demo", lambda _text: None)):
            running.ctr("images", "import", str(archive))
        (folder / "parma.toml").write_text(f'firmware = "{ovmf_amdsev(cache)}"\n')
        yield running


@pytest.fixture(scope="module")
def policy(store: Store) -> bytes:
    shell = [["/bin/sh"]]
    containers = (
        store.container("reader", IMAGE, SLEEP, execs=shell, allow_elevated=True),
        store.container("other", IMAGE, OTHER.command, execs=shell),
    )
    allowed = "allow_properties_access allow_runtime_logging allow_capability_dropping"
    flags = frozenset(allowed.split())
    return rego.render(model.Policy(containers, flags=flags)).encode()


@pytest.fixture(scope="module")
def pod(
    daemon: PrivateContainerd, policy: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("pod")
    (folder / "logs").mkdir()
    document = json.loads(pod_config("reports", folder / "logs", {ANNOTATION: annotation(policy)}))
    document["linux"]["security_context"] = PRIVILEGED
    config = folder / "pod.json"
    config.write_text(json.dumps(document))
    name = daemon.crictl("runp", "--runtime", "parma", str(config)).strip()
    started = Pod(daemon, folder, name, config)
    yield started
    started.remove()


@pytest.fixture(scope="module")
def reader(pod: Pod) -> str:
    return pod.run(READER, linux={"security_context": PRIVILEGED})


@pytest.fixture(scope="module")
def other(pod: Pod, reader: str) -> str:
    del reader  # which brought the devices into being
    return pod.run(OTHER)


@dataclass(frozen=True)
class Said:
    """What the client printed: words by the first word of the line."""

    lines: dict[str, list[str]]

    def __getitem__(self, name: str) -> list[str]:
        return self.lines[name]

    def data(self, name: str) -> bytes:
        return bytes.fromhex(self.lines[name][0])


def snp(pod: Pod, container: str, words: str) -> Said:
    output = pod.sh(container, f"/bin/snp {words} || true")
    return Said({line.split()[0]: line.split()[1:] for line in output.splitlines()})


def attest(
    daemon: PrivateContainerd,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, Path],
    expect: dict[str, object],
) -> tuple[int, dict[str, Any]]:
    """`parma attest verify` with the stub's root named."""
    root = daemon.folder / "lib/stub/Milan.ark.pem"
    given = files | {"trust-root": root, "expect": files["report"].with_suffix(".expect")}
    given["expect"].write_text(json.dumps(expect))
    capsys.readouterr()
    words = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    status = run(["attest", "verify", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def stub_measurement(cache: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `parma measure` says of the stub image with two vCPUs."""
    image = read_image(cache / "uvm/stub/current").directory
    capsys.readouterr()
    words = ["--image", str(image), "--ovmf", str(ovmf_amdsev(cache)), "--vcpus", "2", "--json"]
    assert run(["measure", *words]) == 0
    found: str = json.loads(capsys.readouterr().out)["measurements"]["2"]
    return found


def test_a_report_through_the_device_verifies(
    daemon: PrivateContainerd,
    pod: Pod,
    reader: str,
    policy: bytes,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = snp(pod, reader, "report 100")
    assert plain["response"] == ["0", "1184"]
    extended = snp(pod, reader, "ext 100 8192")
    assert extended["ext"][:2] == ["0", "0"]
    expect = {
        "report_data": "64" * 64,
        "host_data": hashlib.sha256(policy).hexdigest(),
        "measurement": stub_measurement(cache, capsys),
        "vmpl": 0,
    }
    files = {"report": tmp_path / "report", "certs": tmp_path / "table"}
    files["certs"].write_bytes(extended.data("certs"))
    for said in (plain, extended):
        files["report"].write_bytes(said.data("report"))
        status, found = attest(daemon, capsys, files, expect)
        assert (status, found["verdict"], found["claims"]["stub"]) == (0, "accept", True)
    wrong = {**expect, "host_data": "00" * 32}
    status, found = attest(daemon, capsys, files, wrong)
    failed = [check["name"] for check in found["checks"] if check["result"] == "fail"]
    assert (status, failed) == (1, ["value.host_data"])
    ids = {parse(said.data("report")).report_id for said in (plain, extended)}
    assert len(ids) == 1


def test_errors_are_the_kernels(pod: Pod, reader: str) -> None:
    output = pod.sh(reader, "/bin/snp errors")
    rows = [line.split() for line in output.splitlines()]
    found = [
        (name, int(number), info) for name, _, number, info in (r for r in rows if len(r) == 4)
    ]
    assert found == [
        ("version", EINVAL, "0x0"),
        ("no-request", EINVAL, "0xff"),
        ("no-response", EINVAL, "0xff"),
        ("bad-request", EFAULT, "0x0"),
        ("bad-response", EFAULT, "0x0"),
        ("unknown", ENOTTY, "0xff"),
        ("bad-argument", EFAULT, "0x0"),
        ("vmpl", 0, "0x0"),
        ("ext", EINVAL, "0xff"),
        ("ext", EINVAL, "0xff"),
        ("ext", EIO, "0x100000000"),
        ("ext", EIO, "0x100000000"),
    ]
    assert ["vmpl-status", str(0x16)] in rows
    lengths = [row[1] for row in rows if row[0] == "certs_len"]
    assert lengths == ["100", "65536", "8192", "8192"]


def test_derived_keys(pod: Pod, reader: str) -> None:
    first, again, other = (snp(pod, reader, f"key {fields}") for fields in (0, 0, 8))
    assert first["status"] == again["status"] == other["status"] == ["0"]
    assert first.data("derived") == again.data("derived") != other.data("derived")
    assert any(first.data("derived"))
    assert snp(pod, reader, "key 0x80")["status"] == [str(0x16)]


def test_configfs_tsm(
    daemon: PrivateContainerd,
    pod: Pod,
    reader: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = """
    cd /sys/kernel/config/tsm/report && mkdir mine && cd mine
    cat outblob 2>&1 || true
    head -c 64 /dev/zero | tr '\\0' d > inblob
    cat generation provider
    for name in outblob auxblob; do od -An -v -tx1 $name | tr -d ' \\n'; echo; done
    dd if=/dev/zero of=inblob bs=65 count=1 2>&1 | grep -c "File too large"
    cat generation
    cd .. && rmdir mine && ls
    """
    lines = pod.sh(reader, script).splitlines()
    assert lines[0] == "cat: read error: Invalid argument"
    assert lines[1:3] == ["1", "sev_guest"]
    files = {"report": tmp_path / "report", "certs": tmp_path / "table"}
    for path, line in zip(files.values(), lines[3:5], strict=True):
        path.write_bytes(bytes.fromhex(line))
    status, found = attest(daemon, capsys, files, {"report_data": "64" * 64})
    assert (status, found["claims"]["stub"]) == (0, True)
    assert lines[5:] == ["1", "1"], "too long a blob is refused and changes nothing"


def test_the_node_is_roots_and_says_what_it_is(pod: Pod, reader: str) -> None:
    listed = pod.sh(reader, "ls -l /dev/sev-guest; stat -c %F /dev/sev-guest")
    assert listed.startswith("crw------- ")
    assert "character special file" in listed


def test_an_ordinary_container_has_none_of_it(pod: Pod, reader: str, other: str) -> None:
    major, minor = (
        int(number, 16) for number in pod.sh(reader, "stat -c '%t %T' /dev/sev-guest").split()
    )
    script = f"""
    ls /dev /run 2>&1
    ls /sys/kernel/config/tsm 2>&1 || true
    /bin/snp report 1
    /bin/snp get {SOCKET} /transcript
    mknod /tmp/node c {major} {minor}
    (: < /tmp/node) 2>&1 || true
    """
    output = pod.sh(other, script)
    assert "sev-guest" not in output
    assert "parma" not in output
    assert "ls: /sys/kernel/config/tsm: No such file or directory" in output.splitlines()
    assert "open 2" in output.splitlines()
    assert "error 2" in output.splitlines()
    assert "can't open /tmp/node: Operation not permitted" in output


def test_the_policy_must_allow_it(pod: Pod) -> None:
    with pytest.raises(CommandFailedError) as caught:
        pod.run(Member("third", IMAGE, OTHER.command), linux={"security_context": PRIVILEGED})
    assert "create_container denied by policy" in caught.value.message


def test_the_transcript_is_bound_and_replays(
    daemon: PrivateContainerd,
    pod: Pod,
    reader: str,
    policy: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nonce = "5a" * 32
    evidence = json.loads(pod.sh(reader, f"/bin/snp get {SOCKET} /evidence/{nonce} 2>/dev/null"))
    files = {name: tmp_path / name for name in ("report", "certs", "transcript", "policy")}
    files["report"].write_bytes(bytes.fromhex(evidence["report"]))
    files["certs"].write_bytes(snp(pod, reader, "ext 0 8192").data("certs"))
    text = json.dumps(evidence["transcript"])
    files["transcript"].write_text(text)
    files["policy"].write_bytes(policy)
    expect = {"host_data": hashlib.sha256(policy).hexdigest()}
    status, found = attest(daemon, capsys, files, expect)
    checks = {check["name"]: check for check in found["checks"]}
    assert status == 0, [check for check in checks.values() if check["result"] == "fail"]
    for name in ("chain", "bound", "replay"):
        assert checks[f"transcript.{name}"]["result"] == "pass"
    head = evidence["transcript"]["head"]
    assert parse(files["report"].read_bytes()).report_data.hex() == nonce + head
    points = [json.loads(entry)["point"] for entry in evidence["transcript"]["entries"]]
    assert "create_container" in points

    entries = evidence["transcript"]["entries"]
    for changed in (
        {"entries": entries[:-1]},
        {"entries": [entry.replace("true", "false", 1) for entry in entries]},
    ):
        files["transcript"].write_text(json.dumps(evidence["transcript"] | changed))
        assert attest(daemon, capsys, files, expect)[0] == 1


def test_a_container_binds_the_head_itself(pod: Pod, reader: str) -> None:
    script = f"/bin/snp get {SOCKET} /transcript 2>/dev/null"
    transcript = parse_transcript(pod.sh(reader, script).encode())
    assert head_after(transcript.base, transcript.texts) == transcript.head
    after = parse_transcript(pod.sh(reader, script).encode())
    assert after.texts[: len(transcript.texts)] == transcript.texts
    assert len(after.texts) > len(transcript.texts), "the exec in between is a decision"
    head = pod.sh(reader, f"/bin/snp get {SOCKET} /transcript/head 2>/dev/null").strip()
    assert head != after.head.hex()
    posted = pod.sh(reader, f"/bin/snp post {SOCKET} /report 7 2>/dev/null | od -An -v -tx1")
    assert parse(bytes.fromhex("".join(posted.split()))).report_data == b"\7" * 64
