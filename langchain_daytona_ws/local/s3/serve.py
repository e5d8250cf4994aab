"""The process that serves S3 and STS, on a socket that it was given, until its owner is gone.

It is moto behind a gate, or what passes requests on to a store in moto's place.

A process of its own, since moto keeps its buckets in module-level state (two servers would share them), patches
botocore where it is imported, and should not take turns with the server for Python's lock.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any


def main() -> None:
    """Serve. Arguments: the listening socket's descriptor and the path of the owner's control requests."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    listening = socket.socket(fileno=int(sys.argv[1]))

    from werkzeug.serving import WSGIRequestHandler, make_server

    from .forward import Forward, S3Store
    from .gate import Gate

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections
        disable_nagle_algorithm = True  # an answer's head and body are two writes

        def handle_expect_100(self) -> bool:
            return True  # werkzeug says it too, and once is enough

        def log(self, type: str, message: str, *args: Any) -> None:
            """Keep quiet."""

    host, port = listening.getsockname()[:2]
    store = S3Store.of_environment()
    gate = Gate(Forward(store) if store else _moto(), sys.argv[2], holds_sessions=store is None)
    server = make_server(host, port, gate, threaded=True, request_handler=Handler, fd=listening.detach())
    server.daemon_threads = True  # type: ignore[attr-defined]
    server.serve_forever()


def _moto() -> Any:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


def _end_with_owner() -> None:
    """End when the owner closes the pipe, or dies."""
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
