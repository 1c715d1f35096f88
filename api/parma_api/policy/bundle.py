"""Bundles on disk: the framework's and one for each foreign text, so that no two can define the same names.

OPA refuses a module outside its bundle's roots. A tenant's text therefore has a bundle whose only root is its own
package: `package system.authz` in it cannot open the server, whatever the text says.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from parma_api.policy.engine import Module

FRAMEWORK_FOLDERS: Final = ("api", "authz", "framework", "gate")
STATE_NAMES: Final = ("gate_state", "metadata", "fragment_values")
"""Documents that the agent patches: no bundle may own them."""
DATA_NAMES: Final = (
    "sandboxPrefix", "hugePagesPrefix", "plan9Prefix", "defaultMounts", "privilegedMounts",
    "defaultUnprivilegedCapabilities", "defaultPrivilegedCapabilities",
)  # fmt: skip
_FRAMEWORK_ROOTS: Final = ("system/authz", "gate", "framework", "api", *DATA_NAMES)
RESERVED_NAMES: Final = frozenset(
    {
        "framework",
        "api",
        "policy",
        "metadata",
        "system",
        "gate",
        "data",
        "input",
        *STATE_NAMES,
        *DATA_NAMES,
    }
)
"""Names that no fragment may take, in exactly this spelling."""

_PARAMETER: Final = """package {name}

parameter(name) := data.fragment_values[name] if {{ true }}

else := data.{name}.parameters_api[name]["default"] if {{ true }}
"""


def write_framework(source: Path, target: Path) -> None:
    """Copy the framework from `source` (policy_bundles) without its tests, and add the manifest. Raises OSError."""
    target.mkdir(mode=0o700)
    for folder in FRAMEWORK_FOLDERS:
        for file in sorted((source / folder).rglob("*.rego")):
            if file.name.endswith("_test.rego"):
                continue
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    shutil.copyfile(source / "data.json", target / "data.json")
    _manifest(target, _FRAMEWORK_ROOTS, 1)


def write_module(module: Module, target: Path, rego_version: int) -> None:
    """A bundle with the text as it was delivered, byte for byte. Raises OSError."""
    target.mkdir(mode=0o700)
    (target / "module.rego").write_bytes(module.text)
    if module.name == "policy":
        _manifest(target, (module.name,), rego_version)
        return
    (target / "parameter.rego").write_text(_PARAMETER.format(name=module.name))
    _manifest(target, (module.name,), 1, {"/module.rego": rego_version})


def _manifest(
    target: Path, roots: tuple[str, ...], version: int, files: dict[str, int] | None = None
) -> None:
    manifest: dict[str, object] = {"roots": list(roots), "rego_version": version}
    if files:
        manifest["file_rego_versions"] = files
    (target / ".manifest").write_text(json.dumps(manifest))
