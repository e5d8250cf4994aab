"""Commands have no terminal: with real git and vim, editors and pagers do not wait for a key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from langchain_daytona_ws._guest import terminal
from tests.unit_tests.daemon import Workspace, guest_client

SOON_S = 15.0
GIT = "export GIT_CONFIG_GLOBAL=$PWD/config GIT_CONFIG_SYSTEM=/dev/null; cd work && "
SET_UP = """
cat > config <<'E'
[user]
name = n
email = e@example.org
[core]
editor = vim
pager = less
[sequence]
editor = vim
[merge]
tool = vimdiff
E
export GIT_CONFIG_GLOBAL=$PWD/config
git init -qb main work && cd work
for i in 1 2 3; do echo $i > a; git add a; git commit -qm $i; done
git checkout -qb side HEAD~1 && echo other > a && git commit -qam other
git checkout -q main
"""
# What an image may have set, for a person at a terminal.
IMAGE = {
    "TERM": "xterm-256color",
    "EDITOR": "vim",
    "VISUAL": "vim",
    "GIT_EDITOR": "vim",
    "GIT_SEQUENCE_EDITOR": "vim",
    "PAGER": "less",
    "GIT_PAGER": "less",
}


@pytest.fixture(params=["bare", "image"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    made = Workspace("bash", tmp_path)
    made.port.extra_env = IMAGE if request.param == "image" else {}
    assert made.run(SET_UP).exit_code == 0
    return made


@pytest.mark.parametrize(
    ("command", "exit_code", "message"),
    [
        ("echo 4 >> a; git commit -a", 1, "Aborting commit due to empty commit message"),
        ("git commit --amend; git log -1 --format=%s", 0, "3"),
        ("git rebase -i HEAD~2", 1, "problem with the editor 'false'"),
        ("git rebase --exec true HEAD~1", 0, "Successfully rebased"),
        (
            "git rebase side; echo merged > a; git add a; git rebase --continue; git log -1 --format=%s",
            0,
            "3",
        ),
        (
            "git merge side; echo merged > a; git add a; git merge --continue; git log -1 --format=%s",
            0,
            "Merge",
        ),
        ("git revert HEAD; git log -1 --format=%s", 0, 'Revert "3"'),
        ("git tag -a v1", 128, "no tag message"),
        ("git log; git -p log --oneline; git diff HEAD~1", 0, "@@ -1 +1 @@"),
        ("GIT_SEQUENCE_EDITOR='sed -i 1d' git rebase -i HEAD~2 2>&1; git log --oneline", 0, "3"),
        ('sh -c "$EDITOR table"; echo $?', 0, "1"),
        ('sh -c "$VISUAL table"; echo $?', 0, "1"),
        ("echo text | $PAGER; less a; echo $TERM", 0, "dumb"),
    ],
)
@pytest.mark.one_in(2)
def test_git_and_editors_end_at_once(
    workspace: Workspace, command: str, exit_code: int, message: str
) -> None:
    result = workspace.run(GIT + command, timeout_s=SOON_S)
    assert not result.timed_out
    assert result.exit_code == exit_code
    assert message in result.output


needs_vim = pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")


@needs_vim
@pytest.mark.parametrize(
    "command",
    [
        "vim new.txt",
        pytest.param("EDITOR='env TERM=xterm vim -u NONE'; $EDITOR new.txt", marks=pytest.mark.full),
    ],
)
def test_vim_is_ended_where_it_would_wait_for_a_key(tmp_path: Path, command: str) -> None:
    workspace = Workspace("bash", tmp_path)
    result = workspace.run(f"{command}; ls -A; exit 1", timeout_s=60)
    assert not result.timed_out
    assert result.exit_code == 1
    assert result.duration_s < 30
    assert "vim was ended, since no key can be pressed here" in result.notices[0]
    assert not list(tmp_path.rglob("*.swp"))


@needs_vim
@pytest.mark.parametrize("command", ["git merge side; git mergetool -y", "git difftool -y HEAD~1"])
def test_an_editor_that_git_starts_is_ended(tmp_path: Path, command: str) -> None:
    workspace = Workspace("bash", tmp_path)
    workspace.run(SET_UP)
    result = workspace.run(f"{GIT}{command}", timeout_s=60)
    assert not result.timed_out
    assert result.duration_s < 30
    assert "vim was ended, since no key can be pressed here" in result.notices[0]


@needs_vim
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("vim -c '!sleep 8' -c 's/a/b/' -c wq f.txt >/dev/null 2>&1", marks=pytest.mark.full),
        "(sleep 6; printf ':s/a/b/\\n:wq\\n') | vim f.txt >/dev/null 2>&1",
        pytest.param("vim -es -c 's/a/b/' -c 'sleep 8' -c wq f.txt", marks=pytest.mark.full),
        pytest.param("sleep 6 0>&1; vim -es -c 's/a/b/' -c wq f.txt", marks=pytest.mark.full),
    ],
)
def test_vim_that_needs_no_key_is_left_alone(tmp_path: Path, command: str) -> None:
    workspace = Workspace("bash", tmp_path)
    result = workspace.run(f"echo a > f.txt; {command}; cat f.txt", timeout_s=60)
    assert (result.output, result.notices) == ("b\n", ())


ALL = {name: value for name, value, _ in terminal.VALUES}
SHOW = "; ".join(f'echo "{name}=${{{name}-unset}}"' for name in ALL)


@pytest.mark.parametrize(
    ("own", "different"),
    [
        ({}, {}),
        ({"TERM": "xterm"}, {"TERM": "xterm"}),
        (
            {"EDITOR": "ed"},
            {"EDITOR": "ed", "VISUAL": "unset", "GIT_EDITOR": "unset", "GIT_SEQUENCE_EDITOR": "unset"},
        ),
        ({"VISUAL": "ed"}, {"VISUAL": "ed", "GIT_EDITOR": "unset", "GIT_SEQUENCE_EDITOR": "unset"}),
        ({"GIT_EDITOR": "ed"}, {"GIT_EDITOR": "ed", "GIT_SEQUENCE_EDITOR": "unset"}),
        ({"GIT_SEQUENCE_EDITOR": "ed"}, {"GIT_SEQUENCE_EDITOR": "ed"}),
        ({"PAGER": "more"}, {"PAGER": "more", "GIT_PAGER": "unset"}),
        ({"UNRELATED": "1"}, {}),
    ],
)
@pytest.mark.parametrize("image", [{}, IMAGE])
def test_variables_of_the_user_take_precedence(
    tmp_path: Path, image: dict[str, str], own: dict[str, str], different: dict[str, str]
) -> None:
    workspace = Workspace("bash", tmp_path)
    workspace.port.extra_env = image
    workspace.guest_client = guest_client(workspace.port, variables=own)
    reported = dict(line.split("=", 1) for line in workspace.run(SHOW).output.splitlines())
    assert reported == {**ALL, **different}
