"""A world in which a replay sees its cassette and nothing else."""

from __future__ import annotations

import os

import pytest
import pytest_socket

from langchain_daytona_ws import SandboxConfig, SandboxOptions
from langchain_daytona_ws.config import keys


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, none of this machine's settings, and credentials of no use."""
    pytest_socket.disable_socket(allow_unix_socket=True)  # an event loop wakes itself through one
    fields = [*keys.fields(SandboxOptions), *keys.fields(SandboxConfig)]
    settings = {variable for _, field in fields for variable in keys.variables_of(field)}
    for name in settings | {name for name in os.environ if name.startswith(("AWS_", "DAYTONA_"))}:
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "scrubbed")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "scrubbed")
