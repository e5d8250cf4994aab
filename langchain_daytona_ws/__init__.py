"""LangChain tools over one shared Daytona workspace.

Each name is imported on first use. So ``import langchain_daytona_ws`` loads neither LangChain nor pydantic, and
creating the tools loads neither daytona nor boto3.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_daytona_ws._core.commands.run import CommandResult as CommandResult
    from langchain_daytona_ws._core.commands.streaming import OnOutput as OnOutput
    from langchain_daytona_ws._core.files.models import FileDeleted as FileDeleted
    from langchain_daytona_ws._core.files.models import FileEdited as FileEdited
    from langchain_daytona_ws._core.files.models import FileText as FileText
    from langchain_daytona_ws._core.files.models import FileWritten as FileWritten
    from langchain_daytona_ws._core.files.models import GlobResult as GlobResult
    from langchain_daytona_ws._core.files.models import GrepResult as GrepResult
    from langchain_daytona_ws._core.files.models import Listing as Listing
    from langchain_daytona_ws._core.files.models import OutputMode as OutputMode
    from langchain_daytona_ws._core.id_factory import Clock as Clock
    from langchain_daytona_ws._core.jobs.models import Job as Job
    from langchain_daytona_ws._core.jobs.models import JobLine as JobLine
    from langchain_daytona_ws._core.jobs.models import JobLog as JobLog
    from langchain_daytona_ws._core.jobs.models import JobState as JobState
    from langchain_daytona_ws._core.sandbox.preview import PreviewUrl as PreviewUrl
    from langchain_daytona_ws._core.sync.report import SyncReport as SyncReport
    from langchain_daytona_ws._core.transfers.models import OnProgress as OnProgress
    from langchain_daytona_ws._core.transfers.models import SkippedEntry as SkippedEntry
    from langchain_daytona_ws._core.transfers.models import TransferProgress as TransferProgress
    from langchain_daytona_ws._core.transfers.models import Transferred as Transferred
    from langchain_daytona_ws._core.transfers.models import TransferredFile as TransferredFile
    from langchain_daytona_ws._pool.sessions import PoolEvent as PoolEvent
    from langchain_daytona_ws._session.files import WorkspaceFiles as WorkspaceFiles
    from langchain_daytona_ws._session.jobs import WorkspaceJobs as WorkspaceJobs
    from langchain_daytona_ws._session.process_end import close_on_sigterm as close_on_sigterm
    from langchain_daytona_ws.approvers import InterruptApprover as InterruptApprover
    from langchain_daytona_ws.approvers import MiddlewareApprover as MiddlewareApprover
    from langchain_daytona_ws.config import LifecycleConfig as LifecycleConfig
    from langchain_daytona_ws.config import NetworkConfig as NetworkConfig
    from langchain_daytona_ws.config import PermissionMode as PermissionMode
    from langchain_daytona_ws.config import SandboxConfig as SandboxConfig
    from langchain_daytona_ws.config import SandboxOptions as SandboxOptions
    from langchain_daytona_ws.config import SandboxResources as SandboxResources
    from langchain_daytona_ws.config import namespace_of as namespace_of
    from langchain_daytona_ws.deepagents import WorkspaceBackend as WorkspaceBackend
    from langchain_daytona_ws.errors import CommandRefused as CommandRefused
    from langchain_daytona_ws.errors import ConfigError as ConfigError
    from langchain_daytona_ws.errors import CredentialsRefused as CredentialsRefused
    from langchain_daytona_ws.errors import EditRefused as EditRefused
    from langchain_daytona_ws.errors import FileError as FileError
    from langchain_daytona_ws.errors import FileMissing as FileMissing
    from langchain_daytona_ws.errors import FileUnsuitable as FileUnsuitable
    from langchain_daytona_ws.errors import HookFailed as HookFailed
    from langchain_daytona_ws.errors import JobError as JobError
    from langchain_daytona_ws.errors import OutcomeUnknown as OutcomeUnknown
    from langchain_daytona_ws.errors import PathRefused as PathRefused
    from langchain_daytona_ws.errors import PermissionDenied as PermissionDenied
    from langchain_daytona_ws.errors import ProvisionError as ProvisionError
    from langchain_daytona_ws.errors import SandboxError as SandboxError
    from langchain_daytona_ws.errors import SandboxUnavailable as SandboxUnavailable
    from langchain_daytona_ws.errors import SessionClosed as SessionClosed
    from langchain_daytona_ws.errors import UnpushedFiles as UnpushedFiles
    from langchain_daytona_ws.errors import WorkspaceError as WorkspaceError
    from langchain_daytona_ws.errors import WriteConflict as WriteConflict
    from langchain_daytona_ws.permissions import AnswerUnusable as AnswerUnusable
    from langchain_daytona_ws.permissions import Approver as Approver
    from langchain_daytona_ws.permissions import PermissionDecision as PermissionDecision
    from langchain_daytona_ws.permissions import PermissionRequest as PermissionRequest
    from langchain_daytona_ws.pool import SessionLease as SessionLease
    from langchain_daytona_ws.pool import WorkspacePool as WorkspacePool
    from langchain_daytona_ws.session import WorkspaceSession as WorkspaceSession
    from langchain_daytona_ws.tools.bash import BashTool as BashTool
    from langchain_daytona_ws.tools.bash import OnChunk as OnChunk
    from langchain_daytona_ws.tools.files import WorkspaceFileTool as WorkspaceFileTool
    from langchain_daytona_ws.tools.jobs import BashJobTool as BashJobTool
    from langchain_daytona_ws.tools.preview import PreviewTool as PreviewTool
    from langchain_daytona_ws.tools.toolkit import WorkspaceToolkit as WorkspaceToolkit

_NAMES_OF_MODULE = {
    "_core.commands.run": ("CommandResult",),
    "_core.commands.streaming": ("OnOutput",),
    "_core.files.models": (
        "FileDeleted", "FileEdited", "FileText", "FileWritten", "GlobResult", "GrepResult", "Listing", "OutputMode",
    ),
    "_core.jobs.models": ("Job", "JobLine", "JobLog", "JobState"),
    "_core.sandbox.preview": ("PreviewUrl",),
    "_core.sync.report": ("SyncReport",),
    "_core.transfers.models": ("OnProgress", "SkippedEntry", "Transferred", "TransferredFile", "TransferProgress"),
    "_core.id_factory": ("Clock",),
    "approvers": ("InterruptApprover", "MiddlewareApprover"),
    "_session.files": ("WorkspaceFiles",),
    "_session.jobs": ("WorkspaceJobs",),
    "_session.process_end": ("close_on_sigterm",),
    "config": (
        "PermissionMode",
        "LifecycleConfig",
        "NetworkConfig",
        "SandboxConfig",
        "SandboxOptions",
        "SandboxResources",
        "namespace_of",
    ),
    "deepagents": ("WorkspaceBackend",),
    "errors": (
        "CommandRefused", "ConfigError", "CredentialsRefused", "EditRefused", "FileError", "FileMissing",
        "FileUnsuitable", "HookFailed", "JobError", "OutcomeUnknown", "PathRefused", "PermissionDenied",
        "ProvisionError", "SandboxError", "SandboxUnavailable", "SessionClosed", "UnpushedFiles",
        "WorkspaceError", "WriteConflict",
    ),
    "permissions": ("AnswerUnusable", "Approver", "PermissionDecision", "PermissionRequest"),
    "_pool.sessions": ("PoolEvent",),
    "pool": ("SessionLease", "WorkspacePool"),
    "session": ("WorkspaceSession",),
    "tools.bash": ("BashTool", "OnChunk"),
    "tools.files": ("WorkspaceFileTool",),
    "tools.jobs": ("BashJobTool",),
    "tools.preview": ("PreviewTool",),
    "tools.toolkit": ("WorkspaceToolkit",),
}  # fmt: skip
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}

# The import of this name fails without the extra ``deepagents``. ``import *`` must not fail.
_UNAVAILABLE = set() if find_spec("deepagents") else {"WorkspaceBackend"}

__all__ = sorted(_MODULE_OF_NAME.keys() - _UNAVAILABLE)  # noqa: PLE0605 - a test compares the names with the imports above


if not TYPE_CHECKING:  # with this function, type checkers would accept every name

    def __getattr__(name: str) -> Any:
        module = _MODULE_OF_NAME.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF_NAME})
