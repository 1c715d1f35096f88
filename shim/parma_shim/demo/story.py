"""`make demo`: a container group under its policy in a real utility VM, and a host that tries six other things."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from parma_api.snp.report import host_data_of
from parma_api.status import ApiError, InternalError
from parma_shim.demo import group, images
from parma_shim.demo.daemon import (
    CommandFailedError,
    PrivateContainerd,
    Programs,
    Settings,
    run_checked,
)
from parma_shim.demo.group import CACHE, GROUP, WEB, container_config, pod_config
from parma_shim.demo.narrator import Narrator


class DemoFailedError(InternalError):
    """A step did not do what it says."""


@dataclass(slots=True)
class Stage:
    """Where the story is played."""

    narrator: Narrator
    daemon: PrivateContainerd
    archive: Path
    policy: bytes = b""
    pod: str = ""

    @property
    def folder(self) -> Path:
        return self.daemon.folder

    def file(self, name: str, text: str) -> str:
        """Writes a file for crictl; its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


def cache_folder() -> Path:
    """$PARMA_CACHE, else ~/.cache/parma."""
    return Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")


def programs() -> Programs:
    """The machine's containerd, our crictl, and the shim beside this interpreter."""
    containerd, ctr = (shutil.which(name) for name in ("containerd", "ctr"))
    if containerd is None or ctr is None:
        raise DemoFailedError("containerd is missing: run `make env`")
    return Programs(
        Path(containerd),
        Path(ctr),
        cache_folder() / "crictl" / "crictl",
        Path(sys.executable).parent,
    )


def play(narrator: Narrator) -> None:
    """The whole story; everything that it made is removed, also after Ctrl-C. Raises ApiError."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with narrator.step("Images from Debian packages: busybox, nginx, redis"):
        archive = images.ensure(cache_folder() / "demo", narrator.say)
        narrator.say(f"{archive.name}, {archive.stat().st_size // 1024} KiB")
    folder = Path(tempfile.mkdtemp(prefix="parma-demo-"))
    settings = Settings(folder, programs(), images.PAUSE)
    with _stage(settings, narrator, archive) as stage:
        _write_policy(stage)
        _start_group(stage)
        _use_group(stage)
        _show_report(stage)
        _attack(stage)
    narrator.end("All that was started is gone")


@contextlib.contextmanager
def _stage(settings: Settings, narrator: Narrator, archive: Path) -> Iterator[Stage]:
    daemon = PrivateContainerd(settings)
    try:
        with narrator.step("A private containerd: own root, state, socket and network namespace"):
            daemon.__enter__()
            daemon.ctr("images", "import", str(archive))
            narrator.say(f"handler `parma`, network namespace {daemon.netns}")
        yield Stage(narrator, daemon, archive)
    finally:
        narrator.say("removing pods, VMs, containerd and its files")
        daemon.close()


def _write_policy(stage: Stage) -> None:
    with stage.narrator.step("The tenant's policy for a group of two containers"):
        group_file = stage.file("group.json", group.group_file(GROUP))
        target = stage.folder / "policy.rego"
        parma = str(Path(sys.executable).parent / "parma")
        run_checked(
            [
                parma,
                "policy",
                "generate",
                group_file,
                "--archive",
                str(stage.archive),
                "--output",
                str(target),
            ],
            timeout=300,
        )
        stage.policy = target.read_bytes()
        stage.narrator.say(f"{len(stage.policy)} bytes; HOST_DATA will be its SHA-256:")
        stage.narrator.say(hashlib.sha256(stage.policy).hexdigest())


def _start_group(stage: Stage) -> None:
    daemon, narrator = stage.daemon, stage.narrator
    (stage.folder / "logs").mkdir()
    with narrator.step("The group starts through CRI, runtime handler `parma`: a VM boots"):
        annotations = {group.ANNOTATION: base64.b64encode(stage.policy).decode()}
        pod = stage.file("pod.json", pod_config("demo", stage.folder / "logs", annotations))
        stage.pod = daemon.crictl("runp", "--runtime", "parma", pod, timeout=300).strip()
        narrator.say(f"pod {stage.pod[:13]}: the agent took the policy, HOST_DATA agreed")
    for member in GROUP:
        with narrator.step(f"Container `{member.name}` from {member.image}"):
            config = stage.file(f"{member.name}.json", container_config(member))
            name = daemon.crictl(
                "create", stage.pod, config, str(stage.folder / "pod.json")
            ).strip()
            daemon.crictl("start", name)
            narrator.say(f"container {name[:13]} runs in the VM")


def _use_group(stage: Stage) -> None:
    daemon, narrator = stage.daemon, stage.narrator
    with narrator.step("nginx answers over the pod's network address"):
        status = json.loads(daemon.crictl("inspectp", stage.pod))["status"]
        address = status["network"]["ip"]
        page = _fetch(daemon, address)
        narrator.say(f"http://{address}/ -> {page.strip()}")
        if "measured utility VM" not in page:
            raise DemoFailedError("nginx gave another page than the image holds")
    with narrator.step("Logs, and a process that the policy lists"):
        web, cache = (_container(stage, member.name) for member in (WEB, CACHE))
        log = daemon.crictl("logs", web)
        narrator.say("log:  " + log.strip().splitlines()[-1])
        ping = ("exec", "--sync", cache, *CACHE.execs[0])
        answer = _patiently(lambda: daemon.crictl(*ping)).strip()
        narrator.say(f"exec: {' '.join(CACHE.execs[0])} -> {answer}")
        if "GET /" not in log or answer != "PONG":
            raise DemoFailedError("the log or the exec's answer is not what was expected")


_FETCH = """\
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
"""


def _fetch(daemon: PrivateContainerd, address: str) -> str:
    words = [*daemon.inside(), sys.executable, "-c", _FETCH, f"http://{address}/"]
    return _patiently(lambda: run_checked(words))


def _patiently(ask: Callable[[], str]) -> str:
    """The answer, once there is one: a server needs a moment to listen. Raises CommandFailedError."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask()
        except CommandFailedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def _container(stage: Stage, name: str) -> str:
    return stage.daemon.crictl("ps", "--quiet", "--name", f"^{name}$", "--pod", stage.pod).strip()


def _show_report(stage: Stage) -> None:
    narrator = stage.narrator
    with narrator.step("The report that the VM obtained"):
        report = next((stage.folder / "run").glob("*/report.bin")).read_bytes()
        claimed, wanted = host_data_of(report).hex(), hashlib.sha256(stage.policy).hexdigest()
        narrator.say(f"HOST_DATA in the report:  {claimed}")
        narrator.say(f"SHA-256 of the policy:    {wanted}")
        narrator.say("signed by the stub of the security processor: this host has no SEV-SNP")
        if claimed != wanted:
            raise DemoFailedError("HOST_DATA is not the policy's digest")


def _attack(stage: Stage) -> None:
    with stage.narrator.step("Now the host tries something else"):
        foreign = {"image": {"image": images.FOREIGN}, "command": ["/bin/sh"]}
        swapped = {"image": {"image": images.SWAPPED}}
        evil_env = {
            "envs": [{"key": "GREETING", "value": "hello"}, {"key": "LD_PRELOAD", "value": "/x.so"}]
        }
        other_command = {"command": ["/bin/sh", "-c", "cat /proc/1/environ"]}
        _refused(stage, "a layer that the policy does not name", "device.hash_unknown", foreign)
        _refused(stage, "the same layers in another order", "overlay.no_match", swapped)
        _refused(stage, "one environment variable more", "process.env", evil_env)
        _refused(stage, "another command", "process.command", other_command)
        _refused_exec(stage)
        _refused_policy(stage)


def _refused(stage: Stage, what: str, code: str, changes: Mapping[str, object]) -> None:
    """A container with `changes` must be denied with `code`. Raises DemoFailedError."""
    name = "attack-" + re.sub("[^a-z]", "-", code)
    config = container_config(WEB, metadata={"name": name}, **changes)
    arguments = (stage.pod, stage.file(f"{name}.json", config), str(stage.folder / "pod.json"))
    created = ""
    try:
        created = stage.daemon.crictl("create", *arguments).strip()
        stage.daemon.crictl("start", created)
    except CommandFailedError as error:
        _expect(stage, what, code, error.message)
    else:
        raise DemoFailedError(f"the host got through with {what}")
    finally:
        if created:
            stage.daemon.crictl("rm", created)


def _refused_exec(stage: Stage) -> None:
    command = ("/bin/sh", "-c", "cat /etc/passwd")
    try:
        output = stage.daemon.crictl("exec", "--sync", _container(stage, WEB.name), *command)
    except CommandFailedError as error:
        _expect(stage, "a shell in the container", "process.command", error.message)
    else:
        raise DemoFailedError(f"the host got a shell: {output[:80]}")


def _refused_policy(stage: Stage) -> None:
    """A VM launched with the good HOST_DATA is handed a policy with one byte changed."""
    arguments = ["attack", "--id", "K6", "--policy", str(stage.folder / "policy.rego"), "--json"]
    parma = str(Path(sys.executable).parent / "parma")
    done = subprocess.run(
        [parma, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise DemoFailedError(
            f"the changed policy was not refused: {done.stderr.strip() or done.stdout}"
        )
    row = json.loads(done.stdout.splitlines()[0])
    stage.narrator.refused("one byte of the policy changed", str(row["observed"]))


def _expect(stage: Stage, what: str, code: str, message: str) -> None:
    if code not in message:
        raise DemoFailedError(f"{what}: refused, but not for {code}: {message[:500]}")
    stage.narrator.refused(what, readable(message))


def readable(message: str) -> str:
    """The denial in crictl's output: action and reason, and the nearest container if it is named."""
    lines = [line.strip() for line in message.replace("\\n", "\n").splitlines()]
    for number, line in enumerate(lines):
        if found := re.search(r"\w+ denied by policy: .*", line):
            following = lines[number + 1] if number + 1 < len(lines) else ""
            return f"{found[0]}; {following}" if following else found[0]
    return lines[0]


def main() -> int:
    """Plays the story; exit 0 only if every step did what it says."""
    narrator = Narrator()
    try:
        play(narrator)
    except KeyboardInterrupt:
        narrator.end("Interrupted; all that was started is gone")
        return 130
    except ApiError as error:
        # A program's warnings come first, and why it ended comes last.
        narrator.end(f"The demo failed: {error.message.strip().splitlines()[-1]}")
        return 1
    return 0
