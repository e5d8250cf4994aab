"""The simple commands of a shell text, and their redirections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.hints.shell_text import Redirect, simple_commands

READ = [
    ("mv a b && cat x >> log", ["mv a b", "cat x"], [">> log"]),
    ("X=1 ./run.sh>out 2>&1", ["./run.sh"], ["> out", ">& 1"]),
    ("sudo -u x env A=b timeout 5 mv a b", ["mv a b"], []),
    ("time nice -n 5 make", ["make"], []),
    ("if test -e x; then mv x y; fi", ["test -e x", "mv x y", "fi"], []),
    ("bash -c 'echo x >>old'", ["bash -c echo x >>old", "echo x"], [">> old"]),
    ("find . -exec chmod +x {} +", ["find . -exec chmod +x {} +", "chmod +x {}"], []),
    ("mv $(ls | head -1) b", ["ls", "head -1", "mv $… b"], []),
    ('echo "a $(cat f > g) b" > h', ["cat f", "echo a $… b"], ["> g", "> h"]),
    ("echo `rm z` x", ["rm z", "echo $… x"], []),
    ("echo 'a;b>c' # d > e\nls", ["echo a;b>c", "ls"], []),
    ("echo \"a\\\"b\" c\\ d", ['echo a"b c d'], []),
    ("echo $((1 > 2)) > n", ["echo $…"], ["> n"]),
    ("[[ a > b ]] && (( 1 > 2 )); ls", ["ls"], []),
    ("(for i in 1 2; do /bin/echo $i; done) > bg.log &", ["for i in 1 2", "/bin/echo $i", "done", ""], ["> bg.log"]),
    ("cat f#1 {a,b} a{1,2}", ["cat f#1 {a,b} a{1,2}"], []),
    ("df 2>/dev/null &> all", ["df"], ["> /dev/null", "&> all"]),
    ("echo a\\\nb; c", ["echo ab", "c"], []),
    ("echo 'unfinished", ["echo unfinished"], []),
    ("", [], []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "commands", "redirects"), READ, ids=[row[0] for row in READ])
def test_reads(text: str, commands: list[str], redirects: list[str]) -> None:
    found = simple_commands(text)
    assert [" ".join(item.words) for item in found] == commands
    written = [f"{item.operator} {item.target}" for command in found for item in command.redirects]
    assert written == redirects


@pytest.mark.parametrize("comment", ["#", "# b", "#\n", "# b\n#"])
@pytest.mark.timeout(60)
def test_reads_past_a_comment_at_the_end(comment: str) -> None:
    assert [item.words for item in simple_commands(f"echo a {comment}")] == [["echo", "a"]]


def test_reads_here_documents() -> None:
    first, second, last = simple_commands(
        "cat > f <<'A'; python3 - <<-B\none > two\nA\n\timport os\n\tB\nls > x"
    )
    assert (first.stdin, first.redirects) == ("one > two", [Redirect(">", "f")])
    assert second.code.strip() == "import os"
    assert (last.words, last.redirects) == (["ls"], [Redirect(">", "x")])


def test_knows_options_and_verbs() -> None:
    (item,) = simple_commands("git -q --bare clone URL")
    assert (item.program, item.verb) == ("git", "clone")
    assert item.has_flag("q")
    assert item.has_flag("", "--bare")
    assert not item.has_flag("C", "--continue-at")
    assert simple_commands("/usr/bin/python3.12 x")[0].plain_program == "python"


PIECES = st.sampled_from([
    "a", " ", "\n", "'", '"', "$(", ")", "(", "`", "<<A", "\nA\n", ">", ">>", "2>&1", "&", "|", ";", "\\", "#", "[[ ",
    " ]]", "((", "))", "bash -c ", "find -exec ", "$((", "\ud800", "\0", "=", "do ", "é",
])  # fmt: skip


@given(st.lists(PIECES, max_size=80).map("".join))
def test_any_text_can_be_read(text: str) -> None:
    for item in simple_commands(text):
        assert item.program is not None
        assert all(redirect.target is not None for redirect in item.redirects)


@pytest.mark.parametrize(
    "piece", ["$(", '"$(', "`", "<<a ", "(", ";", "bash -c '", "find -exec ", "[[ ", "a=", ">"]
)
@pytest.mark.timeout(60)
def test_hostile_text_costs_little(piece: str) -> None:
    simple_commands(piece * 100_000)
