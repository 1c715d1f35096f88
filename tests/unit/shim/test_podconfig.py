"""A pod's policy, fragments and size: the order of the ways, and every way to get it wrong."""

from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

import pytest

from parma_api.launch import VmSize
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_shim import podconfig
from parma_shim.config import Config
from parma_shim.podconfig import (
    ACI_POLICY,
    FRAGMENTS,
    MEMORY,
    POLICY,
    SIZE,
    RuntimeOptions,
    pod_config,
)

TEXT = b"package policy\n"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


ANNOTATED = {POLICY: b64(TEXT)}


def test_the_order_of_the_ways(tmp_path: Path) -> None:
    for name in ("option", "default"):
        (tmp_path / name).write_text(name)
    (tmp_path / "options.toml").write_text('policy = "option"\n')
    config = Config(default_policy=tmp_path / "default")
    options = RuntimeOptions(config_path=str(tmp_path / "options.toml"))
    annotations = {POLICY: b64(b"ours"), ACI_POLICY: b64(b"aci"), "other": "x"}
    assert pod_config(config, annotations, options).policy.text == b"ours"
    del annotations[POLICY]
    assert pod_config(config, annotations, options).policy.text == b"aci"
    assert pod_config(config, {}, options).policy.text == b"option"
    assert pod_config(config, {}, RuntimeOptions()).policy.text == b"default"
    with pytest.raises(FailedPreconditionError, match=r"^no policy: annotate"):
        pod_config(Config(), {}, RuntimeOptions())


@pytest.mark.parametrize("encoded", [b64(TEXT), b64(gzip.compress(TEXT)), b64(TEXT) + "\n"])
def test_host_data_is_of_the_decoded_text(encoded: str) -> None:
    policy = pod_config(Config(), {POLICY: encoded}, RuntimeOptions()).policy
    assert policy.text == TEXT
    assert policy.host_data == hashlib.sha256(TEXT).digest()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty policy"),
        ("not base64!", "is not base64"),
        ("YWJj ZGVm", "is not base64"),
        ("YWJ", "is not base64"),
        (b64(gzip.compress(TEXT)[:-1]), "cut short"),
        (b64(gzip.compress(TEXT) + b"x"), "follows"),
        (b64(gzip.compress(b"")), "empty policy"),
        (b64(b"\x1f\x8b" + bytes(20)), "broken"),
        (b64(gzip.compress(bytes(podconfig.MAX_POLICY + 1))), "more than"),
        ("A" * (podconfig.MAX_POLICY * 2), "too long"),
        (b64(b"#" * (podconfig.MAX_POLICY + 1)), "too long"),
    ],
)
def test_bad_policies(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        pod_config(Config(), {POLICY: text}, RuntimeOptions())


def test_a_broken_first_way_does_not_fall_through(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("allow all")
    with pytest.raises(InvalidArgumentError):
        pod_config(Config(default_policy=tmp_path / "p"), {POLICY: "!"}, RuntimeOptions())


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("policy = 5", "must be a path"),
        ("fragments = 'x'", "list of paths"),
        ("fragments = [1]", "list of paths"),
        ("polcy = 'x'", "unknown key 'polcy'"),
        ("policy = 'none'", "No such file"),
        ("[", "not TOML"),
    ],
)
def test_bad_options(tmp_path: Path, toml: str, reason: str) -> None:
    (tmp_path / "o.toml").write_text(toml)
    with pytest.raises(InvalidArgumentError, match=reason):
        pod_config(Config(), {}, RuntimeOptions(config_path=str(tmp_path / "o.toml")))


def test_a_body_may_hold_containerds_own_keys(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_bytes(TEXT)
    body = f'SystemdCgroup = false\npolicy = "{tmp_path}/p.rego"\n'.encode()
    assert pod_config(Config(), {}, RuntimeOptions(config_body=body)).policy.text == TEXT
    with pytest.raises(InvalidArgumentError, match="not TOML"):
        pod_config(Config(), {}, RuntimeOptions(config_body=b"\xff"))


def test_fragments_in_order(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"third")
    (tmp_path / "o.toml").write_text('fragments = ["f"]')
    annotations = {**ANNOTATED, FRAGMENTS: f"{b64(b'first')},{b64(b'second')}"}
    pod = pod_config(Config(), annotations, RuntimeOptions(config_path=str(tmp_path / "o.toml")))
    assert pod.fragments == (b"first", b"second", b"third")
    with pytest.raises(InvalidArgumentError, match="more than 64"):
        pod_config(Config(), {**ANNOTATED, FRAGMENTS: "," * 64}, RuntimeOptions())


@pytest.mark.parametrize(
    ("annotations", "size", "memory"),
    [
        ({}, VmSize.MEDIUM, 2048),
        ({SIZE: "small", MEMORY: "512"}, VmSize.SMALL, 512),
        ({"io.kubernetes.cri.sandbox-memory": str(1 << 30)}, VmSize.MEDIUM, 1280),
        ({"io.kubernetes.cri.sandbox-memory": "1"}, VmSize.MEDIUM, 257),
        ({"io.kubernetes.cri.sandbox-memory": "0"}, VmSize.MEDIUM, 2048),
        ({"io.kubernetes.cri.sandbox-memory": str(1 << 30), MEMORY: "600"}, VmSize.MEDIUM, 600),
    ],
)
def test_sizes(annotations: dict[str, str], size: VmSize, memory: int) -> None:
    pod = pod_config(Config(), ANNOTATED | annotations, RuntimeOptions())
    assert (pod.size, pod.memory_mib) == (size, memory)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (SIZE, "huge"),
        (SIZE, ""),
        (MEMORY, "1"),
        (MEMORY, "-512"),
        (MEMORY, "5e9"),
        (MEMORY, "9" * 5000),
        (MEMORY, "\u0665\u0661\u0662"),
    ],
)
def test_bad_sizes(name: str, value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        pod_config(Config(), ANNOTATED | {name: value}, RuntimeOptions())


def test_mistyped_annotations_are_named() -> None:
    assert podconfig.unknown_annotations({"io.parma/polcy": "", POLICY: "", "other": ""}) == (
        "io.parma/polcy",
    )
