"""A guest that allows everything: each attack must notice that the host got through. No attack can pass for nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from parma_api.gen.parma.agent import v1
from parma_api.status import Code, InternalError, PermissionDeniedError
from parma_shim.attack.catalogue.launch import changed_byte
from parma_shim.attack.lab import Lab
from parma_shim.attack.outcome import AttackError, codes_of, denied, refused
from parma_shim.attack.play import play_one
from parma_shim.attack.program import program
from parma_shim.attack.registry import Stage, attack, catalogue
from parma_shim.attack.rig import Rig
from parma_shim.attack.scratch_file import make_scratch_file, snapshot, write_blocks
from parma_shim.config import Config
from parma_shim.vmm.disks import ScsiAddress


class YesAgent:
    """Answers every call at once and well; everything that it runs ends with status 0."""

    def __getattr__(self, name: str) -> Any:
        answer = getattr(v1, "".join(part.title() for part in name.split("_")) + "Response")

        async def yes(_request: object, timeout: float | None = None) -> object:
            return answer(stance=v1.Stance(v1.Stance.POLICY)) if name == "health" else answer()

        return yes


class YesMachine:
    """Takes every disk; its process is this one, which nobody confines."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.channel = YesStream()

    async def attach_disk(self, fd: int, **_: object) -> ScsiAddress:
        return ScsiAddress(0, fd)

    async def detach_disk(self, address: ScsiAddress) -> None:
        return

    def console_tail(self) -> str:
        return ""

    async def wait(self) -> None:
        await asyncio.Event().wait()


class YesStream:
    """Has nothing to say."""

    async def read(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        return


class YesMux:
    """Its streams are empty."""

    control = YesStream()

    def next_id(self) -> int:
        return 1

    def open(self, number: int) -> YesStream:
        return YesStream()


class YesRig(Rig):
    """Raw calls go through as well."""

    async def raw_call(self, method: str, payload: bytes) -> None:
        return


class YesRunning:
    """See sandbox.machines.HostMachine."""

    def __init__(self) -> None:
        self.machine = YesMachine()


class YesLab(Lab):
    """Its VMs all come up and allow everything."""

    async def fresh(self) -> Rig:
        if self._rig is None:
            self._rig = self.yes()
        return self._rig

    def boot(self, policy: bytes, **_: object) -> Any:
        return _Booted(self.yes())

    def yes(self) -> Rig:
        running, mux, agent = (
            cast("Any", YesRunning()),
            cast("Any", YesMux()),
            cast("Any", YesAgent()),
        )
        return YesRig(running, mux, agent, cast("Any", None), self.policy, self.folder)


class _Booted:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def __aenter__(self) -> Rig:
        return self._rig

    async def __aexit__(self, *_: object) -> None:
        return


@pytest.fixture
async def yes() -> AsyncIterator[Lab]:
    async with YesLab(Config(), dict(os.environ)) as lab:
        yield lab


OWN = {name for name, one in catalogue().items() if one.stage is Stage.OWN}


@pytest.mark.parametrize("name", sorted(set(catalogue()) - OWN))
async def test_a_guest_that_allows_everything_is_found_out(yes: Lab, name: str) -> None:
    row = await play_one(yes, catalogue()[name])
    assert not row.ok, row.observed
    assert "not played" not in row.observed


@pytest.mark.vm
@pytest.mark.parametrize("name", sorted(OWN))
async def test_a_vm_that_always_comes_up_is_found_out(yes: Lab, name: str) -> None:
    """Marked vm because it copies the real images."""
    row = await play_one(yes, catalogue()[name])
    assert not row.ok, row.observed


async def _raise(error: Exception) -> None:
    raise error


async def test_a_refusal_for_another_reason_is_not_enough() -> None:
    denial = PermissionDeniedError("create_container denied by policy: process.user ")
    with pytest.raises(AttackError, match=r"wanted process\.env"):
        await denied("x", _raise(denial), "process.env")
    with pytest.raises(AttackError, match="INTERNAL, not"):
        await refused("x", _raise(InternalError("a crash")), Code.INVALID_ARGUMENT)


def test_reason_codes_come_from_decisions_texts_and_statuses() -> None:
    assert codes_of(InternalError("policy.invalid: the policy")) == ("policy.invalid",)
    assert codes_of(InternalError("a.b, c.d_e: both")) == ("a.b", "c.d_e")
    assert codes_of(PermissionDeniedError("no")) == ("permission_denied",)


def test_ids_are_unique() -> None:
    first = next(iter(catalogue().values()))
    with pytest.raises(ValueError, match="twice"):
        attack(first.id, "again", first.must)(first.play)


def test_a_changed_policy_differs_in_one_byte() -> None:
    text = b"package policy\n"
    changed = changed_byte(text)
    assert len(changed) == len(text)
    assert sum(a != b for a, b in zip(text, changed, strict=True)) == 1


def test_the_program_runs(tmp_path: Path) -> None:
    """What a container's exit status says of the disk rests on it."""
    import subprocess

    tool, source, target = tmp_path / "tool", tmp_path / "source", tmp_path / "target"
    tool.write_bytes(program())
    tool.chmod(0o755)
    source.write_bytes(b"x" * 70000)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([tool, *arguments], capture_output=True, check=False)

    assert run(source).stdout == source.read_bytes()
    assert run(source, target).returncode == 0
    assert target.read_bytes() == source.read_bytes()
    assert run(tmp_path / "missing").returncode == 2


def test_blocks_of_a_scratch_file(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    make_scratch_file(path)
    before = snapshot(path)
    assert before[0].startswith(b"LUKS")
    write_blocks(path, {1 << 20: b"x" * 4096})
    assert {at: b for at, b in snapshot(path).items() if before.get(at) != b} == {
        1 << 20: b"x" * 4096
    }
