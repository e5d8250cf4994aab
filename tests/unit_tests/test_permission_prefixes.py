"""Prefixes of commands: which one is offered, and what a remembered one covers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from langchain_daytona_ws.permissions.prefixes import (
    covers,
    prefix_words,
    starts_with,
    suggested_prefixes,
)
from langchain_daytona_ws.permissions.shell import simple_commands
from tests.unit_tests.test_permission_shell import FRIENDLY_TEXT


def test_prefixes_match_whole_words() -> None:
    prefix = prefix_words("git status")
    assert prefix == ("git", "status")
    assert starts_with(("git", "status", "-s"), prefix)
    assert not starts_with(("git", "statusx"), prefix)
    assert not starts_with(("git",), prefix)
    assert not starts_with(("env", "git", "status"), prefix)
    assert not starts_with(("git",), ())


@pytest.mark.parametrize("prefix", ["", "a; b", "a | b", "a\nb", "$a", "A=1 b", "a *"])
def test_a_prefix_is_one_literal_command(prefix: str) -> None:
    assert prefix_words(prefix) is None


@pytest.mark.parametrize(
    ("command", "suggestion"),
    [
        ("git status -s", "git status"),
        ("git", None),
        ("make", None),
        ("git -C /etc status", None),
        ("git stash pop", "git stash pop"),
        ("npm test", "npm test"),
        ("npm run build -- --watch", "npm run build"),
        ("npm run", None),
        ("uv run pytest -q", "uv run pytest"),
        ("pip install requests", "pip install"),
        ("pip3 install -U requests", "pip3 install"),
        ("pip install -r x.txt", None),
        ("pip install git+https://x/y", None),
        ("npm install left-pad @types/node", "npm install"),
        ("npm install user/repo", None),
        ("make test", "make test"),
        ("make CC=x", None),
        ("make test -f x", None),
        ("cargo +nightly test", None),
        ("/usr/bin/git remote add x y", "/usr/bin/git remote add"),
        ("uv run python x.py", "uv run python x.py"),
        ("uv run python -c x", None),
        ("uv run bash", None),
        ("uv run --with x pytest", None),
        ("uv run uv run uv run ls", "uv run uv run uv run ls"),
        ("uv run uv run uv run uv run ls", None),
        ("bundle exec rspec x", "bundle exec rspec"),
        ("bun run build", "bun run build"),
        ("python3 -m pip install x", "python3 -m pip install"),
        ("python3 -m timeit x", None),
        ("python3 /dev/stdin", None),
        ("git pull", "git pull"),
        ("git log --oneline", "git log"),
        ("go test ./...", "go test"),
        ("go test -exec x ./...", None),
        ("rg x", "rg"),
        ("rg --pre x y", None),
        ("docker compose up", "docker compose up"),
        ("gh pr view 3", "gh pr view"),
        ("ls -la", "ls"),
        ("./build.sh x", "./build.sh"),
        ("./split.py x", "./split.py"),
        ("'my tool' x", "'my tool'"),
        ("python3 script.py x", "python3 script.py"),
        ("python3 -m pytest -q", "python3 -m pytest"),
        ("python3 -c 'x'", None),
        ("python3", None),
        ("python3 -m", None),
        ("/usr/bin/python3.11 -c x", None),
        ("sudo ls", None),
        ("/usr/bin/env ls", None),
        ("bash -c ls", None),
        ("find . -name x", None),
        ("xargs rm", None),
        ("eval ls", None),
        ("ls $x", None),
        ("a; a", "a"),
    ],
)
def test_suggested_prefix(command: str, suggestion: str | None) -> None:
    assert suggested_prefixes(command) == (() if suggestion is None else (suggestion,))


def test_suggestions_cover_the_whole_command() -> None:
    assert suggested_prefixes("cd src && git status | cat; git status") == ("cd", "git status", "cat")
    assert suggested_prefixes("a; b") == ("a", "b")
    assert suggested_prefixes("cd src && sudo ls") == ()


@settings(max_examples=200)
@given(FRIENDLY_TEXT)
def test_suggestions_do_cover_their_command(command: str) -> None:
    prefixes = [prefix_words(prefix) for prefix in suggested_prefixes(command)]
    segments = simple_commands(command) or ()
    assert all(prefix is not None for prefix in prefixes)
    if prefixes:
        assert all(any(prefix and covers(prefix, words) for prefix in prefixes) for words in segments)


RUN_ANYTHING = """
npx uvx bunx /usr/bin/time taskset setpriv runuser pkexec ltrace faketime ssh-agent tmux screen sed tar split sort
rsync scp sftp zip vim nvim vi vim.tiny ex ed emacs less more man sqlite3 psql mysql pipenv perl5.36 node20 socat nc
at batch chrt prlimit fakeroot proot bwrap entr valgrind /opt/x/bin/npx ./sudo python3.13t bash-5.2 ruby3.2 lua5.4
ld-linux-x86-64.so.2 busybox xargs env
"""
PAIRS_RUN_ANYTHING = """
docker run|docker exec|podman run|podman exec|kubectl exec|npm exec|pnpm exec|yarn exec|npm x|pnpm dlx|yarn dlx
git grep|git bisect|git submodule|git rebase|git clone|git fetch|git config|git filter-branch|/usr/bin/git clone
docker compose run|docker compose exec|uv tool run|pipx run|conda run|go run|bun x|deno eval|kubectl run
gcloud compute ssh|docker container|yarn node|pnpm bash|yarn run node18|bun run sh|yarn workspace|tox exec
"""


@pytest.mark.parametrize("name", RUN_ANYTHING.split())
def test_no_prefix_is_suggested_for_what_runs_anything(name: str) -> None:
    for command in (name, f"{name} -x a b", f"{name} -c a", f"uv run {name} -x", f"cd a && {name} -x a b"):
        assert suggested_prefixes(command) == ()


@pytest.mark.parametrize("name", [name for name in RUN_ANYTHING.split() if name[:4] not in {"perl", "node"}])
def test_no_script_s_name_helps_what_is_no_interpreter(name: str) -> None:
    if not name.startswith(("python", "ruby", "lua")):
        assert suggested_prefixes(f"{name} a b") == ()


@pytest.mark.parametrize("pair", "|".join(PAIRS_RUN_ANYTHING.strip().splitlines()).split("|"))
def test_no_prefix_is_suggested_for_a_verb_that_runs_anything(pair: str) -> None:
    for command in (pair, f"{pair} a b c", f"{pair} -x a"):
        assert suggested_prefixes(command) == ()


@pytest.mark.parametrize(
    ("prefix", "asks", "covered"),
    [
        (
            "make test",
            ["--eval=x", "--ev x", "-f x", "-kf x", "-fx", "--file=x", "-C x", "--directory x", "SHELL=x", "CC=x",
             "MAKEFLAGS=x", "-I x", "-- SHELL=x", "lint --eval x", "'a;b'"],
            ["", "lint", "-k", "-j4", "--silent"],
        ),
        ("/usr/bin/make test", ["--eval=x"], ["-j4"]),
        ("gmake test", ["-f x"], ["-j4"]),
        ("make -C sub test", ["-f x", "-C y"], ["", "-k"]),
        ("git", ["-c core.pager=x log", "-C x log", "--exec-path=x log", "-p log"], ["log", "--version"]),
        ("git push", ["--exec=x", "--receive-pack x", "--rec=x", "ext::sh"], ["-u origin main", "--tags"]),
        ("git pull", ["--upload-pack=x", "ext::sh"], ["--ff-only", "origin main"]),
        ("git grep", ["-O x", "-nOx", "--open-files-in-pager=x"], ["-n x"]),
        ("git commit", [], ["-m 'a::b c=d'", "-C HEAD", "-c HEAD", "--amend"]),
        ("git rebase", ["-x y", "--exec y"], ["main", "--continue"]),
        (
            "pytest",
            ["-p x", "-px", "-vp x", "-c x", "-o x=y", "--rootdir=x", "--rootdir x", "--config-file=x", "@x"],
            ["-q", "tests/x.py::test_a", "-k x", "--cov=x", "--co", "-xvs", "-n4", "--tb=short"],
        ),
        ("python3 -m pytest", ["-p x", "--rootdir=x"], ["-q"]),
        ("uv run pytest", ["-p x"], ["-q"]),
        ("uv run", ["--with x pytest", "pytest -p x"], ["pytest -q"]),
        ("go test", ["-exec x", "--exec=x", "-toolexec=x", "-o x", "-C x"], ["-count=1 ./...", "-cover", "-v"]),
        ("cargo test", ["--config x", "--conf=x", "-Zx", "--manifest-path x"], ["-p x", "--release", "-- x"]),
        (
            "pip install",
            ["-i x", "--index-url=x", "--index-u x", "--extra-index-url x", "-r x", "-qr x", "-e x", ".", "./x",
             "git+ssh://x", "https://x", "x@y", "x.whl", "--python x", "--keyring-provider=subprocess x"],
            ["x", "x==1.0", "-U x", "-q --upgrade x", "--no-deps x"],
        ),
        ("pip3.11 install", ["-i x"], ["x"]),
        ("npm install", ["x/y", "/x", "./x", "git+ssh://x", "github:x", "--registry x", "-g x"], ["x", "@a/b -D"]),
        ("npm test", ["--script-shell=x", "--prefix x"], ["-- tests/a.js"]),
        ("docker compose", ["run x", "-f x up", "exec x y"], ["up", "ps"]),
        ("npx", [], ["tsc", "x y"]),
        ("sudo ls", [], ["-l"]),
        ("unknown", [], ["-c x", "--eval x", "A=1"]),
    ],
)  # fmt: skip
def test_a_prefix_does_not_cover_words_that_run_something_else(
    prefix: str, asks: list[str], covered: list[str]
) -> None:
    words = prefix_words(prefix)
    assert words is not None
    for expected, all_more in ((False, asks), (True, covered)):
        for more in all_more:
            command = simple_commands(f"{prefix} {more}")
            assert command is not None
            assert covers(words, command[0]) is expected, more
            if not expected:
                assert suggested_prefixes(f"{prefix} {more}") == ()


def test_deep_commands_of_commands_are_answered() -> None:
    command = "uv run " * 50_000 + "ls"
    assert suggested_prefixes(command) == ()
    assert not covers(("uv",), (simple_commands(command) or ((),))[0])


def test_more_words_than_are_looked_through_ask() -> None:
    many = " a" * 100_000
    for prefix, expected in (("git add", False), ("unknown", True)):
        command = simple_commands(prefix + many)
        assert command is not None
        assert covers(tuple(prefix.split()), command[0]) is expected


@pytest.mark.parametrize("character", list(";&|$`<>(){}[]'\"\\"))
def test_what_a_recipe_may_give_to_a_shell_asks(character: str) -> None:
    assert not covers(("just", "test"), ("just", "test", f"a{character}b"))
    assert covers(("just", "test"), ("just", "test", "a-b_c/d.e"))
