"""The program that serves S3 and STS. It ends with the process that started it.

Requests pass through `gate`, and then to an external S3 store if the environment names one, else to moto.

It is a separate process for three reasons: moto keeps its buckets in module-level state, so two servers would share
them; moto patches botocore on import; and it would compete with the server for Python's global lock.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any


def main() -> None:
    """Serve. Arguments: the descriptor of the listening socket, and the path of the owner's control requests."""
    threading.Thread(target=_exit_with_owner, daemon=True).start()
    server_socket = socket.socket(fileno=int(sys.argv[1]))

    from werkzeug.serving import WSGIRequestHandler, make_server

    from .forward import Forward, S3Store
    from .gate import Gate

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections
        disable_nagle_algorithm = True  # the head and body of an answer are two writes

        def handle_expect_100(self) -> bool:
            return True  # werkzeug already sends `100 Continue`

        def log(self, type: str, message: str, *args: Any) -> None:
            """Log nothing."""

    host, port = server_socket.getsockname()[:2]
    store = S3Store.from_environment()
    gate = Gate(Forward(store) if store else _moto(), sys.argv[2], is_moto=store is None)
    server = make_server(host, port, gate, threaded=True, request_handler=Handler, fd=server_socket.detach())
    server.daemon_threads = True  # type: ignore[attr-defined]
    server.serve_forever()


def _moto() -> Any:
    from moto.moto_server import utilities, werkzeug_app
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    class AnyCharacter(utilities.RegexConverter):
        """Matches keys with line feeds too, unlike moto's own routes."""

        def __init__(self, url_map: Any, *items: Any) -> None:
            super().__init__(url_map, *items)
            self.regex = f"(?s:{self.regex})"

    werkzeug_app.__dict__["RegexConverter"] = AnyCharacter
    return DomainDispatcherApplication(create_backend_app)


def _exit_with_owner() -> None:
    """Exit when the owner closes the pipe or ends."""
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
