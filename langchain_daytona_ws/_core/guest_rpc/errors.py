"""Errors of calls to the guest: refused, unreachable, or of unknown outcome."""

from __future__ import annotations

from langchain_daytona_ws._core.ports import FaultKind, PortFault, SandboxInfo
from langchain_daytona_ws._core.sandbox.remedies import CERTIFICATE_REMEDY
from langchain_daytona_ws.errors import OutcomeUnknown, SandboxError, SandboxUnavailable, WorkspaceError

LOST_WHILE_RUNNING = "lost_while_running"

_PYTHON_REMEDY = (
    "Use a snapshot or image with a complete Python 3.8 or later (options.snapshot or options.image)."
)


def setup_error(code: str, detail: str) -> WorkspaceError:
    """Return the error for a set-up failure of the guest. The codes of attachments are not known here."""
    if code in ("jobs_full", "job_damaged"):
        # Imported here, so that sessions without jobs need not import the module.
        from langchain_daytona_ws._core.jobs.models import damaged_job, too_many_jobs

        return too_many_jobs(detail) if code == "jobs_full" else damaged_job(detail)
    if code == "bash":
        return SandboxError(
            "The sandbox has no bash. Use a snapshot or image with bash, Python 3.8+ and Node.",
            code="no_bash",
            op="execute",
            for_model="This machine cannot run commands: bash is missing. Tell the user.",
        )
    if code == "python" and detail[:1].isdigit():
        return SandboxError(
            f"The sandbox's Python is too old: {detail}. {_PYTHON_REMEDY}",
            code="python_too_old",
            op="execute",
            context={"version": detail},
            for_model="This machine cannot run the workspace tools: its Python is too old. Tell the user.",
        )
    if code == "python":
        return SandboxError(
            f"The sandbox's Python lacks the module {detail}, which the workspace tools need. {_PYTHON_REMEDY}",
            code="python_incomplete",
            op="execute",
            context={"module": detail},
            for_model="This machine cannot run the workspace tools: its Python is incomplete. Tell the user.",
        )
    if code == "processes":
        return SandboxError(
            f"The sandbox cannot start another process: {detail}. Use a larger one, or let the agent end some.",
            code="no_processes",
            op="execute",
            retryable=True,
            for_model=f"The machine cannot start another process: {detail}. Nothing ran. End what is not needed.",
        )
    if code == "pty":
        return SandboxError(
            f"The sandbox has no pseudo-terminal for the command: {detail}. Run it without pty, or use a snapshot or "
            "image whose sandboxes have /dev/ptmx and /dev/pts.",
            code="no_terminal",
            op="execute",
            for_model=f"This machine has no terminal: {detail}. Nothing ran. Run it without pty.",
        )
    if code == "workspace":
        return SandboxError(
            f"The workspace directory could not be made or entered in the sandbox: {detail}. The sandbox's user "
            "needs write access to options.workspaceRoot, or sudo without a password; or set "
            "options.workspaceRoot to a directory that the user owns.",
            code="workspace_directory",
            op="execute",
            for_model=f"The workspace cannot be entered: {detail}. Nothing ran. Tell the user.",
        )
    if code == "directory":
        return SandboxError(
            f"A directory could not be made in the sandbox: {detail}. Its user needs sudo without a password for that; "
            "or store artifacts elsewhere, with CompositeBackend(artifacts_root=...).",
            code="directory",
            op="execute",
            for_model=f"The directory cannot be made: {detail}. Nothing was done.",
        )
    return SandboxError(
        f"The library's own directory on the sandbox's disk cannot be used: {detail}. Make room there, or use a new "
        "sandbox.",
        code="state_directory",
        op="execute",
        for_model="The machine's local disk cannot be used. Nothing ran. If it is full (df -h /tmp), delete what is "
        "not needed; otherwise tell the user.",
    )


def unknown(event: str, code: str | None = None, *, detail: str = "") -> OutcomeUnknown:
    """Return the error for a call that may have run.

    ``event`` is a sentence about the event that made the outcome unknown. ``detail`` is a sentence about the failure
    that followed; the model does not see it.
    """
    return OutcomeUnknown(
        f"The call was sent and its outcome is unknown. {event} {detail + ' ' if detail else ''}It was not sent again "
        "where that could have run it twice. Look at what it was to change before you do it again; check the network "
        "and Daytona's status if this goes on.",
        code=code,
        op="execute",
        for_model=f"The outcome of this call is unknown: it may have run, wholly or in part. {event} Look at the "
        "state of things before you decide whether to do it again.",
    )


def cancelled() -> OutcomeUnknown:
    """Return the error for a command whose key has been used in a kill request."""
    text = "the command was killed if it had started. What it had done stays."
    return OutcomeUnknown(
        f"The command was cancelled: {text}",
        code="cancelled",
        op="execute",
        for_model=f"This call was cancelled: {text}",
    )


def unreachable(fault: PortFault, info: SandboxInfo, tried: int) -> SandboxUnavailable:
    """Return the error for a sandbox that could not be reached in ``tried`` attempts; nothing ran."""
    return SandboxUnavailable(
        f"The sandbox {info.id} could not be reached: {fault.message}. Tried {tried} times; "
        "nothing ran. Check the network, options.apiUrl and Daytona's status, then try again.",
        op="execute",
        retryable=True,
        context={"sandbox_id": info.id, "status": fault.status},
        for_model="The machine cannot be reached now. Nothing ran. Try again later, or tell the user.",
    )


def untrusted(fault: PortFault) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"Daytona could not be reached: {fault.message}. {CERTIFICATE_REMEDY}",
        code="certificate",
        op="execute",
        for_model="The machine cannot be reached: this computer's network is set up wrongly. Nothing ran. Tell the "
        "user.",
    )


def refused(fault: PortFault) -> SandboxError:
    """Return the error for a request that Daytona refused, and would refuse again."""
    if fault.kind is FaultKind.UNTRUSTED:
        return untrusted(fault)
    if "no space left on device" in fault.message.lower():
        return SandboxError(
            f"The sandbox's disk is full: {fault.message}. Delete files there, or use a snapshot or image whose "
            "sandboxes have a larger disk.",
            code="disk_full",
            op="execute",
            context={"status": fault.status},
            for_model="The machine's disk is full. Nothing was done. Delete what is not needed, then try again.",
        )
    return SandboxError(
        f"Daytona refused the request: {fault.message}. Check the API key's permissions, and that options.apiUrl is "
        "the address of Daytona's API.",
        code=f"daytona_{fault.kind.name.lower()}",
        op="execute",
        context={"status": fault.status},
        for_model="The machine refused the request. Nothing ran. Tell the user.",
    )
