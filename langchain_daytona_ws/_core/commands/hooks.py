"""Run the hooks onCreate and onResume in a sandbox before the agent's commands.

Each onCreate command is sent with an idempotency key, so the sandbox records its result. The record is on the sandbox's
disk, not in the bucket, because a new sandbox must run the commands again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from langchain_daytona_ws._core.commands.run import CommandResult, run_command
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.guest_rpc.errors import LOST_WHILE_RUNNING
from langchain_daytona_ws.errors import HookFailed, OutcomeUnknown, WorkspaceError

HOOK_TIMEOUT_S = 600.0
SHOWN_BYTES = 16 * 1024  # of a failed command's output
# Limits for one onCreate command in one sandbox.
ATTEMPTS_MAX = 1000
INTERRUPTIONS_MAX = 25  # attempts that were cancelled, or whose process died (stop of the sandbox, kill)


class Hooks:
    """The hooks of a workspace.

    Args:
        root: The workspace directory, in which the commands start.
        on_create: Commands that set up a new sandbox. After a command has succeeded, no session runs it there again.
        on_resume: Commands that run when a session first uses the sandbox, and after each restart of the sandbox.
        defaults: Environment variables to set if the sandbox has no variable of the same name.
    """

    def __init__(
        self, root: str, on_create: Sequence[str], on_resume: Sequence[str], defaults: Mapping[str, str]
    ) -> None:
        self._root = root
        self._on_create = on_create
        self._on_resume = on_resume
        self._defaults = defaults

    def __bool__(self) -> bool:
        return bool(self._on_create or self._on_resume)

    async def run(self, client: GuestClient, sandbox_id: str) -> None:
        """Run the onCreate commands that have not succeeded in this sandbox, and all onResume commands.

        The client must send to this sandbox only.

        Raises:
            HookFailed: A command failed or timed out, or its outcome is unknown. The next call runs the hooks again,
                except for the onCreate commands that have succeeded.
            OutcomeUnknown: The sandbox is gone, ``code="lost_while_running"``.
            WorkspaceError: As `run_command` raises.
        """
        try:
            await self._run_all(client, sandbox_id)
        except OutcomeUnknown as error:
            if error.code == LOST_WHILE_RUNNING:
                raise
            # Only the outcome of the hook is unknown: the agent's command was not sent.
            raise _unknown(error) from error

    async def _run_all(self, client: GuestClient, sandbox_id: str) -> None:
        for number, command in enumerate(self._on_create):
            await self._run_on_create(client, sandbox_id, number, command)
        for command in self._on_resume:
            result = await self._run(client, command, None)
            if result.exit_code != 0:
                raise _failed("onResume", command, result)

    async def _run_on_create(self, client: GuestClient, sandbox_id: str, number: int, command: str) -> None:
        interruptions = 0
        for attempt in range(ATTEMPTS_MAX):
            try:
                result = await self._run(client, command, _key(sandbox_id, number, attempt))
            except WorkspaceError as error:
                if error.code not in ("runner_died", "cancelled"):
                    raise
                interruptions += 1
                if interruptions == INTERRUPTIONS_MAX:
                    break  # a command that stops its own sandbox would otherwise be run again without end
                continue
            if result.exit_code == 0:
                return
            if not result.from_record:
                raise _failed("onCreate", command, result)
        raise HookFailed(
            f"A command of onCreate has failed {ATTEMPTS_MAX} times in sandbox {sandbox_id}, or was interrupted "
            f"{INTERRUPTIONS_MAX} times; the agent's command was not run. Correct it, and release the sandbox.\n"
            f"$ {command}",
            code="on_create_failed",
            op="onCreate",
            for_model=_FOR_MODEL,
        )

    async def _run(self, client: GuestClient, command: str, key: str | None) -> CommandResult:
        return await run_command(
            client,
            self._root,
            command,
            timeout_s=HOOK_TIMEOUT_S,
            limit_bytes=SHOWN_BYTES,
            key=key,
            keep=key is not None,
            defaults=self._defaults,
        )


_FOR_MODEL = "The workspace's machine could not be set up. Nothing ran. Tell the user."


def _key(sandbox_id: str, number: int, attempt: int) -> str:
    identity = json.dumps(["onCreate", sandbox_id, number, attempt])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _unknown(error: OutcomeUnknown) -> HookFailed:
    return HookFailed(
        "It is not known how a command of onCreate or onResume ended; the agent's command was not run. Try again. "
        f"{error.message}",
        code="hook_unknown",
        op="execute",
        retryable=True,
        for_model="The workspace's machine could not be set up. Nothing ran. Try again later, or tell the user.",
    )


def _failed(hook: str, command: str, result: CommandResult) -> HookFailed:
    how = f"timed out after {HOOK_TIMEOUT_S:g} s" if result.timed_out else f"ended with {result.exit_code}"
    return HookFailed(
        f"A command of {hook} {how}; the agent's command was not run. Correct it, or the snapshot that it works on.\n"
        f"$ {command}\n{result.output}",
        code="on_create_failed" if hook == "onCreate" else "on_resume_failed",
        op=hook,
        retryable=True,
        context={"exit_code": result.exit_code, "timed_out": result.timed_out},
        for_model=_FOR_MODEL,
    )
