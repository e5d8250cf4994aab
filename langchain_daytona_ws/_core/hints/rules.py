"""Rules that map known failures on a mount of S3 to working alternatives.

mount-s3 documents the operations that such a mount refuses (`doc/SEMANTICS.md`). The patterns match the messages that
programs print on such a mount (measured).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from langchain_daytona_ws._core.hints.error_lines import ErrorLine
from langchain_daytona_ws._core.hints.shell_text import SimpleCommand


@dataclass(frozen=True, slots=True)
class Failure:
    """One error, and the command in which it happened, as simple commands."""

    error: ErrorLine
    ran: list[SimpleCommand]

    def of(self, *programs: str) -> list[SimpleCommand]:
        """Return the simple commands that run one of the programs; ``python`` stands for all its versions."""
        return [simple for simple in self.ran if simple.plain_program in programs]

    @property
    def code(self) -> str:
        """The program text on Python's command line or in its here-document."""
        return "\n".join(simple.code for simple in self.of("python") if simple.code)

    @property
    def location(self) -> str:
        """The calls of the Python traceback with their source, innermost last.

        Source that was not printed is taken from the program text. If there is no traceback, for example because a pipe
        cut it off, this is the whole program text.
        """
        frames = self.error.frames
        if not frames:
            return self.code
        lines = [simple.code.split("\n") for simple in self.of("python") if simple.code]
        calls = []
        for frame in frames:
            source = frame.source
            if not source and frame.path in ("<string>", "<stdin>"):
                source = "\n".join(text[frame.line - 1] for text in lines if 0 < frame.line <= len(text))
            calls.append(f"{frame.path}, in {frame.function}\n{source}")
        return "\n".join(calls)


When = Callable[[Failure], bool]
Fill = Callable[[Failure], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One known failure, and the advice for it.

    Attributes:
        programs: Names of the programs that print the message; () for any program.
        message: Pattern of the message.
        advice: The working alternative, up to 200 characters.
        when: A further condition, if the message is ambiguous. Most conditions examine only the program that failed,
            because the rest of the command may contain the same words.
        fill: Returns the advice with words of the command filled in, or None to use ``advice``.
    """

    programs: tuple[str, ...]
    message: re.Pattern[str]
    advice: str
    when: When | None = None
    fill: Fill | None = None


# --- advice with words of the command, not of the output, which may contain anything ---

_NAME = re.compile(r"[\w./][\w./+-]{0,50}")


def _moved(failure: Failure) -> str | None:
    for simple in failure.of("mv"):
        names = [word for word in simple.arguments if not word.startswith("-")]
        if len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
            continue
        source, target = names
        if f"'{source}'" in failure.error.message and source.strip("./"):
            return f"Files here cannot be renamed. Use: cp -r {source} {target} && rm -rf {source}"
    return None


def _executed(failure: Failure) -> str | None:
    name = failure.error.message.partition(": ")[0]
    if not _NAME.fullmatch(name) or not any(name in simple.words for simple in failure.ran):
        return None
    runner = {"py": "python3", "js": "node"}.get(name.rpartition(".")[2], "bash")
    return f"Files here are never executable. Use: {runner} {name.removeprefix('./')}"


# --- conditions ---


def _runs(program: str, verb: str) -> When:
    """Return a condition: the program ran with this verb (its first argument that is not an option)."""
    return lambda failure: any(simple.verb == verb for simple in failure.of(program))


def _has(program: str, letters: str, *names: str) -> When:
    return lambda failure: any(simple.has_flag(letters, *names) for simple in failure.of(program))


def _at(pattern: str) -> When:
    compiled = _r(pattern)
    return lambda failure: bool(compiled.search(failure.location))


def _in_shutil(function: str) -> When:
    return _at(rf"shutil\.py, in {function}\n|\bshutil\.{function}\(")


def _makes_venv(failure: Failure) -> bool:
    if failure.error.frames:
        return bool(
            re.search(
                r"/python3[.\d]{0,4}/venv/__init__\.py, in |/site-packages/virtualenv/", failure.location
            )
        )
    return any(
        simple.plain_program == "virtualenv"
        or (simple.plain_program == "uv" and simple.verb == "venv")
        or (simple.plain_program == "python" and simple.arguments[:1] == ["-m"] and simple.verb in _VENVS)
        for simple in failure.ran
    )


def _installs_for_node(failure: Failure) -> bool:
    return any(
        simple.plain_program == "npx"
        or (simple.plain_program in ("npm", "yarn", "pnpm") and simple.verb in _INSTALLING)
        or (simple.plain_program == "yarn" and not simple.arguments)
        for simple in failure.ran
    )


def _redirects(*operators: str) -> When:
    """Return a condition: a redirection to the file that the message names has one of these operators.

    If no redirection has this file as its target, all redirections to a variable are examined instead.
    """

    def when(failure: Failure) -> bool:
        named = failure.error.message.partition(": ")[0].removeprefix("cannot create ")
        redirects = [redirect for simple in failure.ran for redirect in simple.redirects]
        matching = [redirect for redirect in redirects if redirect.target == named] or [
            redirect for redirect in redirects if "$" in redirect.target
        ]
        return any(redirect.operator in operators for redirect in matching)

    return when


def _closes_nothing(failure: Failure) -> bool:
    """Return False if a redirection closes a descriptor: then writes fail on any file system."""
    return not any(redirect.target == "-" for simple in failure.ran for redirect in simple.redirects)


def _opens_to_write(failure: Failure) -> bool:
    return bool(re.search(r"open\([^)]{0,100}['\"](?:w|x)b?['\"]", failure.location))


def _reads_and_writes(failure: Failure) -> bool:
    if re.search(r"\.(?:read|seek|truncate)\w{0,10}\(|mmap", failure.location):
        return True
    return bool(re.search(r"['\"][rwxa]b?\+b?['\"]|O_RDWR|mmap", failure.code))


# Calls in which libraries write archives and tables. They seek back and write again, which the mount refuses.
_WRITING = (
    r"\.(?:write|save|close|flush|truncate|seek|to_)\w{0,20}\(|/zipfile(?:/__init__)?\.py, in |"
    r"in _?(?:write|close|save|flush|truncate|seek)\w{0,20}\n"
)
_VENVS = ("venv", "virtualenv")
_INSTALLING = ("i", "ci", "install", "add", "update", "exec", "dlx")


def _r(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_EPERM = r"operation not permitted"
_ENOSYS = r"function not implemented"
_EITHER = _r(f"{_EPERM}|{_ENOSYS}")
_NOT_PERMITTED = _r(_EPERM)
_NOT_IMPLEMENTED = _r(_ENOSYS)
_TMP_THEN_CP = "This kind of file cannot be written here: it needs more than writing from start to end. "
_PIP = "pip cannot install here. Use: pip install --target /tmp/lib PACKAGE, then PYTHONPATH=/tmp/lib python3 ..."
_RENAMED_BY_PYTHON = (
    "Files here cannot be renamed. Use: shutil.copyfile(a, b) then os.remove(a) (cp -r and rm -rf for directories), "
    "not os.rename, os.replace or Path.rename."
)
_WAITING = (
    "A file here cannot be appended to, nor read, replaced or removed while it is open for writing. "
    "Rewrite it whole (cat FILE NEW > /tmp/x; cp /tmp/x FILE), or wait until it is closed."
)
_RENAMED = "Files here cannot be renamed. Do it under /tmp, then cp the result here."
_CUT_OFF = (
    "A file here that one command writes must not be opened by another: that ends the writing, and the rest is lost. "
    "Write it under /tmp, then cp it here."
)
_TOO_MANY_OPEN = "Too many files are open for writing at once. Close each file before you open the next ones."
_UPLOAD_FAILED = "Writing that file failed a moment ago. Run the command again."

# The first match wins, so a special rule comes before a more general rule.
RULES: tuple[Rule, ...] = (
    Rule((), _r(r"^ENOTCONN: .*, \w+ '|^\[Errno 107\].*: '|^(?!\[Errno|.*\b(?:recv|send|socket|getpeername|shutdown)\b)"
        r".*transport endpoint is not connected"),
         "The workspace's connection to S3 was lost while this ran. Run the command again: it is repaired first."),
    # If a store that is not S3 refuses a rename, mount-s3 reports an input/output error, because the store's error code
    # differs from S3's.
    Rule(("mv",), _r(r"^cannot move .*: input/output error"),
         "Files here cannot be renamed. Use: cp -r A B && rm -rf A",
         fill=_moved),
    Rule(("python",), _r(r"\[Errno 5\] .* -> "), _RENAMED_BY_PYTHON),
    Rule((), _r(r"\brenam.*: input/output error|^EIO: .*, rename"), _RENAMED),
    Rule((), _r(r"\[Errno 5\]|: input/output error|^EIO: "),
         "S3 or the workspace's credentials failed. Try again once; if it fails again, tell the user."),
    Rule((), _r(r"read-only file system|^EROFS: "),
         "That directory is read-only. cp what you need into the workspace and change the copy."),
    Rule((), _r(r"stale file handle|\[Errno 116\]|^ESTALE: "),
         "The file was replaced while it was being read. Read it again from the start."),
    Rule(("sqlite3",), _r(r"disk I/O error|readonly database|unable to open database"),
         "SQLite cannot write here. Work on a database under /tmp (cp FILE.db /tmp/ first if there is one), "
         "then cp it back."),
    Rule(("dbm",), _r("invalid argument"), _TMP_THEN_CP + "Make it under /tmp, then cp it here."),
    Rule(("git",), _r("symref for HEAD"), "git cannot keep its data here. Use: git clone URL /tmp/repo, work there, "
         "and cp -r what is to stay here.", _runs("git", "clone")),
    Rule(("git",), _r("symref for HEAD"), "git cannot keep its data here. Use: rm -rf .git && git init "
         "--separate-git-dir=/tmp/repo.git .", _runs("git", "init")),
    Rule(("git",), _r(r"renaming .*" + _ENOSYS),
         "Files here cannot be renamed. Use: cp A B && git rm -q A && git add B"),
    Rule(("git",), _r(rf"{_ENOSYS}|{_EPERM}|unable to write new_index|couldn't set 'refs"),
         "git cannot keep its data here. Use: cp -r . /tmp/repo && cd /tmp/repo, work there, and cp files back."),
    Rule(("python", "uv"), _EITHER, "A virtual environment cannot be made here. Use: python3 -m venv /tmp/venv, then "
         "/tmp/venv/bin/python", _makes_venv),
    Rule(("pip", "uv"), _EITHER, _PIP),
    Rule(("python",), _r(rf"{_EPERM}|{_ENOSYS}|\.dist-info"), _PIP, _at("/pip/_internal/")),
    Rule(("npm", "node"), _r(r"EPERM|ENOSYS"), "npm cannot install here. Use: mkdir -p /tmp/app && cp -r . /tmp/app && "
         "cd /tmp/app && npm install, and run from there.", _installs_for_node),
    Rule(("sed",), _NOT_IMPLEMENTED, "sed -i cannot work here. Use: sed SCRIPT FILE > /tmp/x && cp /tmp/x FILE, or "
         "edit it with the file tool."),
    Rule(("perl",), _EITHER, "perl -i cannot work here. Use: perl -pe SCRIPT FILE > /tmp/x && cp /tmp/x FILE, or "
         "edit it with the file tool."),
    Rule(("rsync",), _EITHER, "rsync cannot work here. Use: cp -r SOURCE/. TARGET/"),
    Rule(("patch",), _EITHER, "patch cannot work here. Use: git apply PATCHFILE (add -p0 for paths without a/ and b/), "
         "or cp the file to /tmp, patch it there and cp it back."),
    Rule(("mv",), _r("preserving|preserve"),
         "It was moved; only times and permissions could not be kept, which is harmless."),
    Rule(("mv",), _EITHER, "Files here cannot be renamed. Use: cp -r A B && rm -rf A", fill=_moved),
    Rule(("cp",), _r(r"preserving|ownership"),
         "It was copied; only times and permissions could not be kept, which is harmless. Use cp -r, not cp -a."),
    Rule(("cp",), _r(rf"(?:hard|symbolic) link.*{_EPERM}"), "Links cannot be made here. Use cp without -l and -s."),
    Rule(("tar",), _r(r"symlink|hard link"),
         "Links cannot be made here. Unpack under /tmp, then cp -rL what you need here."),
    Rule(("tar",), _r(r"cannot (?:utime|change)"),
         "It was unpacked; only times and permissions could not be set, which is harmless. "
         "Use: tar xm --no-same-owner --no-same-permissions"),
    Rule(("tar",), _r("cannot write: bad file descriptor|cannot open: operation not permitted"),
         "An archive here cannot be added to. Make it whole with tar c, or change it under /tmp and cp it here."),
    # Some stores list a file's time with milliseconds, and read it in seconds: then tar finds each file changed.
    Rule(("tar",), _r("file changed as we read it"),
         "If nothing writes these files, only their times differ, and the archive is complete: ignore exit code 1. "
         "Or use: cp -r DIR /tmp/x && tar c -C /tmp/x ."),
    Rule(("unzip",), _r("cannot set (?:modif|permissions)"),
         "It was unpacked; only times and permissions could not be set, which is harmless. Use: unzip -DD"),
    Rule(("zip",), _r("invalid argument|could not create|" + _EPERM),
         "zip cannot write here. Use: zip -r /tmp/x.zip FILES && cp /tmp/x.zip ."),
    Rule(("wget",), _EITHER, "A download here cannot be resumed. Use: wget -O FILE URL"),
    Rule(("curl",), _r(r"\(23\)"), "A download here cannot be resumed. Use: curl -o FILE URL, without -C",
         _has("curl", "C", "--continue-at")),
    Rule((), _r("final link failed|Fatal error: .*file truncated|unable to copy file"),
         "Compilers cannot write here. Use -o /tmp/PROGRAM and run it from there (objects and libraries too)."),
    Rule(("sort",), _EITHER, "sort cannot write onto its own input here. Use: sort FILE > /tmp/x && cp /tmp/x FILE"),
    Rule(("touch",), _NOT_PERMITTED, "The file exists, and times cannot be set here: nothing to do. To change the "
         "time, rewrite it: cp FILE /tmp/x && cp /tmp/x FILE"),
    Rule(("tee",), _NOT_PERMITTED, "Appending to an existing file is impossible here. Use: (cat FILE; COMMAND) > "
         "/tmp/x && cp /tmp/x FILE"),
    Rule(("chmod", "chown", "chgrp"), _r(f"{_EPERM}|changing ownership.*invalid argument"),
         "Permissions cannot be changed here, and nothing is executable. Run scripts as: bash x.sh, python3 x.py"),
    Rule(("install",), _NOT_PERMITTED, "Permissions cannot be set here. Use: cp SOURCE TARGET"),
    Rule(("shell", "make"), _r(r"^(?!/root/)[^:\s]{1,250}: permission denied"),
         "Files here are never executable. Use: bash x.sh or python3 x.py; compiled programs run from /tmp.",
         fill=_executed),
    Rule(("python",), _r(r"\[Errno 13\] Permission denied: '\.?/?[^/'][^']{0,100}'"),
         "Files here are never executable. Run them through bash, python3 or node.",
         _at(r"/subprocess\.py, in |\bsubprocess\.\w+\(|\bos\.exec")),
    Rule(("ln",), _NOT_PERMITTED, "Links cannot be made here. Use: cp -r TARGET NAME"),
    Rule(("rmdir",), _r(rf"{_EPERM}|no such file"), "A directory here goes with its last file, and a directory with "
         "files cannot be removed by rmdir. Use: rm -rf DIR"),
    Rule(("rm",), _r("no such file"), "Directories here vanish with their last file, so rm -r may complain after "
         "doing its work. Use: rm -rf DIR", _has("rm", "rR", "--recursive")),
    Rule(("flock",), _NOT_PERMITTED, "A file here cannot be locked. Use: flock /tmp/lock COMMAND"),
    Rule(("truncate", "dd", "fallocate"), _r(rf"{_EPERM}|{_ENOSYS}|bad file descriptor"), "A file here cannot "
         "be changed in place. Work on a copy under /tmp, then cp it over the file."),
    Rule(("bzip2", "xz"), _NOT_PERMITTED, "It cannot set permissions here. Use: bzip2 -c FILE > FILE.bz2 (or xz -c), "
         "then rm FILE"),
    # --- Python ---
    Rule(("python",), _EITHER, "The data was copied; only permissions and times could not be set. Use: "
         "shutil.copyfile(a, b) then os.remove(a), not shutil.move.", _in_shutil("move")),
    Rule(("python",), _EITHER, "The files were copied; only permissions and times could not be set. Use: cp -r A B, "
         "not shutil.copytree.", _in_shutil("_?copytree")),
    Rule(("python",), _EITHER, "The data was copied; only permissions and times could not be set. Use: "
         "shutil.copyfile, not shutil.copy or copy2.", _in_shutil("copy(?:2|mode|stat)?")),
    Rule(("python",), _r("no such file"), "Directories here vanish with their last file. Use: "
         "shutil.rmtree(DIR, ignore_errors=True)", _in_shutil(r"_?rmtree\w*")),
    Rule(("python",), _r(rf"{_ENOSYS}(?:: .{{1,300}} -> |$)"), _RENAMED_BY_PYTHON),
    # Renaming a directory fails with this error; after S3 has refused to rename a file, with ENOSYS (above).
    Rule(("python",), _r(rf"{_EPERM}: .{{1,300}} -> "), _RENAMED_BY_PYTHON,
         _at(r"\.(?:rename|replace)\(|in (?:rename|replace)\n")),
    Rule(("python",), _r(rf"{_EPERM}: .{{1,300}} -> "),
         "Links cannot be made here. Use: shutil.copyfile(source, name)"),
    Rule(("python",), _r(_EPERM), "Permissions and times cannot be set here. Leave out os.chmod, os.utime and "
         "Path.touch on files that exist.", _at(r"\bchmod\b|\butime\b|\bin touch\n|\.touch\(")),
    Rule(("python",), _r(_EPERM + ": "), "A file here cannot be appended to, nor opened while it is written. Read it, "
         "then write it whole with mode 'w', and close it before others use it."),
    Rule(("python",), _r(r"\[Errno 22\] invalid argument$"), _TMP_THEN_CP
         + "Save it under /tmp, then cp (or shutil.copyfile) it here.",
         _at(_WRITING)),
    Rule(("python",), _r(r"\[Errno 9\]"), "A file here cannot be opened for reading and writing. Read it, then write "
         "it whole with mode 'w'; or work under /tmp and cp it here.", _reads_and_writes),
    Rule(("python",), _r(r"\[Errno 9\] bad file descriptor"), _CUT_OFF),
    Rule(("python",), _r(r"\[Errno 12\] cannot allocate memory: '"), _TOO_MANY_OPEN),
    Rule(("python",), _r(r"\[Errno 2\] no such file or directory: '[^'/]{1,200}'$"), _UPLOAD_FAILED, _opens_to_write),
    # --- Node ---
    Rule(("node",), _r(r"^(?:ENOSYS|EPERM): .*, rename"), "Files here cannot be renamed. Use: fs.copyFileSync(a, b), "
         "then fs.unlinkSync(a)"),
    Rule(("node",), _r(r"^EPERM: .*, (?:symlink|link)"), "Links cannot be made here. Use: fs.copyFileSync"),
    Rule(("node",), _r(r"^EPERM: .*, (?:f?chmod|f?chown|f?utime)"), "Permissions and times cannot be set here. Leave "
         "it out."),
    Rule(("node",), _r(r"^EPERM: .*, open"), "A file here cannot be appended to, nor opened while it is written. Read "
         "it, then write it whole with fs.writeFileSync."),
    Rule(("node",), _r(r"^EBADF: .*, write"), _CUT_OFF),
    Rule(("node",), _r(r"^ENOMEM: .*, open"), _TOO_MANY_OPEN),
    # --- any program ---
    # A shell reports "3: Bad file descriptor" for a redirection to a descriptor that is not open.
    Rule((), _r(r"(?:write error|error writing .*|writing output|write failed|^[^\s:]*[^\s:\d][^\s:]*): "
               r"bad file descriptor"),
         _CUT_OFF, _closes_nothing),
    Rule(("shell",), _r(r"^(?:cannot create )?[^:]{1,200}: cannot allocate memory"), _TOO_MANY_OPEN,
         _redirects(">", ">|", "&>", "<>")),
    Rule((), _r(r"^cannot (?:create|open) .*: cannot allocate memory"), _TOO_MANY_OPEN),
    Rule((), _r(rf"(?:renam|mov|backup|replac).*{_ENOSYS}"), _RENAMED),
    Rule(("shell",), _r(rf"^(?:cannot create )?[^:]{{1,200}}: {_EPERM}"),
         "Appending to an existing file is impossible here. Use: (cat FILE; COMMAND) > /tmp/x && cp /tmp/x FILE",
         _redirects(">>", "&>>")),
    Rule(("shell",), _r(rf"^(?:cannot create )?[^:]{{1,200}}: {_EPERM}"), _WAITING),
    Rule(("shell",), _r(r"^[^/:][^:]{0,150}/[^:]{1,100}: no such file"),
         "Directories here vanish with their last file. Use mkdir -p DIR before writing into it.",
         _redirects(">", ">>", ">|", "&>", "&>>")),
    Rule(("shell",), _r(r"^(?:cannot create )?[^/:]{1,200}: no such file"), _UPLOAD_FAILED,
         _redirects(">", ">|", "&>")),
    Rule(("cat", "cp", "head", "tail", "less", "wc", "grep", "rm", "diff"), _NOT_PERMITTED,
         "The file is open elsewhere: it cannot be read, replaced or removed while it is being written. Wait until its "
         "writer has closed it, or stop the writer."),
)  # fmt: skip
