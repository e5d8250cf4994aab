"""Print pip's configuration as shell commands that set uv's environment variables.

Variables that are already set are not changed. Other options of pip are ignored.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys

# pip's option → uv's variable, and the separator of several values.
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
# Later sections override earlier ones.
SECTIONS = ("global", "install", ":env:")


def configured() -> dict[str, str]:
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
        # Choose the best version of all indexes, as pip does; uv's default is the first index that has the package.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


for variable, value in configured().items():
    if variable not in os.environ:
        print(f"export {variable}={shlex.quote(value)}")
