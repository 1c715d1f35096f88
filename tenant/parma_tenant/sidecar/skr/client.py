"""For other containers of the pod: asks the key-release sidecar. Standard library only, to start quickly.

python -m parma_tenant.sidecar.skr.client MAA_ENDPOINT AKV_ENDPOINT KID [PORT]     prints the private JWK
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from parma_api.status import ApiError, DataLossError, PermissionDeniedError, UnavailableError

PORT: Final = 8080
SECONDS: Final = 180.0
_MAX_ANSWER: Final = 256 * 1024


def release_key(
    maa_endpoint: str,
    akv_endpoint: str,
    kid: str,
    *,
    access_token: str = "",
    port: int = PORT,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """The private JWK of the key `kid`: secret.

    Raises PermissionDeniedError (no key for this group), UnavailableError (try again), DataLossError.
    """
    request = {"maa_endpoint": maa_endpoint, "akv_endpoint": akv_endpoint, "kid": kid}
    if access_token:
        request["access_token"] = access_token
    answer = ask("/key/release", request, port=port, seconds=seconds)
    try:
        key = json.loads(answer["key"])
    except (KeyError, TypeError, ValueError):
        key = None
    if not isinstance(key, dict):
        raise DataLossError("the key-release sidecar answers without a key")
    return key


def ask(
    path: str, request: dict[str, str] | None, *, port: int = PORT, seconds: float = SECONDS
) -> dict[str, Any]:
    """The answer to a POST of `request`, or to a GET where it is None. Raises as `release_key`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        body = None if request is None else json.dumps(request).encode()
        connection.request(
            "GET" if body is None else "POST", path, body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        data = answer.read(_MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(
            f"the key-release sidecar does not answer on port {port}: {type(error).__name__}"
        ) from None
    finally:
        connection.close()
    return _read(answer.status, data)


def _read(status: int, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data) if len(data) <= _MAX_ANSWER else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise DataLossError("the key-release sidecar's answer cannot be read")
    if status == 200:
        return document
    reason = f"the key-release sidecar says {status}: {str(document.get('error'))[:300]}"
    if status in (429, 500, 503):
        raise UnavailableError(reason)
    raise PermissionDeniedError(reason)


def main(words: Sequence[str]) -> int:
    """0 with the key on standard output; 1 no key, 2 bad usage, with the reason in one line."""
    if len(words) not in (3, 4) or not all(word.isdigit() for word in words[3:]):
        sys.stderr.write("usage: client MAA_ENDPOINT AKV_ENDPOINT KID [PORT]\n")
        return 2
    port = int(words[3]) if len(words) > 3 else PORT
    try:
        key = release_key(words[0], words[1], words[2], port=port)
    except ApiError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    sys.stdout.write(json.dumps(key) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
