"""The errors that this package raises, as one tree.

WorkspaceError
├── ConfigError (also a ValueError)
├── PermissionDenied
├── SessionClosed
├── HookFailed
├── ProvisionError
├── CredentialsRefused
├── SandboxError
│   ├── SandboxUnavailable
│   ├── UnpushedFiles
│   └── OutcomeUnknown
├── JobError
├── CommandRefused (also a ValueError)
└── FileError
    ├── PathRefused (also a ValueError)
    ├── FileMissing
    ├── FileUnsuitable
    ├── EditRefused (also a ValueError)
    └── WriteConflict
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class WorkspaceError(Exception):
    """Base class of the errors of this package.

    Args:
        message: Text for the engineer: the operation, the failure and every remedy. Contains no secret.
        code: Stable identifier of the cause, such as ``"snapshot_not_found"``. Default: the class's ``default_code``.
        op: The operation, such as ``"create"``, ``"execute"`` or ``"read"``.
        context: Values that belong to the error, such as ids, sizes, limits and status codes. Contains no secret.
        retryable: True if the same call may succeed later. Default: False.
        for_model: Short text for the language model. Default: the message. Pass a text if the message mentions the
            host, the account or the workspace root.
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
    """The configuration or a namespace is wrong. The message names the JSON path, if there is one, and every remedy."""

    default_code = "config"


class PermissionDenied(WorkspaceError):
    """The call was not approved: the approver denied it or failed, or there is no approver."""

    default_code = "permission_denied"


class SessionClosed(WorkspaceError):
    """The session was closed or released; create a new one."""

    default_code = "session_closed"


class HookFailed(WorkspaceError):
    """A command of onCreate or onResume failed, or its outcome is unknown; the agent's command did not run."""

    default_code = "hook_failed"


class ProvisionError(WorkspaceError):
    """No usable sandbox could be found, created or started."""

    default_code = "provision"


class CredentialsRefused(WorkspaceError):
    """No credentials for the workspace's S3 prefix could be obtained."""

    default_code = "credentials"


class SandboxError(WorkspaceError):
    """The sandbox or Daytona failed or refused the call.

    Also raised if the sandbox can't mount or synchronise the workspace on S3.
    """

    default_code = "sandbox"


class SandboxUnavailable(SandboxError):
    """The sandbox, the API or a session of the pool is not available now; the call did not run.

    Also raised if a sandbox could not be deleted.
    """

    default_code = "sandbox_unavailable"


class UnpushedFiles(SandboxError):
    """The sandbox was not deleted, because some files of the workspace are only on its disk, and not in S3."""

    default_code = "unpushed_files"


class OutcomeUnknown(SandboxError):
    """The call was sent, but its effect is unknown: it may have run or not.

    The answer was lost with the connection, or was invalid; or the call was cancelled.
    """

    default_code = "outcome_unknown"


class JobError(WorkspaceError):
    """The background job does not exist, its record is damaged, or too many jobs run."""

    default_code = "job"


class CommandRefused(WorkspaceError, ValueError):
    """The command or an argument is invalid, such as an empty command. Nothing ran."""

    default_code = "command_refused"


class FileError(WorkspaceError):
    """A file operation was refused or failed. Only a failure with code ``write_failed`` may have changed the file.

    If a transfer of several files fails, other files may have been transferred.
    """

    default_code = "file"


class PathRefused(FileError, ValueError):
    """The path leads out of the workspace, is not valid, or is a directory that must not be deleted."""

    default_code = "path_refused"


class FileMissing(FileError):
    """The file or directory does not exist."""

    default_code = "file_missing"


class FileUnsuitable(FileError):
    """The file does not suit the operation: it is binary, too large, a directory, not a regular file …"""

    default_code = "file_unsuitable"


class EditRefused(FileError, ValueError):
    """``old_string`` is empty, equal to ``new_string``, not in the file, or in it too often.

    Also raised if both texts together are too long.
    """

    default_code = "edit_refused"


class WriteConflict(FileError):
    """The existing file was not read by this thread of the graph, or has changed since, or is being changed now."""

    default_code = "write_conflict"
