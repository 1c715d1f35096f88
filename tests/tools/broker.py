"""`parma broker` in the network of a private containerd, where pods reach it, and what its administrator does there."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parma_shim.demo.daemon import PrivateContainerd, run_checked
from parma_shim.psp.chain import load_or_create

GATEWAY = "10.88.7.1"
PORT = 8443
ISSUER = f"https://{GATEWAY}:{PORT}"
PARMA = str(Path(sys.executable).with_name("parma"))


@dataclass(frozen=True)
class BrokerProcess:
    """A broker that answers at ISSUER."""

    daemon: PrivateContainerd
    state: Path

    @property
    def root(self) -> str:
        """PEM: what groups and relying parties trust."""
        return (self.state / "root.pem").read_text()

    @property
    def log(self) -> str:
        return (self.state / "log").read_text()

    def skr_arguments(self) -> str:
        """SkrSideCarArgs of a sidecar that trusts this broker alone."""
        return base64.b64encode(json.dumps({"trusted_roots": self.root}).encode()).decode()

    def import_key(self, name: str, secret: bytes, policy: Mapping[str, Any]) -> None:
        """An oct key under a release policy."""
        files = {"raw": secret, "release-policy": json.dumps(policy).encode()}
        words = []
        for option, data in files.items():
            path = self.state / f"{name}.{option}"
            path.write_bytes(data)
            words += [f"--{option}", str(path)]
        here = ["--broker", f"https://127.0.0.1:{PORT}", "--root", str(self.state / "root.pem")]
        here += ["--admin-token", str(self.state / "admin.token")]
        run_checked([*self.daemon.inside(), PARMA, "broker", "key", "import", name, *here, *words])


def stub_root(daemon: PrivateContainerd) -> Path:
    """The root of the stub of this containerd, made now if no pod has run yet."""
    load_or_create(daemon.folder / "lib/stub")
    return daemon.folder / "lib/stub/Milan.ark.pem"


@contextlib.contextmanager
def broker_beside(
    daemon: PrivateContainerd, state: Path, expect: Mapping[str, Any], *options: str
) -> Iterator[BrokerProcess]:
    """A broker that trusts the stub of `daemon` and expects this of every report."""
    state.mkdir(parents=True)
    (state / "expect.json").write_text(json.dumps(expect))
    command = [*daemon.inside(), PARMA, "broker", "--listen", f"0.0.0.0:{PORT}", "--issuer", ISSUER]
    command += ["--state", str(state), "--trust-root", str(stub_root(daemon)), "--json"]
    command += ["--expect", str(state / "expect.json"), *options]
    with (
        (state / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (state / "log").read_text()
            assert json.loads(line)["issuer"] == ISSUER
            yield BrokerProcess(daemon, state)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def policy_for(host_data: bytes, *more: Mapping[str, object]) -> dict[str, Any]:
    """The release policy for groups under that execution policy, in the measured VM of the broker's expectations."""
    conditions = [
        {"claim": "x-ms-sevsnpvm-hostdata", "equals": host_data.hex()},
        {"claim": "x-ms-compliance-status", "equals": "azure-compliant-uvm"},
        {"claim": "x-ms-sevsnpvm-is-debuggable", "equals": False},
        {"claim": "x-parma-stub", "equals": True},
        *more,
    ]
    return {"version": "1.0.0", "anyOf": [{"authority": ISSUER, "allOf": conditions}]}
