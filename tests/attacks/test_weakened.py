"""The catalogue against the agent's real code without a VM; and with one check taken out, which must be found out.

Each weakness stands for a class: policy, fields, wire format, ledger, claims, streams, redaction, HOST_DATA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from parma_api.policy import gate, refusal
from parma_api.ttrpc import call
from parma_guest.agent import containers
from parma_guest.oci import parse
from parma_guest.process.stdio import Access
from parma_guest.storage import claims
from parma_guest.storage.ledger import Ledger
from parma_shim.attack.play import play_one
from parma_shim.attack.registry import Stage, catalogue
from tests.attacks.native import native_lab

POLICY = "F3a F4a F5a F6a F6b M1a M3a M3c M3d M3e M3f M3g M3h M5a M5b M5c M6b M6c K2 K8 K10 K14 M4b".split()
"""What the policy alone stands against."""
NATIVE = sorted(
    {*POLICY, "F3c", "F4b", "F5b", "K1", "K5", "K6", "K9", "K13", "K16", "K20", "K23", "M1b", "M3b", "M6a", "K4"}
)  # fmt: skip


BARE = {name for name, one in catalogue().items() if one.stage is Stage.BARE}
THROUGH = "the host got through"
SECOND_LINE = {
    "K14": "always encrypted",
    "K2": "none of the pod's own",
    "M4b": "already exists",
    "K8": "was let through",
}
"""Where even such a policy opens nothing, by rules of the agent's own; and K8, which looks at what a refusal tells."""


def in_order(names: Iterable[str]) -> list[str]:
    return [name for name in catalogue() if name in set(names)]


async def test_every_attack_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with native_lab(monkeypatch) as lab:
        rows = [await play_one(lab, catalogue()[name]) for name in in_order(NATIVE)]
    assert {row.attack.id: row.observed for row in rows if not row.ok} == {}


async def test_a_policy_that_allows_everything(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    text = (repository / "policy_bundles" / "samples" / "allow_all.rego").read_bytes()
    rows = []
    for name in in_order(set(POLICY) & BARE):
        async with native_lab(monkeypatch, text) as lab:
            rows.append(await play_one(lab, catalogue()[name]))
    async with native_lab(monkeypatch, text) as lab:
        group = await lab.group()
        for name in in_order(set(POLICY) - BARE):
            rows.append(await play_one(lab, catalogue()[name]))
            group.probe = await group.assemble()  # the last one may be a container by now
    assert not any(row.ok for row in rows)
    assert {row.attack.id for row in rows if THROUGH not in row.observed} == set(SECOND_LINE)
    for row in rows:
        assert SECOND_LINE.get(row.attack.id, THROUGH) in row.observed


def no_field_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parse, "check_fields", lambda *_: None)


def no_ledger(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "require_layer_unused", Ledger.layer)


def no_superblock_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(claims, "check_superblock", lambda *_: None)


def no_withholding(patch: pytest.MonkeyPatch) -> None:
    granted = SimpleNamespace(GRANTED=Access.GRANTED, WITHHELD=Access.GRANTED)
    patch.setattr(containers, "Access", granted)


def no_redaction(patch: pytest.MonkeyPatch) -> None:
    """Of variables; all else stays, or the refusal would be cut for its length."""
    whole = refusal._redact_member

    def member(key: str, value: object) -> object:
        return value if key == "envList" else whole(key, value)

    patch.setattr(refusal, "_redact_member", member)


def no_digest_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate.hmac, "compare_digest", lambda *_: True)


def no_wire_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(call, "decode", lambda kind, payload, *_, **__: kind().parse(payload))


@pytest.mark.parametrize(
    ("name", "weaken", "seen"),
    [
        ("K9", no_field_check, THROUGH),
        ("M1b", no_field_check, THROUGH),
        ("K13", no_ledger, THROUGH),
        ("F3c", no_superblock_check, THROUGH),
        ("M6a", no_withholding, "65548 bytes of a withheld stream"),
        ("K8", no_redaction, "the variable's value is told"),
        ("K6", no_digest_check, "policy.invalid"),
        ("K23", no_wire_check, THROUGH),
    ],
)
async def test_one_check_taken_out(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    weaken: Callable[[pytest.MonkeyPatch], None],
    seen: str,
) -> None:
    weaken(monkeypatch)
    async with native_lab(monkeypatch) as lab:
        row = await play_one(lab, catalogue()[name])
    assert not row.ok
    assert seen in row.observed
