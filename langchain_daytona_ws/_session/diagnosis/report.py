"""Run the checks of ``doctor`` in order, beginning with the configuration, and yield the findings one by one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from langchain_daytona_ws._core.doctor.finding import (
    CONFIGURATION,
    Finding,
    any_failed,
    from_error,
    skipped,
    warning,
)
from langchain_daytona_ws._core.doctor.settings import judge_settings
from langchain_daytona_ws._core.s3.workspace import s3_workspace, workspace_prefix
from langchain_daytona_ws._session.diagnosis import account, sandbox, storage
from langchain_daytona_ws._session.diagnosis.captured_warnings import captured_warnings
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.errors import ConfigError


def diagnose(
    config: SandboxConfig, namespace: str, *, with_sandbox: bool, open_session: sandbox.OpenSession
) -> Iterator[Finding]:
    """Check a configuration with real requests. With ``with_sandbox``, also create, check and delete a sandbox."""
    masked = _texts_to_mask(config)
    for finding in _all(config, namespace, with_sandbox, open_session):
        yield finding.without(masked)


def all_skipped(reason: str) -> Iterator[Finding]:
    """Yield a finding of status "skipped" for each check except those of the configuration."""
    yield from skipped(reason, *account.CHECKS, *storage.CHECKS, *sandbox.CHECKS)


def _all(
    config: SandboxConfig, namespace: str, with_sandbox: bool, open_session: sandbox.OpenSession
) -> Iterator[Finding]:
    settings = judge_settings(config, namespace)
    if not any_failed(settings):
        with captured_warnings() as warnings:
            try:
                open_session(config, namespace).close()  # makes no request
            except ConfigError as error:
                settings = [from_error(CONFIGURATION, error)]
        settings += [warning(CONFIGURATION, message, "") for message in warnings]
    yield from settings
    if any_failed(settings):
        yield from all_skipped("the configuration is wrong")
        return
    account_findings = []
    for finding in account.account_findings(config, namespace):
        yield finding
        account_findings.append(finding)
    workspace = s3_workspace(config, namespace)
    diagnosis = None
    if workspace is not None:
        other = workspace_prefix(config, f"{storage.PROBE[1:]}{secrets.token_hex(6)}")
        diagnosis = storage.StorageDiagnosis(workspace, other)
    try:
        if diagnosis is None:
            yield from skipped("the workspace is not on S3", *storage.CHECKS)
        else:
            yield from diagnosis.findings()
        if not with_sandbox:
            yield from skipped("not asked for (--no-sandbox)", *sandbox.CHECKS)
        elif any_failed(
            finding for finding in account_findings if finding.check in account.NEEDED_FOR_A_SANDBOX
        ):
            yield from skipped("no sandbox can be created", *sandbox.CHECKS)
        else:
            yield from sandbox.sandbox_findings(config, namespace, open_session, diagnosis)
    finally:
        if diagnosis is not None:
            diagnosis.close()


def _texts_to_mask(config: SandboxConfig) -> set[str]:
    key = config.options.api_key
    return {*config.plain_env_vars().values(), *([key.get_secret_value()] if key else [])}
