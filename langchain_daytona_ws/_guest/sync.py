"""Synchronise the workspace for one call: ask the resident to pull before the command, and to push after it.

The resident is a process that stays in the sandbox between calls, see ``sync_resident``. ``begin`` runs early, so that
the resident pulls while the other modules are compiled or loaded. The call fails if the first pull of a workspace
fails, or if the objects to download are too large. After a complete pull, a failure of S3 or of the disk is only
reported, and the call uses the files that are there.
"""

from __future__ import annotations

import _socket  # ``socket`` itself costs 4 ms
import os
import sys
import time

from langchain_daytona_ws._guest.dirs import SetupError, state_directory
from langchain_daytona_ws._guest.secret import SECRET_FD, read_secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

CONNECT_S = 2.0
# After this time without an answer, ask for the progress: a resident answers this at once, even during a long pull or
# push. A hung resident does not answer.
PATIENCE_S = 3.0
ALIVE_S = 5.0  # longest wait for an answer that needs no work
ANSWER_BYTES = 256 * 1024

_pulls: list[Question | SetupError] = []  # at most one: the pull that `begin` has requested, or its failure


class Question:
    """A question to the resident, and its answer.

    Raises:
        OSError: No resident listens at the socket.
    """

    def __init__(self, path: str, text: str) -> None:
        self._text = b""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_S)
        self._socket.connect(path)
        self._socket.sendall(("%s\n" % text).encode("ascii"))

    @property
    def descriptor(self) -> int:
        return int(self._socket.fileno())

    def answer(self, wait_s: float) -> tuple[str, str] | None:
        """Return the code and the JSON text of the answer; None if it has not arrived after ``wait_s`` seconds.

        Raises:
            OSError: The resident has ended, or its answer is too long.
        """
        until = time.monotonic() + wait_s
        while not self._text.endswith(b"\n"):
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                piece = self._socket.recv(65536)
            except _socket.timeout:
                return None
            if not piece or len(self._text) > ANSWER_BYTES:
                raise OSError("the resident has ended")
            self._text += piece
        code, _, value = self._text.decode("ascii", "replace").partition(" ")
        return code, value


def patient_answer(question: Question, path: str, wait_s: float) -> tuple[str, str] | tuple[None, str]:
    """Return the answer. If there is none after ``wait_s`` seconds, return None and the progress of the work.

    Raises:
        OSError: The resident has ended or hangs.
    """
    progress = ""
    first_s = min(PATIENCE_S, wait_s)
    for piece_s in (first_s, wait_s - first_s):
        answer = question.answer(piece_s)
        if answer is not None:
            return answer
        alive = ask(path, "progress", ALIVE_S)
        if alive is None or alive[0] != "ok":
            raise OSError("the resident hangs")
        progress = alive[1]
    return None, progress


def ask(path: str, text: str, wait_s: float) -> tuple[str, str] | None:
    """Send a question; return the answer, or None if no resident answers in time."""
    try:
        return Question(path, text).answer(wait_s)
    except OSError:
        return None


def begin(options: Request) -> None:
    """Ask for the pull that `enter` waits for. A call that starts a resident asks in `enter` instead."""
    if options["pulls"] and not options["is_new"]:
        try:
            _pulls.append(_pull(options))
        except SetupError as error:
            _pulls.append(error)


def _pull(options: Request) -> Question:
    age = "fresh" if options["is_new"] else "known"
    asked = options.setdefault("asked", time.monotonic())
    try:
        text = "pull %s %s %.1f %.6f" % (options["id"], age, options["min_life_s"], asked)
        return Question(socket_path(options), text)
    except OSError:
        raise SetupError("sync_absent", "") from None


def socket_path(options: Request) -> str:
    return "%s/sync-%s.socket" % (state_directory(), options["name"])


def descriptors() -> list[int]:
    """Return the file descriptors that must stay open until `enter`."""
    return [SECRET_FD, *(pull.descriptor for pull in _pulls if isinstance(pull, Question))]


def enter(request: Request) -> Request:
    """If the request contains a new resident, start it. If the call ``pulls``, wait until the workspace is pulled, and
    change into it.

    Raises:
        SetupError: ``sync_absent``: the host must send a new resident. ``sync_credentials``: it must send new
            credentials. ``sync_pulling``: the pull has not ended after ``wait_s`` seconds. The resident continues it.
            The detail is a JSON list: the time at which the call asked for the pull, which its next request sends as
            ``asked``, and the progress. Another code: the workspace cannot be pulled, or its directory cannot be
            entered.
    """
    options = request["sync"]
    if options["is_new"]:
        resident = sys.modules["langchain_daytona_ws._guest.sync_resident"]
        resident.start(socket_path(options), request["sync_resident"], read_secret(), options)
    if not options["pulls"]:
        return {}
    pull = _pull(options) if options["is_new"] else _pulls.pop()
    if isinstance(pull, SetupError):
        raise pull
    try:
        code, value = patient_answer(pull, socket_path(options), options["wait_s"])
    except OSError:
        raise SetupError("sync_absent", "") from None  # the host sends a new resident
    if code is None:
        import json  # takes 3 ms

        raise SetupError("sync_pulling", json.dumps([options["asked"], value]))
    if code != "ok":
        # Another process may listen at the socket, and answer anything.
        raise SetupError("sync_" + (code if code.isidentifier() else "absent"), _detail(value))
    try:
        os.chdir(request["root"])
    except OSError as error:
        raise SetupError("workspace", error.strerror or str(error)) from None
    return {}


def _detail(text: str) -> str:
    import json  # takes 3 ms

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = ""
    return value if isinstance(value, str) else text


def leave(request: Request, timed_out: bool) -> Request:
    """Push the changes of a call. Return the resident's report as JSON text, or a JSON text with only ``failure``.

    With the failure ``pending``, also return the time at which the call asked for the push: the next request, which
    waits for the same push, sends this time as ``asked``.
    """
    if "op" in request and "key" not in request:  # a file operation that changes nothing
        return {}
    options = request["sync"]
    asked = request.get("asked", time.monotonic())
    try:
        path = socket_path(options)
        question = Question(path, "push %s %.6f" % (options["id"], asked))
        code, report = patient_answer(question, path, options["wait_s"])
    except (OSError, SetupError):  # SetupError: the command made the state directory unusable
        code, report = "absent", ""
    if code is None:
        return {"sync": '{"failure": "pending"}', "asked": asked}
    return {"sync": report if code == "ok" else '{"failure": "absent"}'}


def push(request: Request, wait_s: float) -> bool:
    """Push the changes of a job. Return True if it is certain that all files are in S3, except skipped files. The next
    call gets the report.

    Args:
        request: The call that started the job.
        wait_s: Longest wait for the end of the push, in seconds; 0 to return at once.
    """
    options = request["sync"]
    try:
        question = Question(socket_path(options), "flush %s %.6f" % (options["id"], time.monotonic()))
        answer = question.answer(wait_s) if wait_s else None
    except (OSError, SetupError):
        return False  # the next call starts a new resident, which pushes the changes
    return answer is not None and answer[0] == "ok"


def main(request: Request) -> Request:
    """Return an empty answer: a call of this module only synchronises, before and after this function."""
    return {"ok": True}
