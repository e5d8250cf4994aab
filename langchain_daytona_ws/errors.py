"""The errors that this package raises, as one tree.

WorkspaceError
├── ConfigError              the configuration or a namespace is wrong (also a ValueError)
├── PermissionDenied         the approver denied the call, or there is no approver
├── SessionClosed            the session was closed or released
├── HookFailed               a command of onCreate or onResume failed; the agent's command did not run
├── ProvisionError           no sandbox could be created or started
├── CredentialsRefused       no credentials for the workspace's S3 prefix could be obtained
├── SandboxError             the sandbox failed, or returned an invalid answer
│   ├── SandboxUnavailable   the sandbox or the API is not reachable now; nothing ran
│   ├── UnpushedFiles        files are only on the sandbox's disk, and not in S3; it was not deleted
│   └── OutcomeUnknown       the call was sent, and it is unknown whether it took effect
├── JobError                 the background job does not exist, or too many jobs run
├── CommandRefused           the command is empty, too large, or contains a NUL byte; it was not sent
└── FileError                a file operation was refused or failed; nothing was changed
    ├── PathRefused          the path leaves the workspace, or is not a valid path
    ├── FileMissing          the file or directory does not exist
    ├── FileUnsuitable       binary, too large, a directory, or not a regular file
    ├── EditRefused          old_string was not found, not unique, identical or empty
    └── WriteConflict        the file exists and was not read, or changed since it was read
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class WorkspaceError(Exception):
    """Base class of the errors of this package.

    Args:
        message: Text for the engineer: the operation, the failure and every remedy. Contains no secret.
        code: Stable identifier of the cause, such as ``"snapshot_not_found"``. Default: the class's ``default_code``.
        op: The operation: ``"create"``, ``"execute"``, ``"read"`` …
        context: Facts as data: ids, sizes, limits, status codes. Contains no secret.
        retryable: Whether the same call, unchanged, may succeed later.
        for_model: Short text for the language model. Default: the message. Required if the message mentions the host,
            the account or the workspace root.
    """

    default_code: ClassVar[str] = "workspace_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        op: str = "",
        context: Mapping[str, object] | None = None,
        retryable: bool = False,
        for_model: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.op = op
        self.context = dict(context or {})
        self.retryable = retryable
        self.for_model = for_model or message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r}, op={self.op!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[WorkspaceError], state: dict[str, object]) -> WorkspaceError:
    error = kind.__new__(kind)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class ConfigError(WorkspaceError, ValueError):
    """The configuration or a namespace is wrong. The message names the JSON path and every remedy."""

    default_code = "config"


class PermissionDenied(WorkspaceError):
    """The approver denied the call, or there is no approver."""

    default_code = "permission_denied"


class SessionClosed(WorkspaceError):
    """The session was closed or released; create a new one."""

    default_code = "session_closed"


class HookFailed(WorkspaceError):
    """A command of onCreate or onResume failed; the agent's command did not run."""

    default_code = "hook_failed"


class ProvisionError(WorkspaceError):
    """No sandbox could be created or started."""

    default_code = "provision"


class CredentialsRefused(WorkspaceError):
    """No credentials for the workspace's S3 prefix could be obtained."""

    default_code = "credentials"


class SandboxError(WorkspaceError):
    """The sandbox failed, or returned an invalid answer."""

    default_code = "sandbox"


class SandboxUnavailable(SandboxError):
    """The sandbox or the API is not reachable now; nothing ran."""

    default_code = "sandbox_unavailable"


class UnpushedFiles(SandboxError):
    """Files of the workspace are only on the sandbox's disk, and not in S3, so the sandbox was not deleted."""

    default_code = "unpushed_files"


class OutcomeUnknown(SandboxError):
    """The call was sent, the connection was lost, and it is unknown whether the call took effect."""

    default_code = "outcome_unknown"


class JobError(WorkspaceError):
    """The background job does not exist, or too many jobs run."""

    default_code = "job"


class CommandRefused(WorkspaceError, ValueError):
    """The command is empty, too large, or contains a NUL byte; it was not sent."""

    default_code = "command_refused"


class FileError(WorkspaceError):
    """A file operation was refused or failed; nothing was changed."""

    default_code = "file"


class PathRefused(FileError, ValueError):
    """The path leaves the workspace, or is not a valid path."""

    default_code = "path_refused"


class FileMissing(FileError):
    """The file or directory does not exist."""

    default_code = "file_missing"


class FileUnsuitable(FileError):
    """The file is binary, too large, a directory, or not a regular file."""

    default_code = "file_unsuitable"


class EditRefused(FileError, ValueError):
    """``old_string`` was not found, not unique, identical to ``new_string``, or empty."""

    default_code = "edit_refused"


class WriteConflict(FileError):
    """The file exists and this session has not read it, or it changed since this session read it."""

    default_code = "write_conflict"
