"""Call an entry module and print its answer in one framed line."""

from __future__ import annotations

import os
import sys

from langchain_daytona_ws._guest import place


def run(entry: str, request: dict, nonce: str) -> None:
    """Print ``entry.main(request)`` behind the nonce: nothing else that is printed counts as an answer."""
    module = sys.modules["langchain_daytona_ws._guest." + entry]
    try:
        answer = module.main(request)
    except place.PlaceError as error:
        answer = {"error": "place", "code": error.code, "detail": error.detail}
    except Exception as error:
        # Only the type and the place: a message could hold what the host must not show.
        line = error.__traceback__.tb_next.tb_lineno if error.__traceback__.tb_next else 0
        answer = {"error": "guest", "code": type(error).__name__, "detail": "%s:%d" % (entry, line)}
    if not isinstance(answer, str):
        import json

        answer = json.dumps(answer)
    frame = ("\n%s %s\n" % (nonce, answer)).encode("ascii")
    while frame:
        frame = frame[os.write(1, frame) :]
    after = getattr(module, "after", None)
    if after is not None:
        after()
    # Nothing is left to finalize, and the interpreter's own tidying takes 2 ms of every call.
    os._exit(0)
