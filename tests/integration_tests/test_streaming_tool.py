"""The bash tool's output in LangGraph's custom stream, and what tracers record of its runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.tracers.schemas import Run
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langsmith import Client

from examples.scripted import ScriptedModel, turn
from langchain_daytona_ws import BashTool, PermissionDecision, WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws.local import LocalDaytona
from tests.integration_tests.conftest import Driven, config_for
from tests.integration_tests.test_streaming import touch, wait_for

OpenSession = Callable[..., Driven]


def agent(tool: BashTool, *commands: str) -> Any:
    model = ScriptedModel(script=[*(turn(bash={"command": command}) for command in commands), turn("Done.")])
    return create_agent(model, [tool])


def streamed(workspace: Driven, graph: Any, on_part: Callable[[Any], None], **options: Any) -> None:
    """Stream a run of a graph over the face that the test is over."""
    output = {"messages": [("user", "go")]}

    async def work() -> None:
        async for part in graph.astream(output, **options):
            on_part(part)

    if workspace.runner is not None:
        workspace.runner.run(work())
        return
    for part in graph.stream(output, **options):
        on_part(part)


class Chunks:
    """The dicts that came; the command goes on when a text has been seen."""

    def __init__(self, server: LocalDaytona, **answers: str) -> None:
        self.dicts: list[dict[str, Any]] = []
        self._server = server
        self._answers = answers

    def __call__(self, chunk: dict[str, Any]) -> None:
        self.dicts.append(chunk)
        for output, name in list(self._answers.items()):
            if output in self.text:
                del self._answers[output]
                touch(self._server, name)

    @property
    def text(self) -> str:
        return "".join(chunk["text"] for chunk in self.dicts)


COMMAND = f"echo one; {wait_for('go1')}; echo two"


class TestCustomStream:
    def test_an_agent_hands_on_output_while_the_command_runs(
        self, server: LocalDaytona, workspace: Driven
    ) -> None:
        chunks, messages = Chunks(server, one="go1"), []

        def take(part: Any) -> None:
            mode, payload = part
            if mode == "custom":
                chunks(payload)
            elif "tools" in payload:
                messages.extend(payload["tools"]["messages"])

        streamed(workspace, agent(workspace.bash, COMMAND), take, stream_mode=["custom", "updates"])
        (message,) = messages
        assert chunks.text == message.artifact["output"] == "one\ntwo\n"
        assert len(chunks.dicts) >= 2
        assert [chunk["offset"] for chunk in chunks.dicts][:2] == [0, 4]
        for chunk in chunks.dicts:
            assert set(chunk) == {"type", "tool_call_id", "sandbox_id", "offset", "text"}
            assert chunk["type"] == "bash_output"
            assert chunk["tool_call_id"] == message.tool_call_id
            assert chunk["sandbox_id"] == message.artifact["sandbox_id"]

    def test_parallel_calls_are_told_apart(self, server: LocalDaytona, workspace: Driven) -> None:
        calls = [
            {"name": "bash", "args": {"command": f"echo left; {wait_for('right')}"}, "id": "l"},
            {"name": "bash", "args": {"command": f"echo right; {wait_for('left')}"}, "id": "r"},
        ]
        written = turn("")
        written.tool_calls.extend({**call, "type": "tool_call"} for call in calls)  # type: ignore[typeddict-item]
        graph = create_agent(ScriptedModel(script=[written, turn("Done.")]), [workspace.bash])
        chunks = Chunks(server, left="left", right="right")
        streamed(workspace, graph, chunks, stream_mode="custom")
        texts = {chunk["tool_call_id"]: chunk["text"] for chunk in chunks.dicts}
        assert sorted(texts.values()) == ["left\n", "right\n"]

    def test_a_subgraph_streams(self, server: LocalDaytona, workspace: Driven) -> None:
        outer = StateGraph(MessagesState)
        outer.add_node("inner", agent(workspace.bash, COMMAND))
        outer.add_edge(START, "inner")
        chunks = Chunks(server, one="go1")

        def take(part: Any) -> None:
            _namespace, chunk = part
            chunks(chunk)

        streamed(workspace, outer.compile(), take, stream_mode="custom", subgraphs=True)
        assert chunks.text == "one\ntwo\n"

    def test_a_tool_node_without_a_graph_streams(self, server: LocalDaytona, workspace: Driven) -> None:
        graph = StateGraph(MessagesState)
        graph.add_node("model", lambda state: {"messages": [_called(COMMAND)]})
        graph.add_node("tools", ToolNode([workspace.bash]))
        graph.add_edge(START, "model")
        graph.add_edge("model", "tools")
        chunks = Chunks(server, one="go1")
        streamed(workspace, graph.compile(), chunks, stream_mode="custom")
        assert chunks.text == "one\ntwo\n"
        assert {chunk["tool_call_id"] for chunk in chunks.dicts} == {"call_1"}

    @pytest.mark.parametrize(
        "options", [{"stream_mode": "updates"}, {"stream_mode": "values", "subgraphs": True}]
    )
    def test_without_a_listener_a_command_is_one_request(
        self, server: LocalDaytona, workspace: Driven, options: dict[str, Any]
    ) -> None:
        workspace.run("true")
        server.clear_requests()
        # Longer than it takes to begin to look.
        streamed(workspace, agent(workspace.bash, "sleep 0.6; echo one"), lambda part: None, **options)
        assert [request.action for request in server.requests] == ["execute"]

    def test_outside_of_a_graph_there_is_no_polling(self, server: LocalDaytona, workspace: Driven) -> None:
        workspace.run("true")
        server.clear_requests()
        assert workspace.call(workspace.bash, command="sleep 0.6; echo one").artifact["output"] == "one\n"
        assert [request.action for request in server.requests] == ["execute"]

    @pytest.mark.full
    def test_a_program_without_langgraph_does_the_same(self, server: LocalDaytona) -> None:
        program = f"""
import sys
sys.modules["langgraph"] = None  # as where it is not installed
from langchain_daytona_ws import BashTool, WorkspaceSession
options = {{"apiKey": {server.api_key!r}, "apiUrl": {server.api_url!r}}}
with WorkspaceSession({{"permissionMode": "bypass", "options": options}}, namespace="demo") as session:
    got = []
    tool = BashTool(session=session, on_output=got.append)
    call = {{"type": "tool_call", "id": "c", "name": "bash", "args": {{"command": "echo one; echo two"}}}}
    tool.invoke(call)
    import json
    print(json.dumps([got, sorted(name for name in sys.modules if name.startswith("langgraph."))]))
"""
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        got, loaded = json.loads(ran.stdout)
        assert "".join(chunk["text"] for chunk in got) == "one\ntwo\n"
        assert loaded == []


def _called(command: str) -> Any:
    message = turn("", bash={"command": command})
    message.tool_calls[0]["id"] = "call_1"
    return message


class TestTheToolsOwnCallback:
    def test_it_gets_the_same_dicts(self, server: LocalDaytona, workspace: Driven) -> None:
        chunks = Chunks(server, one="go1")
        tool = WorkspaceToolkit(session=workspace.session, on_output=chunks).get_tools()[0]
        message = workspace.call(tool, tool_call_id="call_7", command=COMMAND)
        assert chunks.text == message.artifact["output"] == "one\ntwo\n"
        assert {chunk["tool_call_id"] for chunk in chunks.dicts} == {"call_7"}

    def test_it_and_the_stream_are_both_told(self, server: LocalDaytona, workspace: Driven) -> None:
        own, stream = Chunks(server), Chunks(server, one="go1")
        tool = BashTool(session=workspace.session, on_output=own)
        streamed(workspace, agent(tool, COMMAND), stream, stream_mode="custom")
        assert own.dicts == stream.dicts
        assert own.text == "one\ntwo\n"

    def test_it_is_in_no_dump_of_the_tool(self, workspace: Driven) -> None:
        tool = BashTool(session=workspace.session, on_output=print)
        assert "on_output" not in tool.model_dump()
        assert "on_output" not in repr(tool)


class Recorder(BaseTracer):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


class AsyncRecorder(AsyncBaseTracer):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    async def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


def tool_runs(runs: list[Run]) -> list[Run]:
    found = [run for run in runs if run.run_type == "tool"]
    return found + [inner for run in runs for inner in tool_runs(run.child_runs)]


def called(workspace: Driven, config: RunnableConfig, tool: Any = None, **args: Any) -> Any:
    tool = tool or workspace.bash
    return workspace.invoke(tool, {"type": "tool_call", "id": "c1", "name": "bash", "args": args}, config)


class TestRunMetadata:
    def test_of_a_command(self, server: LocalDaytona, workspace: Driven) -> None:
        tracer, collector = Recorder(), RunCollectorCallbackHandler()
        config: RunnableConfig = {"callbacks": [tracer, collector], "metadata": {"mine": 1}}
        message = called(workspace, config, command="echo secret-output; exit 3")
        for runs in (tracer.runs, collector.traced_runs):
            (run,) = tool_runs(runs)
            metadata = run.extra["metadata"]
            assert metadata.pop("mine") == 1
            assert metadata == {
                "exit_code": 3,
                "duration_s": message.artifact["duration_s"],
                "sandbox_id": workspace.session.sandbox_id,
            }
        assert config["metadata"] == {"mine": 1}

    def test_each_run_in_an_agent_has_its_own(self, server: LocalDaytona, workspace: Driven) -> None:
        tracer = Recorder()
        graph = agent(workspace.bash, "exit 1", "exit 2")
        streamed(workspace, graph, lambda part: None, config={"callbacks": [tracer]})
        runs = tool_runs(tracer.runs)
        assert [run.extra["metadata"]["exit_code"] for run in runs] == [1, 2]
        others = [run for root in tracer.runs for run in _all(root) if run.run_type != "tool"]
        assert others
        assert not any("exit_code" in (run.extra.get("metadata") or {}) for run in others)

    def test_an_async_tracer_has_it_too(self, server: LocalDaytona) -> None:
        tracer = AsyncRecorder()

        async def work() -> None:
            async with WorkspaceSession(config_for(server), namespace="demo") as session:
                call = {"type": "tool_call", "id": "c1", "name": "bash", "args": {"command": "exit 4"}}
                await BashTool(session=session).ainvoke(call, {"callbacks": [tracer]})

        asyncio.run(work())
        (run,) = tool_runs(tracer.runs)
        assert run.extra["metadata"]["exit_code"] == 4

    def test_langsmith_is_sent_it(self, server: LocalDaytona, workspace: Driven) -> None:
        received: list[dict[str, Any]] = []

        class LangSmith(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer()

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer()

            def _answer(self) -> None:
                self.send_response(202)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: Any) -> None:
                return None

        with ThreadingHTTPServer(("127.0.0.1", 0), LangSmith) as there:
            thread = threading.Thread(target=there.serve_forever)
            thread.start()
            try:
                url = f"http://127.0.0.1:{there.server_port}"
                client = Client(api_url=url, api_key="none", auto_batch_tracing=False)
                called(workspace, {"callbacks": [LangChainTracer(client=client)]}, command="exit 3")
            finally:
                client.session.close()
                there.shutdown()
                thread.join()
        (run,) = received
        assert run["extra"]["metadata"]["exit_code"] == 3
        assert run["extra"]["metadata"]["sandbox_id"] == workspace.session.sandbox_id

    def test_what_was_special(self, server: LocalDaytona, open_session: OpenSession) -> None:
        tracer = Recorder()
        driven = open_session(server, onTimeout="background")
        config: RunnableConfig = {"callbacks": [tracer]}
        first = called(driven, config, command="sleep 300", timeout=1)
        again = called(driven, config, command="sleep 300", timeout=1)
        job = called(driven, config, command="sleep 300", background=True)
        metadata = [run.extra["metadata"] for run in tool_runs(tracer.runs)]
        assert metadata[0]["job_id"] == metadata[1]["job_id"] == first.artifact["job_id"]
        assert metadata[0]["timed_out"] is True
        assert "from_record" not in metadata[0]
        assert metadata[1]["from_record"] is again.artifact["from_record"] is True
        assert metadata[2] == {"job_id": job.artifact["id"], "sandbox_id": driven.session.sandbox_id}

    def test_of_what_was_refused(self, server: LocalDaytona, open_session: OpenSession) -> None:
        tracer = Recorder()
        driven = open_session(
            server, permissionMode="ask", approver=lambda request: PermissionDecision.deny("no")
        )
        message = called(driven, {"callbacks": [tracer]}, command="rm -rf /tmp/x")
        assert message.status == "error"
        (run,) = tool_runs(tracer.runs)
        assert run.extra["metadata"] == {"error_code": "denied"}


def _all(run: Run) -> list[Run]:
    return [run, *(inner for child in run.child_runs for inner in _all(child))]
