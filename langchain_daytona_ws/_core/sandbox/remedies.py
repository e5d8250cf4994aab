"""Remedies for failed requests to Daytona."""

from __future__ import annotations

import re

from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws.errors import ProvisionError

NO_RUNNER = "[Nn]o available runner|No runners are configured"
MESSAGES = (
    (NO_RUNNER, "no_runner",
     "The snapshot is non-general (pinned to one runner), or that runner is at capacity. Rebuild it as a general "
     "snapshot, drop options.target if it does not match the snapshot's region, or try again later."),
    ("Region not found", "region_not_found",
     "Omit options.target (and DAYTONA_TARGET) to use the organization's default region, or name an existing one."),
    ("Snapshot .* (not found|not available)", "snapshot_not_found",
     "Check options.snapshot for a spelling mistake, build it, or drop options.target if it is in another region."),
    ("Snapshot .* is ", "snapshot_not_ready",
     "Wait until the snapshot is active, or activate it in the Daytona dashboard."),
    ("exceeds maximum allowed per sandbox", "resources",
     "Lower options.resources, or ask Daytona to raise the organization's limits."),
    ("unable to find user", "user_not_found",
     "The snapshot or image has no such user: correct options.user, or leave it out."),
    ("limit exceeded", "quota",
     "Delete sandboxes that are not needed, or raise the organization's limits in the Daytona dashboard."),
    ("suspended", "organization_suspended", "See the organization's page in the Daytona dashboard."),
    ("expired", "api_key_expired", "Make a new API key and set options.apiKey or DAYTONA_API_KEY."),
    ("Cannot POST /|Cannot GET /", "api_url",
     "The server has no such path: check options.apiUrl and DAYTONA_API_URL. The address usually ends with /api."),
)  # fmt: skip
CERTIFICATE_REMEDY = (
    "Nothing was sent, and sending again will not help. Where a proxy or a company's own authority signs the "
    "certificate, set SSL_CERT_FILE to a PEM file that holds that authority's certificate and the public ones, or "
    "SSL_CERT_DIR to a directory of hashed certificates (the Daytona SDK reads these two, and not REQUESTS_CA_BUNDLE "
    "or CURL_CA_BUNDLE; for S3 and STS set AWS_CA_BUNDLE too). Otherwise check options.apiUrl and this machine's clock."
)
BY_KIND = {
    FaultKind.UNAUTHORIZED: ("unauthorized", "Check options.apiKey or DAYTONA_API_KEY, and that options.apiUrl is "
                             "the API that issued it."),
    FaultKind.FORBIDDEN: ("forbidden", "The API key needs the write:sandboxes and delete:sandboxes permissions."),
    FaultKind.NOT_SENT: ("unreachable", "Check options.apiUrl, DNS and the network."),
    FaultKind.UNTRUSTED: ("certificate", CERTIFICATE_REMEDY),
    FaultKind.DROPPED: ("unreachable", "Check the network and any proxy, and Daytona's status, then try again."),
    FaultKind.THROTTLED: ("throttled", "Too many requests: try again later, or spread the sessions' starts."),
    FaultKind.UNAVAILABLE: ("unavailable", "Daytona is not available now: try again later."),
    FaultKind.UNREADABLE: ("unreadable", "Check options.apiUrl and any proxy: the server is not "
                           "Daytona, or its answer is cut off. Otherwise try again later."),
}  # fmt: skip


def remedy_for(fault: PortFault, otherwise: str = "refused") -> tuple[str, str]:
    """Return the code and the remedy for a failed request. If the cause is unknown, the code is ``otherwise``."""
    by_kind = BY_KIND.get(fault.kind, (otherwise, "The message states why Daytona refused the request."))
    if fault.kind is FaultKind.UNTRUSTED:  # the message is not from Daytona
        return by_kind
    return next(
        ((code, remedy) for pattern, code, remedy in MESSAGES if re.search(pattern, fault.message)), by_kind
    )


def create_error(
    fault: PortFault, *, nothing_created: bool, problem: str = "No sandbox could be created:"
) -> ProvisionError:
    """Return the error, with its remedy, for a failed request to create, find or start a sandbox.

    Args:
        fault: The failure.
        nothing_created: True only if it is certain that no sandbox was created.
        problem: The beginning of the message, with a colon.
    """
    code, remedy = remedy_for(fault, "create_refused")
    return ProvisionError(
        f"{problem} {fault.message}. {remedy}",
        code=code,
        op="create",
        retryable=fault.passing or code == "no_runner",
        context={"status": fault.status, "nothing_created": nothing_created},
        for_model="No machine could be had. Nothing ran. Tell the user.",
    )
