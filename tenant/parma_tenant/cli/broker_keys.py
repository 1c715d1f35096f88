"""`parma broker key`: the administrator's calls, for keys and the policies under which they are released."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from parma_api.status import InvalidArgumentError

_FILE = click.Path(path_type=Path)
_F = TypeVar("_F", bound=Callable[..., Any])
_CONTENT_TYPE: Final = "application/json; charset=utf-8"
_QUERY: Final = "?api-version=7.4"
_STATE: Final = Path("/var/lib/parma/broker")


def _connection(function: _F) -> _F:
    """Options by which the broker is reached."""
    for option in (
        click.option(
            "--admin-token",
            type=_FILE,
            default=_STATE / "admin.token",
            show_default=True,
            help="The file with the administrator's token.",
        ),
        click.option(
            "--root",
            type=_FILE,
            default=_STATE / "root.pem",
            show_default=True,
            help="The broker's root certificate, PEM.",
        ),
        click.option("--broker", "url", required=True, metavar="URL", help="Where the broker is."),
    ):
        function = option(function)
    return function


@click.group()
def key() -> None:
    """Import, show and delete keys: for the administrator.

    Example: parma broker key show model --broker https://broker.example:8443
    """


@key.command("import")
@click.argument("name")
@_connection
@click.option(
    "--release-policy",
    type=_FILE,
    required=True,
    help="Which groups may have it (JSON; docs/relying-parties.md).",
)
@click.option("--jwk", type=_FILE, help="The key: a private JWK, of kty oct, RSA or EC.")
@click.option("--raw", type=_FILE, help="The key: 16 to 512 bytes, as they are.")
@click.option("--json", "as_json", is_flag=True, help="Print the broker's answer.")
def import_key(
    *,
    name: str,
    url: str,
    root: Path,
    admin_token: Path,
    release_policy: Path,
    jwk: Path | None,
    raw: Path | None,
    as_json: bool,
) -> None:
    """Give the broker a new version of the key NAME. The newest is the one that is released.

    Example: parma broker key import model --broker https://broker.example:8443 --release-policy policy.json --raw key
    """
    from parma_tenant.claims.encoding import to_b64url
    from parma_tenant.cli.attest import read_file
    from parma_tenant.release.grammar import parse_policy

    policy = read_file(release_policy)
    parse_policy(policy)
    body = {
        "key": _key(jwk, raw),
        "attributes": {"exportable": True},
        "release_policy": {"contentType": _CONTENT_TYPE, "data": to_b64url(policy)},
    }
    answer = _ask("PUT", url, f"/keys/{name}", root, admin_token, body)
    click.echo(json.dumps(answer) if as_json else answer["key"]["kid"])


@key.command()
@click.argument("name")
@_connection
def show(*, name: str, url: str, root: Path, admin_token: Path) -> None:
    """Print what the broker keeps of the key NAME, without its secret, as JSON.

    Example: parma broker key show model --broker https://broker.example:8443
    """
    click.echo(json.dumps(_ask("GET", url, f"/keys/{name}", root, admin_token)))


@key.command()
@click.argument("name")
@_connection
def delete(*, name: str, url: str, root: Path, admin_token: Path) -> None:
    """Delete all versions of the key NAME: nothing brings it back.

    Example: parma broker key delete model --broker https://broker.example:8443
    """
    _ask("DELETE", url, f"/keys/{name}", root, admin_token)


def _key(jwk: Path | None, raw: Path | None) -> dict[str, Any]:
    from parma_tenant.claims.encoding import read_object, to_b64url
    from parma_tenant.cli.attest import read_file

    if (jwk is None) is (raw is None):
        raise InvalidArgumentError("the key is given by one of --jwk and --raw")
    if raw is not None:
        return {"kty": "oct", "k": to_b64url(read_file(raw)), "key_ops": ["encrypt", "decrypt"]}
    assert jwk is not None
    return read_object(read_file(jwk), "the JWK", 64 * 1024)


def _ask(
    method: str,
    url: str,
    path: str,
    root: Path,
    admin_token: Path,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    from parma_tenant.cli.attest import read_file
    from parma_tenant.services.upstream import upstream

    if not url.startswith("https://"):
        raise InvalidArgumentError("--broker is a URL that begins with https://")
    token = read_file(admin_token).decode("ascii", errors="replace").strip()
    headers = {"Authorization": f"Bearer {token}"}

    async def ask() -> dict[str, Any]:
        async with upstream(read_file(root), "parma") as client:
            address = f"{url.rstrip('/')}{path}{_QUERY}"
            return await client.send(method, address, "the broker", body, headers)

    return asyncio.run(ask())
