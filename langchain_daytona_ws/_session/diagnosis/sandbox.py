"""Check a real sandbox: create it as a session does, examine it, and always delete it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from langchain_daytona_ws._adapters.daytona_sync import SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import account_of
from langchain_daytona_ws._core.commands.run import CommandResult
from langchain_daytona_ws._core.doctor import sandbox as facts
from langchain_daytona_ws._core.doctor.finding import Finding, failed, from_error, from_fault, ok, skipped
from langchain_daytona_ws._core.ports import PortFault
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.store import StoreFault
from langchain_daytona_ws._session.diagnosis.captured_warnings import captured_warnings
from langchain_daytona_ws._session.diagnosis.storage import PROBE, StorageDiagnosis
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import OutcomeUnknown, WorkspaceError

CHECKS = ("sandbox", "workspace", "sync", *facts.CHECKS)
FACTS_S = 30
COMMAND_S = 60.0


class Session(Protocol):
    """The methods of `WorkspaceSession` that the checks use."""

    @property
    def sandbox_id(self) -> str | None: ...

    def run(self, command: str, *, timeout_s: float | None = None) -> CommandResult: ...

    def close(self) -> None: ...


OpenSession = Callable[[SandboxConfig, str], Session]


def ephemeral(config: SandboxConfig) -> SandboxConfig:
    """Return the configuration, changed to an ephemeral sandbox that runs no hooks."""
    changes = {"persistent": False, "lifecycle": None, "on_create": None, "on_resume": None}
    return config.model_copy(update=changes)


def without_s3(config: SandboxConfig) -> SandboxConfig:
    """Return the configuration, changed to a workspace on the sandbox's own disk."""
    options = config.options.model_copy(update={"mount_aws_s3_buckets": False})
    return config.model_copy(update={"options": options})


def sandbox_findings(
    config: SandboxConfig, namespace: str, open_session: OpenSession, storage: StorageDiagnosis | None
) -> Iterator[Finding]:
    """Create a sandbox, examine it, and delete it; if ``storage`` has an `obstacle`, create it without S3."""
    obstacle = "" if storage is None else storage.obstacle
    config = ephemeral(config if storage is not None and not obstacle else without_s3(config))
    with captured_warnings():  # warnings about the configuration are reported already
        session = open_session(config, namespace)
    try:
        findings = _examined(session, config, storage, obstacle)
    finally:
        left = _closed(session)
    yield from findings
    if left is not None:
        yield left


def _closed(session: Session) -> Finding | None:
    try:
        session.close()
    except WorkspaceError as error:
        return from_error("cleanup", error)
    return None


def _examined(
    session: Session, config: SandboxConfig, storage: StorageDiagnosis | None, obstacle: str
) -> list[Finding]:
    began = time.monotonic()
    workspace = _workspace(session, None if obstacle else storage)
    took_s = time.monotonic() - began
    identifier = session.sandbox_id
    if identifier is None:
        refusal = Finding("sandbox", workspace[0].status, workspace[0].found, code=workspace[0].code)
        return [refusal, *skipped("there is no sandbox", *CHECKS[1:])]
    if obstacle:
        workspace = skipped(obstacle, "workspace", "sync")
    found = [ok("sandbox", f"{identifier} was created, and answered after {took_s:.1f} s"), *workspace]
    nonce = f"facts{secrets.token_hex(8)}"
    port = SyncDaytonaPort(account_of(config))
    before_s = time.time()
    try:
        reply = run_sync(port.execute(identifier, facts.facts_script(nonce), env={}, timeout_s=FACTS_S))
    except PortFault as fault:
        return [*found, from_fault("bash", "the request for the sandbox's programs failed", fault)]
    sandbox_facts = facts.read_facts(reply.output, nonce)
    after_s = time.time()
    return [
        *found,
        *facts.judge_sandbox(
            sandbox_facts,
            is_mounted=storage is not None and storage.is_mounted,
            before_s=before_s,
            after_s=after_s,
        ),
    ]


def _workspace(session: Session, storage: StorageDiagnosis | None) -> list[Finding]:
    """Write a file with a command of the session. If the workspace is on S3, read the file from S3."""
    name, text = PROBE + secrets.token_hex(6), secrets.token_hex(8)
    ran, report = True, None
    try:
        try:
            result = session.run(f"printf %s {text} > {name} && cat {name}", timeout_s=COMMAND_S)
            report = result.sync
            finding = _judged(result, text, storage, name)
        except WorkspaceError as error:
            ran = isinstance(error, OutcomeUnknown)
            finding = from_error("workspace", error)
        except StoreFault as fault:
            finding = failed(
                "workspace",
                f"a file that a command wrote was not found in S3: {fault.message}",
                "See the S3 checks above.",
                "not_in_s3",
            )
    finally:
        left = storage.remove(name) if storage is not None and ran else None
    return [finding, *facts.judge_sync(report), *([left] if left else [])]


def _judged(result: CommandResult, text: str, storage: StorageDiagnosis | None, name: str) -> Finding:
    if result.exit_code != 0 or result.output != text:
        return failed(
            "workspace",
            f"a command could not write a file: exit code {result.exit_code}, {' '.join(result.output.split())[:200]}",
            "On S3, see s3-new-file and s3-write above; otherwise see that the sandbox's user may write there.",
            "not_writable",
        )
    if storage is None:
        return ok("workspace", "a command wrote and read a file")
    if storage.read(name) != text.encode():
        return failed(
            "workspace",
            "S3 does not have the content that a command wrote",
            "Something on the way changes or caches objects: check options.s3Endpoint.",
            "inconsistent",
        )
    access = "mounted" if storage.is_mounted else "synchronised"
    return ok("workspace", f"{access}; a file that a command wrote was read from S3")
