"""The table, the request's safe summary and diff, the decisions, and what is remembered."""

from __future__ import annotations

import json
import threading
from dataclasses import FrozenInstanceError
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws.permissions import (
    PermissionDecision,
    PermissionRequest,
    RememberedApprovals,
    argument_text,
    legible,
    needs_approval,
)
from langchain_daytona_ws.permissions.decision import Scope
from langchain_daytona_ws.permissions.request import MAX_SUMMARY_CHARS

BIDI = "\u202e"
ZERO_WIDTH = "\u200b"


def bash(command: str, **arguments: object) -> PermissionRequest:
    return PermissionRequest.for_bash(command, namespace="demo", arguments=arguments)


def file(action: str, **arguments: object) -> PermissionRequest:
    return PermissionRequest.for_file(action, arguments, namespace="demo")


def covers(remembered: RememberedApprovals, request: PermissionRequest) -> bool:
    return remembered.covers(request.tool, request.action, request.arguments)


@pytest.mark.parametrize(
    ("tool", "action", "asks_in"),
    [
        ("workspace_file", "read", set()),
        ("workspace_file", "list", set()),
        ("workspace_file", "glob", set()),
        ("workspace_file", "grep", set()),
        ("workspace_file", "write", {"ask"}),
        ("workspace_file", "edit", {"ask"}),
        ("workspace_file", "delete", {"ask"}),
        ("bash", "run", {"ask", "edit"}),
        ("bash_job", "status", set()),
        ("bash_job", "stop", {"ask", "edit"}),
        ("workspace_file", "chmod", {"ask", "edit"}),
        ("bash", "read", {"ask", "edit"}),
        ("unheard_of", "read", {"ask", "edit"}),
    ],
)
def test_the_permission_table(tool: str, action: str, asks_in: set[str]) -> None:
    for mode in ("ask", "edit", "bypass"):
        assert needs_approval(cast("Any", mode), tool, action) == (mode in asks_in), mode


def test_an_unknown_mode_asks() -> None:
    assert needs_approval(cast("Any", "bypas"), "workspace_file", "write")
    assert needs_approval(cast("Any", "bypas"), "bash", "run")


def test_the_arguments_are_a_read_only_deep_copy() -> None:
    given_arguments: dict[str, Any] = {"env": {"A": ["1"]}}
    request = bash("ls", **given_arguments)
    given_arguments["env"]["A"].append("2")
    arguments = cast("Any", request.arguments)
    assert arguments["env"]["A"] == ("1",)
    with pytest.raises(TypeError):
        arguments["command"] = "rm"
    with pytest.raises(TypeError):
        arguments["env"]["A2"] = "x"
    with pytest.raises(FrozenInstanceError):
        request.tool = "x"  # type: ignore[misc]
    assert request.command == "ls"
    assert json.loads(json.dumps(request.to_dict()))["arguments"] == {"env": {"A": ["1"]}, "command": "ls"}


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("ls", "bash: ls"),
        ("ls\nrm -rf /", "bash: ls\\nrm -rf /"),
        ("ls \\n", "bash: ls \\\\n"),
        ("\x1b[2K\rAllow? ", "bash: \\x1b[2K\\rAllow? "),
        (f"echo {BIDI}fdp.exe", "bash: echo \\u202efdp.exe"),
        (f"l{ZERO_WIDTH}s\u00a0\u3164\ufe0f\u2028\x9b", "bash: l\\u200bs\\xa0\\u3164\\ufe0f\\u2028\\x9b"),
        ("\ud800 \U000e0041", "bash: \\ud800 \\U000e0041"),
        ("echo Grüße 日本 🙂", "bash: echo Grüße 日本 🙂"),
    ],
)
def test_a_command_can_not_forge_the_prompt(command: str, shown: str) -> None:
    assert bash(command).summary == shown


def test_the_summary_is_bounded_and_keeps_both_ends() -> None:
    summary = bash("echo start " + "x" * 1_000_000 + "; rm -rf /").summary
    assert len(summary) <= MAX_SUMMARY_CHARS
    assert summary.startswith("bash: echo start xx")
    assert summary.endswith("xx; rm -rf /")
    assert "characters left out …]" in summary


@given(st.text(), st.text())
def test_every_summary_and_diff_is_printable_and_bounded(text: str, path: str) -> None:
    requests = [
        bash(text * 50),
        file("write", path=path, content=text),
        file("edit", path=path * 50, old_string=text, new_string=path),
        file("delete", path=path * 200),
        file(text * 9, path=path),
        PermissionRequest(tool="x", action="y", arguments={}, summary=text * 9, namespace="n", diff=path),
    ]
    for request in requests:
        assert request.summary.isprintable()
        assert len(request.summary) <= MAX_SUMMARY_CHARS
        assert all(line.isprintable() for line in (request.diff or "").split("\n"))


def test_the_notice_counts_what_is_left_out() -> None:
    shown = legible.one_line("a" * 1000 + "\x00" * 1000, 100)
    before, _, after = shown.partition(" [… ")
    assert len(shown) <= 100
    count = int(after.split(" ", maxsplit=1)[0].replace(",", ""))
    assert before.count("a") + after.count("\\x00") + count == 2000


def test_background_is_shown_first() -> None:
    assert bash("serve", background=True).summary == "bash (in the background): serve"
    long = bash("serve", background=True, hours=8)
    assert long.summary == "bash (in the background, for 8 hours): serve"
    unvalidated = bash("serve", background="true", hours="24")
    assert unvalidated.summary == "bash (in the background, for 24 hours): serve"
    assert bash("serve", background=True, hours="\x1b").summary.isprintable()
    assert len(bash("serve", background=True, hours=10**400).summary) < 120
    assert bash("serve", background=True, hours=10**5000).summary.endswith(": serve")


def test_a_write_shows_its_content_as_from_the_arguments() -> None:
    request = file("write", path="a\nb.py", content="x = 1\n\x1b[31m\r\n", overwrite=True)
    assert request.diff_is_from_arguments
    assert request.diff == (
        '--- (from the call\'s arguments, not the file)\n+++ "a\\nb.py"\n@@ -0,0 +1,2 @@\n+x = 1\n+\\x1b[31m\\r'
    )
    assert request.summary == 'workspace_file write: "a\\nb.py" (13 characters, 2 lines, overwrites)'


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("src/a-b_c.test.txt", "src/a-b_c.test.txt"),
        ("a.txt (3 characters, 1 line)", '"a.txt (3 characters, 1 line)"'),
        ('a.txt" (3 characters, 1 line) "', '"a.txt\\" (3 characters, 1 line) \\""'),
        ('a\\" (3', '"a\\\\\\" (3"'),
        ('"a"', '"\\"a\\""'),
        ("a\uff083\uff09", '"a\uff083\uff09"'),
        ("", '""'),
    ],
)
def test_a_path_can_not_forge_what_stands_behind_it(path: str, shown: str) -> None:
    write = file("write", path=path, content="x\n" * 9)
    assert write.summary == f"workspace_file write: {shown} (18 characters, 9 lines)"
    assert (write.diff or "").split("\n")[1] == f"+++ {shown}"
    edit = file("edit", path=path, old_string="a", new_string="b")
    assert edit.summary == f"workspace_file edit: {shown} (1 line → 1 line)"
    assert (edit.diff or "").split("\n")[0] == (
        f"--- {shown}: old_string (from the call's arguments, not the file)"
    )
    assert file("delete", path=path).summary == f"workspace_file delete: {shown}"


def test_a_write_without_a_last_newline_says_so() -> None:
    assert (file("write", path="a", content="x").diff or "").endswith("+x\n\\ No newline at end of file")
    assert (file("write", path="a", content="").diff or "").count("\n") == 1


def test_an_edit_shows_old_and_new_as_from_the_arguments() -> None:
    request = file("edit", path="a.py", old_string="a\nb\nc", new_string="a\nB\nc", replace_all=True)
    assert request.diff_is_from_arguments
    assert request.diff == (
        "--- a.py: old_string, every occurrence (from the call's arguments, not the file)\n"
        "+++ a.py: new_string\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c"
    )
    assert request.summary == "workspace_file edit: a.py (3 lines → 3 lines, every occurrence)"


def test_a_diff_against_the_real_file_is_not_labelled_so() -> None:
    request = PermissionRequest.for_file("edit", {"path": "a"}, namespace="n", diff="-a\x1b\n+b")
    assert request.diff == "-a\\x1b\n+b"
    assert not request.diff_is_from_arguments


def test_delete_has_no_diff() -> None:
    request = file("delete", path="a.py")
    assert request.diff is None
    assert not request.diff_is_from_arguments


@pytest.mark.parametrize(
    ("number", "shown"), [(10**40, "1000"), (10**5000, "too large to show")], ids=["40", "5000"]
)
def test_a_number_of_any_size_is_shown(number: int, shown: str) -> None:
    for value in (number, [number]):
        for request in (
            file("write", path=value),
            PermissionRequest.for_job("stop", {"job_id": value}, namespace="demo"),
            PermissionRequest.for_preview({"port": value}, namespace="demo"),
            PermissionRequest.for_preview({"port": 3000, "expires_s": value}, namespace="demo"),
        ):
            assert shown in request.summary


def test_an_argument_that_is_nested_too_deeply_is_described() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert argument_text(nested) == "<a value of type list that is too large to show>"


@pytest.mark.parametrize("lines", [900, 100_000])
def test_a_large_diff_is_bounded_with_a_notice(lines: int) -> None:
    old, new = "x\n" * lines, "".join(f"{number}\n" for number in range(lines))
    for request in (
        file("write", path="a", content=new),
        file("edit", path="a", old_string=old, new_string=new),
    ):
        shown = (request.diff or "").split("\n")
        assert len(shown) <= legible.MAX_DIFF_LINES + 3
        assert (
            sum(line.startswith("[… ") and line.endswith(" lines of the diff left out …]") for line in shown)
            == 1
        )
    wide = file("write", path="a", content="y" * 100_000).diff or ""
    assert len(wide) < 1000
    assert "characters left out" in wide


def test_the_content_can_not_forge_the_notice() -> None:
    diff = file("write", path="a", content="[… 9 lines of the diff left out …]\n").diff or ""
    assert "\n+[… 9" in diff


def test_the_repr_holds_no_content() -> None:
    assert "s3cret" not in repr(file("write", path="a", content="s3cret"))


def test_decisions() -> None:
    assert PermissionDecision.allow().kind == "allow"
    assert PermissionDecision.deny("no").reason == "no"
    edited = PermissionDecision.allow_edited({"command": ["a"]})
    assert edited.arguments == {"command": ("a",)}
    assert PermissionDecision.allow_always("prefix", "git status").prefix == "git status"


@pytest.mark.parametrize(
    "make",
    [
        lambda: PermissionDecision(cast("Any", "yes")),
        lambda: PermissionDecision("allow_edited"),
        lambda: PermissionDecision("allow", arguments={}),
        lambda: PermissionDecision("allow", scope="tool"),
        lambda: PermissionDecision.allow_edited(cast("Any", "ls")),
        lambda: PermissionDecision.allow_always(cast("Any", "session")),
        lambda: PermissionDecision.allow_always(cast("Any", ["tool"])),
        lambda: PermissionDecision.allow_always("tool", "git"),
        lambda: PermissionDecision.allow_always("prefix", "git; rm"),
        lambda: PermissionDecision.allow_always("prefix", "git $x"),
        lambda: PermissionDecision.allow_always("prefix", ""),
        lambda: PermissionDecision.deny(cast("Any", None)),
    ],
)
def test_decisions_that_contradict_themselves_are_refused(make: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


def test_nothing_is_remembered_at_first() -> None:
    assert not covers(RememberedApprovals(), bash("ls"))


def test_an_exact_command_is_remembered_whatever_its_timeout_pty_and_description() -> None:
    remembered = RememberedApprovals()
    assert remembered.remember(bash("make $x", timeout=5), "command")
    assert covers(remembered, bash("make $x", timeout=9, description="again", pty=True))
    assert not covers(remembered, bash("make $x "))
    assert not covers(remembered, file("write", command="make $x"))


@pytest.mark.parametrize("scope", ["command", "prefix"])
def test_a_remembered_command_asks_again_to_run_in_the_background_or_for_other_hours(scope: Scope) -> None:
    foreground, background = bash("npm test"), bash("npm test", background=True)
    for_two_hours = bash("npm test", background=True, hours=2.0)
    calls = (foreground, background, for_two_hours, bash("npm test", background=True, hours=24.0))
    for approved in (foreground, background, for_two_hours):
        remembered = RememberedApprovals()
        assert remembered.remember(approved, scope)
        assert [call for call in calls if covers(remembered, call)] == [approved]


def test_the_rules_show_the_background() -> None:
    remembered = RememberedApprovals()
    remembered.remember(bash("npm test", background=True, hours=2.0), "prefix")
    remembered.remember(bash("npm test", background=True), "command")
    assert remembered.rules() == (
        "bash (in the background, for 2 hours) prefix: npm test",
        "exactly bash (in the background): npm test",
    )


def test_an_exact_file_call_is_remembered_with_all_its_arguments() -> None:
    remembered = RememberedApprovals()
    remembered.remember(file("write", path="a", content="1"), "command")
    assert covers(remembered, file("write", content="1", path="a"))
    assert not covers(remembered, file("write", path="a", content="2"))
    assert not covers(remembered, file("delete", path="a", content="1"))


def test_a_tool_is_remembered() -> None:
    remembered = RememberedApprovals()
    remembered.remember(file("write", path="a", content="1"), "tool")
    assert covers(remembered, file("delete", path="b"))
    assert not covers(remembered, bash("ls"))


@pytest.mark.parametrize(
    ("command", "covered"),
    [
        ("git status", True),
        ("git status -s", True),
        ("git status && npm test -- x | cat", False),
        ("git status && npm test -- x; git status", True),
        ("git statusx", False),
        ("git push", False),
        ("git status; rm -rf /", False),
        ("git status && rm x", False),
        ("git status || rm x", False),
        ("git status | sh", False),
        ("git status\nrm x", False),
        ("git status & rm x", False),
        ("git status $(rm x)", False),
        ("git status `rm x`", False),
        ('git status "$(rm x)"', False),
        ("git status > x", False),
        ("A=1 git status", False),
        ("GIT_PAGER='rm x' git status", False),
        ("env git status", False),
        ("sudo git status", False),
        ("xargs git status", False),
        ("eval git status", False),
        ("if git status; then git status; fi", False),
        ("! git status", False),
        ("(git status)", False),
        ("git status *", False),
        ("git 'status'", True),
    ],
)
def test_prefixes_cover_each_segment_by_itself(command: str, covered: bool) -> None:
    remembered = RememberedApprovals()
    for prefix in ("git status", "npm test"):
        assert remembered.remember(bash("anything $x"), "prefix", prefix)
    assert covers(remembered, bash(command)) is covered


def test_the_suggested_prefixes_are_remembered_by_default() -> None:
    remembered = RememberedApprovals()
    assert remembered.remember(bash("cd src && git status -s"), "prefix")
    assert covers(remembered, bash("git status; cd /"))
    assert not covers(remembered, bash("git push"))
    assert remembered.rules() == ("bash prefix: cd", "bash prefix: git status")
    remembered.clear()
    assert not covers(remembered, bash("git status"))


def test_a_remembered_prefix_asks_again_for_what_runs_something_else() -> None:
    remembered = RememberedApprovals()
    assert remembered.remember(bash("make test"), "prefix")
    assert covers(remembered, bash("make test -k"))
    assert not covers(remembered, bash("make test --eval=x"))
    assert not covers(remembered, bash("make test; make test SHELL=x"))
    assert remembered.remember(bash("make test -f x"), "command")  # that one was agreed to as it stands
    assert covers(remembered, bash("make test -f x"))


def test_an_explicit_prefix_is_what_the_user_said() -> None:
    remembered = RememberedApprovals()
    for prefix in ("docker run", "make -f x", "npx"):
        assert remembered.remember(bash("anything"), "prefix", prefix)
    for command in ("docker run x", "make -f x y", "npx z"):
        assert covers(remembered, bash(command))
    assert not covers(remembered, bash("make -f y"))
    assert not covers(remembered, bash("make -f x --eval=y"))


def test_there_may_be_no_prefix_to_remember() -> None:
    remembered = RememberedApprovals()
    assert not remembered.remember(bash("sudo ls"), "prefix")
    assert remembered.rules() == ()
    assert remembered.remember(bash("sudo ls"), "prefix", "sudo ls")
    assert covers(remembered, bash("sudo ls -l"))
    with pytest.raises(ValueError, match="bash"):
        remembered.remember(file("write", path="a"), "prefix")


def test_remembering_from_many_threads() -> None:
    remembered = RememberedApprovals()

    def work(number: int) -> None:
        for step in range(50):
            remembered.remember(bash(f"c{number} {step}"), "command")
            remembered.remember(bash(f"p{number}x{step}"), "prefix")
            assert covers(remembered, bash(f"c{number} {step}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(remembered.rules()) == 8 * 50 * 2
