"""Both images boot, with a toy in the agent's place; what is not as measured does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.image.machine import boot

pytestmark = [pytest.mark.vm, pytest.mark.root]

KERNELS = {"stub": "vmlinux", "release": "bzImage"}
PHASES = {"init": " init", "root": "root is open", "agent": "toy-agent", "imports": "imports done"}


@pytest.mark.parametrize("variant", ["stub", "release"])
def test_an_image_boots_to_an_agent(
    variant: str, toy_images: dict[str, Path], tmp_path: Path
) -> None:
    with boot(toy_images[variant], KERNELS[variant], tmp_path) as machine:
        answer, ready = machine.ask("ping")
        assert answer == "pong ABCMeta"
        phases = {name: machine.when(text) for name, text in PHASES.items()} | {"ready": ready}
        print(variant, ", ".join(f"{name} {at:.2f} s" for name, at in phases.items()))
        assert list(phases.values()) == sorted(phases.values())

        pid, mounts, environment = machine.ask("world")[0].split()
        assert pid == "1"
        assert mounts == "/,/dev,/proc,/run,/sys,/sys/fs/cgroup,/tmp"
        assert environment == "HOME,LANG,PATH"
        assert machine.ask("write")[0] == "30 30"  # EROFS

        failed = machine.ask("modules")[0]
        # sev_guest finds no SNP here, and that is all that may fail.
        assert re.fullmatch(r"all|snp:sev_guest:19", failed), machine.text


def test_another_root_is_not_mounted(toy_images: dict[str, Path], tmp_path: Path) -> None:
    described = json.loads((toy_images["stub"] / "image.json").read_text())
    root = described["verity"]["root_hash"]
    other = ("0" if root[0] != "0" else "1") + root[1:]
    cmdline = described["cmdline"].replace(root, other)
    with boot(toy_images["stub"], "vmlinux", tmp_path, cmdline) as machine:
        assert machine.run_out() == 0  # powered off by init itself
        assert "cannot mount /dev/dm-0 on /root" in machine.text
        assert "parma-init" in machine.text
        assert "powering off" in machine.text


@pytest.mark.parametrize(
    "parameter",
    [
        "",
        "parma.verity=",
        "parma.verity=5",
        "parma.verity=0,{root},{salt}",
        "parma.verity=9,{root},-",
    ],
)
def test_no_verity_no_boot(parameter: str, toy_images: dict[str, Path], tmp_path: Path) -> None:
    described = json.loads((toy_images["stub"] / "image.json").read_text())
    base = described["cmdline"].split(" parma.verity=")[0]
    given = parameter.format(root=described["verity"]["root_hash"], salt="0" * 64)
    with boot(toy_images["stub"], "vmlinux", tmp_path, f"{base} {given}") as machine:
        assert machine.run_out() == 0
        assert "parma.verity" in machine.text
        assert "root is open" not in machine.text
        assert "powering off" in machine.text
