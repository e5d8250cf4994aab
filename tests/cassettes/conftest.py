"""Fixtures that isolate a replay from the network and from this machine's settings."""

from __future__ import annotations

import os

import pytest
import pytest_socket

from langchain_daytona_ws import SandboxConfig, SandboxOptions
from langchain_daytona_ws.config import keys


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block the network, remove this machine's settings, and set invalid credentials."""
    pytest_socket.disable_socket(allow_unix_socket=True)  # event loops need socket pairs
    fields = [*keys.fields(SandboxOptions), *keys.fields(SandboxConfig)]
    settings = {variable for _, field in fields for variable in keys.variables_of(field)}
    for name in settings | {name for name in os.environ if name.startswith(("AWS_", "DAYTONA_"))}:
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "scrubbed")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "scrubbed")
