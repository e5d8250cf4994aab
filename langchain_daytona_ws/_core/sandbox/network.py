"""Translate the network setting to Daytona's rules, and warn about its effects."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from langchain_daytona_ws._core.ports import NetworkRules
from langchain_daytona_ws.config import SandboxConfig
from langchain_daytona_ws.config.problems import FOR_MODEL
from langchain_daytona_ws.errors import ConfigError

if TYPE_CHECKING:
    from langchain_daytona_ws._core.s3.workspace import S3Workspace

logger = logging.getLogger("langchain_daytona_ws")


def network_rules(config: SandboxConfig) -> NetworkRules | None:
    """Return Daytona's rules for the network setting. None without a setting: the organization's default applies.

    Raises:
        ConfigError: The mode is ``restricted``, only domains are listed, and ``enforceDomainAllowList`` is off. The
            rules would then be an empty list of ranges, which the API may treat as "no restriction".
    """
    network = config.network
    if network is None:
        return None
    if network.mode != "restricted":
        return NetworkRules(block_all=network.mode == "deny-all")
    domains = ",".join(network.allow_domains) if config.options.enforce_domain_allow_list else ""
    if not network.allow_cidrs and not domains:
        raise ConfigError(
            "network.allowDomains: are ignored unless options.enforceDomainAllowList is true, and there is no "
            "network.allowCidrs; set options.enforceDomainAllowList, give network.allowCidrs, or use the mode "
            '"deny-all".',
            code="nothing_allowed",
            op="validate",
            context={"paths": ["network.allowDomains"]},
            for_model=FOR_MODEL,
        )
    return NetworkRules(
        block_all=False, allow_cidrs=",".join(network.allow_cidrs) or None, allow_domains=domains or None
    )


def warn_of_network(config: SandboxConfig, workspace: S3Workspace | None) -> None:
    """Log a warning if listed domains are ignored, or if the network setting may block S3."""
    network = config.network
    if network is None:
        return
    if network.allow_domains and not config.options.enforce_domain_allow_list:
        logger.warning(
            "network.allowDomains is ignored: only network.allowCidrs is applied. Daytona enforces domains with "
            "options.enforceDomainAllowList."
        )
    if workspace is not None and (caution := caution_of(config, workspace)):
        logger.warning("%s", caution)


def caution_of(config: SandboxConfig, workspace: S3Workspace) -> str:
    """Return a warning that the network setting may block S3 in the sandbox.

    Return ``""`` if the setting allows all access, or if there is no setting.
    """
    if config.network is None or config.network.mode == "allow-all":
        return ""
    bucket, region = workspace.workspace.bucket, workspace.region
    access = "mounted" if workspace.mode == "mount" else "synchronised"
    endpoint = workspace.endpoint or f"https://{bucket}.s3.{region}.amazonaws.com"
    return (
        f'network.mode is "{config.network.mode}", and the S3 workspace is {access} inside the sandbox, which must be '
        f"able to reach {endpoint}."
    )
