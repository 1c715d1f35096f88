"""`opa check` before anything is loaded: the language, the sealed list of built-ins, the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from parma_api.policy import child
from parma_api.policy.decision import PolicyInvalid
from parma_api.policy.engine import EngineLostError

FORBIDDEN_BUILTINS: Final = frozenset(
    {
        # network and files
        "http.send", "net.lookup_ip_addr", "json.match_schema", "json.verify_schema",
        # clock
        "time.now_ns", "io.jwt.decode_verify", "crypto.x509.parse_and_verify_certificates",
        "crypto.x509.parse_and_verify_certificates_with_options",
        # randomness
        "rand.intn", "uuid.rfc4122", "io.jwt.encode_sign", "io.jwt.encode_sign_raw",
        # environment and output
        "opa.runtime", "print", "internal.print", "trace", "internal.test_case", "rego.metadata.chain",
        "rego.metadata.rule", "rego.parse_module", "providers.aws.sign_req",
    }
)  # fmt: skip
_ENVIRONMENT: Final = {**child.ENVIRONMENT, "GOGC": "off", "GOMEMLIMIT": "160MiB"}
"""A check lives for a moment: its collector would only cost time, unless a text is very large."""
_FORBIDDEN_FEATURES: Final = frozenset({"rego_v2", "rego_v2_import"})


def seal_capabilities(current: dict[str, object]) -> dict[str, object]:
    """What `opa capabilities --current` prints, without everything that reaches outside."""
    sealed = dict(current)
    builtins, features = sealed.get("builtins"), sealed.get("features")
    assert isinstance(builtins, list)
    sealed["builtins"] = [b for b in builtins if b["name"] not in FORBIDDEN_BUILTINS]
    sealed["features"] = (
        [f for f in features if f not in _FORBIDDEN_FEATURES] if isinstance(features, list) else []
    )
    sealed["future_keywords"] = []
    sealed["allow_net"] = []
    return sealed


class Checker:
    """Runs `opa check` with the sealed capabilities."""

    def __init__(self, binary: Path, capabilities: Path, timeout: float) -> None:
        self._command = [
            str(binary),
            "check",
            "--format",
            "json",
            "--capabilities",
            str(capabilities),
        ]
        self._timeout = timeout

    async def bundles(self, bundles: Sequence[Path], scratch: Path) -> list[str]:
        """Messages, each with its line; empty: sound. Raises EngineLostError."""
        return await self._run([*self._command, "--bundle", *map(str, bundles)], scratch)

    async def alone(self, text: Path, rego_version: int, scratch: Path) -> list[str]:
        """The same for one file by itself."""
        language = ["--v0-compatible"] if rego_version == 0 else []
        return await self._run([*self._command, *language, str(text)], scratch)

    async def _run(self, argv: list[str], scratch: Path) -> list[str]:
        try:
            status, _, stderr = await child.run(argv, scratch, self._timeout, _ENVIRONMENT)
        except TimeoutError:
            return ["the text could not be checked in time"]
        except OSError as error:
            raise EngineLostError(f"opa check cannot be run: {error.strerror}") from error
        if status == 0:
            return []
        if status != 1:
            raise EngineLostError(f"opa check ended with status {status}")
        return _messages(stderr)


def _messages(stderr: bytes) -> list[str]:
    try:
        errors = json.loads(stderr)["errors"]
        return [_message(error) for error in errors] or ["refused without a message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ["refused without a message"]


def _message(error: dict[str, object]) -> str:
    text = str(error.get("message", "")).splitlines()[0][:300]
    location = error.get("location")
    if not isinstance(location, dict) or Path(str(location.get("file"))).name not in (
        "module.rego",
        "alone.rego",
    ):
        return f"{error.get('code', '')} {text}".strip()
    return f"line {location.get('row')}:{location.get('col')}: {error.get('code')}: {text}"


def is_package_error(messages: Sequence[str]) -> bool:
    """Whether the text was refused only because it has another package than its bundle's."""
    return any(
        "manifest roots" in message and "do not permit 'package" in message for message in messages
    )


def is_parse_error(messages: Sequence[str]) -> bool:
    """Whether checking stopped at the grammar."""
    return any("rego_parse_error" in message for message in messages)


def invalid(what: str, messages: Sequence[str]) -> PolicyInvalid:
    """The error for a refused text: its first three messages on one line."""
    return PolicyInvalid(f"{what} is refused: {'; '.join(messages[:3])}", ("policy.invalid",))
