"""`parma broker`: an attestation service and key broker, one command."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import click

from parma_api.status import InvalidArgumentError
from parma_tenant.cli.broker_keys import key

_FILE = click.Path(path_type=Path)


@click.group(invoke_without_command=True, commands=[key])
@click.pass_context
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen.",
)
@click.option(
    "--state",
    type=_FILE,
    default=Path("/var/lib/parma/broker"),
    show_default=True,
    help="The folder of master.key, admin.token, root.pem and the SQLite file; made when there is none.",
)
@click.option(
    "--database",
    metavar="URL",
    help="postgresql://...: shared by several brokers [default: SQLite in the folder].",
)
@click.option(
    "--issuer",
    metavar="URL",
    help="The URL under which groups reach it [default: the address it listens on].",
)
@click.option(
    "--expect",
    type=_FILE,
    help="Expectations that every report must meet (as of `parma attest verify`).",
)
@click.option(
    "--trust-root", type=_FILE, multiple=True, help="A root besides AMD's: a stub's. Tokens say so."
)
@click.option(
    "--certificate-service",
    metavar="URL",
    help="AMD's key service or a mirror: for certificates that groups do not send, and for revocation lists, which are"
    " required then.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 1e6),
    default=20.0,
    show_default=True,
    help="Requests a second of one peer.",
)
@click.option(
    "--http", "plain", is_flag=True, help="No TLS: on loopback only, behind a proxy that has it."
)
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as JSON.")
def broker(
    context: click.Context,
    *,
    listen: str,
    state: Path,
    database: str | None,
    issuer: str | None,
    expect: Path | None,
    trust_root: tuple[Path, ...],
    certificate_service: str | None,
    rate: float,
    plain: bool,
    as_json: bool,
) -> None:
    """Verify evidence, issue tokens, release keys to groups that satisfy the keys' policies.

    Speaks the protocols of Microsoft Azure Attestation and of Key Vault's secure key release. Runs until SIGTERM.

    Example: parma broker --listen 0.0.0.0:8443 --issuer https://broker.example.org:8443
    """
    if context.invoked_subcommand is not None:
        return
    from parma_tenant.broker.attestation import Rules
    from parma_tenant.broker.run import Settings
    from parma_tenant.cli.attest import read_file, roots_of
    from parma_tenant.cli.connect import host_and_port
    from parma_tenant.verify.expectation import Expectation, parse_expectation

    expectation = Expectation() if expect is None else parse_expectation(read_file(expect))
    if expectation.report_data is not None:
        raise InvalidArgumentError(
            "report_data is what each group's claims make it: do not expect one"
        )
    host, port = host_and_port(listen, "--listen")
    rules = Rules(expectation, roots_of(trust_root))
    settings = Settings(
        state,
        host,
        port,
        rules,
        database,
        issuer,
        rate,
        int(rate * 3) + 1,
        use_tls=not plain,
        certificate_service=certificate_service,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(_serve(settings, as_json=as_json, stub=bool(trust_root)))


async def _serve(settings: object, *, as_json: bool, stub: bool) -> None:
    from parma_tenant.broker.run import Running, Settings, serve

    assert isinstance(settings, Settings)
    started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(settings, started))
    await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
    if started.done():
        _say(started.result(), as_json=as_json, stub=stub)
    else:
        started.cancel()
    await serving


def _say(about: object, *, as_json: bool, stub: bool) -> None:
    from parma_tenant.broker.run import Running

    assert isinstance(about, Running)
    if as_json:
        document = {
            "issuer": about.issuer,
            "port": about.port,
            "root": str(about.root),
            "admin_token": str(about.admin),
        }
        click.echo(json.dumps(document))
    else:
        click.echo(f"{about.issuer}  root: {about.root}  administrator's token: {about.admin}")
    if stub:
        click.echo(
            "warning: a root besides AMD's is trusted; its tokens say x-parma-stub", err=True
        )
