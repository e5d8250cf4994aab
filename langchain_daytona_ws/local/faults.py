"""Faults on demand: what goes wrong with which requests, how often, reproducibly."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FaultKind: TypeAlias = Literal[
    "latency",  # wait `delay_s`, then go on as usual
    "drop_before",  # take the request, do nothing, close the connection without a byte
    "drop_after",  # do all of it, then close the connection without a byte
    "status",  # answer `status` with `headers`, do nothing
    "slow_body",  # do it, send the headers, wait `delay_s`, then send the body
    "truncate",  # do it, send half of the body, close the connection
    "malformed",  # do it, answer 200 with a body that is not JSON
    "pending",  # the state change takes `delay_s` of the server's clock after the answer
    "stuck",  # the state change never ends: a create stays "creating", a stop "stopping"
    "fail",  # the state change ends in the state "error"
    "lost",  # the sandbox is destroyed before the request is looked at
    "act_before",  # call `act`, in a thread, before the request is looked at
    "act_after",  # do all of it, call `act` in a thread, then go on as usual
]


@dataclass(frozen=True)
class Fault:
    """One fault, armed with `LocalDaytona.faults.add`.

    Args:
        kind: what happens.
        action: the requests it concerns by their name in the journal, such as "execute"; None for all.
        path: a regular expression searched in the request's path; None for all.
        times: how often it happens before it is spent; None for always.
        skip: how many matching requests pass before the first.
        probability: the chance for each matching request after those, drawn from a generator seeded with
            `seed`.
        delay_s: for latency, slow_body and pending, in seconds.
        status: for status. 502 has an empty body, as from a proxy.
        headers: for status, for example {"Retry-After": "1"}.
        body: for status, instead of the usual one.
        act: for act_before and act_after. It may do anything, to this server or to the client.
    """

    kind: FaultKind
    action: str | None = None
    path: str | None = None
    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    delay_s: float = 0.0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    act: Callable[[], object] | None = None


class _Armed:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._left = fault.times
        self._skip = fault.skip
        self._random = random.Random(fault.seed)  # noqa: S311 - reproducible, not secret
        self._path = None if fault.path is None else re.compile(fault.path)

    @property
    def spent(self) -> bool:
        return self._left == 0

    def strikes(self, action: str, path: str) -> bool:
        if self.spent or self.fault.action not in (None, action):
            return False
        if self._path is not None and self._path.search(path) is None:
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if self._random.random() >= self.fault.probability:
            return False
        if self._left is not None:
            self._left -= 1
        return True


class Faults:
    """The armed faults of one server. Any thread may add and clear."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._armed += [_Armed(fault) for fault in faults]

    def clear(self) -> None:
        """Disarm all. What is stuck already stays stuck."""
        with self._lock:
            self._armed = []

    def take(self, action: str, path: str) -> tuple[Fault, ...]:
        """Return what strikes this request, and count it as done."""
        if not self._armed:
            return ()
        with self._lock:
            struck = tuple(armed.fault for armed in self._armed if armed.strikes(action, path))
            self._armed = [armed for armed in self._armed if not armed.spent]
        return struck


def first(faults: Iterable[Fault], *kinds: FaultKind) -> Fault | None:
    return next((fault for fault in faults if fault.kind in kinds), None)
