"""A Daytona API that gives scripted answers, and the record of its sandbox."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from langchain_daytona_ws._core.ports import ExecReply, FaultKind, PortFault, SandboxInfo, SandboxSpec

NONCE = "n" * 16
INFO = SandboxInfo("id", "name", "started", "org", {})


def info(state: str) -> SandboxInfo:
    return SandboxInfo("id", "name", state, "org", {})


class ScriptedPort:
    """Answers each kind of request with the next of what it was given; the last one is repeated."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.slept_s = 0.0
        self.labels: Mapping[str, str] = {}  # the last that were set

    def _next(self, name: str) -> Any:
        self.asked.append(name)
        queue = self.answers[name]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def execute(
        self, sandbox_id: str, script: str, *, env: Mapping[str, str], timeout_s: int
    ) -> ExecReply:
        answer = self._next("execute")
        if isinstance(answer, ExecReply):
            return answer
        return ExecReply(0, answer if isinstance(answer, str) else f"\n{NONCE} {json.dumps(answer)}\n")

    async def get(self, id_or_name: str) -> SandboxInfo | None:
        answer = self._next("get")
        assert answer is None or isinstance(answer, SandboxInfo)
        return answer

    async def create(self, spec: SandboxSpec, *, timeout_s: float) -> SandboxInfo:
        answer = self._next("create")
        assert isinstance(answer, SandboxInfo)
        return answer

    async def start(self, sandbox_id: str, *, timeout_s: float) -> None:
        self._next("start")

    async def stop(self, sandbox_id: str, *, timeout_s: float) -> None:
        self._next("stop")

    async def recover(self, sandbox_id: str, *, timeout_s: float) -> None:
        self._next("recover")

    async def ping(self, sandbox_id: str) -> None:
        self._next("ping")

    async def preview_url(self, sandbox_id: str, port: int, *, expires_s: int) -> str:
        return str(self._next("preview_url"))

    async def set_labels(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self._next("set_labels")

    async def delete(self, id_or_name: str) -> None:
        self._next("delete")

    async def upload(self, sandbox_id: str, files: Sequence[tuple[str, bytes]]) -> list[str]:
        self._next("upload")
        return [hashlib.sha256(data).hexdigest() for _, data in files]

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def now(self) -> float:
        return self.slept_s

    async def finish(self, work: Coroutine[Any, Any, None], *, within_s: float) -> bool:
        self.asked.append("finish")
        await work
        return True


class Record:
    """The `SandboxRecord` of a session whose sandbox is always there."""

    def __init__(self, *, is_persistent: bool = False) -> None:
        self.is_persistent = is_persistent
        self.lost_ones: list[SandboxInfo] = []
        self.failed_ones: list[SandboxInfo] = []
        self.restarts = 0

    async def acquire(self) -> SandboxInfo:
        return INFO

    @property
    def starts(self) -> int:
        return self.restarts

    def record_restart(self, since: int) -> None:
        assert since == self.restarts
        self.restarts += 1

    def record_loss(self, lost: SandboxInfo) -> None:
        self.lost_ones.append(lost)

    def record_failure(self, failed: SandboxInfo) -> None:
        self.failed_ones.append(failed)


def fault(kind: FaultKind, **facts: Any) -> PortFault:
    return PortFault(kind, f"it said {kind.name}", **facts)
