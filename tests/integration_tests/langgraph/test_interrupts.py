"""The approver that interrupts the graph: its questions, which call each answer applies to, and calls that run once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy

from examples.scripted import ScriptedModel, turn
from langchain_daytona_ws import InterruptApprover, PermissionDecision, WorkspaceToolkit
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.langgraph.conftest import (
    APPROVE,
    REJECT,
    SameIds,
    Stage,
    answer_with,
    bash,
    calling,
    file,
    results,
)


def test_nothing_is_provisioned_before_the_answer_and_what_is_approved_runs_once(stage: Stage) -> None:
    session = stage.session()
    graph = stage.tool_node(session)
    asked = stage.do(graph, calling(bash("one", "echo ran >> log; cat log")))
    assert [question.value for question in stage.questions(asked)] == [
        {
            "action_requests": [
                {
                    "name": "bash",
                    "args": {"command": "echo ran >> log; cat log"},
                    "description": "bash: echo ran >> log; cat log",
                }
            ],
            "review_configs": [
                {"action_name": "bash", "allowed_decisions": ["approve", "edit", "reject", "respond"]}
            ],
        }
    ]
    assert stage.server.requests == []
    done = results(stage.do(graph, Command(resume=answer_with(APPROVE))))["one"]
    assert (done.status, done.content) == ("success", "ran\n[exit code 0]")


def test_parallel_calls_of_a_node_get_their_own_answers(stage: Stage) -> None:
    session = stage.session()
    graph = stage.tool_node(session)
    calls = [
        *(bash(f"call-{number}", f"echo {number} >> log; echo ran {number}") for number in range(3)),
        file("written", "write", path="a.txt", content="a\n"),
        file("read", "list"),
    ]
    state, asked = stage.answer_all(
        graph,
        stage.do(graph, calling(*calls)),
        lambda action: REJECT if "echo 1" in str(action["args"]) else APPROVE,
    )
    assert len(asked) == 4
    reported = results(state)
    assert {call: message.status for call, message in reported.items()} == {
        "call-0": "success",
        "call-1": "error",
        "call-2": "success",
        "written": "success",
        "read": "success",
    }
    assert "not this one" in reported["call-1"].text
    assert "ran 0" in reported["call-0"].text
    assert "ran 2" in reported["call-2"].text
    assert sorted(stage.see(session, "cat log").split()) == ["0", "2"]


def test_a_call_with_an_empty_id_runs_once(quick: Stage) -> None:
    session = quick.session()
    graph = quick.tool_node(session)
    asked = quick.do(graph, calling(bash("", "echo first >> log"), bash("second", "echo second >> log")))
    quick.answer_all(graph, asked, lambda action: APPROVE)
    assert quick.see(session, "cat log") == "first\nsecond\n"


class InOrder:
    """Run the calls of a tool node sequentially, first in one order and then in another order."""

    def __init__(self, *orders: list[str]) -> None:
        self._orders = list(orders)
        self._lock = threading.Lock()
        self._ended: dict[str, threading.Event] = {}
        self._before: dict[str, str | None] = {}
        self.begin()

    def begin(self) -> None:
        order = self._orders.pop(0) if len(self._orders) > 1 else self._orders[0]
        self._ended = {call: threading.Event() for call in order}
        self._before = dict(zip(order, [None, *order], strict=False))

    def sync(self, request: Any, execute: Callable[[Any], Any]) -> Any:
        call, ended = request.tool_call["id"], self._ended
        before = self._before[call]
        if before is not None:
            assert ended[before].wait(60)
        try:
            return execute(request)
        finally:
            ended[call].set()

    async def on_loop(self, request: Any, execute: Callable[[Any], Awaitable[Any]]) -> Any:
        call, ended = request.tool_call["id"], self._ended
        before = self._before[call]
        if before is not None:
            assert await asyncio.to_thread(ended[before].wait, 60)
        try:
            return await execute(request)
        finally:
            ended[call].set()


@pytest.mark.parametrize("by_id", [False, True])
def test_an_answer_never_applies_to_another_call(stage: Stage, by_id: bool) -> None:
    order = InOrder(["harmless", "harmful"], ["harmful", "harmless"])
    session = stage.session()
    graph = stage.tool_node(session, wrap_tool_call=order.sync, awrap_tool_call=order.on_loop)
    calls = calling(bash("harmless", "echo harmless >> log"), bash("harmful", "echo harmful >> log"))
    state = stage.do(graph, calls)
    asked = []
    while questions := stage.questions(state):
        (question,) = questions
        (action,) = question.value["action_requests"]
        asked.append(action["args"]["command"])
        decision = answer_with(APPROVE if "harmless" in asked[-1] else REJECT)
        order.begin()
        state = stage.do(graph, Command(resume={question.id: decision} if by_id else decision))
    assert asked == ["echo harmless >> log", "echo harmful >> log"]
    reported = results(state)
    assert (reported["harmless"].status, reported["harmful"].status) == ("success", "error")
    assert stage.see(session, "cat log") == "harmless\n"


def test_two_sessions_in_a_node_get_their_own_answers(stage: Stage) -> None:
    first, second = stage.session(namespace="first"), stage.session(namespace="second")
    tools = [
        *WorkspaceToolkit(session=first).get_tools()[:1],
        *WorkspaceToolkit(session=second).get_tools()[1:2],
    ]
    graph = stage.compiled(StateGraph(MessagesState), ToolNode(tools))
    state = stage.do(graph, calling(bash("one", "echo"), file("two", "write", path="a", content="b")))
    state, asked = stage.answer_all(
        graph, state, lambda action: APPROVE if action["name"] == "workspace_file" else REJECT
    )
    assert sorted(action["name"] for action in asked) == ["bash", "workspace_file"]
    reported = results(state)
    assert (reported["one"].status, reported["two"].status) == ("error", "success")


def test_going_on_without_an_answer_asks_again(stage: Stage) -> None:
    """LangGraph's own interrupt() takes the answer to the question before for one, that is still in the checkpoint."""
    session = stage.session()
    graph = stage.tool_node(session)
    first = stage.do(graph, calling(bash("one", "echo one >> log"), bash("two", "echo two >> log")))
    assert stage.questions(stage.do(graph, None)) == stage.questions(first)
    assert stage.server.requests == []
    second = stage.do(graph, Command(resume=answer_with(APPROVE)))
    (question,) = stage.questions(second)
    assert question.value["action_requests"][0]["args"] == {"command": "echo two >> log"}
    assert stage.questions(stage.do(graph, None)) == stage.questions(second)
    assert stage.see(session, "cat log") == "one\n"
    reported = results(stage.do(graph, Command(resume={question.id: answer_with(APPROVE)})))
    assert [message.status for message in reported.values()] == ["success", "success"]
    assert stage.see(session, "cat log") == "one\ntwo\n"


def test_another_process_resumes_the_graph(lasting: Stage) -> None:
    calls = calling(bash("one", "echo one >> log"), bash("two", "echo two >> log"))
    graph = lasting.tool_node(lasting.session(persistent=True))
    lasting.do(graph, calls)
    lasting.next_process()
    graph = lasting.tool_node(lasting.session(persistent=True))
    lasting.do(graph, Command(resume=answer_with(APPROVE)))
    lasting.next_process()
    session = lasting.session(persistent=True)
    graph = lasting.tool_node(session)
    reported = results(lasting.do(graph, Command(resume=answer_with(REJECT))))
    assert (reported["one"].status, reported["two"].status) == ("success", "error")
    assert lasting.see(session, "cat log") == "one\n"


def test_every_kind_of_change_is_made_once_where_the_node_runs_again(quick: Stage) -> None:
    session = quick.session()
    quick.see(session, "echo a > edited; touch deleted")
    job = quick.wait(session.jobs.start, session.jobs.astart, "sleep 600")
    graph = quick.tool_node(session)
    calls = [
        file("edit", "edit", path="edited", old_string="a", new_string="aa"),
        file("delete", "delete", path="deleted"),
        file("write", "write", path="written", content="new\n"),
        bash("job", "echo started >> jobs; sleep 600", background=True),
        {"name": "bash_job", "args": {"action": "stop", "job_id": job.id}, "id": "stop", "type": "tool_call"},
        bash("last", "echo last >> log"),
    ]
    state, asked = quick.answer_all(graph, quick.do(graph, calling(*calls)), lambda action: APPROVE)
    assert len(asked) == len(calls)
    reported = results(state)
    assert {message.status for message in reported.values()} == {"success"}
    assert "it had ended before" not in reported["stop"].text
    assert "stopped" in reported["stop"].text
    assert quick.see(session, "cat edited written log jobs") == "aa\nnew\nlast\nstarted\n"


DECISIONS = [
    (APPROVE, "success", "asked for"),
    (
        {"type": "edit", "edited_action": {"name": "bash", "args": {"command": "echo edited"}}},
        "success",
        "edited",
    ),
    (REJECT, "error", "not this one"),
    ({"type": "reject"}, "error", "The user denied this."),
    ({"type": "respond", "message": "I did it\nmyself"}, "success", "I did it\nmyself"),
    (
        {"type": "edit", "edited_action": {"name": "bash_job", "args": {"action": "list"}}},
        "error",
        "could not be asked for",
    ),
]


@pytest.mark.parametrize(("decision", "status", "text"), DECISIONS)
def test_each_decision_has_its_effect(quick: Stage, decision: dict[str, Any], status: str, text: str) -> None:
    graph = quick.tool_node(quick.session())
    quick.do(graph, calling(bash("one", "echo asked for")))
    message = results(quick.do(graph, Command(resume=answer_with(decision))))["one"]
    assert message.status == status
    assert text in message.text
    if decision["type"] == "respond":
        assert message.content == "I did it\nmyself"
    assert bool(quick.server.requests) == (text in {"asked for", "edited"})


def test_a_decision_of_this_package_resumes_too(quick: Stage) -> None:
    graph = quick.tool_node(quick.session())
    answers = {
        "allow": PermissionDecision.allow(),
        "deny": PermissionDecision.deny("no"),
        "respond": PermissionDecision.respond("mine"),
        "edit": PermissionDecision.allow_edited({"command": "echo edited"}),
        "always": PermissionDecision.allow_always("tool"),
    }
    state = quick.do(graph, calling(*(bash(name, f"echo {name}") for name in answers)))
    while questions := quick.questions(state):
        (question,) = questions
        name = question.value["action_requests"][0]["args"]["command"].split()[1]
        state = quick.do(graph, Command(resume={question.id: answers[name]}))
    reported = results(state)
    assert {name: message.status for name, message in reported.items()} == {
        "allow": "success",
        "deny": "error",
        "respond": "success",
        "edit": "success",
        "always": "error",
    }
    assert reported["respond"].content == "mine"
    assert "echo edited" in reported["edit"].text


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        True,
        {"decisions": "approve"},
        {"decisions": []},
        answer_with(APPROVE, APPROVE),
        answer_with({"type": "allow"}),
        {"type": "approve"},
    ],
)
def test_an_unusable_answer_denies_and_is_logged(
    quick: Stage, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    graph = quick.tool_node(quick.session())
    quick.do(graph, calling(bash("one", "echo")))
    message = results(quick.do(graph, Command(resume=answer)))["one"]
    assert message.status == "error"
    assert "could not be asked for" in message.text
    assert 'an answer to an interrupt is {"decisions": [{"type": "approve"}]}' in caplog.text
    assert quick.server.requests == []


def test_an_agent_asks_about_all_calls_of_a_turn_at_once(stage: Stage) -> None:
    session = stage.session()
    script = [
        AIMessage("", tool_calls=[bash(f"{number}", f"echo {number} >> log") for number in range(3)]),
        turn("Done."),
    ]
    agent = create_agent(
        ScriptedModel(script=script), WorkspaceToolkit(session=session).get_tools(), checkpointer=stage.saver
    )
    questions = stage.questions(stage.do(agent, {"messages": [("user", "go")]}))
    assert len(questions) == 3
    assert stage.server.requests == []
    first = next(item for item in questions if "echo 0" in item.value["action_requests"][0]["description"])
    state = stage.do(agent, Command(resume={first.id: answer_with(REJECT)}))
    assert len(stage.questions(state)) == 2
    state = stage.do(
        agent, Command(resume={item.id: answer_with(APPROVE) for item in stage.questions(state)})
    )
    assert [message.status for message in results(state).values()] == ["error", "success", "success"]
    assert state["messages"][-1].content == "Done."
    assert sorted(stage.see(session, "cat log").split()) == ["1", "2"]


def test_an_agent_in_a_node_that_runs_twice_asks_and_runs_twice(stage: Stage) -> None:
    """The model's calls may have the same ids each time."""
    session = stage.session()
    agent = create_agent(
        SameIds(script=[turn(bash={"command": "echo x >> log; wc -l < log"}), turn("Done.")]),
        WorkspaceToolkit(session=session).get_tools(),
    )
    rounds = StateGraph(MessagesState)
    if stage.is_async:

        async def aworked(state: MessagesState) -> Any:
            reported = await agent.ainvoke({"messages": [("user", "go")]})
            return {"messages": [AIMessage(reported["messages"][-2].content)]}

        rounds.add_node("work", aworked)
    else:

        def worked(state: MessagesState) -> Any:
            return {
                "messages": [AIMessage(agent.invoke({"messages": [("user", "go")]})["messages"][-2].content)]
            }

        rounds.add_node("work", worked)
    rounds.add_edge(START, "work")
    rounds.add_conditional_edges("work", lambda state: "work" if len(state["messages"]) < 3 else END)
    graph = rounds.compile(checkpointer=stage.saver)
    state, asked = stage.answer_all(graph, stage.do(graph, {"messages": [("user", "go")]}), lambda _: APPROVE)
    assert len(asked) == 2
    assert [message.content for message in state["messages"][1:]] == ["1\n[exit code 0]", "2\n[exit code 0]"]


@pytest.mark.parametrize("where", ["agent", "sub-graph"])
def test_each_turn_of_an_agent_runs_although_its_calls_have_the_same_ids(quick: Stage, where: str) -> None:
    session = quick.session(permissionMode="bypass")
    again = {"command": "echo x >> log; wc -l < log"}
    model = SameIds(script=[turn(bash=again), turn(bash=again), turn("Done.")])
    graph: Any = create_agent(model, WorkspaceToolkit(session=session).get_tools())
    if where == "sub-graph":
        graph = quick.compiled(StateGraph(MessagesState), graph)
    state = quick.do(graph, {"messages": [("user", "go")]})
    reported = [message.content for message in state["messages"] if isinstance(message, ToolMessage)]
    assert reported == ["1\n[exit code 0]", "2\n[exit code 0]"]


@pytest.mark.parametrize("keeps_checkpoints", [False, True])
def test_a_node_that_is_tried_again_runs_nothing_again_in_its_sub_graph(
    quick: Stage, keeps_checkpoints: bool
) -> None:
    session = quick.session(permissionMode="bypass")
    failures = [ConnectionError("the first time")]

    def fail_once(state: MessagesState) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return {}

    inner = StateGraph(MessagesState).add_node(
        "tools", ToolNode(WorkspaceToolkit(session=session).get_tools())
    )
    inner.add_node("fails", fail_once).add_edge(START, "tools").add_edge("tools", "fails")
    outer = StateGraph(MessagesState).add_edge(START, "work")
    outer.add_node("work", inner.compile(), retry_policy=RetryPolicy(initial_interval=0, jitter=False))
    graph = outer.compile(checkpointer=quick.saver if keeps_checkpoints else None)
    state = quick.do(graph, calling(bash("one", "echo ran >> log; cat log")))
    assert failures == []
    assert results(state)["one"].text.endswith("ran\n[exit code 0]")
    assert quick.see(session, "cat log") == "ran\n"


def test_going_back_to_an_earlier_checkpoint_asks_and_runs_anew(stage: Stage) -> None:
    session = stage.session()
    graph = stage.tool_node(session)
    stage.do(graph, calling(bash("one", "echo x >> log; wc -l < log")))
    (earlier,) = [state.config for state in stage.history(graph) if state.next == ("tools",)]
    state = stage.do(graph, Command(resume=answer_with(APPROVE)))
    for expected in ("2", "3"):
        state = stage.do(graph, None, earlier)
        assert len(stage.questions(state)) == 1
        state = stage.do(graph, Command(resume=answer_with(APPROVE)))
        assert results(state)["one"].content == f"{expected}\n[exit code 0]"
    state = stage.do(graph, None, earlier)
    assert results(stage.do(graph, Command(resume=answer_with(REJECT))))["one"].status == "error"
    assert stage.see(session, "wc -l < log") == "3\n"


def test_a_sub_graph_asks_through_its_parent(stage: Stage) -> None:
    session = stage.session()
    script = [
        turn(bash={"command": "echo one >> log"}),
        turn(bash={"command": "echo two >> log"}),
        turn("Done."),
    ]
    agent = create_agent(ScriptedModel(script=script), WorkspaceToolkit(session=session).get_tools())
    graph = stage.compiled(StateGraph(MessagesState), agent)
    state = stage.do(graph, {"messages": [("user", "go")]})
    (question,) = stage.questions(state)
    state = stage.do(graph, Command(resume=answer_with(APPROVE)))
    (second,) = stage.questions(state)
    assert second.id != question.id
    # The first answer is still in the checkpoint of the parent, whose node has not ended.
    (again,) = stage.questions(stage.do(graph, None))
    assert again == second
    state = stage.do(graph, Command(resume=answer_with(REJECT)))
    assert [message.status for message in state["messages"] if isinstance(message, ToolMessage)] == [
        "success",
        "error",
    ]
    assert stage.see(session, "cat log") == "one\n"


def test_an_interrupt_waits_for_parallel_tools(server: LocalDaytona) -> None:
    """Each run of the graph has an event loop of its own, whose end cancels what the graph has left behind."""
    stage = Stage(server, None, None)
    session = stage.session()
    stage.see(session, "true")
    sent = server.count("execute")
    is_beside_it = False

    async def let_slow_begin(request: Any, execute: Callable[[Any], Awaitable[Any]]) -> Any:
        is_held = is_beside_it and request.tool_call["id"] == "next"
        while is_held and server.count("execute") == sent:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.01)
        return await execute(request)

    graph = stage.tool_node(session, awrap_tool_call=let_slow_begin)

    def do(value: Any) -> Any:
        return asyncio.run(graph.ainvoke(value, stage.thread))

    commands = ["sleep 1; echo slow", "echo next"]
    state = do(calling(bash("slow", commands[0]), bash("next", commands[1])))
    for command in commands:
        (question,) = stage.questions(state)
        assert question.value["action_requests"][0]["args"]["command"] == command
        is_beside_it = command == commands[0]
        state = do(Command(resume=answer_with(APPROVE)))
    reported = results(state)
    assert {name: message.status for name, message in reported.items()} == {
        "slow": "success",
        "next": "success",
    }
    assert "slow" in reported["slow"].text.split()
    stage.close()


def test_an_interrupt_releases_the_turn(quick: Stage) -> None:
    session = quick.session()
    graph = quick.tool_node(session)
    for number in range(3):
        other = {"configurable": {"thread_id": f"other-{number}"}}
        state = quick.do(graph, calling(bash("one", f"echo {number}")), other)
        assert len(quick.questions(state)) == 1
    other = {"configurable": {"thread_id": "other-1"}}
    assert "1" in results(quick.do(graph, Command(resume=answer_with(APPROVE)), other))["one"].text


def test_a_call_is_denied_if_the_graph_cannot_be_interrupted(
    quick: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    session = quick.session(approver=InterruptApprover())
    tool = WorkspaceToolkit(session=session).get_tools()[0]
    runs = StateGraph(MessagesState).add_edge(START, "tools")
    forgetful = runs.add_node("tools", ToolNode([tool])).compile()
    message = results(quick.do(forgetful, calling(bash("one", "echo")), {}))["one"]
    assert message.status == "error"
    assert "needs a graph with a checkpointer" in caplog.text
    outside = tool.invoke(bash("two", "echo"))
    assert outside.status == "error"
    assert "outside of a LangGraph graph" in caplog.text
    assert quick.server.requests == []


def test_saving_only_at_the_end_needs_answers_by_id(quick: Stage, caplog: pytest.LogCaptureFixture) -> None:
    graph = quick.tool_node(quick.session())

    def do(value: Any) -> Any:
        return quick.wait(graph.invoke, graph.ainvoke, value, quick.thread, durability="exit")

    (question,) = quick.questions(do(calling(bash("one", "echo ran"))))
    message = results(do(Command(resume={question.id: answer_with(APPROVE)})))["one"]
    assert "ran" in message.text
    do(calling(bash("two", "echo ran")))
    assert results(do(Command(resume=answer_with(APPROVE))))["two"].status == "error"
    assert "answer by the interrupt's id" in caplog.text
