"""The ledger refuses what is in use or taken, and is what the policy's metadata say (F4b, F5b, K13, K14)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from parma_api.ids import ContainerId, RootHash
from parma_api.status import AlreadyExistsError, ApiError, FailedPreconditionError, NotFoundError
from parma_guest.linux.blockdev import ScsiAddress
from parma_guest.storage.ledger import Layer, Ledger, Overlay, Scratch

POD = "/run/gcs/c/" + "a" * 64
CONTAINER = ContainerId("c" * 64)


def layer(number: int, root: str = "1") -> Layer:
    target = f"/run/mounts/scsi/m{number}"
    return Layer(target, RootHash(root * 64), ScsiAddress(0, number), f"layer-{number}")


def scratch(lun: int = 100, target: str = POD) -> Scratch:
    return Scratch(target, ScsiAddress(0, lun), "i", "c")


def overlay(*layers: str, container: str = CONTAINER, path: bool = True) -> Overlay:
    where = f"{POD}/scratch/{container}" if path else None
    root = f"/run/gcs/c/{container}/rootfs"
    return Overlay(root, ContainerId(container), layers, where, POD if path else None)


@pytest.fixture
def ledger() -> Ledger:
    book = Ledger()
    book.add_scratch(scratch())
    for number in (1, 2):
        book.add_layer(layer(number, str(number)))
    book.add_overlay(overlay(layer(2).target, layer(1).target))
    return book


def test_snapshot_has_the_form_of_the_metadata(ledger: Ledger) -> None:
    snapshot = ledger.snapshot()
    assert snapshot.devices == {layer(1).target: "1" * 64, layer(2).target: "2" * 64}
    assert snapshot.rw_devices == {POD: True}
    assert snapshot.overlay_targets == {f"/run/gcs/c/{CONTAINER}/rootfs": True}
    assert snapshot.scratch_mounts == {f"{POD}/scratch/{CONTAINER}": {"encrypted": True}}


def test_a_target_is_used_once(ledger: Ledger) -> None:
    for taken in (
        replace(layer(9), target=layer(1).target),
        replace(layer(9), target=POD),
        replace(layer(9), target=f"/run/gcs/c/{CONTAINER}/rootfs"),
    ):
        with pytest.raises(AlreadyExistsError):
            ledger.add_layer(taken)


def test_an_address_is_used_once(ledger: Ledger) -> None:
    for lun in (1, 100):
        with pytest.raises(AlreadyExistsError):
            ledger.add_layer(replace(layer(9), address=ScsiAddress(0, lun)))


def test_the_same_root_may_be_mounted_at_several_targets(ledger: Ledger) -> None:
    ledger.add_layer(layer(9, "1"))
    assert ledger.snapshot().devices[layer(9).target] == "1" * 64


def test_there_is_one_scratch(ledger: Ledger) -> None:
    with pytest.raises(AlreadyExistsError, match="mounted already"):
        ledger.add_scratch(scratch(101, "/run/gcs/c/" + "b" * 64))


def test_what_an_overlay_uses_stays(ledger: Ledger) -> None:
    with pytest.raises(FailedPreconditionError):
        ledger.remove_layer(layer(1).target)
    with pytest.raises(FailedPreconditionError):
        ledger.remove_scratch(POD)
    ledger.remove_overlay(f"/run/gcs/c/{CONTAINER}/rootfs")
    ledger.remove_layer(layer(1).target)
    ledger.remove_scratch(POD)


def test_what_a_container_runs_on_stays(ledger: Ledger) -> None:
    target = f"/run/gcs/c/{CONTAINER}/rootfs"
    ledger.hold(target, CONTAINER)
    with pytest.raises(FailedPreconditionError, match="shut it down"):
        ledger.remove_overlay(target)
    ledger.release(target, CONTAINER)
    ledger.remove_overlay(target)


def test_an_overlay_is_made_of_mounted_layers_only(ledger: Ledger) -> None:
    for bad in ("/run/mounts/scsi/m3", "/etc", POD, f"/run/gcs/c/{CONTAINER}/rootfs"):
        with pytest.raises(NotFoundError):
            ledger.add_overlay(overlay(layer(1).target, bad, container="d" * 64))


@pytest.mark.parametrize("count", [0, 128])
def test_number_of_layers(ledger: Ledger, count: int) -> None:
    with pytest.raises(FailedPreconditionError, match="1 to 127"):
        ledger.add_overlay(overlay(*[layer(1).target] * count, container="d" * 64))


def test_a_scratch_path_is_one_overlays(ledger: Ledger) -> None:
    other = replace(overlay(layer(1).target), target="/run/gcs/c/" + "d" * 64 + "/rootfs")
    with pytest.raises(AlreadyExistsError, match="scratch"):
        ledger.add_overlay(other)


def test_without_scratch_there_is_no_writable_overlay() -> None:
    book = Ledger()
    book.add_layer(layer(1))
    with pytest.raises(NotFoundError, match="scratch"):
        book.add_overlay(overlay(layer(1).target))
    book.add_overlay(overlay(layer(1).target, path=False))


@pytest.mark.parametrize("name", ["remove_layer", "remove_scratch", "remove_overlay", "overlay"])
def test_what_is_not_there(name: str) -> None:
    with pytest.raises(NotFoundError):
        getattr(Ledger(), name)("/run/mounts/scsi/m1")


class Sequences(RuleBasedStateMachine):
    """Whatever is asked in whatever order: nothing in use disappears, nothing is there twice."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Ledger()

    def attempt(self, name: str, *arguments: object) -> None:
        before = self.book.snapshot()
        try:
            getattr(self.book, name)(*arguments)
        except ApiError:
            assert self.book.snapshot() == before

    @rule(number=st.integers(0, 4), lun=st.integers(0, 4))
    def add_layer(self, number: int, lun: int) -> None:
        self.attempt("add_layer", replace(layer(number), address=ScsiAddress(0, lun)))

    @rule(number=st.integers(0, 4))
    def remove_layer(self, number: int) -> None:
        self.attempt("remove_layer", layer(number).target)

    @rule(lun=st.integers(3, 6))
    def add_scratch(self, lun: int) -> None:
        self.attempt("add_scratch", scratch(lun))

    @rule()
    def remove_scratch(self) -> None:
        self.attempt("remove_scratch", POD)

    @rule(
        numbers=st.lists(st.integers(0, 4), max_size=3),
        who=st.sampled_from("cd"),
        path=st.booleans(),
    )
    def add_overlay(self, numbers: list[int], who: str, path: bool) -> None:
        targets = [layer(number).target for number in numbers]
        self.attempt("add_overlay", overlay(*targets, container=who * 64, path=path))

    @rule(who=st.sampled_from("cd"))
    def remove_overlay(self, who: str) -> None:
        self.attempt("remove_overlay", f"/run/gcs/c/{who * 64}/rootfs")

    @rule(who=st.sampled_from("cd"))
    def hold(self, who: str) -> None:
        self.attempt("hold", f"/run/gcs/c/{who * 64}/rootfs", ContainerId(who * 64))

    @rule(who=st.sampled_from("cd"))
    def release(self, who: str) -> None:
        self.attempt("release", f"/run/gcs/c/{who * 64}/rootfs", ContainerId(who * 64))

    @invariant()
    def what_overlays_use_is_there(self) -> None:
        snapshot = self.book.snapshot()
        for target in snapshot.overlay_targets:
            used = self.book.overlay(target)
            assert set(used.layers) <= set(snapshot.devices)
            assert used.scratch is None or used.scratch in snapshot.rw_devices

    @invariant()
    def an_address_has_one_user(self) -> None:
        snapshot = self.book.snapshot()
        addresses = [self.book.layer(target).address for target in snapshot.devices]
        addresses += [self.book.scratch(target).address for target in snapshot.rw_devices]
        assert len(addresses) == len(set(addresses))


TestSequences = Sequences.TestCase
