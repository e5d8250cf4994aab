"""LangChain's own middleware asks, by the session's mapping; the session allows calls that it has asked about."""

from __future__ import annotations

from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from examples.scripted import ScriptedModel, turn
from langchain_daytona_ws import (
    BashTool,
    InterruptApprover,
    MiddlewareApprover,
    WorkspaceSession,
    WorkspaceToolkit,
)
from langchain_daytona_ws.errors import ConfigError
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
from tests.sample import sample

GO = {"messages": [("user", "go")]}


def agent_of(stage: Stage, session: WorkspaceSession, *calls: dict[str, Any], **middleware: Any) -> Any:
    return create_agent(
        ScriptedModel(script=[AIMessage("", tool_calls=list(calls)), turn("Done.")]),
        WorkspaceToolkit(session=session).get_tools(),
        middleware=[HumanInTheLoopMiddleware(interrupt_on=session.interrupt_on(), **middleware)],
        checkpointer=stage.saver,
    )


CALLS = (
    bash("approved", "echo approved >> log; echo ran"),
    bash("edited", "echo wrong >> log"),
    bash("refused", "echo wrong >> log"),
    bash("answered", "echo wrong >> log"),
    file("written", "write", path="a.txt", content="a\n"),
    file("listed", "list"),
    {"name": "bash_job", "args": {"action": "list"}, "id": "jobs", "type": "tool_call"},
)
ANSWERS = (
    APPROVE,
    {"type": "edit", "edited_action": {"name": "bash", "args": {"command": "echo edited >> log"}}},
    REJECT,
    {"type": "respond", "message": "mine"},
)


@pytest.mark.parametrize("mode", sample(["ask", "edit"], "ask"))
def test_the_middleware_asks_once_per_call(stage: Stage, mode: str) -> None:
    session = stage.session(approver=MiddlewareApprover(), permissionMode=mode)
    agent = agent_of(stage, session, *CALLS)
    (question,) = stage.questions(stage.do(agent, GO))
    actions = question.value["action_requests"]
    names = [*["bash"] * 4, *(["workspace_file"] if mode == "ask" else [])]
    assert [action["name"] for action in actions] == names
    assert actions[0]["description"] == "bash: echo approved >> log; echo ran"
    if mode == "ask":
        assert "+++ a.txt" in actions[4]["description"]
    assert stage.server.requests == []
    answers = answer_with(*ANSWERS, *([APPROVE] if mode == "ask" else []))
    state = stage.do(agent, Command(resume=answers))
    assert state["messages"][-1].content == "Done."
    reported = list(results(state).values())
    assert [message.status for message in reported if message.status == "error"] == ["error"]
    assert any(message.content == "mine" for message in reported)
    assert sorted(stage.see(session, "cat log a.txt").split()) == ["a", "approved", "edited"]


def test_in_bypass_there_is_nothing_to_ask(quick: Stage) -> None:
    for approver in (None, MiddlewareApprover(), InterruptApprover()):
        session = WorkspaceSession({"permissionMode": "bypass"}, namespace="demo", approver=approver)
        assert session.interrupt_on() == {}
    session = quick.session(approver=MiddlewareApprover(), permissionMode="bypass")
    state = quick.do(agent_of(quick, session, *CALLS), GO)
    assert {message.status for message in results(state).values()} == {"success"}


@pytest.mark.parametrize("approver", [None, lambda request: None, InterruptApprover()])
def test_two_approvers_for_one_call_are_refused(approver: Any) -> None:
    session = WorkspaceSession({}, namespace="demo", approver=approver)
    with pytest.raises(ConfigError, match=r"MiddlewareApprover\(\)"):
        session.interrupt_on()


def test_without_the_middleware_it_is_denied(quick: Stage, caplog: pytest.LogCaptureFixture) -> None:
    session = quick.session(approver=MiddlewareApprover())
    assert session.interrupt_on().keys() == {"bash", "workspace_file", "bash_job", "preview_url"}
    message = results(quick.do(quick.tool_node(session), calling(bash("one", "echo"))))["one"]
    assert message.status == "error"
    assert "no HumanInTheLoopMiddleware has asked about this call" in caplog.text
    assert quick.server.requests == []


MAKE = {"command": "echo ran >> log"}
EDIT = {"type": "edit", "edited_action": {"name": "bash", "args": {"command": "echo edited >> log"}}}
USELESS = {"type": "edit", "edited_action": {"name": "bash", "args": {"command": "echo", "timeout": -1}}}
RESPOND = {"type": "respond", "message": "mine"}
ELSEWHERE = {"type": "edit", "edited_action": {"name": "workspace_file", "args": {"action": "list"}}}


def same_ids(
    stage: Stage, session: WorkspaceSession, *, asks: bool = True, turns: int = 1, **more: Any
) -> Any:
    """Make an agent that makes the same call, with the same id, in each of its turns."""
    return create_agent(
        SameIds(script=[*[turn(bash=MAKE)] * turns, turn("Done.")]),
        WorkspaceToolkit(session=session).get_tools(),
        middleware=[HumanInTheLoopMiddleware(interrupt_on=session.interrupt_on())] if asks else [],
        **more,
    )


def statuses(state: dict[str, Any]) -> list[str]:
    return [message.status for message in state["messages"] if isinstance(message, ToolMessage)]


@pytest.mark.parametrize(
    ("decision", "log"),
    [(APPROVE, "ran\nran\n"), (EDIT, "edited\nran\n"), (REJECT, "ran\n"), (RESPOND, "ran\n")],
)
@pytest.mark.one_in(3)
def test_a_repeated_call_needs_a_new_approval(quick: Stage, decision: dict[str, Any], log: str) -> None:
    session = quick.session(approver=MiddlewareApprover())
    agent = same_ids(quick, session, turns=3, checkpointer=quick.saver)
    quick.do(agent, GO)
    for answer in (decision, REJECT, APPROVE):
        (question,) = quick.questions(quick.do(agent, None))
        assert question.value["action_requests"][0]["args"] == MAKE
        state = quick.do(agent, Command(resume=answer_with(answer)))
    assert statuses(state)[1:] == ["error", "success"]
    assert quick.see(session, "cat log") == log


@pytest.mark.parametrize("interrupt_mode", ["batched", "per_call"])
@pytest.mark.parametrize("decision", [None, APPROVE, EDIT, USELESS, ELSEWHERE, REJECT, RESPOND])
@pytest.mark.one_in(3)
def test_an_approval_counts_for_one_call(
    quick: Stage, interrupt_mode: str, decision: dict[str, Any] | None
) -> None:
    """An answer does not apply to the same call in another message, for which no middleware asks."""
    session = quick.session(approver=MiddlewareApprover())
    agent = agent_of(quick, session, bash("one", **MAKE), interrupt_mode=interrupt_mode)
    (question,) = quick.questions(quick.do(agent, GO))
    call_id = agent.get_state(quick.thread).values["messages"][-1].tool_calls[0]["id"]
    if decision in (USELESS, ELSEWHERE) and interrupt_mode == "per_call":
        return  # which the middleware itself refuses
    if decision is not None:
        answer = answer_with(decision) if interrupt_mode == "batched" else decision
        quick.do(agent, Command(resume={question.id: answer}))
    before = quick.server.count("execute")
    again = quick.do(quick.tool_node(session), calling(bash(call_id, **MAKE)))
    assert again["messages"][-1].tool_call_id == call_id
    assert again["messages"][-1].status == "error"
    assert quick.server.count("execute") == before


def test_an_edit_that_makes_another_tool_s_call_is_named_as_one(
    quick: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    session = quick.session(approver=MiddlewareApprover())
    agent = agent_of(quick, session, bash("one", **MAKE))
    quick.do(agent, GO)
    args = {"action": "write", "path": "a.txt", "content": "a"}
    edit = {"type": "edit", "edited_action": {"name": "workspace_file", "args": args}}
    (message,) = results(quick.do(agent, Command(resume=answer_with(edit)))).values()
    assert message.status == "error"
    assert "asked about a call of bash, and an edit changed it to a call of workspace_file" in caplog.text
    assert quick.server.requests == []


def test_a_tool_with_another_name_is_denied_with_the_reason(
    quick: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    session = quick.session(approver=MiddlewareApprover())
    agent = create_agent(
        ScriptedModel(script=[calling({**bash("one", **MAKE), "name": "sh"})["messages"][0], turn("Done.")]),
        [BashTool(session=session, name="sh")],
        middleware=[HumanInTheLoopMiddleware(interrupt_on=session.interrupt_on())],
    )
    (message,) = results(quick.do(agent, GO)).values()
    assert message.status == "error"
    assert "an edit" not in caplog.text
    assert "its tools their default names" in caplog.text


@pytest.mark.parametrize("interrupt_mode", ["batched", "per_call"])
def test_a_question_without_an_answer_counts_for_nothing(quick: Stage, interrupt_mode: str) -> None:
    """The answer does not apply if another graph, without the middleware, continues the thread."""
    session = quick.session(approver=MiddlewareApprover())
    agent = agent_of(quick, session, bash("one", **MAKE), interrupt_mode=interrupt_mode)
    assert len(quick.questions(quick.do(agent, GO))) == 1
    (message,) = results(quick.do(quick.tool_node(session), {"messages": []})).values()
    assert message.status == "error"
    assert quick.server.requests == []


def test_an_approval_counts_for_one_thread(quick: Stage) -> None:
    session = quick.session(approver=MiddlewareApprover())
    agent = same_ids(quick, session, checkpointer=quick.saver)
    other = {"configurable": {"thread_id": "other"}}
    quick.do(agent, GO)
    quick.do(agent, GO, other)
    quick.do(agent, Command(resume=answer_with(REJECT)))
    assert statuses(quick.do(agent, Command(resume=answer_with(APPROVE)), other)) == ["success"]
    third = {"configurable": {"thread_id": "third"}}
    message = quick.do(quick.tool_node(session), calling(bash("call_1", **MAKE)), third)["messages"][-1]
    assert message.status == "error"
    assert quick.see(session, "cat log") == "ran\n"


@pytest.mark.parametrize(("decision", "status"), [(APPROVE, "success"), (EDIT, "success"), (REJECT, "error")])
def test_one_agent_s_approval_is_not_another_s(quick: Stage, decision: dict[str, Any], status: str) -> None:
    """In one thread and one conversation, with one session; the second agent's middleware was left out."""
    session = quick.session(approver=MiddlewareApprover())
    asking, silent = same_ids(quick, session), same_ids(quick, session, asks=False, turns=3)
    rounds = StateGraph(MessagesState).add_node("asking", asking).add_node("silent", silent)
    graph = rounds.add_edge(START, "asking").add_edge("asking", "silent").compile(checkpointer=quick.saver)
    quick.do(graph, GO)
    state = quick.do(graph, Command(resume=answer_with(decision)))
    assert statuses(state) == [status, "error"]
    expected = {"approve": "ran\n", "edit": "edited\n", "reject": ""}[decision["type"]]
    assert quick.see(session, "cat log 2> /dev/null") == expected


def test_agents_side_by_side_are_each_let_through(quick: Stage) -> None:
    """Their calls have the same ids."""
    session = quick.session(approver=MiddlewareApprover())
    graph: Any = StateGraph(MessagesState)
    for name in ("first", "second", "third"):
        graph = graph.add_node(name, same_ids(quick, session)).add_edge(START, name)
    graph = graph.compile(checkpointer=quick.saver)
    questions = quick.questions(quick.do(graph, GO))
    assert len(questions) == 3
    answers = dict(zip((item.id for item in questions), (APPROVE, APPROVE, REJECT), strict=True))
    state = quick.do(graph, Command(resume={key: answer_with(answer) for key, answer in answers.items()}))
    assert sorted(statuses(state)) == ["error", "success", "success"]
    assert quick.see(session, "cat log") == "ran\nran\n"


def test_asking_call_by_call(stage: Stage) -> None:
    session = stage.session(approver=MiddlewareApprover())
    agent = agent_of(stage, session, *CALLS[:4], interrupt_mode="per_call")
    questions = stage.questions(stage.do(agent, GO))
    by_command = dict(zip((call["args"]["command"] for call in CALLS[:1]), ANSWERS[:1], strict=True))
    answers = {item.id: by_command.get(item.value["args"]["command"], REJECT) for item in questions}
    assert len(answers) == 4
    state = stage.do(agent, Command(resume=answers))
    assert sorted(message.status for message in results(state).values()) == ["error"] * 3 + ["success"]
    assert stage.see(session, "cat log") == "approved\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_deep_agent_asks_by_the_mapping(quick: Stage) -> None:
    session = quick.session(approver=MiddlewareApprover())
    agent = create_deep_agent(
        model=ScriptedModel(script=[AIMessage("", tool_calls=list(CALLS[:3])), turn("Done.")]),
        tools=WorkspaceToolkit(session=session).get_tools(),
        interrupt_on=session.interrupt_on(),
        checkpointer=quick.saver,
    )
    (question,) = quick.questions(quick.do(agent, GO))
    assert len(question.value["action_requests"]) == 3
    assert quick.server.requests == []
    quick.do(agent, Command(resume=answer_with(*ANSWERS[:3])))
    assert sorted(quick.see(session, "cat log").split()) == ["approved", "edited"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_deep_agent_and_its_helper_ask_by_interrupts_of_the_tools(quick: Stage) -> None:
    session = quick.session()
    tools = WorkspaceToolkit(session=session).get_tools()
    helper = {
        "name": "helper",
        "description": "Helps.",
        "system_prompt": "Help.",
        "model": ScriptedModel(script=[turn(bash={"command": "echo helper >> log"}), turn("Helped.")]),
        "tools": tools,
    }
    script = [
        turn(task={"description": "help", "subagent_type": "helper"}),
        turn(bash={"command": "cat log"}),
        turn("Done."),
    ]
    agent: Any = create_deep_agent(
        model=ScriptedModel(script=script),
        tools=tools,
        subagents=[helper],
        checkpointer=quick.saver,  # type: ignore[list-item]
    )
    state, asked = quick.answer_all(agent, quick.do(agent, GO), lambda action: APPROVE)
    assert [action["args"]["command"] for action in asked] == ["echo helper >> log", "cat log"]
    assert "helper\n[exit code 0]" in [message.text for message in results(state).values()]
