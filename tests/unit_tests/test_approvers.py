"""The approvers for LangGraph, as far as they need no sandbox: questions, answers, the mapping for the middleware."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypedDict

import pytest
from langchain.agents.middleware.human_in_the_loop import HITLRequest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import TypeAdapter

from langchain_daytona_ws import (
    InterruptApprover,
    MiddlewareApprover,
    PermissionDecision,
    PermissionRequest,
    WorkspaceSession,
    WorkspaceToolkit,
)
from langchain_daytona_ws.permissions import AnswerUnusable, CalledTool

THREAD: Any = {"configurable": {"thread_id": "one"}}
RUN = PermissionRequest.for_bash("make", namespace="demo", tool_call_id="call_1", arguments={"timeout": 5.0})
WRITE = PermissionRequest.for_file(
    "write",
    {"action": "write", "path": "a\u202etxt", "content": "new\n"},
    namespace="demo",
    tool_call_id="call_2",
)


class State(TypedDict, total=False):
    decision: Any


def reported(decision: PermissionDecision) -> list[Any]:
    """Write a decision as a checkpoint can hold it."""
    edited = None if decision.arguments is None else dict(decision.arguments)
    return [decision.kind, decision.reason, decision.message, edited]


def graph_of(request: PermissionRequest, saver: Any = None) -> Any:
    """Make a graph whose only node asks, and keeps what was decided or why it could not be."""

    def ask(state: State) -> State:
        try:
            return {"decision": reported(InterruptApprover()(request))}
        except AnswerUnusable as error:
            return {"decision": str(error)}

    graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask")
    return graph.compile(checkpointer=saver or InMemorySaver())


def decided(answer: Any, request: PermissionRequest = RUN) -> Any:
    graph = graph_of(request)
    graph.invoke({}, THREAD)
    return graph.invoke(Command(resume=answer), THREAD)["decision"]


@pytest.mark.parametrize("request_", [RUN, WRITE])
def test_the_question_is_a_request_of_langchains_and_safe_to_print(request_: PermissionRequest) -> None:
    (question,) = graph_of(request_).invoke({}, THREAD)["__interrupt__"]
    assert TypeAdapter(HITLRequest).validate_python(question.value) == question.value
    (action,) = question.value["action_requests"]
    assert action["args"] == request_.to_dict()["arguments"]
    assert action["description"].startswith(request_.summary)
    assert (request_.diff or "") in action["description"]
    assert "\u202e" not in action["description"]


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ({"type": "approve"}, PermissionDecision.allow()),
        ({"type": "reject"}, PermissionDecision.deny()),
        ({"type": "reject", "message": "no"}, PermissionDecision.deny("no")),
        ({"type": "respond", "message": ""}, PermissionDecision.respond("")),
        (
            {"type": "edit", "edited_action": {"name": "bash", "args": {"command": "true"}}},
            PermissionDecision.allow_edited({"command": "true"}),
        ),
    ],
)
def test_answers_are_read(decision: dict[str, Any], expected: PermissionDecision) -> None:
    assert decided({"decisions": [decision]}) == reported(expected)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (5, "got type int"),
        ("approve", "got type str"),
        ({"decisions": "approve"}, "got type str"),
        ({"decisions": []}, "got 0 decisions"),
        ({"decisions": [{"type": "approve"}] * 2}, "got 2 decisions"),
        ({"decisions": ["approve"]}, "got type str"),
        ({"decisions": [{"type": "ignore"}]}, "the decision has an unknown type"),
        ({"decisions": [{"type": "respond"}]}, "its message is missing"),
        ({"decisions": [{"type": "reject", "message": 5}]}, "the message is of type int"),
        ({"decisions": [{"type": "edit"}]}, "has no args"),
        ({"decisions": [{"type": "edit", "edited_action": {"name": "bash"}}]}, "has no args"),
        (
            {"decisions": [{"type": "edit", "edited_action": {"name": "workspace_file", "args": {}}}]},
            "can't change the tool",
        ),
        (
            {"decisions": [{"type": "edit", "edited_action": {"args": {"command": "ls"}}}]},
            "can't change the tool",
        ),
        (
            {"decisions": [{"type": "edit", "edited_action": {"name": [], "args": {"command": "ls"}}}]},
            "can't change the tool",
        ),
        ({"decisions": [{"type": "allow_always"}]}, "can't be answered with allow_always"),
    ],
)
def test_a_malformed_answer_is_unusable(answer: Any, why: str) -> None:
    assert why in decided(answer)


CALLED = replace(
    PermissionRequest.for_file(
        "write",
        {"action": "write", "path": "a.txt", "content": "x"},
        namespace="demo",
        tool_call_id="call_1",
    ),
    called=CalledTool(
        name="write_file",
        arguments={"file_path": "/mnt/workspaces/demo/a.txt", "content": "x"},
        names={"file_path": "path"},
    ),
)


def test_a_call_of_a_deep_agents_tool_is_shown_as_that_tools() -> None:
    (question,) = graph_of(CALLED).invoke({}, THREAD)["__interrupt__"]
    (action,) = question.value["action_requests"]
    assert (action["name"], action["args"]) == (
        "write_file",
        {"file_path": "/mnt/workspaces/demo/a.txt", "content": "x"},
    )
    assert question.value["review_configs"][0]["action_name"] == "write_file"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("write_file", {"file_path": "b.txt", "content": "y"}),
        ("workspace_file", {"action": "write", "path": "b.txt", "content": "y"}),
    ],
)
def test_an_edit_under_the_tools_own_name_is_understood(name: str, args: dict[str, Any]) -> None:
    answer = {"decisions": [{"type": "edit", "edited_action": {"name": name, "args": args}}]}
    expected = PermissionDecision.allow_edited({"action": "write", "path": "b.txt", "content": "y"})
    assert decided(answer, CALLED) == reported(expected)


def test_an_edit_can_not_make_another_tools_call_of_a_deep_agents() -> None:
    edited = {"name": "execute", "args": {"command": "ls"}}
    answer = {"decisions": [{"type": "edit", "edited_action": edited}]}
    assert "must be 'write_file' or 'workspace_file'" in decided(answer, CALLED)


def test_a_call_without_an_id_can_not_be_asked_about() -> None:
    assert (
        "without an id"
        in graph_of(PermissionRequest.for_bash("ls", namespace="demo")).invoke({}, THREAD)["decision"]
    )


def test_questions_differ_by_all_that_makes_a_call() -> None:
    same = {"namespace": "demo", "tool_call_id": "call_1"}
    requests = [
        RUN,
        PermissionRequest.for_bash("make", **same),  # type: ignore[arg-type]
        PermissionRequest.for_bash("make", namespace="demo", tool_call_id="call_2"),
        PermissionRequest.for_bash("make", namespace="other", tool_call_id="call_1"),
        WRITE,
    ]

    def ask_all(state: State) -> State:
        from langgraph.errors import GraphInterrupt

        ids = []
        for request in [*requests, RUN]:
            with pytest.raises(GraphInterrupt) as raised:
                InterruptApprover()(request)
            ids.append(raised.value.args[0][0].id)
        return {"decision": ids}

    graph = (
        StateGraph(State)
        .add_node("ask", ask_all)
        .add_edge(START, "ask")
        .compile(checkpointer=InMemorySaver())
    )
    ids = graph.invoke({}, THREAD)["decision"]  # type: ignore[arg-type]
    assert ids[-1] == ids[0]
    assert len(set(ids)) == len(requests)


class Unreadable(InMemorySaver):
    """A checkpointer that is used over the network, whose network is down while a node runs."""

    is_down = False

    def get_tuple(self, config: Any) -> Any:
        if self.is_down and config["configurable"].get("checkpoint_id"):
            raise OSError("password=secret")
        return super().get_tuple(config)


def test_an_ambiguous_answer_is_refused() -> None:
    saver = Unreadable()
    graph = graph_of(RUN, saver)
    graph.invoke({}, THREAD)
    saver.is_down = True
    output = graph.invoke(Command(resume={"decisions": [{"type": "approve"}]}), THREAD)["decision"]
    assert "could not be read or written through Unreadable" in output
    assert "secret" not in output
    saver.is_down = False
    (question,) = graph.invoke({}, THREAD)["__interrupt__"]
    saver.is_down = True
    done = graph.invoke(Command(resume={question.id: {"decisions": [{"type": "approve"}]}}), THREAD)
    assert done["decision"] == reported(PermissionDecision.allow())


@pytest.mark.parametrize(
    ("mode", "tools"),
    [
        ("ask", {"workspace_file", "bash", "bash_job", "preview_url"}),
        ("edit", {"bash", "bash_job", "preview_url"}),
        ("bypass", set()),
    ],
)
def test_the_mapping_is_that_of_the_mode(mode: Any, tools: set[str]) -> None:
    mapping = MiddlewareApprover().interrupt_on(mode, lambda: "demo")
    assert mapping.keys() == tools
    asked = {
        (tool, action)
        for tool, key in (("workspace_file", "action"), ("bash_job", "action"), ("bash", "command"))
        for action in (
            "read",
            "list",
            "glob",
            "grep",
            "write",
            "edit",
            "delete",
            "status",
            "logs",
            "stop",
            "ls",
        )
        if tool in mapping
        and mapping[tool]["when"](SimpleNamespace(tool_call={"name": tool, "args": {key: action}}))
    }
    changes = {("workspace_file", action) for action in ("write", "edit", "delete")}
    known = {item for item in asked if item[0] == "workspace_file" and item[1] in {"write", "edit", "delete"}}
    assert known == (changes if mode == "ask" else set())
    assert not asked & {
        ("workspace_file", "read"),
        ("workspace_file", "grep"),
        ("bash_job", "status"),
        ("bash_job", "logs"),
    }
    assert (("bash_job", "stop") in asked) == (("bash", "ls") in asked) == (mode != "bypass")


@pytest.mark.parametrize(
    "args", [{}, {"command": None}, {"command": ["rm"], "path": 5, "content": {"a": 1}}, {"job_id": 7}]
)
@pytest.mark.parametrize("tool", ["bash", "workspace_file", "bash_job"])
def test_an_unvalidated_call_is_asked_about_and_described(tool: str, args: dict[str, Any]) -> None:
    entry = MiddlewareApprover().interrupt_on("ask", lambda: "demo")[tool]
    call = {"name": tool, "args": args, "id": "call_1"}
    assert entry["when"](SimpleNamespace(tool_call=call))
    assert entry["description"](call, {}, None).startswith(tool)


def asked_and_run(
    approver: MiddlewareApprover,
    *requests: PermissionRequest,
    message: Any = None,
    judge: Callable[[MiddlewareApprover], MiddlewareApprover] = lambda approver: approver,
) -> list[Any]:
    """Ask about a call as the middleware does, and pass the requests to the approver in the step after the answer."""
    call = {"name": "bash", "args": {"command": "make"}, "id": "call_1"}
    reported: list[Any] = []

    def ask(state: MessagesState) -> dict[str, Any]:
        approver.interrupt_on("ask", lambda: "demo")["bash"]["description"](call, state, None)
        interrupt("may it run?")
        return {"messages": [] if message is None else [message]}

    def run(state: MessagesState) -> dict[str, Any]:
        for request in requests:
            try:
                reported.append(judge(approver)(request).kind)
            except AnswerUnusable as error:
                reported.append(str(error))
        return {}

    graph = StateGraph(MessagesState).add_sequence([("ask", ask), ("run", run)]).add_edge(START, "ask")
    agent = graph.compile(checkpointer=InMemorySaver())
    agent.invoke({"messages": [AIMessage("", id="message_1", tool_calls=[call])]}, THREAD)  # type: ignore[list-item]
    assert reported == []
    agent.invoke(Command(resume="yes"), THREAD)
    return reported


NOBODY = "no HumanInTheLoopMiddleware has asked about this call in this process"


def test_only_approved_calls_are_allowed() -> None:
    approver = MiddlewareApprover()
    with pytest.raises(AnswerUnusable, match=NOBODY):
        approver(RUN)
    others = (
        WRITE,
        PermissionRequest.for_bash("make", namespace="demo"),
        PermissionRequest.for_bash("make", namespace="demo", tool_call_id="call_2"),
        PermissionRequest.for_bash("make", namespace="other", tool_call_id="call_1"),
    )
    reported = asked_and_run(approver, RUN, RUN, *others)
    assert reported[:2] == ["allow", "allow"]
    assert len(reported) == 6
    assert all(NOBODY in answer for answer in reported[2:])
    with pytest.raises(AnswerUnusable, match=NOBODY):
        approver(RUN)


def test_an_unpickled_approver_has_no_approved_calls() -> None:
    (reported,) = asked_and_run(
        MiddlewareApprover(), RUN, judge=lambda item: pickle.loads(pickle.dumps(item))
    )
    assert NOBODY in reported


@pytest.mark.parametrize(
    "message",
    [
        ToolMessage("refused", tool_call_id="call_1", status="error"),
        AIMessage("", id="message_2", tool_calls=[{"name": "bash", "args": {}, "id": "call_1"}]),
    ],
)
def test_what_is_answered_already_or_stands_in_another_message_is_not_let_through(message: Any) -> None:
    (reported,) = asked_and_run(MiddlewareApprover(), RUN, message=message)
    assert NOBODY in reported


@pytest.mark.parametrize(
    "message",
    [
        ToolMessage("of another call", tool_call_id="call_2"),
        AIMessage("", tool_calls=[{"name": "bash", "args": {}, "id": "call_2"}]),
        HumanMessage("hurry"),
    ],
)
def test_what_else_is_said_changes_nothing(message: Any) -> None:
    assert asked_and_run(MiddlewareApprover(), RUN, message=message) == ["allow"]


def test_a_graph_without_messages_has_no_call_that_was_asked_about() -> None:
    approver = MiddlewareApprover()

    def run(state: State) -> State:
        with pytest.raises(AnswerUnusable, match=NOBODY):
            approver(RUN)
        return {"decision": "denied"}

    graph = StateGraph(State).add_node("run", run).add_edge(START, "run").compile()
    assert graph.invoke({})["decision"] == "denied"


def test_the_interrupt_approver_can_be_pickled() -> None:
    assert isinstance(pickle.loads(pickle.dumps(InterruptApprover())), InterruptApprover)


CALLS = [
    ("bash", {"command": "make"}),
    ("bash", {"command": "make", "background": True}),
    ("workspace_file", {"action": "write", "path": "a.txt", "content": "a"}),
    ("bash_job", {"action": "stop", "job_id": "abcdefgh"}),
]


@pytest.mark.parametrize(("tool", "args"), CALLS)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_callback_may_answer_in_place_of_any_tool(tool: str, args: dict[str, Any], is_async: bool) -> None:
    asked = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.tool)
        return PermissionDecision.respond("I did it\nmyself")

    session = WorkspaceSession({"permissionMode": "ask"}, namespace="demo", approver=approver)
    chosen = next(item for item in WorkspaceToolkit(session=session).get_tools() if item.name == tool)
    call = {"type": "tool_call", "id": "call_1", "name": tool, "args": args}
    message = asyncio.run(chosen.ainvoke(call)) if is_async else chosen.invoke(call)
    assert (message.status, message.content) == ("success", "I did it\nmyself")
    assert message.artifact == {"response": "I did it\nmyself"}
    assert asked == [tool]
    assert session.sandbox_id is None


@pytest.mark.parametrize(
    "parts",
    [
        {"kind": "respond"},
        {"kind": "allow", "message": "hello"},
        {"kind": "respond", "message": "hello", "arguments": {}},
        {"kind": "answer", "message": "hello"},
    ],
)
def test_a_response_is_a_message_and_nothing_else(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"respond|only to it|kind must be"):
        PermissionDecision(**parts)
    with pytest.raises(TypeError):
        PermissionDecision.respond(5)  # type: ignore[arg-type]


def test_without_langgraph_the_interrupt_approver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langgraph.config", None)
    with pytest.raises(AnswerUnusable, match=r"pip install 'langchain-daytona-ws\[langgraph\]'"):
        InterruptApprover()(RUN)
