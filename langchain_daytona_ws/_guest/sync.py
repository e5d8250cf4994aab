"""The synchronisation of one call: ask the resident to pull before the command, and to push after it.

The module ``sync_resident`` explains the resident. ``begin`` runs early, while the other modules are compiled. A call
never runs in a workspace that was not pulled.
"""

from __future__ import annotations

import _socket  # ``socket`` itself costs 4 ms
import os
import sys
import time

from langchain_daytona_ws._guest.dirs import SetupError, state_directory
from langchain_daytona_ws._guest.file_lock import CHANGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

# A longer pull or push continues in the resident; the host asks again, so that no request lasts long.
WAIT_S = 20.0
CONNECT_S = 2.0
ANSWER_BYTES = 256 * 1024
SECRET_FD = 3

_pulls: list[Question | SetupError] = []


class Question:
    """A question to the resident, and its answer.

    Raises:
        OSError: No resident listens at the socket.
    """

    def __init__(self, path: str, text: str) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_S)
        self._socket.connect(path)
        self._socket.sendall(("%s\n" % text).encode("ascii"))

    @property
    def descriptor(self) -> int:
        return int(self._socket.fileno())

    def answer(self, wait_s: float) -> tuple[str, str] | None:
        """Return the code and the JSON text of the answer; None if there is none in time.

        Raises:
            OSError: The resident has ended.
        """
        until, text = time.monotonic() + wait_s, b""
        while not text.endswith(b"\n"):
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                piece = self._socket.recv(65536)
            except _socket.timeout:
                return None
            if not piece or len(text) > ANSWER_BYTES:
                raise OSError("the resident has ended")
            text += piece
        code, _, value = text.decode("ascii", "replace").partition(" ")
        return code, value


def ask(path: str, text: str, wait_s: float) -> tuple[str, str] | None:
    """Ask the resident; return None if it does not answer in time, or does not exist."""
    try:
        return Question(path, text).answer(wait_s)
    except OSError:
        return None


def begin(wanted: Request) -> None:
    """Ask for the pull that `enter` waits for, unless this call starts the resident."""
    if not wanted["is_new"]:
        try:
            _pulls.append(_pull(wanted))
        except SetupError as error:
            _pulls.append(error)


def _pull(wanted: Request) -> Question:
    age = "fresh" if wanted["is_new"] else "known"
    try:
        return Question(socket_path(wanted), "pull %s %s %.1f" % (wanted["id"], age, wanted["min_life_s"]))
    except OSError:
        raise SetupError("sync_absent", "") from None


def socket_path(wanted: Request) -> str:
    return "%s/sync-%s.socket" % (state_directory(), wanted["name"])


def descriptors() -> list[int]:
    """Return the file descriptors that must stay open until `enter`."""
    return [SECRET_FD, *(pull.descriptor for pull in _pulls if isinstance(pull, Question))]


def enter(request: Request) -> Request:
    """Wait until the workspace is pulled, and change into it. If the request carries the resident, start it first.

    Raises:
        SetupError: ``sync_absent`` or ``sync_credentials`` if the host must send the resident or new credentials,
            ``sync_pulling`` if the pull takes longer, or another code if the workspace cannot be pulled.
    """
    wanted = request["sync"]
    if wanted["is_new"]:
        resident = sys.modules["langchain_daytona_ws._guest.sync_resident"]
        resident.start(socket_path(wanted), request["sync_resident"], _secret())
        pull: Question | SetupError = _pull(wanted)
    else:
        pull = _pulls.pop()
    if isinstance(pull, SetupError):
        raise pull
    try:
        answer = pull.answer(WAIT_S)
    except OSError:
        raise SetupError("sync_absent", "") from None
    if answer is None:
        progress = ask(socket_path(wanted), "progress", CONNECT_S)
        raise SetupError("sync_pulling", progress[1] if progress else "")
    if answer[0] != "ok":
        raise SetupError("sync_" + answer[0], _detail(answer[1]))
    try:
        os.chdir(request["root"])
    except OSError as error:
        raise SetupError("workspace", error.strerror or str(error)) from None
    return {}


def _detail(text: str) -> str:
    import json  # takes 3 ms

    try:
        value = json.loads(text)
    except ValueError:
        value = ""
    return value if isinstance(value, str) else text


def leave(request: Request, timed_out: bool) -> Request:
    """Push the changes of a call; return the resident's report as JSON text, or why there is none."""
    if request.get("op", "write") not in CHANGES:
        return {}
    try:
        answer = ask_for_push(request["sync"]).answer(WAIT_S)
    except OSError:
        return {"sync": '{"failure": "absent"}'}
    return {"sync": '{"failure": "pending"}' if answer is None else answer[1]}


def start_push(request: Request) -> None:
    """Ask for a push without waiting for it."""
    try:
        ask_for_push(request["sync"])
    except OSError:
        pass  # the next call starts a resident, which pushes


def ask_for_push(wanted: Request) -> Question:
    return Question(socket_path(wanted), "push %s" % wanted["id"])


def main(request: Request) -> Request:
    """Do nothing between pull and push: a call that only synchronises."""
    return {"ok": True}


def _secret() -> bytes:
    import binascii

    with os.fdopen(SECRET_FD, "rb") as file:
        text = file.read()
    try:
        return binascii.a2b_base64(text)
    except ValueError:
        return b""
