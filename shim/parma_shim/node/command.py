"""`parma-node`, the program of the DaemonSet.

serve    installs, waits to be told to end, and undoes all of it if Parma is to leave
ready    0 once the installation stands: the readiness probe
retire   deletes the DaemonSet and waits until the nodes are clean: helm's hook before an uninstallation
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from parma_api.status import ApiError
from parma_shim.node import handler, versions
from parma_shim.node.cluster import READY_LABEL, ClusterApi, Wish
from parma_shim.node.host import NodeHost

READY_FILE = Path("/run/parma-node-ready")
COLLECT_INTERVAL = 60.0
RETRY = 10.0
PODS_DEADLINE = 60.0
"""How long pods that still run are waited for; below the DaemonSet's grace period."""
RETIRE_DEADLINE = 240.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(words: Sequence[str]) -> int:
    """0 done, 1 failed, 2 used wrongly."""
    match list(words):
        case ["ready"]:
            return 0 if READY_FILE.exists() else 1
        case ["serve"]:
            return serve(_host(), _payload(), ClusterApi.from_environment(os.environ))
        case ["retire"]:
            return _retire()
        case _:
            _say("usage: parma-node serve | ready | retire")
            return 2


def serve(host: NodeHost, payload: Path, api: ClusterApi) -> int:
    """Until told to end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    wait = 0.0
    while signal.sigtimedwait(_SIGNALS, wait) is None:
        try:
            if not READY_FILE.exists():
                install(host, payload, api)
                READY_FILE.touch()
            elif removed := versions.collect(host):
                _say(f"removed: version {', '.join(removed)}")
            wait = COLLECT_INTERVAL
        except ApiError as error:
            _say(f"error: {error.message}")
            wait = RETRY
    READY_FILE.unlink(missing_ok=True)
    if api.wish() is Wish.STAY:
        _say("the node keeps Parma")
        return 0
    return 0 if uninstall(host, api) else 1


def install(host: NodeHost, payload: Path, api: ClusterApi) -> None:
    """Files first, then the handler that names them, then the label by which pods come. Raises ApiError."""
    versions.put(host, payload)
    _say(f"version {payload.name} is in place")
    changed = handler.add(host)
    _say("containerd knows the handler" + (", restarted" if changed else " already, not restarted"))
    api.mark_ready(ready=True)
    _say("the node is ready for pods of RuntimeClass parma")


def uninstall(host: NodeHost, api: ClusterApi, deadline: float = PODS_DEADLINE) -> bool:
    """In the other order; whether nothing is left. What fails is told and does not stop the rest."""
    complete = True
    try:
        api.mark_ready(ready=False)
    except ApiError as error:
        complete = False
        _say(
            f"error: the label stays ({error.message}): kubectl label node {api.node} {READY_LABEL}-"
        )
    try:
        _say("the handler is removed" if handler.remove(host) else "there was no handler")
    except ApiError as error:
        complete = False
        _say(f"error: {error.message}")
    end = time.monotonic() + deadline
    while versions.in_use(host) and time.monotonic() < end:
        time.sleep(1)
    if kept := versions.take_away(host):
        _say(f"pods still run: version {', '.join(sorted(kept))} stays for them")
        return False
    _say("nothing is left on the node")
    return complete


def _retire() -> int:
    try:
        ClusterApi.from_environment(os.environ).delete_daemonset(RETIRE_DEADLINE)
    except ApiError as error:
        _say(f"error: {error.message}")
        return 1
    return 0


def _host() -> NodeHost:
    default = NodeHost()
    return NodeHost(
        containerd_config=os.environ.get("PARMA_CONTAINERD_CONFIG") or default.containerd_config,
        unit=os.environ.get("PARMA_CONTAINERD_UNIT") or default.unit,
    )


def _payload() -> Path:
    """The folder that this program lies in: bin/ and site/ are beside each other there."""
    return Path(sys.argv[0]).resolve().parent.parent


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
