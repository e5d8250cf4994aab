"""The steps of the matrix: how each is run, and how its effects are counted from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langchain_daytona_ws import WorkspaceSession
from tests.faults.runtime import Runtime

# The workspace: on the sandbox's own disk; in a persistent sandbox; on a mount of S3; both; on S3 without a sandbox.
Kind: TypeAlias = Literal["disk", "kept", "s3", "kept s3", "direct"]

LARGE = b"0123456789abcde\n" * (20 << 10)  # larger than the content that a request carries


@dataclass
class Work:
    """The data of a step. It has no server objects, so a separate process can use it too.

    Attributes:
        acknowledged: Files that the session reported as written: path → content.
        attempted: Contents that may have been written if the outcome is unknown: path → content.
    """

    session: WorkspaceSession
    runtime: Runtime
    token: str
    command: str
    timeout_s: float = 60.0
    on_acknowledge: Callable[[str, bytes], object] | None = None
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    attempted: dict[str, bytes] = field(default_factory=dict)

    def call(self, target: Any, name: str, *arguments: Any, **named: Any) -> Any:
        return self.runtime.call(target, name, *arguments, **named)

    def acknowledge(self, path: str, content: bytes) -> None:
        self.acknowledged[path] = content
        if self.on_acknowledge is not None:
            self.on_acknowledge(path, content)


ReadFile: TypeAlias = Callable[[str], "bytes | None"]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Its name in the table.
        action: The action of its request in the server's journal; for "direct", the method of its S3 request.
        kind: Its workspace, unless the fault needs another.
        prepare: Called before the step.
        do: The step.
        effects: Returns how often it took effect, from the count of commands and from files; None if it has no effect.
        tool: Returns the tool and arguments of the same step by a model; None if a model cannot do it.
    """

    name: str
    action: str
    kind: Kind
    prepare: Callable[[Work], None]
    do: Callable[[Work], object]
    effects: Callable[[Work, int, ReadFile], int] | None
    tool: Callable[[Work], tuple[str, dict[str, Any]]] | None = None


def _nothing(work: Work) -> None:
    """Prepare nothing."""


def _create(work: Work) -> None:
    """Create the sandbox without running a command."""
    work.runtime.acquire(work.session)


def _warm(work: Work) -> None:
    assert work.call(work.session, "run", "echo kept > kept.txt", timeout_s=60).exit_code == 0
    work.acknowledge("kept.txt", b"kept\n")


def _edited(work: Work) -> None:
    _warm(work)
    work.call(work.session.files, "write", "edited.txt", "[\n")
    work.acknowledge("edited.txt", b"[\n")


def _edited_on_s3(work: Work) -> None:
    work.call(work.session.files, "write", "kept.txt", "kept\n")
    work.acknowledge("kept.txt", b"kept\n")
    work.call(work.session.files, "write", "edited.txt", "[\n")
    work.acknowledge("edited.txt", b"[\n")


def _run(work: Work) -> object:
    result = work.call(work.session, "run", work.command, timeout_s=work.timeout_s)
    if result.exit_code == 0:
        work.acknowledge(f"{work.token}.txt", f"{work.token}\n".encode())
    return result


def _write(work: Work) -> object:
    result = work.call(work.session.files, "write", f"d/{work.token}.txt", f"{work.token}\n")
    work.acknowledge(f"d/{work.token}.txt", f"{work.token}\n".encode())
    return result


def _upload(work: Work) -> object:
    result = work.call(work.session.files, "write", f"d/{work.token}.txt", LARGE)
    work.acknowledge(f"d/{work.token}.txt", LARGE)
    return result


def _edit(work: Work) -> object:
    work.attempted["edited.txt"] = b"[x\n"
    result = work.call(work.session.files, "edit", "edited.txt", "[", "[x")
    work.acknowledge("edited.txt", b"[x\n")
    return result


def _job(work: Work) -> object:
    job = work.call(work.session.jobs, "start", work.command, max_duration_s=60)
    ended = work.call(work.session.jobs, "join", job.id, timeout_s=60)
    if ended.exit_code == 0:
        work.acknowledge(f"{work.token}.txt", f"{work.token}\n".encode())
    return ended


def _close(work: Work) -> object:
    return work.call(work.session, "close")


def _counted(work: Work, count: int, stored_file: ReadFile) -> int:
    return count


def _written(content: bytes) -> Callable[[Work, int, ReadFile], int]:
    def effects(work: Work, count: int, stored_file: ReadFile) -> int:
        return int(stored_file(f"d/{work.token}.txt") == (content or f"{work.token}\n".encode()))

    return effects


def _edits(work: Work, count: int, stored_file: ReadFile) -> int:
    """Count the x after the bracket: a repeated edit adds another one."""
    return (stored_file("edited.txt") or b"").count(b"x")


def _bash(work: Work) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": work.command}


def _background(work: Work) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": work.command, "background": True}


def _by_write(work: Work) -> tuple[str, dict[str, Any]]:
    return "workspace_file", {"action": "write", "path": f"d/{work.token}.txt", "content": f"{work.token}\n"}


def _by_edit(work: Work) -> tuple[str, dict[str, Any]]:
    return "workspace_file", {"action": "edit", "path": "edited.txt", "old_string": "[", "new_string": "[x"}


STEPS = {
    step.name: step
    for step in (
        Step("create", "create", "disk", _nothing, _run, _counted, _bash),
        Step("claim", "get", "kept", _nothing, _run, _counted, _bash),
        Step("mount", "execute", "s3", _create, _run, _counted, _bash),
        Step("first", "execute", "disk", _create, _run, _counted, _bash),
        Step("warm", "execute", "disk", _warm, _run, _counted, _bash),
        Step("write", "execute", "disk", _warm, _write, _written(b""), _by_write),
        Step("upload", "upload", "disk", _warm, _upload, _written(LARGE)),
        Step("edit", "execute", "disk", _edited, _edit, _edits, _by_edit),
        Step("job", "execute", "disk", _warm, _job, _counted, _background),
        Step("close", "delete", "disk", _warm, _close, None),
        Step("s3write", "PUT", "direct", _edited_on_s3, _write, _written(b""), _by_write),
        Step("s3edit", "PUT", "direct", _edited_on_s3, _edit, _edits, _by_edit),
    )
}
