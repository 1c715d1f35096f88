"""Hardware or nothing; in the stub image the stub or nothing. There is no fallback (design.md 2.2, K19).

Report requests pass through the host, which can make them fail; an agent that then turned to the stub would let the
host load another policy into a genuine SNP machine, whose later reports would still carry the good digest. So the
choice is the image's, which is measured: the release image has no package `parma_guest.stub`, and the stub image stops
where the kernel says that SNP is active.
"""

from __future__ import annotations

import os

from parma_api.status import FailedPreconditionError
from parma_guest.attest.image import Image, Kernel, require_startable
from parma_guest.attest.provider import ReportProvider
from parma_guest.attest.sev_guest import SevGuest
from parma_guest.attest.tsm import ConfigfsTsm


def choose(image: Image, kernel: Kernel) -> ReportProvider:
    """The image's one provider. Raises FailedPreconditionError."""
    require_startable(image, kernel)
    if image is Image.STUB:
        from parma_guest.stub.provider import StubProvider

        return StubProvider()
    tsm = ConfigfsTsm(kernel.tsm)
    if tsm.available():
        return tsm
    if os.path.exists(kernel.device):  # noqa: PTH110 (pathlib costs an import)
        return SevGuest(kernel.device)
    raise FailedPreconditionError(
        "this is the release image and there is no SEV-SNP here (no configfs-tsm provider, no /dev/sev-guest): it takes"
        " no policy; use the stub image for development"
    )
