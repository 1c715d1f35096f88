"""The report and each check's answers, on hosts made of folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from parma_shim.cli.doctor import doctor
from parma_shim.cli.install import install
from parma_shim.config import ChannelSetting, Config
from parma_shim.doctor import (
    accelerator,
    channel,
    configuration,
    handler,
    isolation,
    network,
    qemu,
    space,
    uvm,
)
from parma_shim.doctor.examine import CHECKS, examine
from parma_shim.doctor.result import Check, Finding, Host, Verdict, fail, note, ok
from parma_shim.vmm.accel import AcceleratorSetting, ImageSetting
from tests.tools.tiny_kernel import write_image

TCG = Config(accelerator=AcceleratorSetting.TCG)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """An empty folder as a host."""
    return Host(
        dataclasses.replace(TCG, lib_dir=tmp_path / "lib"),
        {},
        tmp_path / "containerd.toml",
        tmp_path,
    )


def program(path: Path, output: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


def test_every_check_answers_something(host: Host) -> None:
    report = examine(host)
    assert [name for name, _ in report.findings] == [check.name for check in CHECKS]
    for _, finding in report.findings:
        assert finding.summary
        assert "\n" not in finding.summary + finding.advice
        assert finding.advice or finding.verdict is not Verdict.FAIL


def test_the_report() -> None:
    def check(name: str, finding: Finding) -> Check:
        return Check(name, lambda _host: finding)

    checks = (
        check("a", ok("fine")),
        check("b", note("so so", "do x")),
        check("c", fail("bad", "do y")),
    )
    report = examine(Host(Config()), checks)
    assert report.lines() == [
        "ok    a            fine",
        "note  b            so so",
        "                   -> do x",
        "FAIL  c            bad",
        "                   -> do y",
    ]
    assert not report.healthy
    assert examine(Host(Config()), checks[:2]).healthy


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("7.2.22", Verdict.OK),
        ("10.0.13", Verdict.OK),
        ("6.2.0", Verdict.FAIL),
        ("what?", Verdict.FAIL),
    ],
)
def test_qemu(host: Host, tmp_path: Path, version: str, verdict: Verdict) -> None:
    binary = program(tmp_path / "qemu", f"QEMU emulator version {version}")
    changed = dataclasses.replace(host, config=dataclasses.replace(host.config, qemu=binary))
    assert qemu.run(changed).verdict is verdict


def test_an_old_qemu_on_an_snp_host(host: Host, tmp_path: Path) -> None:
    parameter = host.path("/sys/module/kvm_amd/parameters/sev_snp")
    parameter.parent.mkdir(parents=True)
    parameter.write_text("Y\n")
    host.path("/dev").mkdir()
    host.path("/dev/sev").touch()
    binary = program(tmp_path / "qemu", "QEMU emulator version 8.2.0")
    changed = dataclasses.replace(host, config=dataclasses.replace(host.config, qemu=binary))
    assert "9.1" in qemu.run(changed).advice


def test_uvm(host: Host, tmp_path: Path) -> None:
    assert uvm.run(host).verdict is Verdict.FAIL
    image = tmp_path / "image"
    image.mkdir()
    there = dataclasses.replace(host, environment={"PARMA_UVM": str(write_image(image))})
    assert uvm.run(there).verdict is Verdict.NOTE
    (image / "root.img").write_bytes(b"\1" + bytes(4095))
    assert "SHA-256" in uvm.run(there).advice
    (image / "root.img").write_bytes(b"")
    assert "bytes" in uvm.run(there).advice


def test_channel(host: Host) -> None:
    assert "virtio-serial" in channel.run(host).summary
    vsock = dataclasses.replace(
        host, config=dataclasses.replace(host.config, channel=ChannelSetting.VSOCK)
    )
    assert channel.run(vsock).verdict is Verdict.FAIL
    host.path("/dev").mkdir()
    host.path("/dev/vhost-vsock").touch()
    assert channel.run(vsock) == channel.run(host) == ok("vsock")


def test_handler(host: Host, tmp_path: Path) -> None:
    assert "parma install" in handler.run(host).advice
    host.containerd_config.write_text("version = 1\n")
    assert "cannot be judged" in handler.run(host).summary
    host.containerd_config.unlink()
    done = CliRunner().invoke(install, ["--containerd-config", str(host.containerd_config)])
    assert done.exit_code == 0
    assert (
        handler.run(dataclasses.replace(host, environment={"PATH": "/nowhere"})).verdict
        is Verdict.FAIL
    )
    program(tmp_path / handler.SHIM, "")
    assert (
        handler.run(dataclasses.replace(host, environment={"PATH": str(tmp_path)})).verdict
        is Verdict.OK
    )


def test_the_small_ones(host: Host, tmp_path: Path) -> None:
    assert network.run(host).verdict is Verdict.FAIL
    assert accelerator.run(host).verdict is Verdict.NOTE
    release = dataclasses.replace(host.config, image=ImageSetting.RELEASE)
    assert accelerator.run(dataclasses.replace(host, config=release)).verdict is Verdict.FAIL
    assert str(host.config.lib_dir) in space.run(host).summary
    policy = dataclasses.replace(
        host.config, default_policy=tmp_path / "none", sources={"default_policy": "x"}
    )
    assert "is not there" in configuration.run(dataclasses.replace(host, config=policy)).advice


@pytest.mark.root
def test_isolation(host: Host) -> None:
    assert isolation.run(host).verdict is Verdict.FAIL
    host.path("/sys/fs/cgroup/memory").mkdir(parents=True)
    assert "version 1" in isolation.run(host).summary
    host.path("/sys/fs/cgroup/cgroup.controllers").touch()
    assert "version 2" in isolation.run(host).summary


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('accelerator = "tcg"\n')
    environment = {"PARMA_CONFIG": str(tmp_path / "config.toml"), "PARMA_UVM": str(tmp_path)}
    shown = CliRunner(env=environment).invoke(doctor, ["--json"])
    report = json.loads(shown.stdout)
    assert (shown.exit_code, report["healthy"]) == (1, False)
    assert {check["name"] for check in report["checks"]} == {check.name for check in CHECKS}
    (tmp_path / "config.toml").write_text("x = 1\n")
    bad = CliRunner(env=environment).invoke(doctor, [])
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert "unknown key 'x'" in bad.stderr


def test_install_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("version = 2\n")
    path.chmod(0o600)
    words = ["--containerd-config", str(path)]
    dry = CliRunner().invoke(install, [*words, "--dry-run"])
    assert "+[plugins" in dry.stdout
    assert path.read_text() == "version = 2\n"
    first = CliRunner().invoke(install, words)
    assert (first.exit_code, "kind: RuntimeClass" in first.stdout) == (0, True)
    assert path.stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(install, words)
    assert "is complete" in again.stderr
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "config.toml",
        "config.toml.before-parma",
    ]
    assert (tmp_path / "config.toml.before-parma").read_text() == "version = 2\n"
    path.write_text("version = 2\n")
    CliRunner().invoke(install, words)
    assert (tmp_path / "config.toml.before-parma.1").exists()
    path.write_text("[")
    bad = CliRunner().invoke(install, words)
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert "not TOML" in bad.stderr
