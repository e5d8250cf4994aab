"""The lexer behind remembered prefixes: what it calls simple is what real bash runs, and nothing more."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from langchain_daytona_ws.permissions.shell import simple_commands
from tests.sample import sample

# Every name is unknown here: no PATH, and all builtins switched off (the last one switches off `enable` itself).
# What bash then runs comes to the handler with its argv, which is appended in one write. The handler must use no
# builtin either, or it calls itself for ever.
PRELUDE = """command_not_found_handle() {{ /usr/bin/printf '%s\\0' {n}"$@" '' >>"$LOG"; {status}; }}
PATH=/nonexistent
enable -n -- $(compgen -b)
"""
END = "\0"


def what_bash_runs(command: str, folder: Path, *, succeed: bool, locale: str) -> Counter[tuple[str, ...]]:
    log = folder / "log"
    log.unlink(missing_ok=True)
    # The marker before each argv holds a byte that no command here contains.
    status = "/bin/true" if succeed else "/bin/false"
    script = PRELUDE.format(n="$'\\1' ", status=status) + command
    subprocess.run(
        ["/bin/bash", "--norc", "--noprofile", "-c", script],
        env={"LOG": str(log), "LC_ALL": locale},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )
    ran: Counter[tuple[str, ...]] = Counter()
    text = log.read_bytes().decode("utf-8", "surrogateescape") if log.exists() else ""
    for record in text.split("\x01\0")[1:]:
        ran[tuple(record.split("\0")[:-2])] += 1
    assert sorted(entry.name for entry in folder.iterdir() if entry.name != "log") == [], "a file was made"
    return ran


def assert_bash_agrees(
    command: str, segments: tuple[tuple[str, ...], ...], folder: Path, locale: str
) -> None:
    all_ran: set[tuple[str, ...]] = set()
    written = Counter(segments)
    for succeed in (True, False):
        ran = what_bash_runs(command, folder, succeed=succeed, locale=locale)
        assert not ran - written, f"bash ran more than {segments}: {ran - written}"
        all_ran |= set(ran)
    # When everything succeeds the segments after && ran, when everything fails those after ||.
    assert all_ran == set(segments)


WORDS = [
    "a",
    "b",
    "git",
    "status",
    "x1",
    "eval",
    "time",
    "if",
    "exec",
    ".",
    ":",
    "%1",
    "-c",
    "A=1",
    "foo=",
    "é",
    "\\",
]
JOINTS = [" ", " ", " ", "\t", "\n", ";", "&&", "||", "|", " && ", "; "]
NASTY = [
    *"'\"\\$`#!&<>(){}[]*?~^=%@+\n\t\r\x00\x01\x0b\x0c\x7f\u00a0\u2028\u200b\u202e\u3000é",
    "'a b'", '"a b"', '"\\$x"', '"\\a"', "''", '""', "\\ ", "\\;", "\\\n", "$'x'", "$(b)", "${b}", "`b`", "<<E", "2>&1",
    "&", ";;", "|&", "'\n'", '"\n"', "'é'", '"é\\\\"', "#c", "{a,b}", "!!", '"!"', "=~",
]  # fmt: skip
NASTY_TEXT = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(JOINTS), st.sampled_from(NASTY)), max_size=10
).map("".join)
# Mostly harmless, so that many of them are accepted and reach bash.
QUOTED = st.one_of(
    st.text("ab $`\\\"'!*#é;|&~{", max_size=5), st.sampled_from(["$a", "$(a b)", "`b`", "\\$a", "a;b", "x y"])
)
FRIENDLY_WORD = st.lists(
    st.one_of(
        st.sampled_from(["a", "b", "git", "-x", "a=b", ":", ".", "@", "+", "%1", "eval", "then", "~", "#"]),
        QUOTED.map(lambda text: f"'{text}'"),
        QUOTED.map(lambda text: f'"{text}"'),
        st.sampled_from(list(" $`\\\"'!*#;|&~{ab")).map(lambda character: f"\\{character}"),
    ),
    min_size=1,
    max_size=3,
).map("".join)
FRIENDLY_TEXT = st.lists(st.tuples(FRIENDLY_WORD, st.sampled_from(JOINTS)), min_size=1, max_size=6).map(
    lambda pairs: "".join(word + joint for word, joint in pairs)
)


@pytest.mark.parametrize("locale", sample(["C.UTF-8", "C"], "C.UTF-8"))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(command=st.one_of(FRIENDLY_TEXT, FRIENDLY_TEXT, NASTY_TEXT))
@example(command="a && b || git status; b | a\n\n git &&\n a b;")
@example(command='a \'x y\' "q\\"r\\a" z\\ z \'\' ""')
@example(command="git commit -m 'Grüße, $(b) `b` $b !! \"'")
def test_simple_commands_are_what_bash_runs(
    command: str, locale: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    segments = simple_commands(command)
    assume(segments is not None)
    assert segments is not None
    # A path is not looked up by name, so that the handler never sees it.
    assume(all("/" not in words[0] for words in segments))
    assert_bash_agrees(command, segments, tmp_path_factory.mktemp("run"), locale)


def test_the_harness_sees_what_bash_does(tmp_path: Path) -> None:
    """Against a harness that agrees with everything: it sees builtins, expansions and hidden commands."""
    command = "x=1 git $(b hidden) {p,q}; cd \"$x\"; . y; eval 'a b'"
    ran = what_bash_runs(command, tmp_path, succeed=True, locale="C.UTF-8")
    assert ran == Counter(
        {("b", "hidden"): 1, ("git", "p", "q"): 1, ("cd", ""): 1, (".", "y"): 1, ("eval", "a b"): 1}
    )


@pytest.mark.parametrize(
    ("command", "segments"),
    [
        ("git status", [["git", "status"]]),
        ("  git\tstatus  ", [["git", "status"]]),
        ("cd src && npm test; ls | wc -l || true", [["cd", "src"], ["npm", "test"], ["ls"], ["wc", "-l"], ["true"]]),
        ("a\nb\n", [["a"], ["b"]]),
        ("a &&\n\n b", [["a"], ["b"]]),
        ("a;", [["a"]]),
        ("git commit -m 'a; b && $(c)'", [["git", "commit", "-m", "a; b && $(c)"]]),
        ('echo "it\'s \\"so\\" \\n"', [["echo", 'it\'s "so" \\n']]),
        ("rm a\\ b \\$x", [["rm", "a b", "$x"]]),
        ("'g'it st\"at\"us ''", [["git", "status", ""]]),
        ("pip install x==1.0 --opt=y,z:w@v+u%t", [["pip", "install", "x==1.0", "--opt=y,z:w@v+u%t"]]),
        ("echo 'Grüße'", [["echo", "Grüße"]]),
        ("printf '%s' x", [["printf", "%s", "x"]]),
    ],
)  # fmt: skip
def test_words_of_simple_commands(command: str, segments: list[list[str]]) -> None:
    assert simple_commands(command) == tuple(tuple(words) for words in segments)


@pytest.mark.parametrize(
    "command",
    [
        "", " ", "\n", "\t\n", ";", ";;", "a;;b", "; a",
        "&& a", "a &&", "a |", "a ||\n", "a &&; b", "a\n&& b", "a ;; b",
        "a & b", "a &", "a |& b", "a &&& b", "a > b", "a 2>&1", "a < b", "a << E\nE", "a <<< b", "a >| b", "a <(b)",
        "$a", "a $b", "a ${b}", "a $(b)", "a `b`", 'a "$b"', 'a "`b`"', "a $'b'", 'a $"b"', "a $((1))",
        "a *", "a ?", "a [b]", "a {b,c}", "a ~", "a x~", "a ^b", "a #b", "# a", "a b#c", "!a", "! a", "a !!", 'a "!"',
        "A=1", "A=1 b", "A+=1 b", "'A=1' b", "a[0]=1 b", "(a)", "{ a; }", "a() { b; }", "function a { b; }",
        "if a; then b; fi", "for a in b; do c; done", "while a; do b; done", "until a; do b; done", "time a",
        "case a in b) c;; esac",
        "select a in b; do c; done", "coproc a", "[[ a ]]", "[ a ]", "do a", "a; then b",
        "'", '"', "a 'b", 'a "b', "a \\", "a \\\nb", "a\\\n&& b", "a 'b\nc'", 'a "b\nc"', "a 'b\tc'",
        "a\rb", "a\r\n", "a\x00b", "a\x0bb", "a\x0cb", "a\x1b[2Jb", "a\x7f", "a\u00a0b", "a\u3000b", "a\u2028b",
        "a\u0085b",
        "a 'x\u202ey'", "a 'x\u200by'", "a '\ufeff'", "a 'x\u00a0y'", "a \udc80", "a '\ud800'", "é a", "a é",
        "a 'é' \\a",
        "'' a", "%1", "%vi", "a | 'time' b", "\\time a",
        "printf -v 'a[$(b)]' x", "test -v 'a[`b`]'", "read 'a[$(b)]'", "unset 'a[$b]'", "let 'a[$(b)]'", "eval '$a'",
    ],
)  # fmt: skip
def test_anything_more_is_not_sure(command: str) -> None:
    assert simple_commands(command) is None


def test_a_literal_word_can_hide_a_command_from_a_builtin(tmp_path: Path) -> None:
    """Why some builtins are refused with a "$" in their words: bash evaluates those a second time."""
    command = "printf -v 'a[$(echo gone >marker)]' x"
    subprocess.run(["/bin/bash", "-c", command], cwd=tmp_path, env=dict(os.environ), check=False)
    assert (tmp_path / "marker").exists()
    assert simple_commands(command) is None


def test_the_lexer_is_linear() -> None:
    long = "git add " + "a" * 300_000 + " 'b' && ls" * 10_000
    assert len(simple_commands(long) or ()) == 10_001
    assert simple_commands("a" * 300_000 + '"' + "\\\\" * 100_000) is None


@settings(max_examples=300)
@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    segments = simple_commands(text)
    assert segments is None or all(words and words[0] for words in segments)
