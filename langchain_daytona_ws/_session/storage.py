"""A session's S3 workspace: who gives credentials for it, and what its sandboxes have of them."""

from __future__ import annotations

from collections.abc import Callable

from langchain_daytona_ws._adapters.aws import AssumedRole, AsyncAssumedRole, GivenKeys
from langchain_daytona_ws._core.mount import Mounting
from langchain_daytona_ws._core.store import CredentialsPort
from langchain_daytona_ws._core.workspace import S3Workspace
from langchain_daytona_ws._session.keyring import Keyring


class Storage:
    """What both faces of a session share about its S3 workspace.

    Args:
        workspace: Where it is.
        tell: Is told what the model should know.
    """

    def __init__(self, workspace: S3Workspace, tell: Callable[[str], None]) -> None:
        self.workspace = workspace
        self.keyring = Keyring(*_ports(workspace))
        delivered: dict[str, str] = {}
        forget = self.keyring.forget
        self.sync_mounting = Mounting(workspace, self.keyring.get_here, forget, delivered, tell)
        self.async_mounting = Mounting(workspace, self.keyring.aget, forget, delivered, tell)


def _ports(workspace: S3Workspace) -> tuple[CredentialsPort, CredentialsPort]:
    if workspace.keys is not None:
        given = GivenKeys(workspace.keys)
        return given, given
    return AssumedRole(workspace), AsyncAssumedRole(workspace)
