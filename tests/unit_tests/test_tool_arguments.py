"""Arguments as models and approvers really send them: what they mean, and one answer with all that is wrong."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import ValidationError

from langchain_daytona_ws import PermissionDecision, PermissionRequest, WorkspaceSession, WorkspaceToolkit
from langchain_daytona_ws.permissions import AnswerUnusable
from langchain_daytona_ws.tools.arguments import ToolInput, explain
from langchain_daytona_ws.tools.bash import BashInput
from langchain_daytona_ws.tools.files import FileInput
from langchain_daytona_ws.tools.jobs import JobInput

REQUIRED: dict[type[ToolInput], dict[str, Any]] = {
    BashInput: {"command": "true"},
    FileInput: {"action": "list"},
    JobInput: {"action": "list"},
}
OPTIONAL = [
    (model, name)
    for model in REQUIRED
    for name, field in model.model_fields.items()
    if not field.is_required()
]


def refusal(model: type[ToolInput], **given: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(given)
    text = explain(raised.value)
    assert text.startswith("[bad_arguments] Nothing was done. ")
    return text.removeprefix("[bad_arguments] Nothing was done. ")


class TestLeftOut:
    @pytest.mark.parametrize(("model", "name"), OPTIONAL)
    @pytest.mark.parametrize("nothing", [None, ""])
    def test_null_and_the_empty_string_mean_the_default(
        self, model: type[ToolInput], name: str, nothing: str | None
    ) -> None:
        plain = REQUIRED[model]
        made = model.model_validate({**plain, name: nothing})
        if nothing == "" and name in {"content", "old_string", "new_string"}:
            assert getattr(made, name) == ""
        else:
            assert made == model.model_validate(plain)

    @pytest.mark.parametrize("model", REQUIRED)
    def test_all_of_them_at_once_as_strict_schemas_make_models_send_them(
        self, model: type[ToolInput]
    ) -> None:
        nothing = {name: None for of, name in OPTIONAL if of is model}
        assert model.model_validate({**REQUIRED[model], **nothing}) == model.model_validate(REQUIRED[model])

    def test_what_an_operation_needs_is_not_optional(self) -> None:
        assert refusal(FileInput, action="write", path="", content=None) == (
            "path: write needs it; content: write needs it"
        )
        assert refusal(JobInput, action="stop", job_id="") == "job_id: stop needs it"
        assert "job_id" not in refusal(JobInput, command="list").partition("; arguments:")[0]
        assert "command: " in refusal(BashInput, command=None)

    @pytest.mark.parametrize("nothing", [None, False])
    def test_what_only_other_tools_have_is_ignored_where_it_asks_for_nothing(
        self, nothing: bool | None
    ) -> None:
        for model, names in {
            BashInput: ["restart", "run_in_background", "dangerouslyDisableSandbox", "is_input", "workdir"],
            FileInput: [
                "view_range",
                "-i",
                "-n",
                "-A",
                "head_limit",
                "multiline",
                "type",
                "expected_replacements",
            ],
            JobInput: ["block", "filter", "timeout"],
        }.items():
            given = {**REQUIRED[model], **dict.fromkeys(names, nothing)}
            assert model.model_validate(given) == model.model_validate(REQUIRED[model])

    def test_what_is_done_anyway_may_be_asked_for(self) -> None:
        assert FileInput.model_validate({"action": "grep", "pattern": "a", "-n": True}).pattern == "a"

    def test_unknown_arguments_are_never_ignored(self) -> None:
        assert "zork: there is no such argument" in refusal(BashInput, command="true", zork=None)


class TestUnknown:
    @pytest.mark.parametrize(
        ("model", "name", "intended"),
        [
            (BashInput, "cmd", "use command"),
            (BashInput, "run_in_background", "use background"),
            (BashInput, "timeout_ms", "use timeout, in seconds"),
            (BashInput, "cwd", "put cd in the command"),
            (BashInput, "restart", "each call is a new shell"),
            (FileInput, "file_path", "use path"),
            (FileInput, "filePath", "use path"),
            (FileInput, "old_str", "use old_string"),
            (FileInput, "oldString", "use old_string"),
            (FileInput, "file_text", "use content"),
            (FileInput, "view_range", "use offset and limit"),
            (FileInput, "-i", "use ignore_case"),
            (FileInput, "-A", "use context"),
            (FileInput, "patern", "use pattern"),
            (FileInput, "command", "use action"),
            (JobInput, "bash_id", "use job_id"),
            (JobInput, "command", "use action"),
        ],
    )
    def test_an_unknown_argument_names_the_intended_and_the_valid_ones(
        self, model: type[ToolInput], name: str, intended: str
    ) -> None:
        output = refusal(model, **{**REQUIRED[model], name: "x"})
        assert f"{name}: there is no such argument, {intended}; " in output
        assert output.endswith("arguments: the valid ones are " + ", ".join(model.model_fields))

    def test_all_problems_at_once(self) -> None:
        output = refusal(FileInput, action="str_replace", file_path="a", old_str="b", limit="many")
        assert output.split("; ")[:2] == [
            "file_path: there is no such argument, use path",
            "old_str: there is no such argument, use old_string",
        ]
        for part in ("use edit", "limit: Input should be a valid integer", "new_string: edit needs it"):
            assert part in output
        # They are there, under other names.
        assert "path: edit needs it" not in output
        assert "old_string: edit needs it" not in output

    def test_of_many_some_are_named_and_no_value_is_quoted(self) -> None:
        output = refusal(BashInput, **{f"x{number}": "s3cret" for number in range(5000)})
        assert output.count("no such argument") == 10
        assert "s3cret" not in output
        hostile = refusal(FileInput, **{"action": "s3cret", "\x1b[2J\u202e" + "y" * 500: {"a": ["s3cret"]}})
        assert "s3cret" not in hostile
        assert "\x1b" not in hostile
        assert len(hostile) < 600

    def test_an_operation_by_another_tool_s_name(self) -> None:
        for name, here in {"view": "read", "str_replace": "edit", "create": "write", "ls": "list"}.items():
            assert f"; use {here}" in refusal(FileInput, action=name, path="a", content="b")
        assert "; use logs" in refusal(JobInput, action="output", job_id="abcd2345")


class TestTimeout:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"timeout": 601}, ["in seconds", "at most 600", "background: true at most 3600"]),
            (
                {"timeout": 120_000},
                ["in seconds", "at most 600", "120000 looks like milliseconds", "120 seconds"],
            ),
            ({"timeout": 1500}, ["looks like milliseconds, which are 1.5 seconds"]),
            (
                {"timeout": 60_000, "background": True},
                [
                    "in seconds",
                    "at most 3600",
                    "60000 looks like milliseconds, which are 60 seconds",
                    "hours",
                ],
            ),
            (
                {"timeout": 7200, "background": True},
                ["in seconds", "at most 3600", "give hours in its place"],
            ),
            (
                {"timeout": 7_200_000, "background": True},
                ["looks like milliseconds, which are 2 hours", "give hours"],
            ),
            ({"timeout": True}, ["a number is needed"]),
            ({"timeout": 0}, ["in seconds", "above 0"]),
            ({"timeout": float("nan")}, ["above 0"]),
            ({"timeout": float("inf"), "background": True}, ["at most 3600"]),
            ({"timeout": 10**400}, ["timeout: in seconds, above 0 and at most 600"]),
            ({"timeout": -(10**400), "background": True}, ["timeout: in seconds, above 0 and at most 3600"]),
            ({"timeout": 10**400, "pty": []}, ["timeout: in seconds, above 0 and at most 600"]),
            ({"hours": 10**400, "background": True}, ["hours: above 0 and at most 24"]),
            ({"hours": 25, "background": True}, ["hours: above 0 and at most 24"]),
            ({"hours": 2}, ["hours: only with background: true"]),
            ({"hours": 2, "timeout": 5, "background": True}, ["give timeout or hours, not both"]),
        ],
    )
    def test_one_message_says_unit_limit_and_what_was_likely_meant(
        self, given: dict[str, Any], expected: list[str]
    ) -> None:
        output = refusal(BashInput, command="true", **given)
        for part in expected:
            assert part in output
        assert output.count("timeout: ") <= 1

    @pytest.mark.parametrize("given", [{"timeout": 7200, "background": True}, {"timeout": 900}])
    def test_seconds_are_not_taken_for_milliseconds(self, given: dict[str, Any]) -> None:
        assert "milliseconds" not in refusal(BashInput, command="true", **given)

    def test_the_limits_themselves_are_allowed(self) -> None:
        for given in (
            {"timeout": 600},
            {"timeout": 3600, "background": True},
            {"hours": 24, "background": True},
            {"hours": 1.5, "background": True, "timeout": None},
        ):
            BashInput.model_validate({"command": "true", **given})


class TestCommand:
    @pytest.mark.parametrize(
        ("sent", "run"),
        [
            ("echo a\r\necho b\r\n", "echo a\necho b\n"),
            ("cat <<E\r\na\r\nE\r", "cat <<E\na\nE"),
            ("printf 'a\r\n'\necho b", "printf 'a\r\n'\necho b"),
            ("printf 'a\rb'", "printf 'a\rb'"),
        ],
    )
    def test_lines_that_all_end_in_crlf(self, sent: str, run: str) -> None:
        assert BashInput.model_validate({"command": sent}).command == run


class TestContent:
    @pytest.mark.parametrize("content", [{"a": [1, {"ż": None}]}, [], {}])
    def test_an_object_is_written_as_json_into_a_json_file(self, content: Any) -> None:
        text = FileInput.model_validate({"action": "write", "path": "x/a.JSON", "content": content}).content
        assert text is not None
        assert text == json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def test_an_object_for_another_file_is_refused(self) -> None:
        output = refusal(FileInput, action="write", path="a.py", content={"a": 1})
        assert output == (
            "content: the text of the file, as one string; only for a path that ends in .json also an object"
        )

    @pytest.mark.parametrize("content", [{"a": float("nan")}, "deep"])
    def test_what_is_no_json_is_refused(self, content: Any) -> None:
        if content == "deep":
            content = []
            for _ in range(100_000):
                content = [content]
        assert "JSON" in refusal(FileInput, action="write", path="a.json", content=content)

    def test_the_approver_sees_the_written_content(self) -> None:
        request = PermissionRequest.for_file(
            "write", {"path": "a.json", "content": {"a": 1}}, namespace="demo"
        )
        assert request.diff is not None
        assert '+  "a": 1' in request.diff


def answered(
    arguments: dict[str, Any], answer: PermissionDecision | None = None, name: str = "bash"
) -> ToolMessage:
    """Make one call in a graph, without a reachable server."""
    with WorkspaceSession(
        {"permissionMode": "bypass" if answer is None else "ask"},
        namespace="demo",
        approver=None if answer is None else lambda request: answer,
    ) as session:
        graph: Any = StateGraph(MessagesState).add_node(
            "tools", ToolNode(WorkspaceToolkit(session=session).get_tools(), handle_tool_errors=False)
        )
        call = {"name": name, "args": arguments, "id": "call_1", "type": "tool_call"}
        state = (
            graph.add_edge(START, "tools").compile().invoke({"messages": [AIMessage("", tool_calls=[call])]})
        )
    message = state["messages"][-1]
    assert isinstance(message, ToolMessage)
    assert message.status == "error"
    return message


@pytest.mark.parametrize("name", ["bash", "workspace_file", "bash_job"])
@pytest.mark.parametrize(
    "given",
    [{}, {"zork": object()}, {"command": {}}, {"": 1}, {"action": [], "command": b"x"}, {"command": "\ud800", "x": 1}],
)  # fmt: skip
def test_a_call_that_fails_validation_does_not_end_the_graph(name: str, given: dict[str, Any]) -> None:
    assert answered(given, name=name).text.startswith("[bad_arguments]")


class TestEdited:
    """The arguments that a human edited are read in the same way, and the log says what was wrong with them."""

    def test_nulls_mean_defaults(self) -> None:
        edited = {"command": "pwd", "timeout": None, "background": None, "description": ""}
        assert BashInput.from_edit(edited) == BashInput(command="pwd")

    def test_the_reason_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        edit = PermissionDecision.allow_edited({"cmd": "s3cret", "timeout": 120_000})
        with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
            message = answered({"command": "ls"}, edit)
        assert message.text.startswith(
            "[malformed_answer] The user changed this call in a way that is not valid"
        )
        assert "cmd: there is no such argument, use command" in caplog.text
        assert "120000 looks like milliseconds" in caplog.text
        assert "s3cret" not in caplog.text

    def test_the_error_is_one_of_an_answer(self) -> None:
        with pytest.raises(AnswerUnusable, match="path: delete needs it"):
            FileInput.from_edit({"action": "delete"})
