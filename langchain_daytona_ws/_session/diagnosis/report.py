"""All checks in their order, one finding at a time as they are made."""

from __future__ import annotations

from collections.abc import Iterator

from langchain_daytona_ws._core.doctor.finding import Finding, any_failed, refused, skipped, warning
from langchain_daytona_ws._core.doctor.settings import CONFIGURATION, judge_settings
from langchain_daytona_ws._core.s3.workspace import s3_workspace
from langchain_daytona_ws._session.diagnosis import account, storage
from langchain_daytona_ws._session.diagnosis import sandbox as machine
from langchain_daytona_ws._session.diagnosis.captured_warnings import heard
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError


def diagnose(
    config: SandboxConfig, namespace: str, *, with_sandbox: bool, open_session: machine.OpenSession
) -> Iterator[Finding]:
    """Check a configuration against the world.

    Args:
        config: What to check.
        namespace: The workspace to check it with.
        with_sandbox: Whether to create a sandbox, which is deleted again.
        open_session: Makes a session.
    """
    secrets = _secrets(config)
    for finding in _all(config, namespace, with_sandbox, open_session):
        yield finding.without(secrets)


def not_looked_at(why: str) -> Iterator[Finding]:
    """Yield all checks behind the configuration's as skipped."""
    yield from skipped(why, *account.CHECKS, *storage.CHECKS, *machine.CHECKS)


def _all(
    config: SandboxConfig, namespace: str, with_sandbox: bool, open_session: machine.OpenSession
) -> Iterator[Finding]:
    settings = judge_settings(config, namespace)
    if not any_failed(settings):
        with heard() as said:
            try:
                open_session(config, namespace).close()  # makes no request
            except ConfigError as error:
                settings = [refused(CONFIGURATION, error)]
        settings += [warning(CONFIGURATION, one, "") for one in said]
    yield from settings
    if any_failed(settings):
        yield from not_looked_at("the configuration is wrong")
        return
    at_daytona = []
    for finding in account.account_findings(config, namespace):
        yield finding
        at_daytona.append(finding)
    workspace = s3_workspace(config, namespace)
    diagnosis = None if workspace is None else storage.StorageDiagnosis(workspace)
    try:
        if diagnosis is None:
            yield from skipped("the workspace is not on S3", *storage.CHECKS)
        else:
            yield from diagnosis.findings()
        if not with_sandbox:
            yield from skipped("not asked for (--no-sandbox)", *machine.CHECKS)
        elif any_failed(one for one in at_daytona if one.check in account.NEEDED_FOR_A_SANDBOX):
            yield from skipped("no sandbox can be created", *machine.CHECKS)
        else:
            yield from machine.sandbox_findings(config, namespace, open_session, diagnosis)
    finally:
        if diagnosis is not None:
            diagnosis.close()


def _secrets(config: SandboxConfig) -> set[str]:
    """Return what must not be shown: the API key and the values of envVars."""
    key = config.options.api_key
    return {*config.plain_env_vars().values(), *([key.get_secret_value()] if key else [])}
