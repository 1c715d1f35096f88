"""What the VM is launched with, and the policy that it is handed."""

from __future__ import annotations

from parma_api.gen.parma.agent import v1
from parma_api.status import Code
from parma_shim.attack.lab import Lab
from parma_shim.attack.outcome import AttackError, Observation, all_of, refused
from parma_shim.attack.registry import Must, Stage, attack

MISMATCH = "policy.host_data_mismatch"


@attack("K6", "hands the VM a policy whose digest is not HOST_DATA", Must.REFUSES, Stage.FRESH)
async def another_policy(lab: Lab) -> Observation:
    rig = await lab.fresh()
    seen = []
    for what, text in {
        "one byte of the policy changed": changed_byte(rig.policy),
        "one byte more": rig.policy + b"\n",
        "one byte less": rig.policy[:-1],
        "no policy": b"",
    }.items():
        found = await refused(what, rig.set_policy(text), Code.INVALID_ARGUMENT)
        if found.reason_codes != (MISMATCH,):
            raise AttackError(f"{what}: refused, but for {', '.join(found.reason_codes)}")
        seen.append(found)
    await rig.require_stance(v1.Stance(v1.Stance.DENY_ALL))
    return all_of(*seen)


def changed_byte(text: bytes) -> bytes:
    """The text with one byte changed, in its middle: a character of a comment or a value would do no less."""
    at = len(text) // 2
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
