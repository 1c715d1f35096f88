"""The few calls to the cluster's API: the node's label, and whether the DaemonSet is still wanted."""

from __future__ import annotations

import enum
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parma_api.status import UnavailableError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
READY_LABEL = "io.parma/ready"
_DEADLINE = 15.0
_GONE = frozenset({401, 403, 404})
"""Not found, or our own account is not there any more: it was deleted together with the DaemonSet."""


class Wish(enum.Enum):
    """What the cluster wants of this node."""

    STAY = "stay"
    """The pod ends for another reason: an upgrade, a restart, a drained node."""
    LEAVE = "leave"
    """The DaemonSet is deleted, or the node's label taken away."""


@dataclass(frozen=True, slots=True)
class ClusterApi:
    """The API server as a pod's account sees it."""

    address: str
    node: str
    namespace: str
    daemonset: str
    account: Path = ACCOUNT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ClusterApi:
        """Of the DaemonSet's container. Raises UnavailableError for a name that its manifest does not give."""
        try:
            host = environment["KUBERNETES_SERVICE_HOST"]
            return cls(
                f"https://{f'[{host}]' if ':' in host else host}:{environment['KUBERNETES_SERVICE_PORT']}",
                node=environment["PARMA_NODE"],
                namespace=environment["PARMA_NAMESPACE"],
                daemonset=environment["PARMA_DAEMONSET"],
            )
        except KeyError as error:
            raise UnavailableError(f"{error} is not set: this runs in Parma's DaemonSet") from error

    def mark_ready(self, *, ready: bool) -> None:
        """Sets the node's label, or takes it away. Raises UnavailableError."""
        labels = {READY_LABEL: "true" if ready else None}
        self._call("PATCH", f"/api/v1/nodes/{self.node}", {"metadata": {"labels": labels}})

    def wish(self) -> Wish:
        """Asked when the pod is told to end. An API that does not answer means to stay."""
        try:
            daemonset = self._call("GET", f"{self._daemonsets}/{self.daemonset}")
            node = self._call("GET", f"/api/v1/nodes/{self.node}")
        except ApiRefusalError as error:
            return Wish.LEAVE if error.status in _GONE else Wish.STAY
        except UnavailableError:
            return Wish.STAY
        deleted = "deletionTimestamp" in daemonset.get("metadata", {})
        labels = node.get("metadata", {}).get("labels", {})
        template = daemonset.get("spec", {}).get("template", {}).get("spec", {})
        wanted = template.get("nodeSelector", {})
        chosen = all(labels.get(name) == value for name, value in wanted.items())
        return Wish.STAY if chosen and not deleted else Wish.LEAVE

    def delete_daemonset(self, deadline: float) -> None:
        """Deletes it and waits until its pods have undone their work. Raises UnavailableError."""
        path = f"{self._daemonsets}/{self.daemonset}"
        try:
            self._call("DELETE", path, {"propagationPolicy": "Foreground"})
            end = time.monotonic() + deadline
            while time.monotonic() < end:
                self._call("GET", path)
                time.sleep(1)
        except ApiRefusalError as error:
            if error.status == 404:
                return
            raise
        raise UnavailableError(f"pods of {self.daemonset} are still there after {deadline:.0f} s")

    @property
    def _daemonsets(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets"

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            token = (self.account / "token").read_text()
            request = urllib.request.Request(
                self.address + path,
                json.dumps(body).encode() if body is not None else None,
                {"Authorization": f"Bearer {token}", "Content-Type": kind},
                method=method,
            )
            secure = request.type == "https"
            trust = (
                ssl.create_default_context(cafile=str(self.account / "ca.crt")) if secure else None
            )
            with urllib.request.urlopen(request, timeout=_DEADLINE, context=trust) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ApiRefusalError(
                f"{method} {path}: {error.code} {error.reason}", error.code
            ) from error
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{method} {path}: {error}") from error
        return document if isinstance(document, dict) else {}


class ApiRefusalError(UnavailableError):
    """The API server answered with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
