"""The gate: what denies, what passes through, one question at a time over all threads and loops."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypedDict, cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langchain_daytona_ws._approval.gate import APPROVAL_TIMEOUT_S, Approval, ApprovalGate, steers_the_program
from langchain_daytona_ws._approval.turns import Ticket
from langchain_daytona_ws.errors import ConfigError, PermissionDenied
from langchain_daytona_ws.permissions import PermissionDecision, PermissionRequest

SOON_S = 10.0  # how long a test waits for what must happen at once
ALLOW = PermissionDecision.allow()

Check = Callable[..., Approval[Any]]


def bash(command: str = "ls") -> PermissionRequest:
    return PermissionRequest.for_bash(command, namespace="demo", tool_call_id="call_1")


def allow(_: PermissionRequest) -> PermissionDecision:
    return ALLOW


async def aallow(_: PermissionRequest) -> PermissionDecision:
    await asyncio.sleep(0)
    return ALLOW


def from_sync(gate: ApprovalGate, *arguments: Any) -> Approval[Any]:
    return gate.check(*arguments)


def from_async(gate: ApprovalGate, *arguments: Any) -> Approval[Any]:
    return asyncio.run(gate.acheck(*arguments))


def from_sync_under_a_loop(gate: ApprovalGate, *arguments: Any) -> Approval[Any]:
    async def run() -> Approval[Any]:
        return gate.check(*arguments)

    return asyncio.run(run())


@pytest.fixture(params=[from_sync, from_async, from_sync_under_a_loop])
def check(request: pytest.FixtureRequest) -> Check:
    return cast("Check", request.param)


@pytest.fixture(params=["sync", "async", "awaitable", "object"])
def as_approver(request: pytest.FixtureRequest) -> Callable[[Callable[[PermissionRequest], Any]], Any]:
    """Make an approver of a plain function, in each of the forms in which one may come."""

    def make(answer: Callable[[PermissionRequest], Any]) -> Any:
        async def asynchronous(request: PermissionRequest) -> Any:
            await asyncio.sleep(0)
            return answer(request)

        def hidden(request: PermissionRequest) -> Any:
            return asynchronous(request)

        class Callback:
            async def __call__(self, request: PermissionRequest) -> Any:
                return await asynchronous(request)

        return {
            "sync": answer,
            "async": asynchronous,
            "awaitable": hidden,
            "object": Callback(),
        }[cast("str", request.param)]

    return make


@pytest.fixture
def blocked() -> Iterator[threading.Event]:
    """An event for approvers to hang on; set at the end, so that their threads end too."""
    event = threading.Event()
    yield event
    event.set()


def denial(check: Check, gate: ApprovalGate, *arguments: Any) -> PermissionDenied:
    with pytest.raises(PermissionDenied) as raised:
        check(gate, *(arguments or (bash(),)))
    error = raised.value
    assert "Do not retry it; ask the user or continue without it." in error.for_model
    assert error.context["tool_call_id"] == "call_1"
    assert not error.retryable
    return error


# What is asked, and what the answers do


def test_nobody_is_asked_where_the_mode_says_so(check: Check) -> None:
    gate = ApprovalGate("bypass", None)
    assert check(gate, bash()).arguments == {"command": "ls"}
    read = PermissionRequest.for_file("read", {"path": "a"}, namespace="demo")
    assert not check(ApprovalGate("ask", None), read).edited


@pytest.mark.parametrize("timeout_s", [APPROVAL_TIMEOUT_S, None])
def test_allow(check: Check, as_approver: Any, timeout_s: float | None) -> None:
    seen: list[PermissionRequest] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        seen.append(request)
        return ALLOW

    request = bash()
    approval = check(ApprovalGate("ask", as_approver(approver), approval_timeout_s=timeout_s), request)
    assert seen == [request]
    assert approval == Approval(request.arguments)


def test_deny_passes_the_reason_to_the_model_escaped_and_bounded(check: Check, as_approver: Any) -> None:
    gate = ApprovalGate("ask", as_approver(lambda _: PermissionDecision.deny("use\x1b[2J rg " + "x" * 9000)))
    error = denial(check, gate)
    assert error.code == "denied"
    assert error.for_model.startswith('The user denied this. The reason given: "use\\x1b[2J rg xx')
    assert len(error.for_model) < 700
    assert denial(check, ApprovalGate("ask", lambda _: PermissionDecision.deny())).for_model == (
        "The user denied this. Do not retry it; ask the user or continue without it."
    )


def test_nobody_to_ask_denies_and_names_the_remedies(check: Check) -> None:
    error = denial(check, ApprovalGate("edit", None))
    assert error.code == "no_approver"
    assert "approver" in error.message
    assert "'bypass'" in error.message


@pytest.mark.parametrize(
    "error", [ValueError("tok3n"), StopIteration(), TimeoutError(), RuntimeError("tok3n")]
)
def test_an_exception_denies_and_is_logged_without_its_text(
    check: Check, as_approver: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def approver(_: PermissionRequest) -> PermissionDecision:
        raise error

    with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
        denied = denial(check, ApprovalGate("ask", as_approver(approver)))
    assert denied.code == "approver_error"
    assert denied.__cause__ is not None
    # Within a coroutine Python makes a RuntimeError of StopIteration.
    name = type(denied.__cause__).__name__
    assert name in {type(error).__name__, "RuntimeError"}
    assert name in denied.message
    assert name in caplog.text
    assert "tok3n" not in caplog.text + denied.message + denied.for_model


@pytest.mark.parametrize("answer", [True, False, None, "allow", {"kind": "allow"}, 1, PermissionDecision])
def test_anything_but_a_decision_denies(check: Check, as_approver: Any, answer: Any) -> None:
    error = denial(check, ApprovalGate("ask", as_approver(lambda _: answer)))
    assert error.code == "malformed_answer"
    assert "PermissionDecision" in error.message


def test_an_approver_that_takes_no_request_denies(check: Check) -> None:
    assert denial(check, ApprovalGate("ask", cast("Any", lambda: ALLOW))).code == "approver_error"


@pytest.mark.parametrize("timeout_s", [0, -1, math.inf, math.nan, "1"])
def test_a_time_out_is_a_positive_number(timeout_s: Any) -> None:
    with pytest.raises(ConfigError, match="approval_timeout_s"):
        ApprovalGate("ask", allow, approval_timeout_s=timeout_s)


def test_an_approver_is_callable() -> None:
    with pytest.raises(ConfigError, match="approver"):
        ApprovalGate("ask", cast("Any", "yes"))


def test_an_enormous_time_out_is_no_error(check: Check, as_approver: Any) -> None:
    assert check(ApprovalGate("ask", as_approver(allow), approval_timeout_s=1e300), bash())


# Edited arguments


def only_command(arguments: Mapping[str, object]) -> str:
    if set(arguments) != {"command"} or not isinstance(arguments["command"], str):
        raise ValueError("bad arguments: tok3n")
    return arguments["command"]


def test_edited_arguments_are_validated_and_the_model_is_told(check: Check, as_approver: Any) -> None:
    gate = ApprovalGate(
        "ask", as_approver(lambda _: PermissionDecision.allow_edited({"command": 'ls "a"\x1b'}))
    )
    request = PermissionRequest.for_bash("rm -rf /", namespace="demo", arguments={"timeout": 5})
    approval = check(gate, request, only_command)
    assert approval.edited
    assert approval.validated == 'ls "a"\x1b'
    assert approval.arguments == {"command": 'ls "a"\x1b'}
    assert approval.note == (
        "The user changed this call before allowing it. What ran had: "
        'command = "ls \\"a\\"\\u001b"; timeout left out.'
    )


def test_an_edit_that_changes_nothing_is_none(check: Check) -> None:
    gate = ApprovalGate("ask", lambda request: PermissionDecision.allow_edited(request.arguments))
    assert check(gate, bash(), only_command) == Approval(bash().arguments)


@pytest.mark.parametrize("arguments", [{}, {"command": 1}, {"command": "ls", "more": 1}])
def test_an_invalid_edit_denies(check: Check, arguments: dict[str, object]) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited(arguments))
    error = denial(check, gate, bash(), only_command)
    assert error.code == "malformed_answer"
    assert "not valid" in error.for_model
    assert "tok3n" not in error.message + error.for_model


def test_an_edit_that_can_not_be_validated_denies(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "ls -l"}))
    assert denial(check, gate, bash()).code == "malformed_answer"


def test_an_edit_can_not_make_another_operation(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "delete", "path": "a"}))
    arguments = {"command": "write", "path": "a", "content": ""}
    request = PermissionRequest.for_file("write", arguments, namespace="demo", tool_call_id="call_1")
    assert denial(check, gate, request, dict).code == "malformed_answer"


# Remembered answers


def test_allow_always_is_asked_once(check: Check, as_approver: Any) -> None:
    asked: list[str] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        return PermissionDecision.allow_always("prefix")

    gate = ApprovalGate("ask", as_approver(approver))
    for command in ("git status", "git status -s", "git status; git status", "git push"):
        check(gate, bash(command))
    assert asked == ["git status", "git push"]
    assert gate.remembered.rules() == ("bash prefix: git status", "bash prefix: git push")


def test_no_prefix_to_remember_allows_once(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_always("prefix"))
    check(gate, bash("sudo ls"))
    assert gate.remembered.rules() == ()


def test_a_prefix_for_a_file_denies(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_always("prefix"))
    request = PermissionRequest.for_file("delete", {"path": "a"}, namespace="demo", tool_call_id="call_1")
    assert denial(check, gate, request).code == "malformed_answer"


def test_an_always_given_meanwhile_covers_who_waits() -> None:
    asked: list[str] = []
    everybody_waits = threading.Event()

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        assert everybody_waits.wait(SOON_S)
        return PermissionDecision.allow_always("tool")

    gate = ApprovalGate("ask", approver)
    threads = [threading.Thread(target=gate.check, args=(bash(f"c{number}"),)) for number in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(gate._turns._queue) == 5)
    everybody_waits.set()
    for thread in threads:
        thread.join(SOON_S)
    assert len(asked) == 1


# Time-outs


def test_no_answer_in_time_denies(check: Check, blocked: threading.Event) -> None:
    def approver(_: PermissionRequest) -> PermissionDecision:
        blocked.wait(SOON_S)
        return PermissionDecision.allow_always("tool")

    gate = ApprovalGate("ask", approver, approval_timeout_s=0.05)
    assert denial(check, gate).code == "approval_timeout"
    blocked.set()  # a late answer counts for nothing
    assert not gate._turns._queue
    assert gate.remembered.rules() == ()


def test_an_async_approver_is_cancelled_at_the_time_out(check: Check) -> None:
    cancelled = threading.Event()

    async def approver(_: PermissionRequest) -> PermissionDecision:
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            cancelled.set()
            return ALLOW  # swallowing it opens nothing
        return ALLOW

    def hidden(request: PermissionRequest) -> Any:
        return approver(request)

    for form in (approver, hidden):
        cancelled.clear()
        gate = ApprovalGate("ask", form, approval_timeout_s=0.05)
        assert denial(check, gate).code == "approval_timeout"
        assert cancelled.wait(SOON_S)


def test_a_turn_that_is_never_given_back_denies_the_others(check: Check) -> None:
    asked: list[PermissionRequest] = []
    gate = ApprovalGate("ask", lambda request: asked.append(request) or ALLOW, approval_timeout_s=0.02)
    stalled = Ticket(None)
    gate._turns.join(stalled)
    error = denial(check, gate)
    assert error.code == "turn_timeout"
    assert asked == []
    assert list(gate._turns._queue) == [stalled]  # who gave up has left the queue
    gate._turns.leave(stalled)
    gate.approval_timeout_s = SOON_S
    assert check(gate, bash()) == Approval(bash().arguments)


def test_a_loop_that_hangs_with_the_turn_denies_the_others(blocked: threading.Event) -> None:
    holds = threading.Event()

    async def hang(_: PermissionRequest) -> PermissionDecision:
        holds.set()
        blocked.wait(SOON_S)  # as code that forgets it is on a loop
        return ALLOW

    gate = ApprovalGate("ask", hang, approval_timeout_s=0.02)
    holder = threading.Thread(target=lambda: asyncio.run(gate.acheck(bash("holder"))))
    holder.start()
    assert holds.wait(SOON_S)
    for check in (from_sync, from_async):
        assert denial(check, gate).code == "turn_timeout"
    gate.approval_timeout_s = SOON_S
    blocked.set()
    holder.join(SOON_S)
    assert not gate._turns._queue


@pytest.mark.parametrize("timeout_s", [SOON_S, None])
def test_a_turn_that_comes_in_time_is_taken(check: Check, timeout_s: float | None) -> None:
    gate = ApprovalGate("ask", allow, approval_timeout_s=timeout_s)
    ahead = Ticket(None)
    gate._turns.join(ahead)
    approvals: list[Approval[Any]] = []
    waiting = threading.Thread(target=lambda: approvals.append(check(gate, bash())))
    waiting.start()
    wait_for(lambda: len(gate._turns._queue) == 2)
    gate._turns.leave(ahead)
    waiting.join(SOON_S)
    assert approvals == [Approval(bash().arguments)]


# What steers the program passes through


def raising(error: BaseException) -> Callable[[PermissionRequest], PermissionDecision]:
    def approver(_: PermissionRequest) -> PermissionDecision:
        raise error

    return approver


@pytest.mark.parametrize("error", [GraphInterrupt(()), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("timeout_s", [SOON_S, None])
def test_control_flow_passes_and_releases_the_turn(
    error: BaseException, timeout_s: float | None, as_approver: Any
) -> None:
    gate = ApprovalGate("ask", as_approver(raising(error)), approval_timeout_s=timeout_s)
    for run in (from_sync, from_async):
        with pytest.raises(type(error)):
            run(gate, bash())
        assert not gate._turns._queue


INTERRUPT = GraphInterrupt(())
ENDS = SystemExit(3)
CTRL_C = KeyboardInterrupt()


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (ExceptionGroup("", [ValueError(), INTERRUPT]), INTERRUPT),
        (ExceptionGroup("", [OSError(), ExceptionGroup("", [ValueError(), INTERRUPT])]), INTERRUPT),
        (ExceptionGroup("", [ExceptionGroup("", [INTERRUPT]), GraphInterrupt(())]), INTERRUPT),
        (BaseExceptionGroup("", [INTERRUPT, ENDS]), ENDS),
        (BaseExceptionGroup("", [INTERRUPT, BaseExceptionGroup("", [ValueError(), CTRL_C]), ENDS]), CTRL_C),
    ],
)
def test_control_flow_is_found_in_a_group(
    check: Check, group: BaseException, expected: BaseException
) -> None:
    gate = ApprovalGate("ask", raising(group))
    with pytest.raises(type(expected)) as raised:
        check(gate, bash())
    assert raised.value is expected
    assert not gate._turns._queue

    def validate(_: Mapping[str, object]) -> None:
        raise group

    if isinstance(group, Exception):
        gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "ls -l"}))
        with pytest.raises(type(expected)):
            check(gate, bash(), validate)


def test_an_interrupt_in_a_task_group_of_the_approver_passes(check: Check) -> None:
    async def ask() -> PermissionDecision:
        raise INTERRUPT

    async def approver(_: PermissionRequest) -> PermissionDecision:
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(ask())
        return answer.result()

    with pytest.raises(GraphInterrupt):
        check(ApprovalGate("ask", approver), bash())


def test_a_group_of_failures_denies(check: Check) -> None:
    nested: Exception = ValueError()
    for _ in range(3000):
        nested = ExceptionGroup("", [nested])
    assert denial(check, ApprovalGate("ask", raising(nested))).code == "approver_error"


def test_control_flow_is_known_without_importing_langgraph() -> None:
    assert steers_the_program(GraphInterrupt(()))
    assert steers_the_program(asyncio.CancelledError())
    assert not steers_the_program(ValueError())
    impostor = type("GraphBubbleUp", (Exception,), {"__module__": "langgraph_tools"})
    assert not steers_the_program(impostor())


class State(TypedDict):
    ran: str


def graph_over(gate: ApprovalGate, *, asynchronous: bool) -> Any:
    def node(_: State) -> State:
        return {"ran": str(gate.check(bash(), only_command).arguments["command"])}

    async def anode(_: State) -> State:
        return {"ran": str((await gate.acheck(bash(), only_command)).arguments["command"])}

    builder = StateGraph(State)
    builder.add_node("node", cast("Any", anode if asynchronous else node))
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=InMemorySaver())


def ask_in_graph(request: PermissionRequest) -> PermissionDecision:
    answer = interrupt(request.to_dict())
    return PermissionDecision.allow_edited({"command": answer}) if answer else PermissionDecision.deny()


async def aask_in_graph(request: PermissionRequest) -> PermissionDecision:
    return ask_in_graph(request)


@pytest.mark.parametrize("approver", [ask_in_graph, aask_in_graph])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_langgraph_interrupt_stops_the_graph_and_resumes(approver: Any, asynchronous: bool) -> None:
    graph = graph_over(ApprovalGate("ask", approver), asynchronous=asynchronous)
    config = {"configurable": {"thread_id": "1"}}

    def invoke(given: Any) -> Any:
        if asynchronous:
            return asyncio.run(graph.ainvoke(given, config))
        return graph.invoke(given, config)

    stopped = invoke({"ran": ""})
    assert stopped["__interrupt__"][0].value["summary"] == "bash: ls"
    assert invoke(Command(resume="ls -l"))["ran"] == "ls -l"


# Contexts and threads


def test_the_approver_sees_the_callers_context_variables(check: Check, as_approver: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        seen.append(variable.get())
        return ALLOW

    gate = ApprovalGate("ask", as_approver(approver))
    token = variable.set("set")
    try:
        check(gate, bash())
    finally:
        variable.reset(token)
    assert seen == ["set"]


def test_without_a_time_out_a_sync_approver_runs_in_the_calling_thread() -> None:
    seen: list[threading.Thread] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        seen.append(threading.current_thread())
        return ALLOW

    ApprovalGate("ask", approver, approval_timeout_s=None).check(bash())
    ApprovalGate("ask", approver).check(bash())
    assert seen[0] is threading.current_thread()
    assert seen[1].daemon


@pytest.mark.parametrize("timeout_s", [SOON_S, None])
def test_a_sync_approver_does_not_block_the_loop(timeout_s: float | None) -> None:
    answered = threading.Event()

    def approver(_: PermissionRequest) -> PermissionDecision:
        assert answered.wait(SOON_S), "the loop was blocked"
        return ALLOW

    async def main() -> None:
        gate = ApprovalGate("ask", approver, approval_timeout_s=timeout_s)
        asking = asyncio.create_task(gate.acheck(bash()))
        await asyncio.sleep(0.01)
        answered.set()
        await asking

    asyncio.run(main())


def test_a_prompt_nobody_answers_does_not_hold_up_the_end_of_the_loop(blocked: threading.Event) -> None:
    async def main() -> None:
        gate = ApprovalGate("ask", cast("Any", lambda _: blocked.wait(SOON_S)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.acheck(bash()), 0.05)
        assert not gate._turns._queue

    asyncio.run(main())
    assert not blocked.is_set()


def test_an_interrupted_wait_passes_on_and_cancels_the_approver(monkeypatch: pytest.MonkeyPatch) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def approver(_: PermissionRequest) -> PermissionDecision:
        started.set()
        try:
            await asyncio.sleep(SOON_S)
        finally:
            cancelled.set()
        return ALLOW

    from langchain_daytona_ws._approval import asking

    class Interrupted(asking.Future):  # type: ignore[misc,name-defined]
        def result(self, timeout: float | None = None) -> Any:
            assert started.wait(SOON_S)
            raise KeyboardInterrupt

    monkeypatch.setattr(asking, "Future", Interrupted)
    gate = ApprovalGate("ask", approver)
    with pytest.raises(KeyboardInterrupt):
        gate.check(bash())
    assert cancelled.wait(SOON_S)
    assert not gate._turns._queue


def test_an_approver_that_uses_a_tool_is_told_instead_of_waiting_for_itself(check: Check) -> None:
    codes: list[str] = []

    def approver(_: PermissionRequest) -> PermissionDecision:
        try:
            gate.check(bash("inner"))
        except PermissionDenied as error:
            codes.append(error.code)
        return ALLOW

    async def aapprover(_: PermissionRequest) -> PermissionDecision:
        try:
            await gate.acheck(bash("inner"))
        except PermissionDenied as error:
            codes.append(error.code)
        return ALLOW

    for form in (approver, aapprover):
        gate = ApprovalGate("ask", cast("Any", form))
        assert check(gate, bash())
    assert codes == ["reentrant", "reentrant"]


def test_what_an_approver_leaves_running_may_ask_later() -> None:
    async def main() -> None:
        left: list[asyncio.Task[Approval[Any]]] = []
        answered = asyncio.Event()

        async def later() -> Approval[Any]:
            await answered.wait()
            return await gate.acheck(bash("later"))

        async def approver(request: PermissionRequest) -> PermissionDecision:
            if request.command == "ls":
                left.append(asyncio.create_task(later()))
            return ALLOW

        gate = ApprovalGate("ask", approver)
        await gate.acheck(bash())
        answered.set()
        assert await left[0]

    asyncio.run(main())


# One at a time


def wait_for(condition: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(int(SOON_S / 0.002)):
        if condition():
            return
        done.wait(0.002)
    raise AssertionError("it did not happen")


def test_threads_and_loops_take_turns() -> None:
    inside = 0
    most = 0
    asked: list[str] = []

    def enter(request: PermissionRequest) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        asked.append(request.command or "")

    async def approver(request: PermissionRequest) -> PermissionDecision:
        nonlocal inside
        enter(request)
        await asyncio.sleep(0.001)
        inside -= 1
        return ALLOW

    gate = ApprovalGate("ask", approver)

    def threaded(name: str) -> None:
        for step in range(5):
            gate.check(bash(f"{name} {step}"))

    async def tasks(name: str) -> None:
        await asyncio.gather(*(gate.acheck(bash(f"{name} {step}")) for step in range(5)))

    workers = [threading.Thread(target=threaded, args=(f"t{number}",)) for number in range(4)]
    workers += [threading.Thread(target=lambda n=number: asyncio.run(tasks(f"l{n}"))) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SOON_S)
    assert most == 1
    assert len(asked) == len(set(asked)) == 40
    assert not gate._turns._queue


def test_first_come_first_served(blocked: threading.Event) -> None:
    asked: list[str] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        blocked.wait(SOON_S)
        return ALLOW

    gate = ApprovalGate("ask", approver)
    workers = []
    for number in range(6):
        request = bash(str(number))
        target = (
            (lambda r=request: asyncio.run(gate.acheck(r)))
            if number % 2
            else (lambda r=request: gate.check(r))
        )
        workers.append(threading.Thread(target=target))
        workers[-1].start()
        wait_for(lambda count=number + 1: len(gate._turns._queue) == count)  # type: ignore[misc]
    blocked.set()
    for worker in workers:
        worker.join(SOON_S)
    assert asked == [str(number) for number in range(6)]


@pytest.mark.parametrize("approver_form", ["sync", "async"])
def test_whoever_is_cancelled_leaves_the_queue(approver_form: str, blocked: threading.Event) -> None:
    async def main() -> None:
        asked: list[str] = []
        hold = asyncio.Event()

        async def aapprover(request: PermissionRequest) -> PermissionDecision:
            asked.append(request.command or "")
            if request.command == "0":
                await hold.wait()
            return ALLOW

        def approver(request: PermissionRequest) -> PermissionDecision:
            asked.append(request.command or "")
            if request.command == "0":
                blocked.wait(SOON_S)
            return ALLOW

        gate = ApprovalGate("ask", aapprover if approver_form == "async" else approver)
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(gate.acheck(bash(str(number)))))
            await asyncio.sleep(0.005)
        tasks[1].cancel()  # waits
        await asyncio.sleep(0)
        tasks[0].cancel()  # has the turn
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SOON_S)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2 + [Approval] * 2
        assert asked == ["0", "2", "3"]
        assert not gate._turns._queue

    asyncio.run(main())


def test_cancelling_an_async_approver_s_caller_cancels_the_approver() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def approver(_: PermissionRequest) -> PermissionDecision:
            try:
                await asyncio.sleep(SOON_S)
            finally:
                cancelled.set()
            return ALLOW

        task = asyncio.create_task(ApprovalGate("ask", approver).acheck(bash()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(cancelled.wait(), SOON_S)

    asyncio.run(main())


def test_random_cancellations_lose_no_turn() -> None:
    async def main() -> None:
        gate = ApprovalGate("ask", aallow)
        for round_number in range(40):
            tasks = [asyncio.create_task(gate.acheck(bash(str(number)))) for number in range(8)]
            for step in range(round_number % 9):
                await asyncio.sleep(0)
                tasks[(step * 5 + round_number) % 8].cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), SOON_S)
            assert not gate._turns._queue

    asyncio.run(main())


def test_a_coroutine_that_is_dropped_with_the_turn_gives_it_back() -> None:
    """As those of a loop that is closed without cancelling its tasks."""

    async def hang(_: PermissionRequest) -> PermissionDecision:
        await asyncio.Event().wait()
        return ALLOW

    async def main() -> None:
        gate = ApprovalGate("ask", hang)
        holder = gate.acheck(bash())
        holder.send(None)
        assert len(gate._turns._queue) == 1
        del holder
        gc.collect()
        assert not gate._turns._queue
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_sync_call_that_would_block_the_loop_it_waits_for_is_told() -> None:
    async def main() -> None:
        answer = asyncio.Event()

        async def approver(_: PermissionRequest) -> PermissionDecision:
            await answer.wait()
            return ALLOW

        gate = ApprovalGate("ask", approver)
        first = asyncio.create_task(gate.acheck(bash()))
        await asyncio.sleep(0.01)
        with pytest.raises(PermissionDenied) as raised:
            gate.check(bash("second"))
        assert raised.value.code == "would_deadlock"
        answer.set()
        assert await first

    asyncio.run(main())
