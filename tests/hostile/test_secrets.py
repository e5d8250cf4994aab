"""Secrets of the configuration appear in no log record, error, result or pickle of this package."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langchain_daytona_ws import (
    ConfigError,
    SandboxConfig,
    WorkspaceError,
    WorkspaceSession,
    WorkspaceToolkit,
)
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws.local import LocalDaytona
from langchain_daytona_ws.local.faults import Fault
from tests.hostile.forged import InstantClock
from tests.integration_tests.conftest import config_for
from tests.integration_tests.s3 import ROLE, Bucket, s3_options
from tests.sample import sample

PLANTED = "pl4nted"
VALUE = f"{PLANTED}-in-a-variable"
ACCESS_KEY = "AKIAPL4NTED"
SECRET_KEY = f"{PLANTED}-secret-of-aws"
EXTERNAL_ID = f"{PLANTED}-external-id"
HOST_KEY = f"{PLANTED}-secret-of-the-host"


def keys(
    schema: dict[str, Any], model: str = "SandboxConfig", above: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all settings."""
    for key, field in schema["$defs"][model]["properties"].items():
        yield (*above, key)
        for part in (field, *field.get("anyOf", ())):
            if "$ref" in part:
                yield from keys(schema, part["$ref"].rpartition("/")[2], (*above, key))


KEYS = sorted(set(keys(SandboxConfig.model_json_schema())))
WRONG: dict[str, Callable[[str], Any]] = {
    "text": lambda secret: secret,
    "list": lambda secret: [secret],
    "mapping": lambda secret: {"a": [secret]},
    "url": lambda secret: f"https://user:{secret}@host/",
    "odd text": lambda secret: f"{secret}\n\0\x1b[2J",
}


def nested(path: tuple[str, ...], value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("shape", WRONG)
@pytest.mark.parametrize("path", KEYS, ids=".".join)
@pytest.mark.one_in(3)
def test_misplaced_secrets_are_not_quoted(path: tuple[str, ...], shape: str) -> None:
    secret = f"dtn_{PLANTED}"
    try:
        config = SandboxConfig.model_validate(nested(path, WRONG[shape](secret)))
    except ConfigError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(pickle.dumps(error))
        assert secret not in shown
    else:
        if path[-1] in ("apiKey", "envVars"):
            assert secret not in repr(config) + str(config)
            assert secret not in pickled(config)


def pickled(value: object) -> str:
    """Return the pickle, or the refusal: a configuration with variables cannot be pickled, since they are secrets."""
    try:
        return repr(pickle.dumps(value))
    except ConfigError as refusal:
        return f"{refusal} {refusal.code}"


def everything_of(error: BaseException) -> str:
    """Return an error with its causes, its attributes, and the variables of all frames that a logger could show."""
    with_variables = traceback.TracebackException.from_exception(error, capture_locals=True)
    parts = ["".join(with_variables.format()), repr(error)]
    seen: BaseException | None = error
    while seen is not None:
        parts += [repr(getattr(seen, name, None)) for name in ("context", "message", "for_model", "args")]
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("langchain_daytona_ws."):
                parts += [repr(value) for value in frame.f_locals.values()]
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, WorkspaceError):
        parts.append(repr(pickle.dumps(error)))
    return "".join(parts)


class Planted:
    """A session with known secrets that is used during faults; collects everything that it shows."""

    def __init__(self, server: LocalDaytona, log: pytest.LogCaptureFixture, **settings: Any) -> None:
        env = {"TOKEN": VALUE, **settings.pop("envVars", {})}
        options = {"organizationId": None, **settings.pop("options", {})}
        config = config_for(server, envVars=env, persistent=True, options=options, **settings)
        self.session = WorkspaceSession(config, namespace="planted", clock=InstantClock())
        self.secrets = [server.api_key, VALUE, SECRET_KEY, HOST_KEY]
        self.shown = [repr(self.session), repr(self.session.config), str(self.session.config)]
        self._log = log

    async def _use(self, asynchronous: bool) -> None:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("bash", {"command": "echo ok; cat nothing; exit 3"}),
            ("bash", {"command": "sleep 0.01", "background": True}),
            ("bash_job", {"action": "list"}),
            ("workspace_file", {"action": "write", "path": "a", "content": "x", "overwrite": True}),
            ("workspace_file", {"action": "read", "path": "a"}),
            ("workspace_file", {"action": "read", "path": "none"}),
            ("workspace_file", {"action": "grep", "pattern": "x"}),
        ]
        tools = {tool.name: tool for tool in WorkspaceToolkit(session=self.session).get_tools()}
        for name, args in calls:
            call = {"type": "tool_call", "id": "c", "name": name, "args": args}
            message = await tools[name].ainvoke(call) if asynchronous else tools[name].invoke(call)
            self.shown.append(repr(message))
        try:
            if asynchronous:
                await self.session.arun("echo ok")
            else:
                self.session.run("echo ok")
        except WorkspaceError as error:
            self.shown.append(everything_of(error))
        self.shown += [repr(self.session), pickled(self.session), repr(self.session.files)]

    def use(self, asynchronous: bool) -> None:
        """Call every tool and the session, and check that no secret was shown."""
        self._log.set_level(logging.DEBUG)
        self._log.set_level(logging.DEBUG, logger="asyncio")
        if asynchronous:
            asyncio.run(self._use(asynchronous))
        else:
            run_sync(self._use(asynchronous))
        self.shown += [self._log.text, *(repr(record.args) for record in self._log.records)]
        everything = "\n".join(self.shown)
        assert len(everything) > 2000
        for secret in self.secrets:
            assert secret not in everything

    def close(self, server: LocalDaytona) -> None:
        server.faults.clear()
        self.session.release()


FAULTS: dict[str, list[Fault]] = {
    "nothing": [],
    "create refused": [Fault("status", action="create", status=403, times=None)],
    "key refused": [Fault("status", status=401, times=None)],
    "create dropped": [Fault("drop_after", action="create", times=1)],
    "execute dropped": [Fault("drop_after", action="execute", times=None)],
    "execute garbled": [Fault("malformed", action="execute", times=None)],
    "execute cut": [Fault("truncate", action="execute", times=None)],
    "execute 500": [Fault("status", action="execute", status=500, times=None)],
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    "fault", sample(list(FAULTS), "nothing", "create refused", "create dropped", "execute 500")
)
def test_daytona(
    s3_server: LocalDaytona, caplog: pytest.LogCaptureFixture, fault: str, asynchronous: bool
) -> None:
    planted = Planted(s3_server, caplog)
    s3_server.faults.add(*FAULTS[fault])
    try:
        planted.use(asynchronous)
    finally:
        planted.close(s3_server)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    "fault",
    sample(
        ["nothing", "S3 refuses", "the role is refused", "credentials expired"],
        "nothing",
        "the role is refused",
    ),
)
def test_s3(
    s3_server: LocalDaytona,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    asynchronous: bool,
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": HOST_KEY}.items():
        monkeypatch.setenv(name, value)
    by_role = {"mountRoleArn": ROLE, "mountRoleExternalId": EXTERNAL_ID, "stsEndpoint": s3_server.s3_endpoint}
    planted = Planted(s3_server, caplog, options=s3_options(s3_server, "agents", **by_role))
    planted.secrets.append("FwoGZXIvYXdz")  # what moto's session tokens begin with
    try:
        if fault == "S3 refuses":
            s3_server.s3.deny = ("/agents",)
        elif fault == "the role is refused":
            s3_server.s3.deny_role = True
        elif fault == "credentials expired":
            planted.use(asynchronous)
            s3_server.s3.expire_credentials()
        planted.use(asynchronous)
    finally:
        s3_server.s3.deny, s3_server.s3.deny_role = (), False
        planted.close(s3_server)


def test_keys_in_env_vars(s3_server: LocalDaytona, caplog: pytest.LogCaptureFixture) -> None:
    bucket = Bucket(s3_server)
    env = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    planted = Planted(s3_server, caplog, envVars=env, options=s3_options(s3_server, bucket.name))
    try:
        planted.use(False)
        s3_server.s3.deny = ("/agents",)
        planted.use(True)
    finally:
        s3_server.s3.deny = ()
        planted.close(s3_server)
        bucket.client.close()


def test_the_first_request_to_s3_in_a_process_logs_no_token(s3_server: LocalDaytona) -> None:
    token = "token-of-the-workspace/0123456789"
    keys = {"AWS_ACCESS_KEY_ID": "AKIAWORKSPACE", "AWS_SECRET_ACCESS_KEY": VALUE, "AWS_SESSION_TOKEN": token}
    options = {"apiKey": s3_server.api_key, "apiUrl": s3_server.api_url, **s3_options(s3_server, "agents")}
    config = {"permissionMode": "bypass", "envVars": keys, "options": {**options, "awsRegion": "us-east-1"}}
    program = f"""
        import logging
        logging.basicConfig(level=logging.DEBUG)
        from langchain_daytona_ws import WorkspaceSession
        with WorkspaceSession({config!r}, namespace="first-request") as session:
            session.files.write("f", "x")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        timeout=180,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "DEBUG" in ran.stderr
    assert token not in ran.stderr
