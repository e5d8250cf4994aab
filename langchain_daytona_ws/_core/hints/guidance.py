"""Instructions about the workspace for a system prompt, and environment variables that avoid S3 failures. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

S3_BASH_LINES = """\
- Files live in S3: they are written whole, from start to end. No mv, >>, sed -i, touch, chmod, ln, ./script,
  git init, venv, npm install, SQLite or zip writes here: use cp and rm, bash script, workspace_file edit;
  or work under /tmp (local, lost with the machine) and cp the result here. Logs too: opening a file that is
  still being written cuts it off."""

_RELATIVE = "Files are in the workspace, where every command starts. Use relative paths."
_ABSOLUTE = (
    "It is the directory {root}, where every command starts. Give the file tools absolute paths, such as "
    "{root}/a.txt."
)
_ABSOLUTE_ANYWHERE = (
    "It is the directory where every command starts: pwd prints its path. Give the file tools absolute paths "
    "in it."
)
_LOST = "It is a directory on the machine, and is lost with it. Tell the user what matters; do not rely on it later."
_SAVED = (
    "Its files are saved when each call returns. What is not in it, /tmp and installed packages too, is lost with the "
    "machine."
)
_MOUNTED = (
    "It lives in S3 and outlives the machine. What is not in it, /tmp and installed packages too, is lost with "
    "the machine.",
    "A file is written whole, from start to end, and others see it when it is closed. Nothing here can be renamed, "
    "appended to, changed in place, linked, or given permissions and times: instead of mv use cp and rm, instead of "
    ">> and sed -i rewrite the file or use {edit}, instead of ./x.sh run bash x.sh.",
    "Repositories (git), virtual environments, node_modules, databases, archives and compiled programs do not work "
    "here. Make them under /tmp, which is local and fast, and cp the results here.",
    "A directory goes when its last file does.",
    "Opening a file that a command is still writing ends the writing, and the rest is lost: let background commands "
    "write logs under /tmp, and cp them here at the end.",
)
_GUARDED = (
    "Other agents may use the same files. {changes} never overwrite another agent's change: when "
    "one is refused, read again. {shell} may overwrite it unseen, so change shared files with {files}."
)
_UNGUARDED = (
    "Other agents may use the same files, and neither {shell} nor {files} notices when it overwrites another "
    "agent's change: read a file again right before you change it."
)
_OWN_TOOLS = {
    "shell": "bash",
    "files": "workspace_file",
    "edit": "workspace_file edit",
    "changes": "workspace_file edit and write",
}
_DEEP_AGENTS_TOOLS = {
    "shell": "execute",
    "files": "edit_file",
    "edit": "edit_file",
    "changes": "edit_file and write_file",
}


def guidance(
    *,
    s3_mode: Literal["mount", "sync"] | None,
    skills_path: str | None,
    file_access: str,
    deep_agent_in: str | None = None,
) -> str:
    """Return instructions about the workspace for a system prompt, as a short list.

    Args:
        s3_mode: How commands access a workspace in S3; None for a workspace on the sandbox's own disk.
        skills_path: Directory with skills, mounted read-only; None without skills.
        file_access: ``"s3"`` if workspace_file accesses S3 directly, ``"sandbox"`` if it uses the mount. Ignored
            without a mount.
        deep_agent_in: None if the agent has this package's tools. If it has Deep Agents' tools, which require absolute
            paths: the workspace directory, or ``""`` if each run has a different directory.
    """
    tools = _OWN_TOOLS if deep_agent_in is None else _DEEP_AGENTS_TOOLS
    lines = [_RELATIVE if deep_agent_in is None else _ABSOLUTE if deep_agent_in else _ABSOLUTE_ANYWHERE]
    if s3_mode == "mount":
        lines += [*_MOUNTED, _GUARDED if file_access == "s3" else _UNGUARDED]
    else:
        lines.append(_LOST if s3_mode is None else _SAVED)
    if skills_path is not None:
        lines.append(
            "Skills are in {skills}, read-only: read them with {shell}, and copy into the workspace what you "
            "need to change or run."
        )
    text = "\n".join(f"- {line}" for line in lines)
    return "The workspace:\n" + text.format(root=deep_agent_in, skills=skills_path, **tools)


def git_settings(env_vars: Mapping[str, str]) -> dict[str, str]:
    """Return variables that make git ignore file attributes that differ between sandboxes.

    Without them, `git status` in each sandbox rewrites the index, which is then stored in S3 again. If the user's
    variables, ``env_vars``, include ``GIT_CONFIG_COUNT``, the result is empty.
    """
    if "GIT_CONFIG_COUNT" in env_vars:
        return {}
    values = {"GIT_CONFIG_COUNT": str(len(_GIT))}
    for number, (name, value) in enumerate(_GIT.items()):
        values |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return values


_GIT = {"core.trustctime": "false", "core.checkStat": "minimal"}

_CACHES = "/tmp/.workspace-cache"  # noqa: S108 - in the sandbox, whose only user is the agent

# Variables that move caches of programs out of the workspace, where a mount of S3 refuses them: mypy, ruff, coverage
# and compileall fail, pytest fails if warnings are errors, and Hypothesis takes a minute instead of a second. Options
# on command lines take precedence.
LOCAL_CACHES: Mapping[str, str] = MappingProxyType(
    {
        "PYTHONPYCACHEPREFIX": f"{_CACHES}/python",
        "MYPY_CACHE_DIR": f"{_CACHES}/mypy",
        "RUFF_CACHE_DIR": f"{_CACHES}/ruff",
        "COVERAGE_FILE": f"{_CACHES}/coverage",
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{_CACHES}/hypothesis",
        # pytest refuses this option if both -p no:cacheprovider and --strict-config are given. Few projects give both.
        # Without this option, more projects would fail: the unwritable cache causes a warning.
        "PYTEST_ADDOPTS": f"-o cache_dir={_CACHES}/pytest",
    }
)
