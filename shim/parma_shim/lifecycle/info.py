"""`-v` and `-info`.

RuntimeInfo{name=1, version=2 {version=1, revision=2}, options=3 Any, features=4 Any, annotations=5} goes to standard
output as bytes. Features: what the runtime specification 1.2 calls by that name, for containerd 2; user namespaces,
recursive read-only mounts and ID-mapped mounts are not offered.
"""

from __future__ import annotations

from parma_shim.lifecycle.protowire import bytes_field

NAME = "io.containerd.parma.v2"
VERSION = "0.1.0"
"""As in pyproject.toml; a test compares them."""
FEATURES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"


def version_text(program: str) -> str:
    """What `-v` prints."""
    return f"{program}:\n  Version:  {VERSION}\n"


def runtime_info() -> bytes:
    """The message."""
    import json

    features = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "linux": {
            "cgroup": {"v1": False, "v2": True},
            "seccomp": {"enabled": True},
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
        },
    }
    encoded = json.dumps(features, separators=(",", ":")).encode()
    return (
        bytes_field(1, NAME.encode())
        + bytes_field(2, bytes_field(1, VERSION.encode()))
        + bytes_field(4, bytes_field(1, FEATURES_TYPE.encode()) + bytes_field(2, encoded))
    )
