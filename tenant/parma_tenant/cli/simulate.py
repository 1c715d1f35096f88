"""`parma policy simulate`: a step file, or the life of a pod, through the agent's own gate and OPA."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from parma_api.status import ApiError
from parma_tenant.cli.options import (
    extra_of,
    image_options,
    places_of,
    progress_bar,
    wishes_of,
)
from parma_tenant.cli.policy import (
    FILE,
    bundles_option,
    fail,
    json_option,
    opa_option,
    read,
    with_loader,
)
from parma_tenant.generate.life import Action, actions
from parma_tenant.generate.run import generate, read_file, read_groups
from parma_tenant.image.hashing import HashCache, default_cache
from parma_tenant.simulate import Script, StepResult, parse_script, simulate
from parma_tenant.source.errors import SourceError


@click.command("simulate")
@click.option("--policy", "text", type=FILE, required=True, help="The policy text.")
@click.option("--steps", type=FILE, help="A step file (JSON).")
@click.option("--pod", type=FILE, help="Manifests or a container-group file, whose life is played.")
@image_options
@json_option
@opa_option
@bundles_option
def simulate_command(
    text: Path,
    *,
    steps: Path | None,
    pod: Path | None,
    as_json: bool,
    opa: Path | None,
    bundles: Path | None,
    **options: Any,
) -> None:
    """Play requests through the agent's own gate and OPA, and print each verdict with its reason.

    With --steps: exit 0 if the steps were played, whatever their verdicts; 1 if the policy is refused when set.
    With --pod: exit 1 if something that the pod needs would be denied. 2 for bad input.

    Example: parma policy simulate --policy policy.rego --pod deployment.yaml --archive images.tar
    """
    if (steps is None) == (pod is None):
        fail("give either --steps FILE or --pod FILE")
    content = read(text)
    titles: Sequence[str] = ()
    try:
        if steps is not None:
            script = _script(steps)
        else:
            assert pod is not None
            life = _life(pod, options)
            titles = [action.title for action in life]
            script = Script(tuple(action.step for action in life), pod.parent)
        results = with_loader(
            opa, bundles, lambda loader: simulate(lambda: loader, content, script)
        )
    except ApiError as error:
        fail(error.message)
    for result in results:
        click.echo(_shown(result, titles, as_json=as_json))
    refused = bool(results) and not results[0].step
    denied = pod is not None and not all(result.allowed for result in results)
    sys.exit(1 if refused or denied else 0)


def _script(steps: Path) -> Script:
    try:
        return parse_script(json.loads(read(steps)), steps.parent)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{steps} is no JSON: {error}") from error


def _life(pod: Path, options: dict[str, Any]) -> list[Action]:
    """Raises ApiError."""
    wishes = wishes_of(options)
    groups = read_groups([(pod.name, read_file(pod))], extra_of(options), wishes)
    if len(groups) > 1:
        names = ", ".join(title for title, _ in groups)
        raise SourceError(f"{pod} has {len(groups)} workloads ({names}): choose with --select")
    with progress_bar() as progress:
        found = generate(groups, places_of(options), wishes, HashCache(default_cache()), progress)
    return list(actions(found[0]))


def _shown(result: StepResult, titles: Sequence[str], *, as_json: bool) -> str:
    title = titles[result.step - 1] if titles and result.step else ""
    if as_json:
        line = result.to_json()
        return json.dumps({**line, "title": title} if title else line, sort_keys=True)
    verdict = "allowed" if result.allowed else f"denied: {', '.join(result.reason_codes)}"
    return f"{result.step:3} {result.point}{f' ({title})' if title else ''}: {verdict}"
