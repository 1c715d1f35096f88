"""Makes `import betterproto` cheap: for the agent, which imports it before its first answer.

betterproto asks the package metadata for its own version (importlib.metadata, with zipfile, email and more behind it)
and imports a date parser for JSON, which nobody here reads with it. Together they are a third of its import, more than
a quarter of a second in an emulated guest. `prepare` puts small stand-ins in their places first.
"""

from __future__ import annotations

import sys
from types import ModuleType


def prepare() -> None:
    """Call before anything imports betterproto; afterwards it changes nothing."""
    if "betterproto" in sys.modules:
        return
    if "betterproto._version" not in sys.modules:
        version = ModuleType("betterproto._version")
        version.__dict__["__version__"] = "2.0.0b7"
        sys.modules["betterproto._version"] = version
    if "dateutil" not in sys.modules:
        package, parser = ModuleType("dateutil"), ModuleType("dateutil.parser")
        parser.__dict__["isoparse"] = _isoparse
        package.__dict__["parser"] = parser
        sys.modules["dateutil"], sys.modules["dateutil.parser"] = package, parser


def _isoparse(text: str) -> object:
    raise NotImplementedError(f"no dates in JSON are read here: {text!r}")
