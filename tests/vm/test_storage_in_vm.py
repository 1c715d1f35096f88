"""Storage on a real kernel with device-mapper, hot-plugged disks and a host that tampers with them (F3, F7, M2, K7).

One VM plays the whole story (`storage_agent.py`); each test reads its part.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm import rig
from tests.vm.storage_story import CANARY, COUNT, Disks, make_disks, play

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]
EIO = 5
M = "/run/mounts/scsi/m"


@dataclass(frozen=True)
class Story:
    steps: dict[str, dict[str, Any]]
    disks: Disks
    console: bytes

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.steps[name]

    def refused(self, name: str, error: str) -> str:
        assert self.steps[name]["error"] == error, self.steps[name]
        return str(self.steps[name]["message"])


@pytest.fixture(scope="module")
def story(repository: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    image = Path(os.environ.get("PARMA_UVM") or cache / "uvm/stub/current")
    assert (image / "root.img").exists(), "no UVM image: run `make uvm`"
    folder = tmp_path_factory.mktemp("storage")
    program = repository / "tests/vm/storage_agent.py"
    machine = rig.build(image, repository, program, folder)
    (folder / "disks").mkdir()
    disks = make_disks(folder / "disks")
    console = folder / "console"
    steps = play(machine.arguments(), disks, console)
    return Story(steps, disks, console.read_bytes())


def test_the_story_came_to_its_end(story: Story) -> None:
    assert "failed" not in story.steps, story["failed"]["trace"]
    assert "end" in story.steps, story.console.decode(errors="replace")[-2000:]


def test_a_layer(story: Story) -> None:
    assert story["layer"]["root"] == story.disks.roots[1]
    assert story["layer.file"]["content"] == "from the base"
    (line,) = story["layer.table"]["table"]
    assert f" sha256 {story.disks.roots[1]} {'0' * 64}" in line
    assert line.startswith("0 2048 verity 1 ")


def test_a_layer_is_read_only(story: Story) -> None:
    assert story["layer.write"]["errno"] == 30
    assert story["layer.raw_write"]["errno"] == 1


def test_address_and_target_are_used_once(story: Story) -> None:
    assert "disk at 0:0:0:1 is in use" in story.refused("layer.twice", "AlreadyExistsError")
    assert f"{M}1 is in use" in story.refused("layer.target", "AlreadyExistsError")


def test_an_altered_data_block_is_an_io_error_and_never_a_wrong_byte(story: Story) -> None:
    assert story["bad.data"] == {"ok": None}, "the root is the allowed one"
    assert story["bad.data.read"]["errno"] == EIO
    assert story["bad.data.other"] == {"ok": "from the base"}
    assert story["corrupt"]["targets"] == [f"{M}3"]


def test_altered_verity_metadata(story: Story) -> None:
    assert "salt size" in story.refused("bad.superblock", "InvalidArgumentError")
    story.refused("bad.size", "InvalidArgumentError")
    assert "does not verify" in story.refused("bad.tree", "DataLossError")


def test_a_cut_disk_with_the_allowed_root(story: Story) -> None:
    message = story.refused("bad.cut", "DataLossError")
    assert "the verified image has 1048576 bytes, not 1015808" in message
    story.refused("bad.cut.claim", "InvalidArgumentError")


def test_a_disk_that_never_comes(story: Story) -> None:
    assert "no disk at SCSI address 0:0:0:200" in story.refused("missing", "DeadlineExceededError")


def test_a_disk_that_is_waited_for(story: Story) -> None:
    assert story["plug"]["root"] == story.disks.roots[250]
    assert story["plug.read"]["content"] == "top"


def test_a_disk_swapped_behind_its_address(story: Story) -> None:
    assert story["unplug.read"]["errno"] == EIO
    assert story["swap.read"]["errno"] == EIO
    assert story["swap.unmount"] == {"ok": None}
    assert story["swap.claim"]["root"] == story.disks.roots[251]


def test_live_tables_of_the_scratch(story: Story) -> None:
    (integrity,) = story["scratch.table.integ"]["table"]
    assert " 0 32 D " in integrity
    assert "fix_padding" in integrity
    (crypt,) = story["scratch.table.scrat"]["table"]
    assert "crypt capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:parma:" in crypt
    assert crypt.endswith("2 integrity:32:aead sector_size:4096")
    assert integrity.split()[1] == crypt.split()[1]


def test_the_key_is_in_no_keyring(story: Story) -> None:
    assert "logon" not in story["scratch.keys"]["keys"]
    assert "parma:" not in story["scratch.keys"]["keys"]


def test_what_the_scratch_keeps(story: Story) -> None:
    assert story["scratch.same"] == {"same": True}
    assert story["scratch.many"] == {"same": True}
    assert story["scratch.space"]["free"] > 0.95 * (2 << 30)
    story.refused("scratch.second", "AlreadyExistsError")


def test_the_host_sees_ciphertext(story: Story) -> None:
    assert CANARY not in story.disks.files[0].read_bytes()


def test_an_overlay(story: Story) -> None:
    assert story["overlay"] == {"hello": "from the base", "who": "top", "gone": False}
    assert story["overlay.write"] == {"hello": "changed", "below": "from the base"}
    assert story["overlay.encrypted"] == {"value": True}
    story.refused("overlay.layer_in_use", "FailedPreconditionError")
    story.refused("overlay.scratch_in_use", "FailedPreconditionError")
    assert story["overlay.gone"]["left"] == ["a" * 64]


def test_the_same_layer_more_than_once(story: Story) -> None:
    assert story["twice"] == {"ok": None}
    assert story["twice.hello"] == {"hello": "from the base", "who": "base"}


def test_a_read_only_overlay(story: Story) -> None:
    assert story["readonly"] == {"ok": None}
    assert story["readonly.hello"] == {"hello": "from the base"}
    assert story["readonly.write"]["errno"] == 30


def test_an_image_of_127_layers(story: Story) -> None:
    assert story["many"]["files"] == COUNT
    assert story["many"]["top"] == str(COUNT - 1)


def test_a_bit_flipped_in_the_scratch(story: Story) -> None:
    assert "ok" in story["tamper.before"]
    assert story["tamper.scratch"]["errno"] == EIO


def test_a_bit_flipped_in_a_layer_in_use(story: Story) -> None:
    assert "ok" in story["tamper.layer.before"]
    assert story["tamper.layer"]["errno"] == EIO
    assert f"{M}2" in story["tamper.corrupt"]["targets"]


def test_nothing_is_left(story: Story) -> None:
    assert story["scratch.unmount"] == {"ok": None}
    assert story["left"]["devices"] == []


def test_a_scratch_is_empty_the_next_time(story: Story) -> None:
    assert story["scratch.again"]["files"] == ["lost+found"]


def test_control_groups(story: Story) -> None:
    assert story["cgroup.processes"] == {"same": True}
    assert "frozen 1" in story["cgroup.frozen"]["events"]
    stats = story["cgroup.stats"]
    assert stats["limit"] == 64 << 20
    assert stats["pids"] == 1
    assert stats["cpu"] > 0
    assert set(stats["events"]) >= {"low", "high", "max", "oom", "oom_kill"}
    assert story["cgroup.gone"] == {"there": False}


def test_the_pods_network(story: Story) -> None:
    inside, outside = story["net"]["inside"], story["net"]["outside"]
    assert inside["host"] == "web-0"
    assert inside["links"] == ["eth0", "lo"]
    assert any(line.split()[:3] == ["eth0", "00000000", "0202000A"] for line in inside["routes"])
    assert (inside["shmmni"], inside["msg_max"]) == ("17\n", "11\n")
    assert outside["links"] == ["lo"]
    assert outside["host"] != "web-0"
    assert (outside["shmmni"], outside["msg_max"]) != (inside["shmmni"], inside["msg_max"])


def test_the_clock_is_the_hosts(story: Story) -> None:
    assert abs(story["clock"]["rtc"] - story["clock"]["system"]) < 3
