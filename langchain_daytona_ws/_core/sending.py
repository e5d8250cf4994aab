"""One request to a guest program, and its answer."""

from __future__ import annotations

import binascii
import logging
import math
from collections.abc import Callable, Mapping

from langchain_daytona_ws._core.call_errors import place_error, unknown
from langchain_daytona_ws._core.mount import Luggage, Mounting, Retry
from langchain_daytona_ws._core.ports import PortFault, SandboxInfo, SandboxPort
from langchain_daytona_ws._core.script import guest_call, read_frame
from langchain_daytona_ws.errors import SandboxError, WorkspaceError

logger = logging.getLogger("langchain_daytona_ws")

Answer = dict[str, object]

KILL_CALL_S = 20
DELIVERIES_MAX = 3  # without credentials, with them, with new ones
SHORTEST_REQUEST_S = 5
DETAIL = 1000


class _Variables(dict[str, str]):
    """The environment of a request, which holds envVars: a traceback may be shown with its variables."""

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


class Sender:
    """Send a request once, with all that goes with it.

    Args:
        port: The API.
        env: Variables of every request, asked anew each time so that a reconnected sandbox sees today's.
        new_key: Makes the random names of answers.
        mounting: The mounts that every call needs; None for a workspace on the sandbox's own disk.
    """

    def __init__(
        self,
        port: SandboxPort,
        env: Callable[[], Mapping[str, str]],
        new_key: Callable[[], str],
        mounting: Mounting | None,
    ) -> None:
        self._port = port
        self._env = env
        self._new_key = new_key
        self._mounting = mounting

    async def send_mounted(
        self, info: SandboxInfo, entry: str, request: Answer, life_s: float, within_s: float
    ) -> Answer:
        """Send with what keeps the workspace mounted; again where the sandbox's credentials are of no use any more."""
        if self._mounting is None:
            return await self.send(info, entry, request, within_s)
        is_refreshed = False
        for _ in range(DELIVERIES_MAX):
            luggage = await self._mounting.pack(info.id, life_s)
            mounted = {**request, "mount": luggage.request}
            answer = await self.send(info, entry, mounted, within_s, luggage)
            retry = self._mounting.unpacked(info.id, luggage, answer)
            if retry is Retry.NONE or (retry is Retry.REFRESH and is_refreshed):
                break
            if retry is Retry.REFRESH:
                self._mounting.refresh(luggage)
                is_refreshed = True
        return answer

    async def send(
        self, info: SandboxInfo, entry: str, request: Answer, within_s: float, luggage: Luggage | None = None
    ) -> Answer:
        """Send it and read what came back, whatever that says.

        Raises:
            PortFault, SandboxError: There was no answer, or none that can be read.
        """
        call = guest_call(entry, request, self._new_key(), secret=luggage.secret if luggage else None)
        try:
            reply = await self._port.execute(
                info.id,
                call.script,
                env=_Variables({**self._env(), **call.env}),
                timeout_s=max(SHORTEST_REQUEST_S, math.ceil(within_s)),
            )
        except PortFault as fault:
            if luggage is None or luggage.secret is None:
                raise
            # The frames that it came through hold the secret, and a traceback may be shown with their variables.
            fault.__cause__ = fault.__context__ = None
            raise fault.with_traceback(None) from None
        return read_frame(reply.output, call.nonce)

    async def look(self, info: SandboxInfo, entry: str, request: Answer, *, within_s: float) -> Answer:
        """Send a request that only looks, once, whatever becomes of it.

        Raises:
            PortFault, SandboxError: It got no answer.
        """
        return self.checked(await self.send(info, entry, request, within_s))

    def checked(self, answer: Answer) -> Answer:
        """Return an answer that does not tell of a failure.

        Raises:
            WorkspaceError: It does.
        """
        if answer.get("outcome") == "unknown":
            raise unknown("The process that ran it died without reporting.", code="runner_died")
        error = answer.get("error")
        if error == "place":
            raise self._place_error(str(answer.get("code")), str(answer.get("detail"))[:DETAIL])
        if error == "guest":
            raise SandboxError(
                f"The program in the sandbox failed: {answer.get('code')} at {answer.get('detail')}. See whether its "
                "disk is full or its user's limits are reached; otherwise use a new sandbox.",
                code="guest_failed",
                op="execute",
                context={"detail": answer.get("detail")},
                for_model="The machine failed to carry this out. It may have taken effect in part: check.",
            )
        return answer

    def _place_error(self, code: str, detail: str) -> WorkspaceError:
        if self._mounting is not None and code.startswith("mount_"):
            return self._mounting.error(code, detail)
        return place_error(code, detail)

    async def kill(self, info: SandboxInfo, request: Answer) -> None:
        """End a call that nobody waits for any more, or keep it from starting if it has not arrived yet."""
        try:
            await self.send(
                info,
                "command",
                {"mode": "kill", "key": request["key"], "keep": request.get("keep", False)},
                KILL_CALL_S,
            )
        except (PortFault, WorkspaceError) as error:
            logger.warning("could not end a cancelled command in sandbox %s: %s", info.id, error)


def decode_base64(value: object) -> bytes:
    """Decode a base64 field of an answer.

    Raises:
        SandboxError: It is no base64 text.
    """
    try:
        return binascii.a2b_base64(value if isinstance(value, str) else b"?", strict_mode=True)
    except ValueError:
        raise SandboxError(
            "A field of the sandbox's answer is not what it should be.",
            code="unreadable_answer",
            op="execute",
        ) from None
