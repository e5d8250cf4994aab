"""LangChain's own standard suite for sandboxes, which is Deep Agents', over the local server: with a disk, and on S3.

Its tests want paths in the workspace to behave as a disk does. What an S3 mount can't do is named where it is left out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from deepagents.backends.protocol import SandboxBackendProtocol
from langchain_tests.integration_tests import SandboxIntegrationTests

from langchain_daytona_ws import WorkspaceBackend, WorkspaceSession
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import KEYS, s3_options

# As in the suite's own fixtures.
pytestmark = pytest.mark.filterwarnings("ignore:Class-scoped fixtures defined as instance methods")


# The suite says "python", as Daytona's own images have it; this host may have it as python3 only.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/suite"
PYTHON = 'mkdir -p /opt/suite && ln -s "$(command -v python3)" /opt/suite/python'


def _backend(server: LocalDaytona, **settings: Any) -> Iterator[WorkspaceBackend]:
    env = {"PATH": PATH, **settings.pop("envVars", {})}
    config = config_for(server, envVars=env, onCreate=[PYTHON], **settings)
    with WorkspaceSession(config, namespace=f"suite-{secrets.token_hex(4)}") as session:
        yield WorkspaceBackend(session)


class TestOutsideTheWorkspace(SandboxIntegrationTests):
    """The suite as it comes: in ``/tmp`` of the sandbox."""

    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls, s3_server: LocalDaytona) -> Iterator[SandboxBackendProtocol]:
        yield from _backend(s3_server)


EMPTY_DIRECTORIES = pytest.mark.xfail(
    strict=True,
    reason="S3 has no empty directories: what mkdir makes is known to the mount alone until a file is in it",
)


class _InTheWorkspace(SandboxIntegrationTests):
    @pytest.fixture(autouse=True)
    def _root(self, sandbox: WorkspaceBackend) -> None:
        self._directory = f"{sandbox.root}/suite"

    @property
    def sandbox_root_dir(self) -> str:
        return self._directory

    @pytest.fixture(autouse=True)
    def sandbox_test_root(self, _root: None, request: pytest.FixtureRequest) -> str:
        return self.sandbox_path(request.node.name)


@pytest.mark.full
class TestOnDisk(_InTheWorkspace):
    """In the workspace, on the sandbox's own disk."""

    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls, s3_server: LocalDaytona) -> Iterator[SandboxBackendProtocol]:
        yield from _backend(s3_server)


@pytest.mark.full
class TestOnS3(_InTheWorkspace):
    """In a workspace on S3: commands on the mount, files straight to the bucket."""

    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls, s3_server: LocalDaytona) -> Iterator[SandboxBackendProtocol]:
        yield from _backend(s3_server, envVars=KEYS, options=s3_options(s3_server, "agents"))

    # The suite's rule: a test that is overridden is expected to fail, for a reason.

    @EMPTY_DIRECTORIES
    def test_ls_lists_nested_directories(
        self, sandbox_backend: SandboxBackendProtocol, sandbox_test_root: str
    ) -> None:
        super().test_ls_lists_nested_directories(sandbox_backend, sandbox_test_root)

    @EMPTY_DIRECTORIES
    def test_grep_empty_directory(
        self, sandbox_backend: SandboxBackendProtocol, sandbox_test_root: str
    ) -> None:
        super().test_grep_empty_directory(sandbox_backend, sandbox_test_root)

    @EMPTY_DIRECTORIES
    def test_glob_with_directories(
        self, sandbox_backend: SandboxBackendProtocol, sandbox_test_root: str
    ) -> None:
        super().test_glob_with_directories(sandbox_backend, sandbox_test_root)


@pytest.mark.full
class TestOnS3ThroughTheMount(_InTheWorkspace):
    """In a workspace on S3: commands and files on the mount."""

    @pytest.fixture(scope="class")
    @classmethod
    def sandbox(cls, s3_server: LocalDaytona) -> Iterator[SandboxBackendProtocol]:
        options = s3_options(s3_server, "agents", fileAccess="sandbox")
        yield from _backend(s3_server, envVars=KEYS, options=options)
