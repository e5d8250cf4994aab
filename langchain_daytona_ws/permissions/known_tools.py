"""What is known of well-known programs: which run anything, and by which words the others can be made to.

Tables, and so never complete: a program that is not in them is taken by its name. See `diverted`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

Words = tuple[str, ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[Words]:
    """Read ``docker|podman run|exec`` lines: each first part with each second (and third) one."""
    found: set[Words] = set()
    for line in text.strip().splitlines():
        phrases: list[Words] = [()]
        for part in line.split():
            phrases = [(*phrase, word) for phrase in phrases for word in part.split("|")]
        found.update(phrases)
    return frozenset(found)


# Programs for which a first-word prefix would mean "anything": they run what their arguments, their input or
# their own commands say, or change what the words after them mean.
_RUNS_ANYTHING = _names("""
    . alias bind builtin command coproc declare enable eval exec export hash let mapfile read readarray readonly
    set shopt source time trap typeset unset
    ash bash busybox csh dash elvish expect fish ksh mksh nu pwsh rbash sash sh tclsh tcsh toybox wish yash zsh
    awk bpftrace dc ed emacs emacsclient ex gawk gvim joe less m4 mail mailx man mawk more most nano nawk nvim
    pico pg perldoc rnano rvim rview sed vi view vim vimdiff vipw
    bc clisp clojure erl gdb ghc ghci gnuplot iex ipython ipython3 irb jshell lldb octave pry rdb sbcl swipl
    debugpy bdb cProfile code idlelib pdb profile runpy timeit trace
    mysql mariadb psql sqlite sqlite3 duckdb mongosh redis-cli
    capsh cgexec chpst chroot chrt choom cpulimit dbus-run-session doas dumb-init eatmydata env fakechroot
    faketime fakeroot firejail flock gosu hyperfine i386 ionice linux32 linux64 logsave ltrace multitime nice
    nohup nsenter numactl perf pkexec prlimit proot bwrap rlwrap run-parts runcon runuser script
    scriptreplay setarch setpriv setsid setuidgid sg softlimit ssh-agent start-stop-daemon stdbuf strace su
    su-exec sudo systemd-run taskset timeout tini torify torsocks unbuffer unshare valgrind watch x86_64
    xvfb-run
    at batch crontab entr find fc ip jobs nodemon parallel rename prename screen service tmate tmux
    watchexec xargs concurrently
    cpio rsync scp sftp sort split ssh sshpass tar bsdtar zip zipsplit wall
    ftp lftp nc ncat netcat socat telnet
    npx bunx pnpx uvx pipenv corepack cross-env dotenv direnv nix nix-shell nsjail runc crun ansible
    ansible-playbook
""")

# "docker run": so does the verb of a program that has harmless ones too.
_VERBS_RUN_ANYTHING = _phrases("""
    docker|podman|nerdctl run|exec|create|container|plugin|buildx|context
    docker|podman|nerdctl compose run|exec
    podman unshare|machine
    npm|pnpm|yarn workspace|workspaces|recursive|multi
    tox exec
    cargo watch
    mix do
    docker-compose run|exec
    kubectl|oc exec|run|debug|config|plugin|rsh
    npm|pnpm|yarn|bun exec|x|dlx|create|init|explore|config|set|edit
    git grep|bisect|submodule|rebase|clone|fetch|config|filter-branch|filter-repo|difftool|mergetool
    git send-email|instaweb|hook|for-each-repo|daemon|shell|svn|p4
    uv tool run
    pip config
    pipx run|runpip
    conda|mamba|micromamba|hatch|pdm|rye|pixi run|exec|shell
    poetry shell|self|config
    bundle config|plugin|open
    composer exec|global|config
    go run|tool|env|generate
    dotnet exec|fsi|script|msbuild|tool
    mix run|eval|archive|escript
    rustup run
    gem exec
    deno eval|repl|x|install
    helm plugin
    gh alias|extension|codespace|config
    gcloud compute ssh
    hg clone|config
    nx exec
    apt|apt-get|dnf|brew edit|sh|irb|ruby|bundle
    systemctl edit|link|set-environment
    php artisan tinker
""")

# Their first word is the program: the script's name belongs to the prefix.
_INTERPRETERS = _names("""
    Rscript bun dart deno elixir groovy guile java julia kotlin lua luajit node nodejs perl php pypy python racket
    ruby scala swift ts-node tsx
""")

# Programs of many verbs: how many words say what is about to be done.
_TWO_WORDS = _names("""
    apt apt-get brew bundle cargo composer conda coverage dnf docker docker-compose dotnet gem git gmake go gradle
    gradlew hatch helm hg just kubectl make mamba micromamba mix mvn mvnw nerdctl nox npm nx oc pdm pip pipx
    pixi pnpm podman poetry rake rustup rye svn systemctl task terraform tofu tox turbo uv yarn
""")
_THREE_WORDS = _names("aws az gcloud gh")
_THREE_WORDS_AFTER = _phrases("""
    docker|podman|nerdctl compose
    git remote|stash
    npm|pnpm|yarn|bun run|run-script
    deno run|task
    uv pip|tool
    php artisan
    coverage run
""")

# A verb or a script's name that they don't know is a program to them: "yarn node", "pnpm run bash".
_RUN_PROGRAMS = _names("bun pnpm yarn")
_PROGRAMS = _RUNS_ANYTHING | _INTERPRETERS

# What follows these is a command of its own, to be judged by itself.
_RUNNERS = _phrases("""
    uv run
    poetry run
    bundle exec
    python|pypy -m
""")
# More of them in one another are nobody's command.
_MOST_RUNNERS = 3
# A command may be a megabyte long, and looking through its words must not hold up an event loop.
_MOST_WORDS = 2000

# Of these the word after the name is a target or a file, and an option before it nothing special.
_NO_VERBS = _names("gmake gradle gradlew just make mvn mvnw nox rake task tox")
_HARMLESS_FIRST = _names("--help --version -h -V -v")

# Recipes put these words into a shell's command line.
_SHELL_TEXT = "*[][;&|$`<>(){}'\"\\]*"
_PIP = """
    -i -f -e -r -c -C -t --index-url --extra-index-url --index --default-index --find-links --trusted-host
    --editable --requirement --constraint --python --config-settings --global-option --build-option
    --install-option --target --prefix --root --src --log --proxy --cert --keyring-provider
    *://* *@* */* .* *.whl *.gz *.zip
"""
_FROM_ELSEWHERE = "*:* /* [!@]*/* .* @*/*/* *.tgz *.tar*"

# The words by which a known tool runs something else than its verb says: another file, another program, code in
# the word itself, or packages from elsewhere. `_is` says how they are written.
_DIVERTING: Mapping[Words, str] = {
    ("make",): f"-f -C -I -E --file --makefile --directory --eval --include-dir = {_SHELL_TEXT}",
    ("just",): "-f -d -c -g --justfile --working-directory --command --shell --shell-arg --set --dotenv-path "
    f"--dotenv-filename --global-justfile --chooser --edit = {_SHELL_TEXT}",
    ("task",): f"-t -d -g --taskfile --dir --global = {_SHELL_TEXT}",
    ("rake",): "-f -r -e -E -p -I -R -g --rakefile --require --execute --execute-continue --execute-print "
    f"--libdir --rakelibdir --system = {_SHELL_TEXT}",
    ("tox",): "-c -x --conf --workdir --root --override --installpkg",
    ("nox",): "-f --noxfile",
    ("mvn",): "-f -s -gs -D* -l -t --file --settings --global-settings --toolchains --define *:*",
    ("gradle",): "-I -b -c -p -g -D* -P* --init-script --build-file --settings-file --project-dir "
    "--gradle-user-home --include-build --project-prop --system-prop",
    # git takes any clear beginning of a long option.
    ("git",): "--exec --exec-path --git-dir --work-tree --config-env --upload-pack --receive-pack --extcmd "
    "--open-files-in-pager --output --template --sendmail-cmd --server-option",
    ("git", "grep"): "-O",
    ("git", "clone"): "-u -c --config *::*",
    ("git", "fetch"): "*::*",
    ("git", "pull"): "*::*",
    ("git", "push"): "*::*",
    ("git", "ls-remote"): "*::*",
    ("git", "remote"): "*::*",
    ("git", "archive"): "--remote",
    ("git", "rebase"): "-x",
    ("git", "bisect"): "run",
    ("git", "submodule"): "foreach add",
    ("git", "difftool"): "-x -t --tool",
    ("hg",): "--config --cwd -R --repository --ssh --remotecmd --tool",
    ("svn",): "--config-option --config-dir --diff-cmd --diff3-cmd --editor-cmd svn+*",
    # It takes long options only whole; --cov must not be taken for --cov-config.
    (
        "pytest",
    ): "-p -c -o -rootdir -config-file -confcutdir -override-ini -pdbcls -tx -pyargs -cov-config -rsyncdir "
    "@*",
    ("coverage",): "--rcfile --concurrency",
    ("mypy",): "--config-file --python-executable --install-types --custom-typeshed-dir",
    ("pylint",): "--rcfile --load-plugins --init-hook",
    ("flake8",): "--config --append-config",
    ("sphinx-build",): "-c -D -C",
    ("eslint",): "-c -f --config --rulesdir --plugin --parser --format --resolve-plugins-relative-to",
    ("prettier",): "--config --plugin",
    ("jest",): "-c --config --globalSetup --globalTeardown --runner --testRunner --reporters --rootDir --env "
    "--transform --resolver --setupFiles* --testEnvironment",
    ("vitest",): "-c -r --config --root --reporter --environment --globals-setup",
    ("mocha",): "-r -n --require --config --package --file --ui --reporter --import --loader --node-option",
    ("vite",): "-c --config",
    ("webpack",): "-c --config",
    ("go",): "-exec -toolexec -vettool -overlay -modfile -ldflags -gcflags -asmflags -gccgoflags -compiler "
    "-pkgdir -C* -[o] -[o]=* --[o] --[o]=* -[w] *@*",
    ("cargo",): "-C -Z --config --manifest-path --git --path --registry --index +*",
    ("pip",): _PIP,
    ("pipx",): _PIP,
    ("uv", "pip"): _PIP,
    ("uv", "add"): _PIP,
    ("uv", "tool"): _PIP,
    ("uv",): "-p -c -i -f --with* --python --project --directory --config-file --index* --default-index "
    "--extra-index-url --find-links --env-file --script *://*",
    ("poetry",): "-C -P --directory --project --source",
    ("poetry", "add"): "*:* *@* */* .* --editable",
    ("conda",): "-c -f --channel --file --override-channels *://* *::*",
    ("gem",): "--source -s *://* *.gem",
    ("npm",): "-C -g --script-shell --shell --prefix --dir --cwd --registry --userconfig --globalconfig "
    "--node-options --git --editor --viewer --location --global",
    ("npm", "install"): _FROM_ELSEWHERE,
    ("npm", "i"): _FROM_ELSEWHERE,
    ("npm", "add"): _FROM_ELSEWHERE,
    ("npm", "update"): _FROM_ELSEWHERE,
    ("docker", "build"): "-f -o --file --output --build-context --ssh --secret --allow --network *://* git@*",
    ("docker", "compose"): "-f --file --project-directory --env-file run exec *://*",
    ("docker-compose",): "-f --file --project-directory --env-file run exec",
    ("kubectl",): "--kubeconfig --exec-command *://*",
    ("helm",): "--post-renderer* --kubeconfig --registry-config --repository-config *://*",
    ("terraform",): "-chdir -plugin-dir -from-module",
    ("apt",): "-o -c --option --config-file */* *.deb",
    ("dnf",): "-c --setopt --config --repofrompath --installroot *://* *.rpm",
    ("gh",): "--upload-pack --config",
    ("dotnet",): "-p:* /p:* -property:* --property /l:* -l:* --logger --settings --test-adapter-path",
    ("cmake",): "-P -E -C -D -T --toolchain --preset",
    ("ninja",): "-f -C -t",
    ("gcc",): "-wrapper -fplugin* -B* -specs* --specs -load -Xclang @*",
    ("rg",): "--pre --hostname-bin",
    ("fd",): "-x -X --exec --exec-batch",
    ("bat",): "--pager --config-file",
    ("wget",): "-e --execute --config --use-askpass",
    ("pre-commit",): "-c --config try-repo",
    ("install",): "--strip-program",
}
_SAME = {
    "gmake": "make", "mvnw": "mvn", "gradlew": "gradle", "pnpm": "npm", "yarn": "npm", "bun": "npm", "podman": "docker",
    "nerdctl": "docker", "oc": "kubectl", "tofu": "terraform", "mamba": "conda", "micromamba": "conda",
    "apt-get": "apt", "cc": "gcc", "c++": "gcc", "g++": "gcc", "clang": "gcc", "clang++": "gcc", "fdfind": "fd",
    "batcat": "bat", "py.test": "pytest",
}  # fmt: skip


def suggested(words: Words) -> Words | None:
    """Return the prefix to offer for a simple command; None where every one would mean too much."""
    levels = _levels(words)
    if levels is None:
        return None
    start = levels[-1]
    inner = _inner_prefix(words[start:])
    # Not even within the prefix: "cargo +nightly", "make CC=x".
    if inner is None or diverted(words, 0):
        return None
    return words[:start] + inner


def diverted(words: Words, after: int) -> bool:
    """Say whether a word beyond the first ``after`` makes a known tool run something else.

    Words within the remembered prefix are what the user agreed to, and are not looked at. This is a table, which
    errs on the side of asking: it takes any word for an option, wherever it stands, and any beginning of
    a long option for the whole. It does not know every tool, nor every option of those that it knows; and it
    does not judge what a tool does by design: the code in the files that it is there to run (a Makefile,
    tests, a package's scripts), its own settings files, the arguments of a script, or writing over files.

    Args:
        words: A simple command.
        after: How many of its words the remembered prefix has.
    """
    levels = _levels(words)
    if levels is None:
        return True
    # "uv run pytest -p x": what stands before pytest is uv's, and the rest pytest's.
    for start, end in zip(levels, [*levels[1:], len(words)], strict=True):
        tool = _tool(words[start : start + 3])
        later = words[max(after, start + 1) : end]
        # An option in the verb's place may mean anything, and hides the verb.
        if tool[0] in _WITH_VERBS and after <= start + 1 and _is_option(later[:1]):
            return True
        patterns = [pattern for size in (1, 2) for pattern in _patterns(tool[:size])]
        if patterns and len(later) > _MOST_WORDS:
            return True
        if any(_is(word, pattern) for word in later for pattern in patterns):
            return True
    return False


_WITH_VERBS = (_TWO_WORDS | _THREE_WORDS) - _NO_VERBS


def _is_option(first: Words) -> bool:
    return bool(first) and first[0].startswith("-") and first[0] not in _HARMLESS_FIRST


def _patterns(tool: Words) -> Sequence[str]:
    same = (_SAME.get(tool[0], tool[0]), *tool[1:])
    return _DIVERTING.get(same, "").split()


def _is(word: str, pattern: str) -> bool:
    """Say whether a word is what a pattern of `_DIVERTING` means.

    ``--file``: that option, shortened or with a value. ``-f``: the letter in any group of short options.
    ``-exec``: with one dash or two, with or without a value. ``=``: an assignment. Others: as in `fnmatch`.
    """
    if "*" in pattern or "[" in pattern:
        return fnmatchcase(word, pattern)
    if pattern == "=":
        return "=" in word and not word.startswith("-")
    if not pattern.startswith("-"):
        return word == pattern
    option = word.partition("=")[0]
    if pattern.startswith("--"):
        return len(option) > 2 and pattern.startswith(option)
    if len(pattern) == 2:
        return word.startswith("-") and not word.startswith("--") and pattern[1] in word
    return option in {pattern, f"-{pattern}"}


def _levels(words: Words) -> list[int] | None:
    """Return where each command in the command begins (``uv run`` → its own); None for too many."""
    levels = [0]
    while _tool(words[levels[-1] : levels[-1] + 2]) in _RUNNERS:
        start = levels[-1] + 2
        if start >= len(words) or words[start].startswith("-"):
            break
        if len(levels) > _MOST_RUNNERS:
            return None
        levels.append(start)
    return levels


def _tool(words: Words) -> Words:
    """Return the words with the program's plain name: of a path its last part, of ``pip3.11`` ``pip``."""
    name = words[0].rsplit("/", 1)[-1]
    if len(name) <= _MOST_CHARS:
        name = _BUILD.sub("", name)
        name = name if name in _KNOWN else _VERSION.sub("", name)
    return (name, *words[1:])


# As Debian names the builds of one program: vim.tiny, nc.openbsd.
_BUILD = re.compile(r"\.(?:athena|basic|gtk3?|nox|openbsd|tiny|traditional)$")
# Of python3.11, node20, clang-15, and python3.13t: Python without its lock.
_VERSION = re.compile(r"(?<=[A-Za-z+])[-.]?[0-9][0-9.]*(?:td?|d|m|-dbg)?$")
_MOST_CHARS = 100
_KNOWN = (
    _RUNS_ANYTHING
    | _INTERPRETERS
    | _TWO_WORDS
    | _THREE_WORDS
    | frozenset(_SAME)
    | {key[0] for key in _DIVERTING}
)


def _inner_prefix(words: Words) -> Words | None:
    tool = _tool(words[:3])
    name = tool[0]
    # The dynamic loader runs the program that it is given.
    if name in _RUNS_ANYTHING or name.startswith(("ld-linux", "ld-musl", "ld.so")):
        return None
    if tool[:2] in _VERBS_RUN_ANYTHING or tool in _VERBS_RUN_ANYTHING or tool[:2] in _RUNNERS:
        return None
    if name in _RUN_PROGRAMS and any(_tool((word,))[0] in _PROGRAMS for word in words[1:3] if word):
        return None
    if tool[:2] in _THREE_WORDS_AFTER or name in _THREE_WORDS:
        return _whole(words, 3)
    if name in _INTERPRETERS:
        # "python /dev/stdin" would be any program, too.
        return None if words[1:2] and words[1].startswith(("/dev/", "/proc/")) else _whole(words, 2)
    return _whole(words, 2) if name in _TWO_WORDS else words[:1]


def _whole(words: Words, size: int) -> Words | None:
    """Return the first words; None if some are missing or an option stands for a verb (``git -C x``)."""
    prefix = words[:size]
    return None if len(prefix) < size or any(word.startswith("-") for word in prefix[1:]) else prefix
