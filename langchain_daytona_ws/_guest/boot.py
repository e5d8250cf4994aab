"""Call an entry module, and print its answer on one line, after a random word that the host has sent (the nonce)."""

from __future__ import annotations

import posix
import sys

from langchain_daytona_ws._guest import dirs, encode, record, release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]
    Answer = dict[str, Any]

PACKAGE = "langchain_daytona_ws._guest."
STORAGE = ("mount", "sync")  # each is the name of a request field, and of the module that this field needs
FILE_WAIT_S = 30.0  # longest wait of a file operation for an earlier attempt of the same call


def run(entry: str, request: Request, nonce: str, program: str = "") -> None:
    """Print the answer of the module ``entry`` on one line after the nonce, and end this process.

    The host ignores all other output. ``program`` is the digest of the file of compiled modules if this call has
    written it, otherwise "". The host sends it with later requests.
    """
    _restore_ctype()
    if "job" in request:
        storage = _storage(request)
        fds = storage.descriptors() if storage else []
        text = str(sys.modules[PACKAGE + "job_run"].fork(lambda: _reply(entry, request, program), fds))
    else:
        text = _reply(entry, request, program)
    frame = ("\n%s %s\n" % (nonce, text)).encode("ascii")
    while frame:
        frame = frame[posix.write(1, frame) :]
    release.release(nonce)
    try:
        record.prune(dirs.state_directory(), dirs.UPLOADS)
    except (OSError, dirs.SetupError):
        pass  # the answer is printed; the next call tries again
    # Skip the interpreter's shutdown: it takes 2 ms, and there is nothing to finalize.
    posix._exit(0)


def _restore_ctype() -> None:
    """Restore the LC_CTYPE of the call's shell, which Python changed when it started (PEP 538)."""
    posix.unsetenv(b"LANGCHAIN_DAYTONA_WS_CTYPE")
    ctype = posix.environ.pop(b"LANGCHAIN_DAYTONA_WS_CTYPE", b"")
    posix.unsetenv(b"LC_CTYPE")
    posix.environ.pop(b"LC_CTYPE", None)
    if ctype:
        posix.putenv(b"LC_CTYPE", ctype)
        posix.environ[b"LC_CTYPE"] = ctype


def _reply(entry: str, request: Request, program: str) -> str:
    more = {"program": program} if program else {}
    try:
        return encode.encode({**_answer(entry, request), **more})
    except dirs.SetupError as error:
        answer = {"error": "setup", "code": error.code, "detail": error.detail}
    except Exception as error:  # noqa: BLE001 - every failure is reported to the host
        answer = {"error": "guest", "code": type(error).__name__, "detail": _where(error)}
    return encode.encode({**answer, **more})


def _where(error: BaseException) -> str:
    """Return the module and line that raised an error.

    The error's message is not sent: it could contain a path or text that the model must not see.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else "%s:%d" % (at.tb_frame.f_globals.get("__name__", ""), at.tb_lineno)


def _storage(request: Request) -> Any:
    """Return the module ``mount`` or ``sync`` if the workspace is on S3, otherwise None."""
    return next((sys.modules[PACKAGE + name] for name in STORAGE if name in request), None)


def _answer(entry: str, request: Request) -> Answer:
    # Before the call, because a command may make the directory unusable: then the call must not fail as if nothing ran.
    is_raised = posix.access(dirs.state_directory() + "/jobs/keep_alive", posix.F_OK)
    answer = _execute(entry, request, _storage(request) or dirs)
    if "keep_alive" in request:
        answer["keep_alive"] = sys.modules[PACKAGE + "jobs"].keep_alive(request["keep_alive"])
    elif is_raised:
        # An earlier session raised the auto-stop interval, and may have ended: this session must restore the interval.
        answer["keep_alive"] = {}
    return answer


def _execute(entry: str, request: Request, storage: Any) -> Answer:
    module = sys.modules[PACKAGE + entry]
    if entry == "poll_output":
        return dict(module.main(request))  # without entering the workspace: its storage may hang
    if entry == "command":
        # `command` opens the record itself, because it may fork a process that reads output after the call. That
        # process must close its inherited descriptor of the record, which would keep the record locked.
        return dict(module.main(request, storage, sys.modules.get(PACKAGE + "job_run")))

    def work() -> Answer:
        entered = storage.enter(request)
        return {**module.main(request), **entered, **storage.leave(request, False)}

    if "key" not in request:
        return work()
    call = record.Record(dirs.state_directory(), request["key"])
    return record.run_once(call, FILE_WAIT_S, work, lambda: None)
