"""Hardware's reports wait for the machine's modules; the stub's do not."""

from __future__ import annotations

import asyncio

import pytest

from parma_api.status import FailedPreconditionError, UnavailableError
from parma_guest.agent.policy_half import _Provider
from parma_guest.attest.image import Image


async def test_the_release_image_waits_for_the_machine() -> None:
    prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = asyncio.ensure_future(_Provider(Image.RELEASE, prepared)())
    await asyncio.sleep(0)
    assert not asked.done()
    prepared.set_result(None)
    with pytest.raises(FailedPreconditionError, match="no SEV-SNP here"):
        await asked


async def test_a_machine_that_cannot_be_prepared_gives_no_report() -> None:
    prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    prepared.set_exception(UnavailableError("no module"))
    with pytest.raises(UnavailableError, match="no module"):
        await _Provider(Image.RELEASE, prepared)()


async def test_the_stub_image_does_not_wait() -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert (await _Provider(Image.STUB, never)()).name == "stub"
