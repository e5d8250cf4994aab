"""The known ways to fail on a mount of S3, and what works instead.

What such a mount refuses is documented by mount-s3 (its `doc/SEMANTICS.md`); the words are those that the programs
were seen to print there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from langchain_daytona_ws._core.hints.error_lines import Complaint
from langchain_daytona_ws._core.hints.shell_text import Simple


@dataclass(frozen=True, slots=True)
class Failure:
    """One error, and the command in which it happened.

    Attributes:
        complaint: The error.
        ran: The simple commands of the command.
    """

    complaint: Complaint
    ran: list[Simple]

    def of(self, *programs: str) -> list[Simple]:
        """Return the simple commands of some programs; ``python`` is every version of it."""
        return [one for one in self.ran if one.plain_program in programs]

    @property
    def code(self) -> str:
        """The program text that Python was given on its command line or as a here-document."""
        return "\n".join(one.code for one in self.of("python") if one.code)

    @property
    def place(self) -> str:
        """Where Python failed: the calls of the traceback with their source, the innermost last.

        Source that was not printed is taken from the program text by its line number. Without a traceback, which a
        pipe may have cut off, the place may be anywhere in that text.
        """
        frames = self.complaint.frames
        if not frames:
            return self.code
        lines = [one.code.split("\n") for one in self.of("python") if one.code]
        told = []
        for frame in frames:
            source = frame.source
            if not source and frame.path in ("<string>", "<stdin>"):
                source = "\n".join(text[frame.line - 1] for text in lines if 0 < frame.line <= len(text))
            told.append(f"{frame.path}, in {frame.function}\n{source}")
        return "\n".join(told)


When = Callable[[Failure], bool]
Fill = Callable[[Failure], str | None]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to fail.

    Attributes:
        speakers: Programs that say it; none for any.
        said: What they say.
        advice: What to do instead, up to 200 characters.
        when: What must hold of the failure too, where the words alone are ambiguous: what failed, and no words that
            happen to stand in the same command.
        fill: Makes the advice from the command's own words; None where it cannot.
    """

    speakers: str
    said: re.Pattern[str]
    advice: str
    when: When | None = None
    fill: Fill | None = None


# --- advice in the command's own words: what was printed could name anything ---

_NAME = re.compile(r"[\w./][\w./+-]{0,50}")


def _moved(failure: Failure) -> str | None:
    for one in failure.of("mv"):
        names = [word for word in one.arguments if not word.startswith("-")]
        if len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
            continue
        source, target = names
        if f"'{source}'" in failure.complaint.said and source.strip("./"):
            return f"Files here cannot be renamed. Use: cp -r {source} {target} && rm -rf {source}"
    return None


def _executed(failure: Failure) -> str | None:
    name = failure.complaint.said.partition(": ")[0]
    if not _NAME.fullmatch(name) or not any(name in one.words for one in failure.ran):
        return None
    runner = {"py": "python3", "js": "node"}.get(name.rpartition(".")[2], "bash")
    return f"Files here are never executable. Use: {runner} {name.removeprefix('./')}"


# --- what failed ---


def _runs(programs: str, verbs: str = "") -> When:
    """Hold where one of the programs was run, with one of the verbs if there are any."""
    names, allowed = programs.split(), verbs.split()
    return lambda failure: any(not allowed or one.verb in allowed for one in failure.of(*names))


def _has(programs: str, letters: str, *names: str) -> When:
    """Hold where one of the programs was run with one of the options."""
    return lambda failure: any(one.has_flag(letters, *names) for one in failure.of(*programs.split()))


def _at(pattern: str) -> When:
    """Hold where the place at which Python failed matches."""
    compiled = _r(pattern)
    return lambda failure: bool(compiled.search(failure.place))


def _in_shutil(function: str) -> When:
    return _at(rf"shutil\.py, in {function}\n|\bshutil\.{function}\(")


def _makes_venv(failure: Failure) -> bool:
    if failure.complaint.frames:
        return bool(
            re.search(r"/python3[.\d]{0,4}/venv/__init__\.py, in |/site-packages/virtualenv/", failure.place)
        )
    return any(
        one.plain_program == "virtualenv"
        or (one.plain_program == "uv" and one.verb == "venv")
        or (one.plain_program == "python" and one.arguments[:1] == ["-m"] and one.verb in _VENVS)
        for one in failure.ran
    )


def _installs_for_node(failure: Failure) -> bool:
    return any(
        one.plain_program == "npx"
        or (one.plain_program in ("npm", "yarn", "pnpm") and one.verb in _INSTALLING)
        or (one.plain_program == "yarn" and not one.arguments)
        for one in failure.ran
    )


def _redirects(operators: str) -> When:
    """Hold where the file that the shell names is the target of such a redirection, or may be by a variable."""

    def when(failure: Failure) -> bool:
        named = failure.complaint.said.partition(": ")[0].removeprefix("cannot create ")
        written = [redirect for one in failure.ran for redirect in one.redirects]
        of_it = [one for one in written if one.target == named] or [
            one for one in written if "$" in one.target
        ]
        return any(one.operator in operators.split() for one in of_it)

    return when


def _closes_nothing(failure: Failure) -> bool:
    """Hold where no redirection closes a descriptor, after which every write fails."""
    return not any(redirect.target == "-" for one in failure.ran for redirect in one.redirects)


def _writes_as_open(failure: Failure) -> bool:
    """Hold where Python opened a file without a directory in its name for writing, and was told that it is missing."""
    return bool(re.search(r"open\([^)]{0,100}['\"](?:w|x)b?['\"]", failure.place))


def _reads_and_writes(failure: Failure) -> bool:
    """Hold where one file is read and written through one descriptor."""
    if re.search(r"\.(?:read|seek|truncate)\w{0,10}\(|mmap", failure.place):
        return True
    return bool(re.search(r"['\"][rwxa]b?\+b?['\"]|O_RDWR|mmap", failure.code))


# Libraries write archives and tables by going back in them.
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

# The first that fits wins: what names its program comes before what anything may say.
WAYS: tuple[Way, ...] = (
    Way("", _r(r"^ENOTCONN: .*, \w+ '|^\[Errno 107\].*: '|^(?!\[Errno|.*\b(?:recv|send|socket|getpeername|shutdown)\b)"
        r".*transport endpoint is not connected"),
         "The workspace's connection to S3 was lost while this ran. Run the command again: it is repaired first."),
    # Stores that resemble S3 refuse a rename in other words than S3, which mount-s3 makes this of.
    Way("mv", _r(r"^cannot move .*: input/output error"), "Files here cannot be renamed. Use: cp -r A B && rm -rf A",
         fill=_moved),
    Way("python", _r(r"\[Errno 5\] .* -> "), _RENAMED_BY_PYTHON),
    Way("", _r(r"\brenam.*: input/output error|^EIO: .*, rename"), _RENAMED),
    Way("", _r(r"\[Errno 5\]|: input/output error|^EIO: "),
         "S3 or the workspace's credentials failed. Try again once; if it fails again, tell the user."),
    Way("", _r(r"read-only file system|^EROFS: "),
         "That directory is read-only. cp what you need into the workspace and change the copy."),
    Way("", _r(r"stale file handle|\[Errno 116\]|^ESTALE: "),
         "The file was replaced while it was being read. Read it again from the start."),
    Way("sqlite3", _r(r"disk I/O error|readonly database|unable to open database"),
         "SQLite cannot write here. Work on a database under /tmp (cp FILE.db /tmp/ first if there is one), "
         "then cp it back."),
    Way("dbm", _r("invalid argument"), _TMP_THEN_CP + "Make it under /tmp, then cp it here."),
    Way("git", _r("symref for HEAD"), "git cannot keep its data here. Use: git clone URL /tmp/repo, work there, and "
         "cp -r what is to stay here.", _runs("git", "clone")),
    Way("git", _r("symref for HEAD"), "git cannot keep its data here. Use: rm -rf .git && git init "
         "--separate-git-dir=/tmp/repo.git .", _runs("git", "init")),
    Way("git", _r(r"renaming .*" + _ENOSYS),
         "Files here cannot be renamed. Use: cp A B && git rm -q A && git add B"),
    Way("git", _r(rf"{_ENOSYS}|{_EPERM}|unable to write new_index|couldn't set 'refs"),
         "git cannot keep its data here. Use: cp -r . /tmp/repo && cd /tmp/repo, work there, and cp files back."),
    Way("python uv", _EITHER, "A virtual environment cannot be made here. Use: python3 -m venv /tmp/venv, then "
         "/tmp/venv/bin/python", _makes_venv),
    Way("pip uv", _EITHER, _PIP),
    Way("python", _r(rf"{_EPERM}|{_ENOSYS}|\.dist-info"), _PIP, _at("/pip/_internal/")),
    Way("npm node", _r(r"EPERM|ENOSYS"), "npm cannot install here. Use: mkdir -p /tmp/app && cp -r . /tmp/app && "
         "cd /tmp/app && npm install, and run from there.", _installs_for_node),
    Way("sed", _NOT_IMPLEMENTED, "sed -i cannot work here. Use: sed SCRIPT FILE > /tmp/x && cp /tmp/x FILE, or "
         "workspace_file edit."),
    Way("perl", _EITHER, "perl -i cannot work here. Use: perl -pe SCRIPT FILE > /tmp/x && cp /tmp/x FILE, or "
         "workspace_file edit."),
    Way("rsync", _EITHER, "rsync cannot work here. Use: cp -r SOURCE/. TARGET/"),
    Way("patch", _EITHER, "patch cannot work here. Use: git apply PATCHFILE (add -p0 for paths without a/ and b/), or "
         "cp the file to /tmp, patch it there and cp it back."),
    Way("mv", _r("preserving|preserve"),
         "It was moved; only times and permissions could not be kept, which is harmless."),
    Way("mv", _EITHER, "Files here cannot be renamed. Use: cp -r A B && rm -rf A", fill=_moved),
    Way("cp", _r(r"preserving|ownership"),
         "It was copied; only times and permissions could not be kept, which is harmless. Use cp -r, not cp -a."),
    Way("cp", _r(rf"(?:hard|symbolic) link.*{_EPERM}"), "Links cannot be made here. Use cp without -l and -s."),
    Way("tar", _r(r"symlink|hard link"),
         "Links cannot be made here. Unpack under /tmp, then cp -rL what you need here."),
    Way("tar", _r(r"cannot (?:utime|change)"),
         "It was unpacked; only times and permissions could not be set, which is harmless. "
         "Use: tar xm --no-same-owner --no-same-permissions"),
    Way("tar", _r("cannot write: bad file descriptor|cannot open: operation not permitted"),
         "An archive here cannot be added to. Make it whole with tar c, or change it under /tmp and cp it here."),
    Way("unzip", _r("cannot set (?:modif|permissions)"),
         "It was unpacked; only times and permissions could not be set, which is harmless. Use: unzip -DD"),
    Way("zip", _r("invalid argument|could not create|" + _EPERM),
         "zip cannot write here. Use: zip -r /tmp/x.zip FILES && cp /tmp/x.zip ."),
    Way("wget", _EITHER, "A download here cannot be resumed. Use: wget -O FILE URL"),
    Way("curl", _r(r"\(23\)"), "A download here cannot be resumed. Use: curl -o FILE URL, without -C",
         _has("curl", "C", "--continue-at")),
    Way("", _r("final link failed|Fatal error: .*file truncated|unable to copy file"),
         "Compilers cannot write here. Use -o /tmp/PROGRAM and run it from there (objects and libraries too)."),
    Way("sort", _EITHER, "sort cannot write onto its own input here. Use: sort FILE > /tmp/x && cp /tmp/x FILE"),
    Way("touch", _NOT_PERMITTED, "The file exists, and times cannot be set here: nothing to do. To change the time, "
         "rewrite it: cp FILE /tmp/x && cp /tmp/x FILE"),
    Way("tee", _NOT_PERMITTED, "Appending to an existing file is impossible here. Use: (cat FILE; COMMAND) > /tmp/x "
         "&& cp /tmp/x FILE"),
    Way("chmod chown chgrp", _r(f"{_EPERM}|changing ownership.*invalid argument"),
         "Permissions cannot be changed here, and nothing is executable. Run scripts as: bash x.sh, python3 x.py"),
    Way("install", _NOT_PERMITTED, "Permissions cannot be set here. Use: cp SOURCE TARGET"),
    Way("shell make", _r(r"^(?!/root/)[^:\s]{1,250}: permission denied"),
         "Files here are never executable. Use: bash x.sh or python3 x.py; compiled programs run from /tmp.",
         fill=_executed),
    Way("python", _r(r"\[Errno 13\] Permission denied: '\.?/?[^/'][^']{0,100}'"),
         "Files here are never executable. Run them through bash, python3 or node.",
         _at(r"/subprocess\.py, in |\bsubprocess\.\w+\(|\bos\.exec")),
    Way("ln", _NOT_PERMITTED, "Links cannot be made here. Use: cp -r TARGET NAME"),
    Way("rmdir", _r(rf"{_EPERM}|no such file"), "A directory here goes with its last file, and one that holds files "
         "cannot be removed by rmdir. Use: rm -rf DIR"),
    Way("rm", _r("no such file"), "Directories here vanish with their last file, so rm -r may complain after "
         "doing its work. Use: rm -rf DIR", _has("rm", "rR", "--recursive")),
    Way("truncate dd fallocate", _EITHER, "A file here cannot be changed in place. Work on a copy under /tmp, then cp "
         "it over the file."),
    Way("bzip2 xz", _NOT_PERMITTED, "It cannot set permissions here. Use: bzip2 -c FILE > FILE.bz2 (or xz -c), "
         "then rm FILE"),
    # --- Python ---
    Way("python", _EITHER, "The data was copied; only permissions and times could not be set. Use: "
         "shutil.copyfile(a, b) then os.remove(a), not shutil.move.", _in_shutil("move")),
    Way("python", _EITHER, "The files were copied; only permissions and times could not be set. Use: cp -r A B, not "
         "shutil.copytree.", _in_shutil("_?copytree")),
    Way("python", _EITHER, "The data was copied; only permissions and times could not be set. Use: "
         "shutil.copyfile, not shutil.copy or copy2.", _in_shutil("copy(?:2|mode|stat)?")),
    Way("python", _r("no such file"), "Directories here vanish with their last file. Use: "
         "shutil.rmtree(DIR, ignore_errors=True)", _in_shutil(r"_?rmtree\w*")),
    Way("python", _r(rf"{_ENOSYS}(?:: .{{1,300}} -> |$)"), _RENAMED_BY_PYTHON),
    # A directory is refused so, until a file has once been renamed.
    Way("python", _r(rf"{_EPERM}: .{{1,300}} -> "), _RENAMED_BY_PYTHON,
         _at(r"\.(?:rename|replace)\(|in (?:rename|replace)\n")),
    Way("python", _r(rf"{_EPERM}: .{{1,300}} -> "), "Links cannot be made here. Use: shutil.copyfile(source, name)"),
    Way("python", _r(_EPERM), "Permissions and times cannot be set here. Leave out os.chmod, os.utime and "
         "Path.touch on files that exist.", _at(r"\bchmod\b|\butime\b|\bin touch\n|\.touch\(")),
    Way("python", _r(_EPERM + ": "), "A file here cannot be appended to, nor opened while it is written. Read it, "
         "then write it whole with mode 'w', and close it before others use it."),
    Way("python", _r(r"\[Errno 22\] invalid argument$"), _TMP_THEN_CP
         + "Save it under /tmp, then cp (or shutil.copyfile) it here.",
         _at(_WRITING)),
    Way("python", _r(r"\[Errno 9\]"), "A file here cannot be opened for reading and writing. Read it, then write it "
         "whole with mode 'w'; or work under /tmp and cp it here.", _reads_and_writes),
    Way("python", _r(r"\[Errno 9\] bad file descriptor"), _CUT_OFF),
    Way("python", _r(r"\[Errno 12\] cannot allocate memory: '"), _TOO_MANY_OPEN),
    Way("python", _r(r"\[Errno 2\] no such file or directory: '[^'/]{1,200}'$"), _UPLOAD_FAILED, _writes_as_open),
    # --- Node ---
    Way("node", _r(r"^(?:ENOSYS|EPERM): .*, rename"), "Files here cannot be renamed. Use: fs.copyFileSync(a, b), then "
         "fs.unlinkSync(a)"),
    Way("node", _r(r"^EPERM: .*, (?:symlink|link)"), "Links cannot be made here. Use: fs.copyFileSync"),
    Way("node", _r(r"^EPERM: .*, (?:f?chmod|f?chown|f?utime)"), "Permissions and times cannot be set here. Leave it "
         "out."),
    Way("node", _r(r"^EPERM: .*, open"), "A file here cannot be appended to, nor opened while it is written. Read it, "
         "then write it whole with fs.writeFileSync."),
    Way("node", _r(r"^EBADF: .*, write"), _CUT_OFF),
    Way("node", _r(r"^ENOMEM: .*, open"), _TOO_MANY_OPEN),
    # --- whoever says it ---
    # A shell says "3: Bad file descriptor" of a redirection to one that is not open.
    Way("", _r(r"(?:write error|error writing .*|writing output|write failed|^[^\s:]*[^\s:\d][^\s:]*): "
               r"bad file descriptor"),
         _CUT_OFF, _closes_nothing),
    Way("shell", _r(r"^(?:cannot create )?[^:]{1,200}: cannot allocate memory"), _TOO_MANY_OPEN,
         _redirects("> >| &> <>")),
    Way("", _r(r"^cannot (?:create|open) .*: cannot allocate memory"), _TOO_MANY_OPEN),
    Way("", _r(rf"(?:renam|mov|backup|replac).*{_ENOSYS}"), _RENAMED),
    Way("shell", _r(rf"^(?:cannot create )?[^:]{{1,200}}: {_EPERM}"),
         "Appending to an existing file is impossible here. Use: (cat FILE; COMMAND) > /tmp/x && cp /tmp/x FILE",
         _redirects(">> &>>")),
    Way("shell", _r(rf"^(?:cannot create )?[^:]{{1,200}}: {_EPERM}"), _WAITING),
    Way("shell", _r(r"^[^/:][^:]{0,150}/[^:]{1,100}: no such file"),
         "Directories here vanish with their last file. Use mkdir -p DIR before writing into it.",
         _redirects("> >> >| &> &>>")),
    Way("shell", _r(r"^(?:cannot create )?[^/:]{1,200}: no such file"), _UPLOAD_FAILED, _redirects("> >| &>")),
    Way("cat cp head tail less wc grep rm diff", _NOT_PERMITTED,
         "The file is open elsewhere: nobody can read, replace or remove it while it is being written. Wait until its "
         "writer has closed it, or stop the writer."),
)  # fmt: skip
