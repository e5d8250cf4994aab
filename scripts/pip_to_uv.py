"""Print pip's configuration as the environment variables of uv, for a shell to evaluate.

What is in the environment already stays. Options of pip that are not here have no counterpart that matters.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys

# Of pip's option: the variable, and what stands between several values.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "client-cert": ("SSL_CLIENT_CERT", " "),
    "proxy": ("ALL_PROXY", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
}
# The later has the last word.
SECTIONS = ("global", "install", ":env:")


def configured() -> dict[str, str]:
    """Return the variables that pip's configuration amounts to."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    options: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in options:
            options[section][option] = ast.literal_eval(value)
    merged = {option: value for section in SECTIONS for option, value in options[section].items()}
    found = {}
    for option, (variable, between) in VARIABLES.items():
        if merged.get(option, "").strip():
            found[variable] = between.join(merged[option].split())
    if "UV_INDEX" in found:
        # As pip does: the best version of all indexes, not of the first that knows the name.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


for variable, value in configured().items():
    if variable not in os.environ:
        print(f"export {variable}={shlex.quote(value)}")
