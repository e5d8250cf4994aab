"""Stream a command's output while it runs: poll the sandbox, and pass the output to a callback, up to a limit."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutine, iscoroutinefunction

from langchain_daytona_ws._core.answer import Answer, decode_base64, unreadable
from langchain_daytona_ws._core.commands.characters import Chunks, whole_start
from langchain_daytona_ws._core.guest_rpc.client import GuestClient
from langchain_daytona_ws._core.ports import BackgroundTask, PortFault, SandboxInfo
from langchain_daytona_ws.errors import SandboxError, WorkspaceError

logger = logging.getLogger("langchain_daytona_ws")

OnOutput = Callable[[str], object]
"""Called with each piece of a command's output."""

STREAM_LIMIT_BYTES = 1024 * 1024
# A command that ends within this time is not polled: its output comes with its result.
FIRST_POLL_S = 0.3
WAIT_S = 5.0  # maximum time for which the sandbox waits for output before it answers a poll
# After the first new bytes, the sandbox waits for more before it answers: LINGER_S in the first poll, and LINGER_MORE_S
# longer in each further poll, up to LINGER_MAX_S.
LINGER_S = 0.25
LINGER_MORE_S = 0.05
LINGER_MAX_S = 1.0
POLL_LIMIT_BYTES = 512 * 1024
POLL_MARGIN_S = 5.0
FAILURES_MAX = 5  # in a row
LOG_WITHIN_S = 5.0  # after the command's end: limit of the retries for each piece of the log
FIRST_PAUSE_S = 0.3
LONGEST_PAUSE_S = 5.0
SILENT_PAUSE_S = 0.1  # pause after a poll without output, because a hostile sandbox may answer at once

LIMIT_NOTE = f"\n[no more than {STREAM_LIMIT_BYTES:,} bytes of an output are streamed]\n"
LOST_NOTE = "\n[a part of the output could not be streamed]\n"


def sync_callback(on_output: OnOutput) -> OnOutput:
    """Wrap a callback for the sync runtime, which cannot await.

    The wrapper raises a `TypeError` if the callback returns an awaitable.

    Raises:
        TypeError: The callback is a coroutine function.
    """
    if iscoroutinefunction(on_output):
        raise TypeError(
            "on_output is a coroutine function, which only arun can await; give run a plain function"
        )

    def emit(text: str) -> None:
        returned = on_output(text)
        if isawaitable(returned):
            if iscoroutine(returned):
                returned.close()
            raise TypeError("on_output returned an awaitable, which only arun can await")

    return emit


class LiveOutput:
    """Streams the output of one call while the call runs.

    Polling errors never affect the command. After five failed polls in a row, the rest of the output is passed on when
    the command has ended. A poll that hangs is abandoned one second after the command ends.

    ``on_output`` receives the texts in order. An awaitable result is awaited. If ``on_output`` raises, the error is
    logged, and it is not called again.
    """

    def __init__(self, client: GuestClient, key: str, on_output: OnOutput) -> None:
        self._client = client
        self._key = key
        self._on_output = on_output
        self._chunks = Chunks(STREAM_LIMIT_BYTES)
        self._task: BackgroundTask | None = None
        self._info: SandboxInfo | None = None
        self._polls = 0
        self._closed = False

    def start_polling(self, info: SandboxInfo) -> None:
        """Poll this sandbox from now on. Called before each attempt to send the call."""
        self._info = info
        if self._task is not None:
            return
        try:
            self._task = self._client.background(self._follow)
        except RuntimeError as error:  # no thread is available
            logger.warning("the output of a command is not streamed, it comes with its result: %s", error)

    async def emit_note(self, text: str) -> None:
        await self._emit(text)

    async def during(self, call: Awaitable[tuple[Answer, str]]) -> tuple[Answer, str]:
        """Await the call, pass on the rest of the output, and return the call's result."""
        try:
            answer, sandbox_id = await call
            if self._task is not None:
                await self._task.end()
            await self._emit_rest(answer)
        except BaseException as error:
            self._closed = True
            # A coroutine that is being closed cannot await.
            if self._task is not None and not isinstance(error, GeneratorExit):
                await self._task.cancel()
            raise
        return answer, sandbox_id

    async def _follow(self, task: BackgroundTask) -> None:
        """Poll and pass on new output until the command ends, the limit is reached, or polling fails repeatedly."""
        pause_s, failures = FIRST_POLL_S, 0
        while not self._done and await task.pause(pause_s):
            try:
                ended, data = await task.abandonable(self._poll(WAIT_S))
            except (PortFault, WorkspaceError) as error:
                failures += 1
                if failures == FAILURES_MAX:
                    logger.info(
                        "the output of a command is not streamed any more, the rest comes with its result: %s",
                        error,
                    )
                    return
                pause_s = _pause_s(failures, error)
                continue
            pause_s, failures = (0.0 if data else SILENT_PAUSE_S), 0
            await self._feed(data)
            if ended:
                return

    async def _poll(self, wait_s: float) -> tuple[bool, bytes]:
        assert self._info is not None  # noqa: S101 - polling starts when the call is sent
        limit = min(POLL_LIMIT_BYTES, self._chunks.room_bytes)
        linger_s = min(LINGER_S + LINGER_MORE_S * self._polls, LINGER_MAX_S)
        self._polls += 1
        request: Answer = {
            "key": self._key,
            "offset": self._chunks.size_bytes,
            "limit_bytes": limit,
            "wait_s": wait_s,
            "linger_s": linger_s,
        }
        answer = await self._client.poll(self._info, "poll_output", request, within_s=wait_s + POLL_MARGIN_S)
        data = decode_base64(answer.get("data"))
        if len(data) > limit:
            raise unreadable("it is larger than was asked for")
        return answer.get("ended") is True, data

    async def _emit_rest(self, answer: Answer) -> None:
        """Pass on the rest of the output after the command has ended.

        The answer contains the beginning and the end of the output; the middle is read from the log.
        """
        if "head" not in answer:
            return  # the call was cancelled, or its key belongs to a call that started a job
        try:
            head, tail = decode_base64(answer.get("head")), decode_base64(answer.get("tail"))
        except SandboxError:
            return  # `run_command` reads the answer too, and raises the error
        size = answer.get("size_bytes")
        tail_at = max(len(head), (size if isinstance(size, int) else 0) - len(tail))
        await self._feed(head[self._chunks.size_bytes :])
        if await self._emit_log(tail_at):
            await self._feed(tail[self._chunks.size_bytes - tail_at :])
        else:
            await self._emit(self._chunks.end() + LOST_NOTE)
            await self._feed(whole_start(tail))
        await self._emit(self._chunks.end())

    async def _emit_log(self, end: int) -> bool:
        """Pass on the log up to the offset ``end``; return False if a part of it could not be read."""
        while not self._done and self._chunks.size_bytes < end:
            missing = end - self._chunks.size_bytes
            data = await self._read_log()
            await self._feed(data[:missing])  # the rest was printed by background processes
            if len(data) < min(missing, POLL_LIMIT_BYTES):
                return self._done
        return True

    async def _read_log(self) -> bytes:
        """Return the next part of the log; b"" if all attempts failed."""
        until, failures = self._client.now() + LOG_WITHIN_S, 0
        while True:
            try:
                _, data = await self._poll(0.0)
            except (PortFault, WorkspaceError) as error:
                failures += 1
                pause_s = _pause_s(failures, error)
                if failures == FAILURES_MAX or self._client.now() + pause_s > until:
                    return b""
                await self._client.sleep(pause_s)
            else:
                return data

    @property
    def _done(self) -> bool:
        return self._closed or self._chunks.is_full

    async def _feed(self, data: bytes) -> None:
        if not data or self._done:
            return
        await self._emit(self._chunks.feed(data))
        if self._chunks.is_full:
            await self._emit(LIMIT_NOTE)

    async def _emit(self, text: str) -> None:
        if not text or self._closed:
            return
        try:
            returned = self._on_output(text)
            if isawaitable(returned):
                await returned
        except Exception:
            # A failed callback must not lose the command's result.
            self._closed = True
            logger.exception("on_output failed; it is not called again for this command")


def _pause_s(failures: int, error: Exception) -> float:
    requested_s = error.retry_after_s if isinstance(error, PortFault) else None
    return min(max(FIRST_PAUSE_S * 2.0 ** (failures - 1), requested_s or 0.0), LONGEST_PAUSE_S)
