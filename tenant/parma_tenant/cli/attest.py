"""`parma attest`: judge an attestation report."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from parma_api.snp.report import host_data_of
from parma_api.status import FailedPreconditionError, InvalidArgumentError

if TYPE_CHECKING:
    from parma_tenant.verify.checks import Verification
    from parma_tenant.verify.roots import Roots

_FILE = click.Path(path_type=Path)
_LATER: Final = {"connect": "parma_tenant.cli.connect:connect"}
"""Command name to `module:attribute`; a command of another module is added here."""
_MAX_FILE: Final = 64 << 20
_TIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2}))?"
)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LATER:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _LATER[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup)
def attest() -> None:
    """Judge attestation reports.

    Example: parma attest verify --report report.bin --certs chain.pem
    """


@attest.command()
@click.option("--report", type=_FILE, required=True, help="The report, 1184 bytes.")
@click.option(
    "--certs",
    type=_FILE,
    required=True,
    multiple=True,
    help="Certificates: PEM in any order, one DER, a certificate table, or THIM JSON. May be repeated.",
)
@click.option("--crl", type=_FILE, multiple=True, help="AMD's revocation list, PEM or DER.")
@click.option("--time", "when", metavar="RFC3339", help="When it must hold [default: now].")
@click.option("--expect", type=_FILE, help="What the report must say (JSON object).")
@click.option(
    "--trust-root",
    type=_FILE,
    multiple=True,
    help="A root to trust beside AMD's, such as the stub's ARK. Never for production.",
)
@click.option("--transcript", type=_FILE, help="The group's transcript, whose head is reported.")
@click.option("--policy", type=_FILE, help="The policy, to replay the transcript against.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    *,
    report: Path,
    certs: tuple[Path, ...],
    crl: tuple[Path, ...],
    when: str | None,
    expect: Path | None,
    trust_root: tuple[Path, ...],
    transcript: Path | None,
    policy: Path | None,
    as_json: bool,
) -> None:
    """Check a report, its certificates and what it says; print every check by name.

    Exit 0 to accept, 1 to refuse, 2 for a file that cannot be read or a wrong option.

    Example: parma attest verify --report report.bin --certs chain.pem --expect expect.json --json
    """
    from parma_tenant.verify.expectation import Expectation, parse_expectation
    from parma_tenant.verify.judge import Evidence
    from parma_tenant.verify.judge import verify as judge
    from parma_tenant.verify.transcript import with_transcript

    if policy is not None and transcript is None:
        raise click.UsageError("--policy replays a transcript: give it with --transcript")
    evidence = Evidence(
        report=read_file(report),
        certificates=tuple(read_file(path) for path in certs),
        crls=tuple(read_file(path) for path in crl),
    )
    expectation = Expectation() if expect is None else parse_expectation(read_file(expect))
    at = datetime.datetime.now(datetime.UTC) if when is None else parse_time(when)
    verification = judge(evidence, at, expectation, roots_of(trust_root))
    if transcript is not None:
        shown = read_file(transcript)
        verification = with_transcript(verification, evidence.report, shown)
        if policy is not None:
            verification = _replayed(verification, evidence.report, shown, read_file(policy))
    click.echo(json.dumps(verification.to_json()) if as_json else _table(verification))
    click.get_current_context().exit(0 if verification.verdict == "accept" else 1)


def _replayed(
    verification: Verification, report: bytes, transcript: bytes, policy: bytes
) -> Verification:
    """With `transcript.replay`; a transcript that is refused already is not replayed."""
    from parma_tenant.cli.policy import with_loader
    from parma_tenant.verify.replay import check_replay
    from parma_tenant.verify.transcript import parse_transcript

    if any(check.name.startswith("transcript.") for check in verification.failures):
        return verification
    if verification.check("report.length").result == "fail":
        return verification
    parsed, host_data = parse_transcript(transcript), host_data_of(report)
    check = with_loader(None, None, lambda loader: check_replay(loader, policy, parsed, host_data))
    return dataclasses.replace(verification, checks=(*verification.checks, check))


def parse_time(text: str) -> datetime.datetime:
    """RFC 3339, or a date alone, which is its first moment in UTC. Raises InvalidArgumentError."""
    wrong = InvalidArgumentError(f"--time {text!r} is not a time like 2026-03-01T00:00:00Z")
    if not _TIME.fullmatch(text):
        raise wrong
    try:
        time = datetime.datetime.fromisoformat(text.upper())
    except ValueError:
        raise wrong from None
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.UTC)


def roots_of(files: tuple[Path, ...]) -> Roots:
    """AMD's roots and those of --trust-root. Raises ApiError."""
    from parma_tenant.verify.intake import load_certificate
    from parma_tenant.verify.roots import AMD_ROOTS, with_trusted

    if not files:
        return AMD_ROOTS
    return with_trusted(load_certificate(read_file(path)) for path in files)


def _table(verification: Verification) -> str:
    """For people: the verdict, whose root it rests on, and each check that was made."""
    claims = verification.claims
    lines = [f"{verification.verdict}"]
    if claims.get("root"):
        lines[0] += f": root {claims['root']}"
    for check in verification.checks:
        if check.result == "skip" and check.reason.startswith("not "):
            continue
        reason = f"  {check.reason}" if check.reason else ""
        lines.append(f"  {check.result:4} {check.name}{reason}")
    return "\n".join(lines)


def read_file(path: Path) -> bytes:
    """The bytes of an option's file. Raises FailedPreconditionError, InvalidArgumentError (too long)."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE + 1)
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise InvalidArgumentError(f"{path} has more than {_MAX_FILE} bytes")
    return data
