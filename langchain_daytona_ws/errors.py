"""Every error this package raises.

WorkspaceError
├── ConfigError              the configuration or a namespace is wrong (also a ValueError)
├── PermissionDenied         the approver, or the lack of one, said no
├── SessionClosed            the session was closed or released
├── HookFailed               a command of onCreate or onResume failed; the agent's command was not run
├── ProvisionError           no sandbox could be had
├── CredentialsRefused       no credentials for the workspace's S3 prefix could be had
├── SandboxError             the sandbox was there, and then did not answer as it should
│   ├── SandboxUnavailable   not reachable now; nothing ran
│   └── OutcomeUnknown       the call was sent, and nobody can tell whether it took effect
├── JobError                 a background job that is not there, or that there is no room for
├── CommandRefused           a command that is not sent (empty, too large, a NUL byte)
└── FileError                a file operation that was refused or failed; nothing was changed
    ├── PathRefused          leaves the workspace, or is no path
    ├── FileMissing
    ├── FileUnsuitable       binary, too large, a directory, not a regular file
    ├── EditRefused          old_string not found, not unique, identical, empty
    └── WriteConflict        exists and was not read, or changed since it was read
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class WorkspaceError(Exception):
    """Base of every error of this package.

    Args:
        message: For the engineer: what was tried, what happened, every remedy. Holds no secret.
        code: Stable identifier of this cause, such as ``"snapshot_not_found"``.
        op: What was being done: ``"create"``, ``"execute"``, ``"read"`` …
        context: Facts for a log line (ids, sizes, status codes). Holds no secret.
        retryable: Whether the same call may succeed later, unchanged.
        for_model: Short text for the language model. Defaults to the message; give one wherever the
            message says something about the host, the account or the workspace root.
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
    """The configuration or a namespace is wrong; the message names the JSON path and every remedy."""

    default_code = "config"


class PermissionDenied(WorkspaceError):
    """The approver denied the action, or there was nobody to ask."""

    default_code = "permission_denied"


class SessionClosed(WorkspaceError):
    """The session was closed; make a new one."""

    default_code = "session_closed"


class HookFailed(WorkspaceError):
    """A command of onCreate or onResume failed; the agent's command was not run."""

    default_code = "hook_failed"


class ProvisionError(WorkspaceError):
    """No sandbox could be had."""

    default_code = "provision"


class CredentialsRefused(WorkspaceError):
    """No credentials for the workspace's S3 prefix could be had."""

    default_code = "credentials"


class SandboxError(WorkspaceError):
    """The sandbox was there, and then did not answer as it should."""

    default_code = "sandbox"


class SandboxUnavailable(SandboxError):
    """The sandbox or the API is not reachable now; nothing ran."""

    default_code = "sandbox_unavailable"


class OutcomeUnknown(SandboxError):
    """The call was sent, the connection was lost, and nobody can tell whether it took effect."""

    default_code = "outcome_unknown"


class JobError(WorkspaceError):
    """There is no such background job, or no room for another one."""

    default_code = "job"


class CommandRefused(WorkspaceError, ValueError):
    """A command that is never sent: empty, too large, or with a NUL byte in it."""

    default_code = "command_refused"


class FileError(WorkspaceError):
    """A file operation was refused or failed; nothing was changed."""

    default_code = "file"


class PathRefused(FileError, ValueError):
    """The path leaves the workspace, or is no usable path."""

    default_code = "path_refused"


class FileMissing(FileError):
    """There is no such file or directory."""

    default_code = "file_missing"


class FileUnsuitable(FileError):
    """Binary, too large, a directory where a file is needed, or not a regular file."""

    default_code = "file_unsuitable"


class EditRefused(FileError, ValueError):
    """``old_string`` was not found, not unique, identical to ``new_string``, or empty."""

    default_code = "edit_refused"


class WriteConflict(FileError):
    """The file exists and was not read by this session, or changed since it was read."""

    default_code = "write_conflict"
