"""A local Daytona-compatible server, for the unmodified SDK (extra `local`).

In this package, "the original" is the program that a module imitates: Daytona's server, Daytona's daemon in the
sandbox, or mount-s3.
"""

try:
    from .clock import Clock, ManualClock, SystemClock
    from .errors import IsolationUnavailable, S3Unavailable
    from .faults import Fault, FaultKind
    from .journal import Request
    from .record import SandboxRecord
    from .s3 import LocalS3, S3Request, S3Store
    from .s3.faults import S3Fault, S3FaultKind
    from .server import LocalDaytona
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing == __name__.partition(".")[0]:
        raise
    raise ModuleNotFoundError(
        f"The local Daytona needs {missing}, which is not installed; run pip install 'langchain-daytona-ws[local]'",
        name=error.name,
    ) from None

__all__ = [
    "Clock",
    "Fault",
    "FaultKind",
    "IsolationUnavailable",
    "LocalDaytona",
    "LocalS3",
    "ManualClock",
    "Request",
    "S3Fault",
    "S3FaultKind",
    "S3Request",
    "S3Store",
    "S3Unavailable",
    "SandboxRecord",
    "SystemClock",
]
