"""One cell of the matrix: a fault at a step, done, and judged by what can be seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from botocore.exceptions import ClientError

from langchain_daytona_ws import BashTool, WorkspaceFileTool, WorkspaceSession
from langchain_daytona_ws.errors import OutcomeUnknown, WorkspaceError
from langchain_daytona_ws.local import Fault, LocalDaytona, S3Fault, SandboxRecord
from tests.faults import expected, killed, leaks
from tests.faults.face import Face
from tests.faults.mishaps import MISHAPS, RETRY_AFTER_S, SHORT, Mishap
from tests.faults.steps import STEPS, Kind, Step, Work
from tests.faults.world import BUCKET, ROLE, World, command, token

IDLE_S, LIFETIME_S = 60, 3600
A_DAY_S = 24 * 3600 + 1
FOR_MODEL_CHARS = 500
DOUBTFUL = ("outcome_unknown", "lost_while_running", "cancelled", "died")
SHORT_COMMAND_S = 4.0
REMEDY = re.compile(
    r"\b(check|try again|use|set|wait|delete|give|close|look|see|make|build|need|choose|say|enlarge)\b",
    re.IGNORECASE,
)


class Told(Exception):
    """A tool's message of status error."""

    def __init__(self, content: str) -> None:
        super().__init__(content)
        found = re.match(r"\[(\w+)\] ", content)
        self.code = found[1] if found else ""
        self.for_model = content


@dataclass
class Verdict:
    """What came of a cell.

    Attributes:
        outcome: ``ok``, ``result`` (the command's own result tells), ``cancelled``, ``died``, or the error's code.
        problems: What should not be; none of a cell that is as it should be.
    """

    step: str
    mishap: str
    is_async: bool
    outcome: str = ""
    problems: list[str] = field(default_factory=list)
    ran_twice: bool = False
    lost: bool = False
    leaked: bool = False
    seconds: float = 0.0
    told: str = ""

    @property
    def name(self) -> str:
        return f"{self.step} × {self.mishap} × {'async' if self.is_async else 'sync'}"


class Cell:
    """A cell while it is played."""

    def __init__(self, world: World, step: Step, mishap: Mishap, *, is_async: bool) -> None:
        self.world = world
        self.step = step
        self.mishap = mishap
        self.is_async = is_async
        self.kind: Kind = mishap.kinds.get(step.name, step.kind)
        self.server: LocalDaytona = world.small if mishap.small else world.server
        self.token = token()
        self.namespace = f"ns-{token()}"
        self.approver: Any = None
        self.answered = threading.Event()
        self.is_down: contextlib.ExitStack | None = None
        self.watcher: threading.Thread | None = None
        self.verdict = Verdict(step.name, mishap.name, is_async)
        self.is_on_a_detour = False
        self._detours = contextlib.ExitStack()
        self._own_s3 = self.server.s3_endpoint
        then = " && sleep 60" if mishap.by == "cancelled" and step.name in ("first", "warm") else ""
        self.command = command(world.tally.port, self.token, then)

    # --- the session ---

    @property
    def is_kept(self) -> bool:
        return "kept" in self.kind

    @property
    def is_on_s3(self) -> bool:
        return "s3" in self.kind or self.kind == "direct"

    def config(self) -> dict[str, Any]:
        options: dict[str, Any] = {"apiKey": self.server.api_key, "apiUrl": self.server.api_url}
        if self.is_on_s3:
            options |= {
                "mountAwsS3Buckets": True, "workspaceBucketName": BUCKET, "s3Endpoint": self._own_s3,
                "mountRoleArn": ROLE, "stsEndpoint": self._own_s3,
                "fileAccess": "s3" if self.kind == "direct" else "sandbox",
            }  # fmt: skip
        config: dict[str, Any] = {
            "permissionMode": "ask" if self.mishap.by == "tool" else "bypass", "timeout": 60, "options": options,
        }  # fmt: skip
        if self.is_kept:
            config["persistent"] = True
            config["lifecycle"] = {"idleTimeoutSeconds": IDLE_S, "maxLifetimeSeconds": LIFETIME_S}
        return config

    def session(self, **more: Any) -> WorkspaceSession:
        return WorkspaceSession(self.config(), namespace=self.namespace, clock=self.world.pace, **more)

    # --- looking, past everything that is faulty ---

    def sandbox(self) -> SandboxRecord:
        return self.sandboxes()[-1]

    def sandboxes(self) -> list[SandboxRecord]:
        return [one for one in self.server.sandboxes if one.labels.get("namespace") == self.namespace]

    def seen(self, path: str) -> bytes | None:
        """Return a file of the workspace as it is on S3 or on the sandbox's disk, None where there is none."""
        if self.is_on_s3:
            try:
                answer = self.world.s3(self.server).get_object(
                    Bucket=BUCKET, Key=f"sandbox/{self.namespace}/{path}"
                )
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    return None
                raise
            return bytes(answer["Body"].read())
        for sandbox in self.sandboxes():
            if self.mishap.small:
                code, output = self.server.run_inside(
                    sandbox.id, f"cat /mnt/workspaces/{self.namespace}/{path}"
                )
                return output if code == 0 else None
            at = sandbox.folder / "disk/mnt/workspaces" / self.namespace / path
            return at.read_bytes() if at.exists() else None
        return None

    # --- the fault's end ---

    def back(self) -> None:
        """Let what was down be reachable."""
        down, self.is_down = self.is_down, None
        if down is not None:
            down.close()

    def detour(self, endpoint: str) -> None:
        """Let S3 be looked for elsewhere from now on."""
        from langchain_daytona_ws._adapters import s3_clients

        made = s3_clients.ClientSets._made

        def elsewhere(sets: Any, credentials: Any) -> Any:
            own = sets._workspace
            sets._workspace = type(own)(
                **{**{name: getattr(own, name) for name in own.__slots__}, "endpoint": endpoint}
            )
            try:
                return made(sets, credentials)
            finally:
                sets._workspace = own

        self.is_on_a_detour = True
        self._detours.enter_context(mock.patch.object(s3_clients.ClientSets, "_made", elsewhere))
        self.work.session._storage._bucket.close()  # type: ignore[union-attr]

    def lift(self) -> None:
        """End the fault."""
        self.back()
        self.answered.set()
        self.world.tally.when_heard = None
        if self.is_on_a_detour:
            self.is_on_a_detour = False
            self._detours.close()
            self.work.session._storage._bucket.close()  # type: ignore[union-attr]
        self.server.faults.clear()
        if self.mishap.small:
            for one in self.sandboxes():
                self.server.run_inside(one.id, "rm -f /tmp/full /mnt/full")
        s3 = self.server.s3
        s3.clear_faults()
        s3.deny, s3.deny_role, s3.accept_renames = (), False, False
        if self.watcher is not None:
            self.watcher.join(60)
        self.world.settle()

    # --- playing ---

    def play(self) -> Verdict:
        began, before = time.monotonic(), leaks.held(self.world)
        self.world.pace.renew()
        face = Face(self.is_async)
        with contextlib.ExitStack() as limits:
            for module, names in self.mishap.limits.items():
                for name, value in names.items():
                    limits.enter_context(mock.patch.object(importlib.import_module(module), name, value))
            try:
                if self.mishap.early is not None:
                    self.mishap.early(self)
                if self.step.name == "claim":
                    self._leave_one()
                self._play(face)
            except Exception as error:  # noqa: BLE001 - a cell that cannot be played is one that fails
                self._problem(f"{type(error).__name__}: {error}")
            finally:
                self._end(face)
        found = leaks.left(self.world, before)
        self.verdict.leaked = bool(found)
        self.verdict.problems += [f"left behind: {one}" for one in found]
        for one in self.sandboxes():
            self.server.destroy_sandbox(one.id)
        self.verdict.seconds = time.monotonic() - began
        return self.verdict

    def _leave_one(self) -> None:
        """Leave a sandbox with a file in it, as an earlier session does."""
        with self.session() as session:
            assert session.run("echo kept > kept.txt", timeout_s=60).exit_code == 0

    def _play(self, face: Face) -> None:
        if self.mishap.by == "killed":
            self._play_killed(face)
            return
        asked = {"approver": self._approve, "approval_timeout_s": 0.3}
        session = self.session(**(asked if self.mishap.by == "tool" else {}))
        timeout_s = SHORT_COMMAND_S if self.mishap.limits is SHORT else 60.0
        self.work = Work(session, face, self.token, self.command, timeout_s)
        self.step.prepare(self.work)
        machine = session.sandbox_id
        if self.step.name == "claim":
            self.work.acknowledged["kept.txt"] = b"kept\n"
            machine = self.sandbox().id
        self.server.clear_requests()
        self.mishap.inject(self)
        error: BaseException | None = None
        result: Any = None
        try:
            result = self._do()
        except (WorkspaceError, Told, asyncio.CancelledError, KeyboardInterrupt) as raised:
            error = raised
        self.lift()
        self._judge(result, error, machine)

    def _approve(self, request: object) -> Any:
        return self.approver(request)  # which the fault brings along

    def _do(self) -> object:
        if self.mishap.by == "tool":
            assert self.step.tool is not None
            name, arguments = self.step.tool(self.work)
            tools = {"bash": BashTool, "workspace_file": WorkspaceFileTool}
            tool = tools[name](session=self.work.session)
            request = {"type": "tool_call", "id": "call_1", "name": name, "args": arguments}
            message = self.work.call(tool, "invoke", request)
            if message.status == "error":
                raise Told(message.content)
            return message
        if self.mishap.by == "cancelled":
            self._cancel_in_the_midst()
        return self.step.do(self.work)

    def _cancel_in_the_midst(self) -> None:
        cancel = self.work.face.cancel
        if self.kind == "direct":
            self._when_s3_is_asked(cancel)
        elif self.step.name in ("first", "warm"):
            self.world.tally.when_heard = cancel
        else:
            self.server.faults.add(Fault("act_before", action=self.step.action, act=cancel))

    def _when_s3_is_asked(self, act: Any) -> None:
        s3 = self.server.s3
        s3.clear_requests()
        s3.add_fault(S3Fault("late", method=self.step.action, delay_s=1.0))

        def asked() -> bool:
            return any(one.method == self.step.action for one in s3.requests)

        self.watcher = threading.Thread(target=killed.watch, args=(asked, act), name="watcher")
        self.watcher.start()

    # --- judging ---

    def _judge(self, result: Any, error: BaseException | None, machine: str | None) -> None:
        self.verdict.outcome = _outcome(result, error)
        self.verdict.told = "" if error is None else f"{error}\n{getattr(error, 'for_model', '')}"
        allowed = expected.allowed(self.step.name, self.mishap.name)
        if self.verdict.outcome not in allowed:
            self._problem(f"{self.verdict.outcome}, where {' or '.join(sorted(allowed))} is right: {error!r}")
        if isinstance(error, (WorkspaceError, Told)):
            self._judge_words(error)
        if self.step.effects is not None:
            self._judge_effects(error)
        self._judge_time()
        notices = " ".join(getattr(result, "notices", ()))
        after = "" if self.step.name == "close" else self._go_on()
        if self.mishap.by == "cancelled" and self.step.name != "job":
            self._judge_processes()
        if self.step.name != "close":
            self._judge_bytes(machine, notices + after)

    def _judge_words(self, error: WorkspaceError | Told) -> None:
        if isinstance(error, WorkspaceError):
            if not REMEDY.search(str(error)):
                self._problem(f"no remedy in: {error}")
            shown = f"{error!r}{error}{error.context}{error.for_model}"
        else:
            shown = str(error)
        for secret in [*self.world.secrets()[:-1], "xoxb-not-yours"]:
            if secret in shown:
                self._problem("a secret is shown")
        words = error.for_model
        hidden = (
            str(self.world.temp),
            "/mnt/workspaces",
            f"{BUCKET}/",
            "127.0.0.1",
            str(Path(__file__).parents[2]),
            self.server.api_url,
        )
        for one in hidden:
            if one in words:
                self._problem(f"for_model shows {one}: {words}")
        if len(words) > FOR_MODEL_CHARS:
            self._problem(f"for_model has {len(words)} characters")

    def _judge_effects(self, error: BaseException | None) -> None:
        assert self.step.effects is not None
        count = self.step.effects(self.work, self.world.tally.counts[self.token], self.seen)
        if count > 1:
            self.verdict.ran_twice = True
            self._problem(f"it was done {count} times")
        if self.verdict.outcome in ("ok", "result") and count == 0:
            self.verdict.lost = True
            self._problem("it is not there, and was said to be done")
        maybe = (OutcomeUnknown, asyncio.CancelledError, KeyboardInterrupt)
        if error is not None and not isinstance(error, maybe) and count > 0:
            self._problem("it was done, and said not to be")

    def _judge_time(self) -> None:
        if "Retry-After" in self.mishap.name and self.kind != "direct":
            longest = max(self.world.pace.waited, default=0.0)
            # Of an upload's refusal the SDK keeps no headers.
            if self.step.action != "upload" and longest < RETRY_AFTER_S:
                self._problem(f"Retry-After asks for {RETRY_AFTER_S} s, waited were {longest} s")

    def _go_on(self) -> str:
        """Use the session once more, the fault being over; return what it says of its machine."""
        try:
            if self.kind == "direct":
                read = self.work.call(self.work.session.files, "read", "kept.txt")
                assert "kept" in read.body
                return ""
            result = self.work.call(self.work.session, "run", "echo on", timeout_s=60)
        except WorkspaceError as error:
            if not expected.is_beyond(self.step.name, self.mishap.name):
                self._problem(f"the session cannot go on: {error!r}")
            return ""
        if result.output != "on\n":
            self._problem(f"the session goes on with {result.output!r}")
        return " ".join(result.notices)

    def _judge_bytes(self, machine: str | None, notices: str) -> None:
        """See that what was acknowledged is there, or that its machine was said to be gone."""
        now = self.sandboxes()
        replaced = not self.is_on_s3 and machine is not None and (not now or now[-1].id != machine)
        if (
            replaced and "replaced" not in notices and now and self.step.name != "claim"
        ):  # whose session is new
            self._problem(f"nothing tells that the machine was replaced: {notices!r}")
        for path, content in self.work.acknowledged.items():
            found = self.seen(path)
            in_doubt = self.verdict.outcome in DOUBTFUL and found == self.work.attempted.get(path)
            if found != content and not in_doubt and not (replaced and found is None):
                self.verdict.lost = True
                self._problem(f"{path} was acknowledged, and is {found if found is None else found[:100]!r}")

    def _judge_processes(self) -> None:
        if leaks.running(self.token):
            self._problem("what was cancelled runs on")

    # --- the killed ---

    def _play_killed(self, face: Face) -> None:
        arguments = (self.config(), self.namespace, self.step.name, self.is_async, self.token, self.command)
        victim = killed.Victim(*arguments)
        victim.await_ready()
        self.server.clear_requests()
        if self.kind == "direct":
            self._when_s3_is_asked(victim.kill)
        else:
            kind = "act_after" if self.mishap.name.endswith("done") else "act_before"
            self.server.faults.add(Fault(kind, action=self.step.action, act=victim.kill))  # type: ignore[arg-type]
        victim.go()
        victim.await_death()
        self.lift()
        self.verdict.outcome = "died"
        count = self.world.tally.counts[self.token]
        if count > 1:
            self.verdict.ran_twice = True
            self._problem(f"it was done {count} times")
        if self.step.name == "claim":
            victim.acknowledged["kept.txt"] = b"kept\n"
        self._judge_heritage(victim.acknowledged, face)

    def _judge_heritage(self, acknowledged: dict[str, bytes], face: Face) -> None:
        """See that what the dead was told is there, for whoever comes next; and that no sandbox stays."""
        self.work = Work(
            self.session(),
            face,
            self.token,
            self.command,
            acknowledged=acknowledged,
            attempted={"edited.txt": b"[x\n"},
        )
        machine = self.sandbox().id if self.sandboxes() else None
        if self.is_kept:
            if self.work.call(self.work.session, "run", "echo next > next.txt", timeout_s=60).exit_code != 0:
                self._problem("the next process cannot use the workspace")
            self.work.acknowledged["next.txt"] = b"next\n"
        elif self.kind == "direct":
            self.work.acknowledged.update(self._s3_next())
        if self.sandboxes() or self.is_on_s3:
            self._judge_bytes(machine, "")
        if not self.is_kept:
            self.world.clock.advance(15 * 60 + 1)

    def _s3_next(self) -> dict[str, bytes]:
        self.work.call(self.work.session.files, "write", "next.txt", "next\n")
        return {"next.txt": b"next\n"}

    # --- the end ---

    def _end(self, face: Face) -> None:
        """Close the session, and have the servers forget what only time would end."""
        try:
            self.lift()
            work = getattr(self, "work", None)
            if work is not None:
                self._close(work)
            if self.is_kept and not expected.takes_time(self.step.name, self.mishap.name):
                with self.session() as session:
                    session.release()
            if expected.takes_time(self.step.name, self.mishap.name):
                self.world.clock.advance(A_DAY_S)
            tasks = face.tasks()
            self.verdict.problems += [f"a task is left: {one}" for one in tasks]
            self.verdict.leaked |= bool(tasks)
        except Exception as error:  # noqa: BLE001 - as above
            self._problem(f"at the end: {type(error).__name__}: {error}")
        finally:
            face.close()
            self.server.s3.credential_lifetime_s = None

    def _close(self, work: Work) -> None:
        try:
            work.call(work.session, "close")
        except WorkspaceError as error:
            if not expected.takes_time(self.step.name, self.mishap.name):
                self._problem(f"it cannot be closed: {error!r}")

    def _problem(self, what: str) -> None:
        self.verdict.problems.append(what)


def _outcome(result: Any, error: BaseException | None) -> str:
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        return "cancelled"
    if error is not None:
        return str(getattr(error, "code", ""))
    return "result" if getattr(result, "exit_code", 0) != 0 else "ok"


def play(world: World, step: str, mishap: str, *, is_async: bool) -> Verdict:
    """Play one cell."""
    return Cell(world, STEPS[step], MISHAPS[mishap], is_async=is_async).play()
