"""A command's output while it runs: cutting it into texts, and looking at it in the place of the sandbox."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._adapters.aside import TaskAside, ThreadAside
from langchain_daytona_ws._core import live
from langchain_daytona_ws._core.drive import drive
from langchain_daytona_ws._core.live import Chunks, LiveOutput
from langchain_daytona_ws._core.ports import Aside, FaultKind, PortFault, SandboxInfo
from langchain_daytona_ws._guest import live as guest
from langchain_daytona_ws._guest.output import Output
from langchain_daytona_ws.errors import SandboxError
from tests.unit_tests.daemon import INFO, Workspace

PIECES = st.lists(st.binary(max_size=9) | st.text(max_size=5).map(str.encode), max_size=12)


class TestChunks:
    @given(pieces=PIECES)
    def test_the_texts_together_are_the_output(self, pieces: list[bytes]) -> None:
        chunks = Chunks()
        text = "".join([*(chunks.feed(piece) for piece in pieces), chunks.end()])
        assert text == b"".join(pieces).decode("utf-8", "replace")
        assert chunks.size_bytes == sum(map(len, pieces))

    @given(pieces=PIECES, limit=st.integers(0, 40))
    def test_no_more_than_the_limit_is_taken(self, pieces: list[bytes], limit: int) -> None:
        chunks, texts, whole = Chunks(limit), [], b"".join(pieces)
        for piece in pieces:
            texts.append(chunks.feed(piece))
            if chunks.is_full:
                break
        assert chunks.is_full is (len(whole) > limit)
        text = "".join([*texts, chunks.end()])
        expected = whole[:limit].decode("utf-8", "replace")
        if chunks.is_full:
            # A character that the limit cuts through is left out.
            assert expected.startswith(text)
            assert len(expected) - len(text) <= 3
        else:
            assert text == expected
        assert chunks.size_bytes == min(len(whole), limit)

    def test_room_is_for_one_byte_that_tells_of_more(self) -> None:
        chunks = Chunks(3)
        assert chunks.room_bytes == 4
        assert chunks.feed(b"abc") == "abc"
        assert not chunks.is_full
        assert chunks.room_bytes == 1
        assert chunks.feed(b"d") == ""
        assert chunks.is_full


class Watched:
    """A call on this disk, as the guest finds it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guest.place, "state_directory", lambda: str(directory))
        self.log = directory / "k.log"
        self.record = directory / "k.call"
        self._lock = -1

    def run(self) -> None:
        self.record.write_bytes(b"started\n1")
        self._lock = os.open(self.record, os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end(self) -> None:
        os.close(self._lock)

    def look(self, offset: int = 0, limit: int = 100, wait_s: float = 30.0, linger_s: float = 0.0) -> Any:
        asked = {
            "key": "k", "offset": offset, "limit_bytes": limit, "wait_s": wait_s, "linger_s": linger_s,
        }  # fmt: skip
        answer = eval(guest.main(asked), {"true": True, "false": False})
        return answer["ended"], base64.b64decode(answer["data"])


class TestLooking:
    @pytest.fixture
    def call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
        return Watched(tmp_path, monkeypatch)

    def test_what_is_there_comes_from_its_offset(self, call: Watched) -> None:
        call.run()
        call.log.write_bytes(b"0123456789")
        assert call.look(offset=4) == (False, b"456789")
        assert call.look(offset=4, limit=2) == (False, b"45")

    def test_it_waits_for_what_comes(self, call: Watched) -> None:
        call.run()
        call.log.write_bytes(b"old")
        writer = threading.Timer(0.1, lambda: call.log.write_bytes(b"oldnew"))
        writer.start()
        assert call.look(offset=3) == (False, b"new")
        writer.join()

    def test_it_waits_no_longer_than_it_may(self, call: Watched) -> None:
        call.run()
        assert call.look(wait_s=0.1) == (False, b"")

    def test_an_end_is_told_at_once_and_leaves_the_rest_to_the_answer(self, call: Watched) -> None:
        call.run()
        call.end()
        call.log.write_bytes(b"all of it")
        assert call.look() == (True, b"")
        assert call.look(wait_s=0.0, offset=4) == (True, b"of it")

    def test_a_call_that_was_not_begun_is_not_waited_for_long(
        self, call: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guest, "UNRECORDED_WAIT_S", 0.1)
        assert call.look() == (False, b"")
        call.record.touch()  # made, and not locked yet
        assert call.look() == (False, b"")

    def test_two_that_look_do_not_take_each_other_for_the_runner(self, call: Watched) -> None:
        call.run()
        call.end()
        with open(call.record, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            assert call.look() == (True, b"")

    @pytest.mark.parametrize("disguise", ["link", "pipe", "directory"])
    def test_only_a_plain_file_is_read(self, call: Watched, tmp_path: Path, disguise: str) -> None:
        call.run()
        secret = tmp_path / "secret"
        secret.write_text("secret")
        if disguise == "link":
            call.log.symlink_to(secret)
        elif disguise == "pipe":
            os.mkfifo(call.log)
        else:
            call.log.mkdir()
        assert call.look(wait_s=0.1) == (False, b"")


class TestTheLog:
    """The log of a call that is looked at, as `Output` keeps it."""

    def test_of_a_short_output_is_gone_at_the_end(self, tmp_path: Path) -> None:
        output = Output(10, str(tmp_path / "log"), 1000)
        output.open_log()
        output.feed(b"12345")
        assert (tmp_path / "log").read_bytes() == b"12345"
        output.drop_log()
        assert not (tmp_path / "log").exists()
        assert not output.has_log
        output.drop_log()  # also where there is none any more

    def test_of_a_long_output_is_the_same_as_ever(self, tmp_path: Path) -> None:
        outputs = []
        for name in ("live", "plain"):
            output = Output(10, str(tmp_path / name), 1000)
            if name == "live":
                output.open_log()
            for _ in range(5):
                output.feed(b"12345")
            if name == "live":
                output.drop_log()
            outputs.append((output.head_and_tail(), output.has_log, output.log_bytes, output.log_error))
        assert outputs[0] == outputs[1]
        assert (tmp_path / "live").read_bytes() == (tmp_path / "plain").read_bytes() == b"12345" * 5

    def test_that_could_not_be_begun_is_begun_again_when_it_is_needed(self, tmp_path: Path) -> None:
        output = Output(10, str(tmp_path / "directory" / "log"), 1000)
        output.open_log()
        assert output.log_error
        output.feed(b"12345678")
        (tmp_path / "directory").mkdir()
        output.feed(b"12345678")
        assert output.log_error == ""
        assert (tmp_path / "directory" / "log").read_bytes() == b"1234567812345678"


class ScriptedCaller:
    """Answers looks with what it was given, in the place of a sandbox."""

    def __init__(self, *answers: Any, done: Callable[[], None] = lambda: None) -> None:
        self._answers = list(answers)
        self._done = done
        self.offsets: list[Any] = []

    async def look(self, info: SandboxInfo, entry: str, request: Any, *, within_s: float) -> Any:
        self.offsets.append(request["offset"])
        answer = self._answers.pop(0)
        if not self._answers:
            self._done()
        if isinstance(answer, BaseException):
            raise answer
        ended, data = answer
        return {"outcome": "live", "ended": ended, "data": base64.b64encode(data).decode()}

    async def sleep(self, seconds: float) -> None:
        return None

    def aside(self, work: Callable[[Aside], Any]) -> Aside:
        return ThreadAside(work)


def followed(*looks: Any, output: bytes, head: bytes | None = None) -> tuple[list[str], ScriptedCaller]:
    """Follow a call whose looks are answered so, and which ends after the last of them."""
    over = threading.Event()
    caller = ScriptedCaller(*looks, done=over.set)
    texts: list[str] = []
    following = LiveOutput(caller, "k", texts.append)  # type: ignore[arg-type]
    head = output if head is None else head

    async def call() -> dict[str, object]:
        following.sent_to(INFO)
        assert over.wait(30)
        return {"head": base64.b64encode(head).decode(), "size_bytes": len(output)}

    drive(following.beside(call()))
    return texts, caller


class TestFollowing:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("FIRST_LOOK_S", "FIRST_PAUSE_S", "SILENT_PAUSE_S"):
            monkeypatch.setattr(live, name, 0.0)

    def test_each_look_goes_on_where_the_last_one_ended(self) -> None:
        texts, caller = followed((False, b"ab"), (False, b""), (False, b"c"), (True, b""), output=b"abcde")
        assert texts == ["ab", "c", "de"]
        assert caller.offsets == [0, 2, 2, 3]

    def test_a_fault_repeats_nothing(self) -> None:
        fault = PortFault(FaultKind.DROPPED, "gone")
        texts, caller = followed((False, b"ab"), fault, (False, b"c"), (True, b""), output=b"abc")
        assert texts == ["ab", "c"]
        assert caller.offsets == [0, 2, 2, 3]

    def test_more_than_was_asked_for_is_not_believed(self) -> None:
        forged = (False, b"x" * (live.LOOK_LIMIT_BYTES + 1))
        texts, _ = followed(forged, (True, b""), output=b"abc")
        assert texts == ["abc"]

    def test_a_log_that_ran_ahead_of_the_answer_adds_nothing(self) -> None:
        texts, _ = followed((False, b"abcdef"), (True, b""), output=b"abc")
        assert texts == ["abcdef"]

    def test_without_a_thread_all_comes_at_the_end(self, caplog: pytest.LogCaptureFixture) -> None:
        def refused(work: Callable[[Aside], Any]) -> Aside:
            raise RuntimeError("can't start new thread")

        caller = ScriptedCaller()
        caller.aside = refused  # type: ignore[method-assign]
        texts: list[str] = []
        following = LiveOutput(caller, "k", texts.append)  # type: ignore[arg-type]

        async def call() -> dict[str, object]:
            following.sent_to(INFO)
            return {"head": base64.b64encode(b"ab").decode(), "size_bytes": 2}

        drive(following.beside(call()))
        assert texts == ["ab"]
        assert "can't start new thread" in caplog.text

    def test_the_same_on_a_loop(self) -> None:
        texts: list[str] = []

        async def work() -> None:
            over = asyncio.Event()
            caller = ScriptedCaller((False, b"a"), (True, b""), done=over.set)
            caller.aside = TaskAside  # type: ignore[method-assign,assignment]

            async def hear(text: str) -> None:
                await asyncio.sleep(0)
                texts.append(text)

            following = LiveOutput(caller, "k", hear)  # type: ignore[arg-type]

            async def call() -> dict[str, object]:
                following.sent_to(INFO)
                await over.wait()
                return {"head": base64.b64encode(b"ab").decode(), "size_bytes": 2}

            await following.beside(call())
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(work())
        assert texts == ["a", "b"]


def test_a_call_that_fails_ends_the_following(tmp_path: Path) -> None:
    workspace = Workspace("bash", tmp_path)
    workspace.root.parent.mkdir()
    workspace.root.write_text("in the way")
    texts: list[str] = []
    with pytest.raises(SandboxError):
        workspace.run("echo one", on_output=texts.append)
    assert texts == []


@pytest.mark.parametrize("shell", ["zsh", "bash", "dash"])
def test_under_every_shell_the_output_comes_while_it_runs(tmp_path: Path, shell: str) -> None:
    workspace = Workspace(shell, tmp_path)
    texts: list[str] = []

    def hear(text: str) -> None:
        texts.append(text)
        (workspace.root / "go").touch()

    result = workspace.run("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two", on_output=hear)
    assert result.output == "".join(texts) == "one\ntwo\n"
    assert not list(workspace.port.tmp.glob("*/*.log"))
