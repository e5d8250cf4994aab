"""The gate's result for an approver's answer, error or invalid value."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from langchain_daytona_ws._approval.gate import APPROVAL_TIMEOUT_S, ApprovalGate
from langchain_daytona_ws._approval.verdict import Approval
from langchain_daytona_ws.permissions import AnswerUnusable, PermissionDecision, PermissionRequest
from tests.unit_tests.approval.conftest import ALLOW, Check, bash, denial, only_command, remembered


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
        "The user changed this call before allowing it. Changed arguments: "
        'command = "ls \\"a\\"\\u001b"; timeout removed.'
    )


def test_an_edit_that_changes_nothing_is_ignored(check: Check) -> None:
    gate = ApprovalGate("ask", lambda request: PermissionDecision.allow_edited(request.arguments))
    assert check(gate, bash(), only_command) == Approval(bash().arguments)


def test_a_null_in_an_edit_is_no_argument(check: Check) -> None:
    nulls = {"timeout": None, "background": None}
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "ls", **nulls}))
    assert check(gate, bash(), only_command) == Approval(bash().arguments)
    request = PermissionRequest.for_bash("ls", namespace="demo", arguments={"timeout": 5})
    approval = check(gate, request, only_command)
    assert approval.arguments == {"command": "ls"}
    assert (
        approval.note == "The user changed this call before allowing it. Changed arguments: timeout removed."
    )


@pytest.mark.parametrize("arguments", [{}, {"command": 1}, {"command": "ls", "more": 1}])
def test_an_invalid_edit_denies(
    check: Check, arguments: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited(arguments))
    with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
        error = denial(check, gate, bash(), only_command)
    assert error.code == "malformed_answer"
    assert "not valid" in error.for_model
    assert "the edited arguments are not valid: ValueError" in caplog.text
    assert "tok3n" not in error.message + error.for_model + caplog.text


def test_the_reason_why_an_edit_is_invalid_is_logged_where_it_is_safe(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    def validate(_: Any) -> None:
        raise AnswerUnusable("timeout: above 0")

    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "pwd"}))
    with caplog.at_level(logging.WARNING, "langchain_daytona_ws"):
        error = denial(check, gate, bash(), validate)
    assert "the edited arguments are not valid: timeout: above 0" in error.message
    assert "timeout: above 0" in caplog.text
    assert "above 0" not in error.for_model


def test_an_edit_that_can_not_be_validated_denies(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"command": "ls -l"}))
    assert denial(check, gate, bash()).code == "malformed_answer"


def test_an_edit_can_not_make_another_operation(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_edited({"action": "delete", "path": "a"}))
    arguments = {"action": "write", "path": "a", "content": ""}
    request = PermissionRequest.for_file("write", arguments, namespace="demo", tool_call_id="call_1")
    assert denial(check, gate, request, dict).code == "malformed_answer"


def test_allow_always_is_asked_once(check: Check, as_approver: Any) -> None:
    asked: list[str] = []

    def approver(request: PermissionRequest) -> PermissionDecision:
        asked.append(request.command or "")
        return PermissionDecision.allow_always("prefix")

    gate = ApprovalGate("ask", as_approver(approver))
    for command in ("git status", "git status -s", "git status; git status", "git push"):
        check(gate, bash(command))
    assert asked == ["git status", "git push"]
    assert remembered(gate).rules() == ("bash prefix: git status", "bash prefix: git push")


def test_no_prefix_to_remember_allows_once(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_always("prefix"))
    check(gate, bash("sudo ls"))
    assert remembered(gate).rules() == ()


def test_a_prefix_for_a_file_denies(check: Check) -> None:
    gate = ApprovalGate("ask", lambda _: PermissionDecision.allow_always("prefix"))
    request = PermissionRequest.for_file("delete", {"path": "a"}, namespace="demo", tool_call_id="call_1")
    assert denial(check, gate, request).code == "malformed_answer"
