"""OPA on the host: for the tenant's tools; the guest has its own in its image."""

from __future__ import annotations

import re

from parma_api.policy.sidecar import find_opa
from parma_shim.doctor.result import Check, Finding, Host, note, ok, output_of


def run(host: Host) -> Finding:
    """Is there a binary for `parma policy simulate`?"""
    try:
        binary = find_opa()
    except FileNotFoundError as error:
        return note("no OPA: groups run, `parma policy simulate` does not", str(error))
    found = re.search(r"Version: (\S+)", output_of([str(binary), "version"]) or "")
    return (
        ok(f"OPA {found[1]}, {binary}")
        if found
        else note(f"{binary} does not run", "`make env` builds it")
    )


CHECK = Check("opa", run)
