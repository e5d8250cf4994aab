"""Find, delete and build snapshots, over the SDK's sync client."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from daytona import CreateSnapshotParams, DaytonaNotFoundError, Image, Resources
from daytona._sync.snapshot import SnapshotService
from daytona.common.snapshot import Snapshot
from daytona_api_client import SnapshotsApi

from langchain_daytona_ws._adapters.daytona_sync import Client
from langchain_daytona_ws._adapters.faults import translated
from langchain_daytona_ws._adapters.sdk import REQUEST_TIMEOUT_S, Account, client_config, making_a_client
from langchain_daytona_ws._core.ports import FaultKind, PortFault

DELETE_WITHIN_S = 180.0
POLL_S = 1.0
# Polling a build fails if the control plane (Daytona's central API) is unreachable for longer.
UNREACHABLE_S = 60.0

_READY = "active"
_FAILED = ("error", "build_failed")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The control plane's description of a snapshot."""

    id: str
    name: str
    state: str
    error_reason: str | None
    created_at: str


class Snapshots:
    """The snapshots of one account.

    Args:
        account: The account. Its target is the region of built snapshots; None builds a general snapshot.
    """

    def __init__(self, account: Account) -> None:
        with making_a_client():
            self._client = Client(client_config(account))
        # Without a target, the client's own service would read a region from DAYTONA_TARGET and from .env files.
        self._service = SnapshotService(
            SnapshotsApi(self._client._api_client), self._client._object_storage_api, account.target
        )

    def find(self, name: str) -> SnapshotInfo | None:
        """Return the snapshot of this name; None if it does not exist."""

        def get() -> SnapshotInfo | None:
            try:
                return _describe(self._service.get(name))
            except DaytonaNotFoundError:
                return None

        found = _within(REQUEST_TIMEOUT_S, get)
        # The control plane also finds snapshots by id.
        return found if found is not None and found.name == name else None

    def delete(self, snapshot: SnapshotInfo) -> None:
        """Delete a snapshot and return once its name is free."""
        until = time.monotonic() + DELETE_WITHIN_S
        requested = False
        while True:
            try:
                if not requested:
                    _within(REQUEST_TIMEOUT_S, lambda: self._service.delete(snapshot.id))
                    requested = True
                if self.find(snapshot.name) is None:
                    return
            except PortFault as fault:
                if fault.kind is FaultKind.NOT_FOUND:
                    return
                if not fault.passing or time.monotonic() > until:
                    raise
            if time.monotonic() > until:
                raise PortFault(FaultKind.BUSY, f"it was not gone {DELETE_WITHIN_S:.0f} s after its deletion")
            time.sleep(POLL_S)

    def build(
        self,
        name: str,
        dockerfile: str,
        *,
        resources: tuple[int | None, int | None, int | None] = (None, None, None),
        on_log: Callable[[str], None],
        timeout_s: float,
    ) -> SnapshotInfo:
        """Build a snapshot and return it when it is active.

        Args:
            name: An unused name.
            dockerfile: The Dockerfile of its image, which must not copy local files.
            resources: CPUs, GiB of memory and GiB of disk of each sandbox; None for Daytona's defaults.
            on_log: Called in this thread with each part of the build log, and with remarks on the build. If the SDK's
                log thread fails, the remark about this failure comes from that thread.
            timeout_s: Seconds to wait. The build continues after a time-out.
        """
        cpu, memory, disk = resources
        params = CreateSnapshotParams(
            name=name,
            image=_image(dockerfile),
            resources=Resources(cpu=cpu, memory=memory, disk=disk) if any(resources) else None,
        )
        until = time.monotonic() + timeout_s
        late = PortFault(FaultKind.BUSY, f"the build was not finished in {timeout_s:.0f} s, and goes on")

        def create(log: Callable[[str], None]) -> SnapshotInfo:
            return _describe(self._service.create(params, on_logs=log, timeout=0))

        try:
            with _without_traceback_of_the_log(on_log):
                return _watched(timeout_s, create, on_log, late=late)
        except PortFault as fault:
            # The SDK stops at the first missing response; the build continues.
            if not fault.passing or time.monotonic() >= until:
                raise
            on_log(f"{fault.message}; looking whether the build goes on")
            return self._watch(name, until, failed=fault, late=late)

    def _watch(self, name: str, until: float, *, failed: PortFault, late: PortFault) -> SnapshotInfo:
        seen_at = time.monotonic()
        while time.monotonic() < until:
            try:
                found = self.find(name)
            except PortFault as again:
                if not again.passing or time.monotonic() - seen_at > UNREACHABLE_S:
                    raise
            else:
                seen_at = time.monotonic()
                if found is None:
                    raise failed
                if found.state == _READY:
                    return found
                if found.state in _FAILED:
                    raise PortFault(FaultKind.REFUSED, f"{found.state}, reason: {found.error_reason}")
            time.sleep(POLL_S)
        raise late


def _describe(snapshot: Snapshot) -> SnapshotInfo:
    return SnapshotInfo(
        id=snapshot.id,
        name=snapshot.name,
        state=str(getattr(snapshot.state, "value", snapshot.state)),
        error_reason=snapshot.error_reason,
        created_at=f"{snapshot.created_at:%Y-%m-%d %H:%M} UTC",
    )


def _image(dockerfile: str) -> Image:
    """Return an image of this Dockerfile, through a temporary file: the SDK reads Dockerfiles from files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "Dockerfile")
        path.write_text(dockerfile, encoding="utf-8")
        return Image.from_dockerfile(path)


def _within(timeout_s: float, call: Callable[[], T]) -> T:
    late = PortFault(FaultKind.DROPPED, f"Daytona did not answer within {timeout_s:.0f} s")
    return _watched(timeout_s, lambda log: call(), lambda line: None, late=late)


def _watched(
    timeout_s: float,
    work: Callable[[Callable[[str], None]], T],
    on_log: Callable[[str], None],
    *,
    late: PortFault,
) -> T:
    """Run ``work`` in a daemon thread, and pass its log lines to ``on_log`` in this thread.

    The SDK has no time-out for these requests. It also starts a log thread, which would block the program's exit after
    an interrupt. Started by a daemon thread, the log thread is a daemon thread too.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            with translated():
                outcome.set_result(work(lines.put))
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            outcome.set_exception(error)
        finally:
            lines.put(None)

    until = time.monotonic() + timeout_s
    threading.Thread(target=run, daemon=True, name="snapshot").start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise late from None
        if line is None:
            return outcome.result()
        on_log(line)


@contextmanager
def _without_traceback_of_the_log(on_log: Callable[[str], None]) -> Iterator[None]:
    """Report a failure of the SDK's log thread in one line, because it does not affect the build."""
    before = threading.excepthook

    def report(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or "start_log_streaming" not in failed.thread.name:
            before(failed)
        else:
            on_log(f"(no more build log: {failed.exc_type.__name__})")

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before
