"""The pod's namespaces and network: made once, before the first container, then closed for good."""

from __future__ import annotations

from collections.abc import Sequence

from parma_api.ids import SandboxId
from parma_api.status import FailedPreconditionError
from parma_guest import ops
from parma_guest.linux.netns import PINNED, PodNamespaces
from parma_guest.net.config import InterfaceRequest, RouteRequest, parse_network
from parma_guest.net.plan import plan_sandbox
from parma_guest.net.sysctls import parse_sysctls
from parma_guest.storage.worker import run_blocking

SETUP_TIME = 30.0


class Network:
    """The network of the one pod in this VM."""

    def __init__(self, root: str = PINNED) -> None:
        self._root = root
        self._namespaces: PodNamespaces | None = None
        self._closed = False

    @property
    def namespaces(self) -> PodNamespaces:
        """The pod's namespaces. Raises FailedPreconditionError before `setup`."""
        if self._namespaces is None:
            raise FailedPreconditionError("the sandbox is not set up yet: call SetupSandbox first")
        return self._namespaces

    def close(self) -> None:
        """The first container is about to start: no change from here on."""
        self._closed = True

    async def setup(
        self,
        sandbox: SandboxId,
        hostname: str,
        interfaces: Sequence[InterfaceRequest],
        routes: Sequence[RouteRequest],
        sysctls: Sequence[tuple[str, str]],
    ) -> None:
        """Judge and carry out. Raises InvalidArgumentError, FailedPreconditionError, NotFoundError, KernelError."""
        if self._closed or self._namespaces is not None:
            raise FailedPreconditionError(
                "the sandbox is set up: its network is never changed again"
            )
        network = parse_network(hostname, interfaces, routes)
        rows = parse_sysctls(sysctls)
        namespaces = PodNamespaces(sandbox, self._root)
        self._namespaces = namespaces  # at once: a second call must not run beside this one
        try:
            steps = plan_sandbox(namespaces, network, rows)
            await run_blocking(lambda finish: ops.apply(steps, finish=finish), SETUP_TIME)
        except ops.UndoFailedError:
            raise
        except BaseException:
            self._namespaces = None
            raise
