"""Call an entry module and print its answer in one framed line."""

from __future__ import annotations

import os
import sys

from langchain_daytona_ws._guest import place, record, release, turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Request = dict[str, Any]

PACKAGE = "langchain_daytona_ws._guest."
FILE_WAIT_S = 30.0
TURN_WAIT_S = 20.0
IN_TURN = ("files", "content")


def run(entry: str, request: Request, nonce: str) -> None:
    """Print the entry's answer behind the nonce: nothing else that is printed counts as one."""
    ctype = os.environ.pop("LANGCHAIN_DAYTONA_WS_CTYPE", "")
    os.environ.pop("LC_CTYPE", None)
    if ctype:
        os.environ["LC_CTYPE"] = ctype
    if "job" in request:
        kept = sys.modules[PACKAGE + "mount"].descriptors() if "mount" in request else []
        answer = str(sys.modules[PACKAGE + "job_run"].apart(lambda: _told(entry, request), kept))
    else:
        answer = _told(entry, request)
    frame = ("\n%s %s\n" % (nonce, answer)).encode("ascii")
    while frame:
        frame = frame[os.write(1, frame) :]
    release.release(nonce)
    try:
        record.tidy(place.state_directory(), place.UPLOADS)
    except (OSError, place.PlaceError):
        pass  # the answer is out; the next call tries again
    # Nothing is left to finalize, and the interpreter's own tidying takes 2 ms of every call.
    os._exit(0)


def _told(entry: str, request: Request) -> str:
    try:
        return _answer(entry, request)
    except place.PlaceError as error:
        return _json({"error": "place", "code": error.code, "detail": error.detail})
    except Exception as error:  # noqa: BLE001 - the host has to be told of every failure
        return _json({"error": "guest", "code": type(error).__name__, "detail": _where(error)})


def _where(error: BaseException) -> str:
    """Name the place only: a message could hold a path or text that the model must not see."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else "%s:%d" % (at.tb_frame.f_globals.get("__name__", ""), at.tb_lineno)


def _answer(entry: str, request: Request) -> str:
    module = sys.modules[PACKAGE + entry]
    moved: list[str] = []

    def enter() -> None:
        if "mount" in request:  # the module comes along only then
            moved.extend(sys.modules[PACKAGE + "mount"].enter(request["root"], request["mount"]))
        else:
            place.enter(request["root"])

    answer = _carried_out(module, entry, request, enter)
    if moved:
        answer = '%s, "moved": %s}' % (answer[:-1], _json(moved))
    if "awake" in request:
        answer = '%s, "awake": %s}' % (
            answer[:-1],
            _json(sys.modules[PACKAGE + "jobs"].awake(request["awake"])),
        )
    elif os.path.exists(place.state_directory() + "/jobs/awake"):
        answer = (
            '%s, "awake": {}}' % answer[:-1]
        )  # some session raised an interval, and may not be there any more
    return answer


def _carried_out(module: Any, entry: str, request: Request, enter: Callable[[], None]) -> str:
    if entry == "live":
        return str(module.main(request))  # it has nothing to do with the workspace, which may hang
    if entry == "command":
        # It keeps its own record, which its reader may outlive.
        return str(module.main(request, enter, sys.modules.get(PACKAGE + "job_run")))

    def work() -> str:
        enter()
        if entry in IN_TURN and not turn.take(place.state_directory(), request["op"], TURN_WAIT_S):
            return _json({"ok": False, "error": "busy"})
        return _json(module.main(request))

    if "key" not in request:
        return work()
    call = record.Record(place.state_directory(), request["key"])
    return record.once(call, FILE_WAIT_S, work, lambda: None)


def _json(answer: object) -> str:
    import json  # 3 ms, which a command's answer does without

    return json.dumps(answer)
