"""The faults of the matrix, and how the local Daytona or its S3 injects each at a step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_daytona_ws.local import Fault, FaultKind, S3Fault, S3FaultKind
from tests.faults.steps import Kind

if TYPE_CHECKING:
    from tests.faults.cell import Cell

Inject: TypeAlias = "Callable[[Cell], None]"
By: TypeAlias = Literal["session", "killed", "cancelled", "tool"]

S3_DELAY_S = 0.7
SILENT_S = 7.0
SHORT_LIFE_S = 12.0  # of credentials: long enough to mount
RETRY_AFTER_S = 3
S3_KINDS: dict[FaultKind, S3FaultKind] = {
    "drop_before": "drop_before", "drop_after": "drop_after", "status": "status", "slow_body": "late",
    "latency": "late", "truncate": "truncate", "malformed": "malformed",
}  # fmt: skip
# Shorter time-outs of requests, for faults that wait for them: module → name → seconds.
SHORT: dict[str, dict[str, float]] = {
    "langchain_daytona_ws._core.guest_rpc.client": {"MARGIN_S": 1},
    "langchain_daytona_ws._core.mount.manager": {"MOUNT_S": 1},
    "langchain_daytona_ws._core.sandbox.lifecycle": {"CREATE_CALL_S": 3.0, "START_WITHIN_S": 5.0},
    "langchain_daytona_ws._core.jobs.operations": {"CALL_S": 3.0},
    "langchain_daytona_ws._core.files.guest": {"CALL_TIMEOUT_S": 3.0},
    "langchain_daytona_ws._adapters.daytona_sync": {"REQUEST_TIMEOUT_S": 3.0},
    "langchain_daytona_ws._adapters.daytona_async": {"REQUEST_TIMEOUT_S": 3.0},
    "langchain_daytona_ws._adapters.answers": {"TRANSFER_TIMEOUT_S": 3.0},
    "langchain_daytona_ws._adapters.transfers": {"TRANSFER_TIMEOUT_S": 3.0},
    "langchain_daytona_ws._adapters.s3_bucket": {"READ_TIMEOUT_S": 3},
}

# The SDK's async client takes a second of real time for each refused connection.
RARELY: dict[str, dict[str, float]] = {"langchain_daytona_ws._core.sandbox.lifecycle": {"POLL_S": 10.0}}


@dataclass(frozen=True)
class FaultCase:
    """One fault.

    Attributes:
        name: Its name in the table.
        inject: Injects it, between the step's preparation and the step.
        kinds: Step → the workspace that it needs there instead of the step's own.
        by: How the step is run: by the session's methods, in a process that is killed, by a call that is cancelled, or
            by a model's tool call that needs an approval.
        limits: Time-outs of requests to shorten.
        small: Whether it needs a sandbox with a small disk.
        early: Called before the step is prepared.
    """

    name: str
    inject: Inject
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    by: By = "session"
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    small: bool = False
    early: Inject | None = None


def _http(kind: FaultKind, *, times: int | None = 1, **more: Any) -> Inject:
    def inject(cell: Cell) -> None:
        if cell.kind != "direct":
            cell.server.faults.add(Fault(kind, action=cell.step.action, times=times, **more))
            return
        wait = int(more.get("headers", {}).get("Retry-After", 0)) or None
        status = {"status": more["status"]} if "status" in more else {}
        delay = {"delay_s": more["delay_s"]} if "delay_s" in more else {}
        fault = S3Fault(
            S3_KINDS[kind], method=cell.step.action, times=times, retry_after_s=wait, **status, **delay
        )
        cell.server.s3.add_fault(fault)

    return inject


def _on_arrival(act: Inject) -> Inject:
    """Inject when the step's request arrives; if that creates the sandbox, after its creation."""

    def inject(cell: Cell) -> None:
        kind: FaultKind = "act_after" if cell.step.name == "create" else "act_before"
        cell.server.faults.add(Fault(kind, action=cell.step.action, act=lambda: act(cell)))

    return inject


def _on_request(act: Inject) -> Inject:
    """Inject when the step's request arrives; for direct S3 requests, before the request."""
    arriving = _on_arrival(act)

    def inject(cell: Cell) -> None:
        (act if cell.kind == "direct" else arriving)(cell)

    return inject


def _stop(cell: Cell) -> None:
    cell.server.stop_sandbox(cell.sandbox().id)


def _destroy(cell: Cell) -> None:
    cell.server.destroy_sandbox(cell.sandbox().id)


def _fail(cell: Cell) -> None:
    cell.server.fail_sandbox(cell.sandbox().id)


def _crash(cell: Cell) -> None:
    cell.server.crash_sandbox(cell.sandbox().id)


def _hold(cell: Cell) -> None:
    cell.server.hold_sandbox(cell.sandbox().id, "stopping")


def _stuck(cell: Cell) -> None:
    if cell.step.name == "create":
        cell.server.faults.add(Fault("stuck", action="create"))
    else:
        _on_arrival(_hold)(cell)


def _down(cell: Cell) -> None:
    if cell.kind == "direct":
        cell.redirect_s3("http://127.0.0.1:9")
        return
    cell.is_down = contextlib.ExitStack()
    cell.is_down.enter_context(cell.server.unreachable())


def _down_for_a_while(cell: Cell) -> None:
    _down(cell)
    cell.world.session_clock.after(3.0, cell.restore)


def _down_once_done(cell: Cell) -> None:
    """Run the request and then become unreachable, so that its response is lost."""
    cell.server.faults.add(Fault("act_after", action=cell.step.action, act=lambda: _down(cell)))


def _expired(cell: Cell) -> None:
    """Expire the credentials."""
    cell.server.s3.expire_credentials()
    cell.server.s3.credential_lifetime_s = 2 * 3600.0
    cell.world.session_clock.jump(3600.0)


def _credentials_end(cell: Cell) -> None:
    if cell.step.name == "create":
        cell.server.faults.add(Fault("act_after", action="create", act=lambda: _expired(cell)))
    elif cell.step.name == "mount":
        cell.server.faults.add(Fault("act_before", action="execute", act=cell.server.s3.expire_credentials))
    elif cell.kind == "direct":
        cell.server.s3.expire_credentials()
    else:
        time.sleep(SHORT_LIFE_S)  # mount-s3 uses the system clock
        cell.server.s3.credential_lifetime_s = None


def _short_lived(cell: Cell) -> None:
    if cell.step.name not in ("create", "mount", "first"):
        cell.server.s3.credential_lifetime_s = SHORT_LIFE_S


def _role_denied(cell: Cell) -> None:
    """Refuse credentials, and expire issued ones, so that the step needs new ones."""
    cell.server.s3.deny_role = True
    if cell.step.name not in ("create", "claim"):
        cell.server.s3.credential_lifetime_s = 2 * 3600.0
        cell.world.session_clock.jump(3600.0)


def _s3_denies(cell: Cell) -> None:
    cell.server.s3.deny = (f"agents/sandbox/{cell.namespace}/",)


def _accept_renames(cell: Cell) -> None:
    """Make the store accept renames, which loses files. A session tests a store only once."""
    cell.server.s3.accept_renames = True


def _kill_mount(cell: Cell) -> None:
    cell.server.run_inside(cell.sandbox().id, "pkill -9 -f mount-s[3]")


def _hang_mount(cell: Cell) -> None:
    cell.server.run_inside(cell.sandbox().id, "pkill -STOP -f mount-s[3]")


def _revoked(cell: Cell) -> None:
    """Revoke the credentials long before their expiry date."""
    cell.server.s3.expire_credentials()


def _fill(cell: Cell) -> None:
    cell.server.run_inside(cell.sandbox().id, "cat /dev/zero > /tmp/full; cat /dev/zero > /mnt/full")


def _raising(cell: Cell) -> None:
    def approver(_: object) -> Any:
        raise OSError("the chat service said: token xoxb-not-yours")

    cell.approver = approver


def _hanging(cell: Cell) -> None:
    def approver(_: object) -> Any:
        cell.answered.wait(60)

    cell.approver = approver


_KEPT: dict[str, Kind] = dict.fromkeys(("first", "warm", "write", "upload", "edit", "job"), "kept")
_MOUNTED: dict[str, Kind] = dict.fromkeys(
    ("create", "first", "warm", "write", "upload", "edit", "job", "close"), "s3"
)
_MOUNTED["claim"] = "kept s3"
_ALL_KEPT: dict[str, Kind] = {**_KEPT, "create": "kept", "mount": "kept s3"}
_FOR_GOOD: dict[str, Any] = {"times": None}
_RETRY_LATER: dict[str, Any] = {"headers": {"Retry-After": str(RETRY_AFTER_S)}}

FAULT_CASES = {
    fault.name: fault
    for fault in (
        FaultCase("refused for 3 s", _down_for_a_while),
        FaultCase("refused for good", _down, limits=RARELY),
        FaultCase("dropped before", _http("drop_before")),
        FaultCase("dropped before, always", _http("drop_before", **_FOR_GOOD)),
        FaultCase("dropped after", _http("drop_after")),
        FaultCase("dropped after, always", _http("drop_after", **_FOR_GOOD)),
        FaultCase("done, then down", _down_once_done, limits=RARELY),
        FaultCase("429", _http("status", status=429)),
        FaultCase("429 Retry-After", _http("status", status=429, **_RETRY_LATER)),
        FaultCase("429 always", _http("status", status=429, **_FOR_GOOD)),
        FaultCase("502 empty", _http("status", status=502)),
        FaultCase("502 always", _http("status", status=502, **_FOR_GOOD)),
        FaultCase("503", _http("status", status=503)),
        FaultCase("503 always", _http("status", status=503, **_FOR_GOOD)),
        FaultCase("504", _http("status", status=504)),
        FaultCase("504 always", _http("status", status=504, **_FOR_GOOD)),
        FaultCase("slow answer", _http("slow_body", delay_s=S3_DELAY_S)),
        FaultCase("no answer in time", _http("slow_body", delay_s=SILENT_S), limits=SHORT),
        FaultCase("late request", _http("latency", delay_s=SILENT_S), limits=SHORT),
        FaultCase("truncated", _http("truncate")),
        FaultCase("truncated always", _http("truncate", **_FOR_GOOD)),
        FaultCase("malformed", _http("malformed")),
        FaultCase("malformed always", _http("malformed", **_FOR_GOOD)),
        FaultCase("stopped", _on_arrival(_stop), kinds={**_KEPT, "mount": "kept s3"}),
        FaultCase("deleted", _on_arrival(_destroy)),
        FaultCase("in error", _on_arrival(_fail)),
        FaultCase("stuck", _stuck, kinds=_KEPT, limits=SHORT),
        FaultCase("daemon dead", _on_arrival(_crash)),
        FaultCase("credentials expired", _credentials_end, kinds=_MOUNTED, early=_short_lived),
        FaultCase("STS refuses", _role_denied, kinds=_MOUNTED),
        FaultCase("S3 refuses", _s3_denies, kinds=_MOUNTED),
        FaultCase("store accepts renames", _accept_renames, kinds=_MOUNTED),
        FaultCase("credentials revoked early", _on_request(_revoked), kinds=_MOUNTED),
        FaultCase("mount daemon killed", _on_arrival(_kill_mount), kinds=_MOUNTED),
        FaultCase("mount daemon hung", _on_arrival(_hang_mount), kinds=_MOUNTED),
        FaultCase("disk full", _on_arrival(_fill), small=True),
        FaultCase("host killed", lambda cell: None, by="killed"),
        FaultCase("host killed, done", lambda cell: None, by="killed", kinds=_ALL_KEPT),
        FaultCase("cancelled", lambda cell: None, by="cancelled"),
        FaultCase("approver raises", _raising, by="tool"),
        FaultCase("approver hangs", _hanging, by="tool"),
    )
}
