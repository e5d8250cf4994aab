"""Check namespace, API key and S3 settings, and report all failed checks. A session reports only the first."""

from __future__ import annotations

from collections.abc import Callable

from langchain_daytona_ws._core.doctor.finding import CONFIGURATION, Finding, from_error, ok
from langchain_daytona_ws._core.s3.workspace import s3_workspace, workspace_prefix
from langchain_daytona_ws.config import SandboxConfig, validate_namespace
from langchain_daytona_ws.errors import ConfigError


def judge_settings(config: SandboxConfig, namespace: str) -> list[Finding]:
    """Return a finding for each failed check, or one finding of status ok."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: validate_namespace(namespace),
        config.require_api_key,
        # The first check covers the namespace, so this check gets a valid one.
        lambda: s3_workspace(config, "any"),
    )
    problems = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems.append(from_error(CONFIGURATION, error))
    return problems or [ok(CONFIGURATION, _described(config, namespace))]


def _described(config: SandboxConfig, namespace: str) -> str:
    options = config.options
    where = "the sandbox's own disk"
    if options.mount_aws_s3_buckets:
        where = f"s3://{options.workspace_bucket_name}/{workspace_prefix(config, namespace)}"
    return f"{config.name or 'complete'}; API {options.api_url}, workspace on {where}"
