"""One cell of the matrix: run a step with a fault, and check the result from outside of the session."""

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
from tests.faults.faults import FAULT_CASES, RETRY_AFTER_S, SHORT, FaultCase
from tests.faults.runtime import Runtime
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


class ToolError(Exception):
    """A tool message with ``status="error"``."""

    def __init__(self, content: str) -> None:
        super().__init__(content)
        found = re.match(r"\[(\w+)\] ", content)
        self.code = found[1] if found else ""
        self.for_model = content


@dataclass
class Verdict:
    """The result of a cell.

    Attributes:
        outcome: ``ok``, ``result`` (the command's own result reports the fault), ``cancelled``, ``died``, or the
            error's code.
        problems: Deviations from the specification; empty if the cell is as expected.
    """

    step: str
    fault: str
    is_async: bool
    outcome: str = ""
    problems: list[str] = field(default_factory=list)
    ran_twice: bool = False
    lost: bool = False
    leaked: bool = False
    seconds: float = 0.0
    message: str = ""

    @property
    def name(self) -> str:
        return f"{self.step} × {self.fault} × {'async' if self.is_async else 'sync'}"


class Cell:
    """A cell while it runs."""

    def __init__(self, world: World, step: Step, fault: FaultCase, *, is_async: bool) -> None:
        self.world = world
        self.step = step
        self.fault = fault
        self.is_async = is_async
        self.kind: Kind = fault.kinds.get(step.name, step.kind)
        self.server: LocalDaytona = world.small if fault.small else world.server
        self.token = token()
        self.namespace = f"ns-{token()}"
        self.approver: Any = None
        self.answered = threading.Event()
        self.is_down: contextlib.ExitStack | None = None
        self.watcher: threading.Thread | None = None
        self.verdict = Verdict(step.name, fault.name, is_async)
        self.is_s3_redirected = False
        self._patches = contextlib.ExitStack()
        self._own_s3 = self.server.s3_endpoint
        then = " && sleep 60" if fault.by == "cancelled" and step.name in ("first", "warm") else ""
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
            "permissionMode": "ask" if self.fault.by == "tool" else "bypass", "timeout": 60, "options": options,
        }  # fmt: skip
        if self.is_kept:
            config["persistent"] = True
            config["lifecycle"] = {"idleTimeoutSeconds": IDLE_S, "maxLifetimeSeconds": LIFETIME_S}
        return config

    def session(self, **more: Any) -> WorkspaceSession:
        return WorkspaceSession(
            self.config(), namespace=self.namespace, clock=self.world.session_clock, **more
        )

    # --- reading the state, without the faulty requests ---

    def sandbox(self) -> SandboxRecord:
        return self.sandboxes()[-1]

    def sandboxes(self) -> list[SandboxRecord]:
        return [box for box in self.server.sandboxes if box.labels.get("namespace") == self.namespace]

    def stored_file(self, path: str) -> bytes | None:
        """Return a workspace file's content on S3 or on the sandbox's disk, None if it does not exist."""
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
            if self.fault.small:
                code, output = self.server.run_inside(
                    sandbox.id, f"cat /mnt/workspaces/{self.namespace}/{path}"
                )
                return output if code == 0 else None
            file = sandbox.folder / "disk/mnt/workspaces" / self.namespace / path
            return file.read_bytes() if file.exists() else None
        return None

    # --- ending the fault ---

    def restore(self) -> None:
        """Make the server reachable again."""
        down, self.is_down = self.is_down, None
        if down is not None:
            down.close()

    def redirect_s3(self, endpoint: str) -> None:
        """Send S3 requests to another endpoint from now on."""
        from langchain_daytona_ws._adapters import s3_bucket

        made = s3_bucket.Bucket._made

        def redirected(bucket: Any, credentials: Any) -> Any:
            own = bucket._workspace
            bucket._workspace = type(own)(
                **{**{name: getattr(own, name) for name in own.__slots__}, "endpoint": endpoint}
            )
            try:
                return made(bucket, credentials)
            finally:
                bucket._workspace = own

        self.is_s3_redirected = True
        self._patches.enter_context(mock.patch.object(s3_bucket.Bucket, "_made", redirected))
        self.work.session._state.storage._bucket.close()  # type: ignore[union-attr]

    def end_fault(self) -> None:
        """End the fault."""
        self.restore()
        self.answered.set()
        self.world.tally.on_count = None
        if self.is_s3_redirected:
            self.is_s3_redirected = False
            self._patches.close()
            self.work.session._state.storage._bucket.close()  # type: ignore[union-attr]
        self.server.faults.clear()
        if self.fault.small:
            for sandbox in self.sandboxes():
                self.server.run_inside(sandbox.id, "rm -f /tmp/full /mnt/full")
        s3 = self.server.s3
        s3.clear_faults()
        s3.deny, s3.deny_role, s3.accept_renames = (), False, False
        if self.watcher is not None:
            self.watcher.join(60)
        self.world.settle()

    # --- running ---

    def run(self) -> Verdict:
        began, before = time.monotonic(), leaks.holdings(self.world)
        self.world.session_clock.renew()
        runtime = Runtime(self.is_async)
        with contextlib.ExitStack() as limits:
            for module, names in self.fault.limits.items():
                for name, value in names.items():
                    limits.enter_context(mock.patch.object(importlib.import_module(module), name, value))
            try:
                if self.fault.early is not None:
                    self.fault.early(self)
                if self.step.name == "claim":
                    self._create_earlier_sandbox()
                self._run_step(runtime)
            except Exception as error:  # noqa: BLE001 - any error fails the cell
                self._problem(f"{type(error).__name__}: {error}")
            finally:
                self._end(runtime)
        found = leaks.leaked_since(self.world, before)
        self.verdict.leaked = bool(found)
        self.verdict.problems += [f"leaked: {name}" for name in found]
        for sandbox in self.sandboxes():
            self.server.destroy_sandbox(sandbox.id)
        self.verdict.seconds = time.monotonic() - began
        return self.verdict

    def _create_earlier_sandbox(self) -> None:
        """Create a sandbox with a file, as an earlier session would."""
        with self.session() as session:
            assert session.run("echo kept > kept.txt", timeout_s=60).exit_code == 0

    def _run_step(self, runtime: Runtime) -> None:
        if self.fault.by == "killed":
            self._run_killed(runtime)
            return
        approval = {"approver": self._approve, "approval_timeout_s": 0.3}
        session = self.session(**(approval if self.fault.by == "tool" else {}))
        timeout_s = SHORT_COMMAND_S if self.fault.limits is SHORT else 60.0
        self.work = Work(session, runtime, self.token, self.command, timeout_s)
        self.step.prepare(self.work)
        sandbox_id = session.sandbox_id
        if self.step.name == "claim":
            self.work.acknowledged["kept.txt"] = b"kept\n"
            sandbox_id = self.sandbox().id
        self.server.clear_requests()
        self.fault.inject(self)
        error: BaseException | None = None
        result: Any = None
        try:
            result = self._do()
        except (WorkspaceError, ToolError, asyncio.CancelledError, KeyboardInterrupt) as raised:
            error = raised
        self.end_fault()
        self._check(result, error, sandbox_id)

    def _approve(self, request: object) -> Any:
        return self.approver(request)  # set by the fault

    def _do(self) -> object:
        if self.fault.by == "tool":
            assert self.step.tool is not None
            name, arguments = self.step.tool(self.work)
            tools = {"bash": BashTool, "workspace_file": WorkspaceFileTool}
            tool = tools[name](session=self.work.session)
            request = {"type": "tool_call", "id": "call_1", "name": name, "args": arguments}
            message = self.work.call(tool, "invoke", request)
            if message.status == "error":
                raise ToolError(message.content)
            return message
        if self.fault.by == "cancelled":
            self._arrange_cancellation()
        return self.step.do(self.work)

    def _arrange_cancellation(self) -> None:
        cancel = self.work.runtime.cancel
        if self.kind == "direct":
            self._when_s3_is_asked(cancel)
        elif self.step.name in ("first", "warm"):
            self.world.tally.on_count = cancel
        else:
            self.server.faults.add(Fault("act_before", action=self.step.action, act=cancel))

    def _when_s3_is_asked(self, act: Any) -> None:
        s3 = self.server.s3
        s3.clear_requests()
        s3.add_fault(S3Fault("late", method=self.step.action, delay_s=1.0))

        def received() -> bool:
            return any(request.method == self.step.action for request in s3.requests)

        self.watcher = threading.Thread(target=killed.watch, args=(received, act), name="watcher")
        self.watcher.start()

    # --- checks ---

    def _check(self, result: Any, error: BaseException | None, sandbox_id: str | None) -> None:
        self.verdict.outcome = _outcome(result, error)
        self.verdict.message = "" if error is None else f"{error}\n{getattr(error, 'for_model', '')}"
        allowed = expected.allowed(self.step.name, self.fault.name)
        if self.verdict.outcome not in allowed:
            self._problem(f"{self.verdict.outcome}, expected {' or '.join(sorted(allowed))}: {error!r}")
        if isinstance(error, (WorkspaceError, ToolError)):
            self._check_message(error)
        if self.step.effects is not None:
            self._check_effects(error)
        self._check_time()
        notices = " ".join(getattr(result, "notices", ()))
        after = "" if self.step.name == "close" else self._use_again()
        if self.fault.by == "cancelled" and self.step.name != "job":
            self._check_processes()
        if self.step.name != "close":
            self._check_bytes(sandbox_id, notices + after)

    def _check_message(self, error: WorkspaceError | ToolError) -> None:
        if isinstance(error, WorkspaceError):
            if not REMEDY.search(str(error)):
                self._problem(f"no remedy in: {error}")
            shown = f"{error!r}{error}{error.context}{error.for_model}"
        else:
            shown = str(error)
        for secret in [*self.world.secrets()[:-1], "xoxb-not-yours"]:
            if secret in shown:
                self._problem("a secret is shown")
        message = error.for_model
        hidden = (
            str(self.world.temp),
            "/mnt/workspaces",
            f"{BUCKET}/",
            "127.0.0.1",
            str(Path(__file__).parents[2]),
            self.server.api_url,
        )
        for text in hidden:
            if text in message:
                self._problem(f"for_model shows {text}: {message}")
        if len(message) > FOR_MODEL_CHARS:
            self._problem(f"for_model has {len(message)} characters")

    def _check_effects(self, error: BaseException | None) -> None:
        assert self.step.effects is not None
        count = self.step.effects(self.work, self.world.tally.counts[self.token], self.stored_file)
        if count > 1:
            self.verdict.ran_twice = True
            self._problem(f"it took effect {count} times")
        if self.verdict.outcome in ("ok", "result") and count == 0:
            self.verdict.lost = True
            self._problem("it had no effect, but success was reported")
        maybe = (OutcomeUnknown, asyncio.CancelledError, KeyboardInterrupt)
        if error is not None and not isinstance(error, maybe) and count > 0:
            self._problem("it took effect, but failure was reported")

    def _check_time(self) -> None:
        if "Retry-After" in self.fault.name and self.kind != "direct":
            longest = max(self.world.session_clock.waited, default=0.0)
            # The SDK drops the headers of a refused upload.
            if self.step.action != "upload" and longest < RETRY_AFTER_S:
                self._problem(f"Retry-After is {RETRY_AFTER_S} s, the longest wait was {longest} s")

    def _use_again(self) -> str:
        """Use the session once more after the fault; return the notices of its result."""
        try:
            if self.kind == "direct":
                read = self.work.call(self.work.session.files, "read", "kept.txt")
                assert "kept" in read.body
                return ""
            result = self.work.call(self.work.session, "run", "echo on", timeout_s=60)
        except WorkspaceError as error:
            if not expected.stays_unusable(self.step.name, self.fault.name):
                self._problem(f"the session is unusable afterwards: {error!r}")
            return ""
        if result.output != "on\n":
            self._problem(f"the session's next output is {result.output!r}")
        return " ".join(result.notices)

    def _check_bytes(self, sandbox_id: str | None, notices: str) -> None:
        """Check that acknowledged files exist, or that the loss of their sandbox was reported."""
        now = self.sandboxes()
        replaced = not self.is_on_s3 and sandbox_id is not None and (not now or now[-1].id != sandbox_id)
        is_new_session = self.step.name == "claim"
        if replaced and "replaced" not in notices and now and not is_new_session:
            self._problem(f"no notice reports the replaced sandbox: {notices!r}")
        for path, content in self.work.acknowledged.items():
            found = self.stored_file(path)
            in_doubt = self.verdict.outcome in DOUBTFUL and found == self.work.attempted.get(path)
            if found != content and not in_doubt and not (replaced and found is None):
                self.verdict.lost = True
                self._problem(f"{path} was acknowledged, and is {found if found is None else found[:100]!r}")

    def _check_processes(self) -> None:
        if leaks.running(self.token):
            self._problem("the cancelled command still runs")

    # --- killed host processes ---

    def _run_killed(self, runtime: Runtime) -> None:
        arguments = (self.config(), self.namespace, self.step.name, self.is_async, self.token, self.command)
        process = killed.HostProcess(*arguments)
        process.await_ready()
        self.server.clear_requests()
        if self.kind == "direct":
            self._when_s3_is_asked(process.kill)
        else:
            kind = "act_after" if self.fault.name.endswith("done") else "act_before"
            self.server.faults.add(Fault(kind, action=self.step.action, act=process.kill))  # type: ignore[arg-type]
        process.go()
        process.await_end()
        self.end_fault()
        self.verdict.outcome = "died"
        count = self.world.tally.counts[self.token]
        if count > 1:
            self.verdict.ran_twice = True
            self._problem(f"it took effect {count} times")
        if self.step.name == "claim":
            process.acknowledged["kept.txt"] = b"kept\n"
        self._check_successor(process.acknowledged, runtime)

    def _check_successor(self, acknowledged: dict[str, bytes], runtime: Runtime) -> None:
        """Check that the next process finds the acknowledged files, and that no sandbox remains."""
        self.work = Work(
            self.session(),
            runtime,
            self.token,
            self.command,
            acknowledged=acknowledged,
            attempted={"edited.txt": b"[x\n"},
        )
        sandbox_id = self.sandbox().id if self.sandboxes() else None
        if self.is_kept:
            if self.work.call(self.work.session, "run", "echo next > next.txt", timeout_s=60).exit_code != 0:
                self._problem("the next process cannot use the workspace")
            self.work.acknowledged["next.txt"] = b"next\n"
        elif self.kind == "direct":
            self.work.acknowledged.update(self._s3_next())
        if self.sandboxes() or self.is_on_s3:
            self._check_bytes(sandbox_id, "")
        if not self.is_kept:
            self.world.clock.advance(15 * 60 + 1)

    def _s3_next(self) -> dict[str, bytes]:
        self.work.call(self.work.session.files, "write", "next.txt", "next\n")
        return {"next.txt": b"next\n"}

    # --- the end ---

    def _end(self, runtime: Runtime) -> None:
        """Close the session, and expire sandboxes that only their time to live ends."""
        try:
            self.end_fault()
            work = getattr(self, "work", None)
            if work is not None:
                self._close(work)
            if self.is_kept and not expected.stays_unusable(self.step.name, self.fault.name):
                with self.session() as session:
                    session.release()
            if expected.stays_unusable(self.step.name, self.fault.name):
                self.world.clock.advance(A_DAY_S)
            tasks = runtime.tasks()
            self.verdict.problems += [f"a task remains: {task}" for task in tasks]
            self.verdict.leaked |= bool(tasks)
        except Exception as error:  # noqa: BLE001 - as above
            self._problem(f"at the end: {type(error).__name__}: {error}")
        finally:
            runtime.close()
            self.server.s3.credential_lifetime_s = None

    def _close(self, work: Work) -> None:
        try:
            work.call(work.session, "close")
        except WorkspaceError as error:
            if not expected.stays_unusable(self.step.name, self.fault.name):
                self._problem(f"it cannot be closed: {error!r}")

    def _problem(self, text: str) -> None:
        self.verdict.problems.append(text)


def _outcome(result: Any, error: BaseException | None) -> str:
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        return "cancelled"
    if error is not None:
        return str(getattr(error, "code", ""))
    return "result" if getattr(result, "exit_code", 0) != 0 else "ok"


def run_cell(world: World, step: str, fault: str, *, is_async: bool) -> Verdict:
    """Run one cell."""
    return Cell(world, STEPS[step], FAULT_CASES[fault], is_async=is_async).run()
