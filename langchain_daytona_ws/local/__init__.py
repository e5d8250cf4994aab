"""A local Daytona-compatible server that the unmodified SDK works against (extra `local`)."""

from .clock import Clock, ManualClock, SystemClock
from .errors import IsolationUnavailable
from .faults import Fault, FaultKind
from .journal import Request
from .record import SandboxRecord
from .server import LocalDaytona

__all__ = [
    "Clock",
    "Fault",
    "FaultKind",
    "IsolationUnavailable",
    "LocalDaytona",
    "ManualClock",
    "Request",
    "SandboxRecord",
    "SystemClock",
]
