"""Processes in the machine itself: exactly the command that the policy lists, in no container."""

from __future__ import annotations

from parma_api.gen.parma.agent.v1 import Stdio as StdioMessage
from parma_api.policy.decision import Decision
from parma_guest.agent.sandbox import Group
from parma_guest.process.runtime import Started
from parma_guest.process.stdio import Access, Stdio, StreamIds
from parma_guest.process.table import Key


class External:
    """Starts what exec_external allowed."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def start(self, decision: Decision, exec_id: str, message: StdioMessage) -> int:
        """The pid. Raises AlreadyExistsError, KernelError (the program is missing)."""
        group, key = self._group, Key("", exec_id)
        group.processes.require_new(key)
        args, cwd = decision.input["argList"], decision.input["workingDir"]
        assert isinstance(args, list | tuple)
        assert decision.env_list is not None
        stdio = Stdio(
            group.background,
            group.channel(),
            StreamIds(message.stdin, message.stdout, message.stderr),
            Access.GRANTED if decision.allow_stdio_access else Access.WITHHELD,
        )
        try:
            environment = dict(_pair(entry) for entry in decision.env_list)
            command = [str(arg) for arg in args]
            directory = str(cwd) or "/"
            pid, ended = group.spawner.start(command, stdio.descriptors, environment, directory)
            group.processes.add(key, tuple(command), Started(pid, ended), stdio)
        except BaseException:
            stdio.discard()
            raise
        return pid


def _pair(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value
