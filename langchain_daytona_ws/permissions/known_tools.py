"""Tables of known programs: programs that run other programs, and arguments that make a program run another program.

The tables are incomplete. The prefix of an unknown program is its name, and allows all its arguments. See
`prefixes.diverted`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from langchain_daytona_ws.permissions.shell import Words


def _combinations(*rows: tuple[Words, ...]) -> frozenset[Words]:
    """Return all combinations of one word from each part of a row."""
    return frozenset(phrase for row in rows for phrase in itertools.product(*row))


# A prefix of one of these programs would allow anything. They run commands from their arguments, input or files, or
# change the meaning of the following words.
RUNS_ANYTHING = frozenset({
    ".", "alias", "bind", "builtin", "command", "coproc", "declare", "enable", "eval", "exec", "export", "hash",
    "let", "mapfile", "read", "readarray", "readonly", "set", "shopt", "source", "time", "trap", "typeset", "unset",
    "ash", "bash", "busybox", "csh", "dash", "elvish", "expect", "fish", "ksh", "mksh", "nu", "pwsh", "rbash", "sash",
    "sh", "tclsh", "tcsh", "toybox", "wish", "yash", "zsh", "awk", "bpftrace", "dc", "ed", "emacs", "emacsclient",
    "ex", "gawk", "gvim", "joe", "less", "m4", "mail", "mailx", "man", "mawk", "more", "most", "nano", "nawk", "nvim",
    "pico", "pg", "perldoc", "rnano", "rvim", "rview", "sed", "vi", "view", "vim", "vimdiff", "vipw", "bc", "clisp",
    "clojure", "erl", "gdb", "ghc", "ghci", "gnuplot", "iex", "ipython", "ipython3", "irb", "jshell", "lldb",
    "octave", "pry", "rdb", "sbcl", "swipl", "debugpy", "bdb", "cProfile", "code", "idlelib", "pdb", "profile",
    "runpy", "timeit", "trace", "mysql", "mariadb", "psql", "sqlite", "sqlite3", "duckdb", "mongosh", "redis-cli",
    "capsh", "cgexec", "chpst", "chroot", "chrt", "choom", "cpulimit", "dbus-run-session", "doas", "dumb-init",
    "eatmydata", "env", "fakechroot", "faketime", "fakeroot", "firejail", "flock", "gosu", "hyperfine", "i386",
    "ionice", "linux32", "linux64", "logsave", "ltrace", "multitime", "nice", "nohup", "nsenter", "numactl", "perf",
    "pkexec", "prlimit", "proot", "bwrap", "rlwrap", "run-parts", "runcon", "runuser", "script", "scriptreplay",
    "setarch", "setpriv", "setsid", "setuidgid", "sg", "softlimit", "ssh-agent", "start-stop-daemon", "stdbuf",
    "strace", "su", "su-exec", "sudo", "systemd-run", "taskset", "timeout", "tini", "torify", "torsocks", "unbuffer",
    "unshare", "valgrind", "watch", "x86_64", "xvfb-run", "at", "batch", "crontab", "entr", "find", "fc", "ip",
    "jobs", "nodemon", "parallel", "rename", "prename", "screen", "service", "tmate", "tmux", "watchexec", "xargs",
    "concurrently", "cpio", "rsync", "scp", "sftp", "sort", "split", "ssh", "sshpass", "tar", "bsdtar", "zip",
    "zipsplit", "wall", "ftp", "lftp", "nc", "ncat", "netcat", "socat", "telnet", "npx", "bunx", "pnpx", "uvx",
    "pipenv", "corepack", "cross-env", "dotenv", "direnv", "nix", "nix-shell", "nsjail", "runc", "crun", "ansible",
    "ansible-playbook",
})  # fmt: skip

# Subcommands that run anything, such as "docker run". Their programs also have harmless subcommands.
VERBS_RUN_ANYTHING = _combinations(
    (("docker", "podman", "nerdctl"), ("run", "exec", "create", "container", "plugin", "buildx", "context")),
    (("docker", "podman", "nerdctl"), ("compose",), ("run", "exec")),
    (("podman",), ("unshare", "machine")),
    (("npm", "pnpm", "yarn"), ("workspace", "workspaces", "recursive", "multi")),
    (("tox",), ("exec",)),
    (("cargo",), ("watch",)),
    (("mix",), ("do",)),
    (("docker-compose",), ("run", "exec")),
    (("kubectl", "oc"), ("exec", "run", "debug", "config", "plugin", "rsh")),
    (("npm", "pnpm", "yarn", "bun"), ("exec", "x", "dlx", "create", "init", "explore", "config", "set", "edit")),
    (
        ("git",),
        (
            "grep", "bisect", "submodule", "rebase", "clone", "fetch", "config", "filter-branch", "filter-repo",
            "difftool", "mergetool",
        ),
    ),
    (("git",), ("send-email", "instaweb", "hook", "for-each-repo", "daemon", "shell", "svn", "p4")),
    (("uv",), ("tool",), ("run",)),
    (("pip",), ("config",)),
    (("pipx",), ("run", "runpip")),
    (("conda", "mamba", "micromamba", "hatch", "pdm", "rye", "pixi"), ("run", "exec", "shell")),
    (("poetry",), ("shell", "self", "config")),
    (("bundle",), ("config", "plugin", "open")),
    (("composer",), ("exec", "global", "config")),
    (("go",), ("run", "tool", "env", "generate")),
    (("dotnet",), ("exec", "fsi", "script", "msbuild", "tool")),
    (("mix",), ("run", "eval", "archive", "escript")),
    (("rustup",), ("run",)),
    (("gem",), ("exec",)),
    (("deno",), ("eval", "repl", "x", "install")),
    (("helm",), ("plugin",)),
    (("gh",), ("alias", "extension", "codespace", "config")),
    (("gcloud",), ("compute",), ("ssh",)),
    (("hg",), ("clone", "config")),
    (("nx",), ("exec",)),
    (("apt", "apt-get", "dnf", "brew"), ("edit", "sh", "irb", "ruby", "bundle")),
    (("systemctl",), ("edit", "link", "set-environment")),
    (("php",), ("artisan",), ("tinker",)),
)  # fmt: skip

# Interpreters: the name of the script belongs to the prefix.
INTERPRETERS = frozenset({
    "Rscript", "bun", "dart", "deno", "elixir", "groovy", "guile", "java", "julia", "kotlin", "lua", "luajit", "node",
    "nodejs", "perl", "php", "pypy", "python", "racket", "ruby", "scala", "swift", "ts-node", "tsx",
})  # fmt: skip

# Programs with subcommands: two or three words identify the action.
TWO_WORDS = frozenset({
    "apt", "apt-get", "brew", "bundle", "cargo", "composer", "conda", "coverage", "dnf", "docker", "docker-compose",
    "dotnet", "gem", "git", "gmake", "go", "gradle", "gradlew", "hatch", "helm", "hg", "just", "kubectl", "make",
    "mamba", "micromamba", "mix", "mvn", "mvnw", "nerdctl", "nox", "npm", "nx", "oc", "pdm", "pip", "pipx", "pixi",
    "pnpm", "podman", "poetry", "rake", "rustup", "rye", "svn", "systemctl", "task", "terraform", "tofu", "tox",
    "turbo", "uv", "yarn",
})  # fmt: skip
THREE_WORDS = frozenset({"aws", "az", "gcloud", "gh"})
THREE_WORDS_AFTER = _combinations(
    (("docker", "podman", "nerdctl"), ("compose",)),
    (("git",), ("remote", "stash")),
    (("npm", "pnpm", "yarn", "bun"), ("run", "run-script")),
    (("deno",), ("run", "task")),
    (("uv",), ("pip", "tool")),
    (("php",), ("artisan",)),
    (("coverage",), ("run",)),
)  # fmt: skip

# These programs run an unknown subcommand or script name as a program: "yarn node", "pnpm run bash".
RUN_PROGRAMS = frozenset({"bun", "pnpm", "yarn"})
PROGRAMS = RUNS_ANYTHING | INTERPRETERS

# The words after a runner are a separate command, which is checked separately.
RUNNERS = _combinations(
    (("uv",), ("run",)),
    (("poetry",), ("run",)),
    (("bundle",), ("exec",)),
    (("python", "pypy"), ("-m",)),
)  # fmt: skip
# The second word of these programs is a target, a file or an option, not a subcommand that an option could hide.
_NO_VERBS = frozenset(
    {"gmake", "gradle", "gradlew", "just", "make", "mvn", "mvnw", "nox", "rake", "task", "tox"}
)
WITH_VERBS = (TWO_WORDS | THREE_WORDS) - _NO_VERBS
HARMLESS_FIRST = frozenset({"--help", "--version", "-h", "-V", "-v"})

# Words with one of these characters could run as shell code, because Makefiles insert words into commands.
_SHELL_TEXT = "*[][;&|$`<>(){}'\"\\]*"
_PIP = (
    "-i", "-f", "-e", "-r", "-c", "-C", "-t", "--index-url", "--extra-index-url", "--index", "--default-index",
    "--find-links", "--trusted-host", "--editable", "--requirement", "--constraint", "--python", "--config-settings",
    "--global-option", "--build-option", "--install-option", "--target", "--prefix", "--root", "--src", "--log",
    "--proxy", "--cert", "--keyring-provider", "*://*", "*@*", "*/*", ".*", "*.whl", "*.gz", "*.zip",
)  # fmt: skip
_FROM_ELSEWHERE = ("*:*", "/*", "[!@]*/*", ".*", "@*/*/*", "*.tgz", "*.tar*")

# Words that make a known tool run something other than its subcommand: another file or program, code in the word, or
# packages from another source. `prefixes._matches` defines the notation.
DIVERTING: Mapping[Words, Words] = {
    ("make",): (
        "-f", "-C", "-I", "-E", "--file", "--makefile", "--directory", "--eval", "--include-dir", "=", _SHELL_TEXT,
    ),
    ("just",): (
        "-f", "-d", "-c", "-g", "--justfile", "--working-directory", "--command", "--shell", "--shell-arg", "--set",
        "--dotenv-path", "--dotenv-filename", "--global-justfile", "--chooser", "--edit", "=", _SHELL_TEXT,
    ),
    ("task",): ("-t", "-d", "-g", "--taskfile", "--dir", "--global", "=", _SHELL_TEXT),
    ("rake",): (
        "-f", "-r", "-e", "-E", "-p", "-I", "-R", "-g", "--rakefile", "--require", "--execute", "--execute-continue",
        "--execute-print", "--libdir", "--rakelibdir", "--system", "=", _SHELL_TEXT,
    ),
    ("tox",): ("-c", "-x", "--conf", "--workdir", "--root", "--override", "--installpkg"),
    ("nox",): ("-f", "--noxfile"),
    ("mvn",): (
        "-f", "-s", "-gs", "-D*", "-l", "-t", "--file", "--settings", "--global-settings", "--toolchains", "--define",
        "*:*",
    ),
    ("gradle",): (
        "-I", "-b", "-c", "-p", "-g", "-D*", "-P*", "--init-script", "--build-file", "--settings-file",
        "--project-dir", "--gradle-user-home", "--include-build", "--project-prop", "--system-prop",
    ),
    # git accepts any unambiguous abbreviation of a long option.
    ("git",): (
        "--exec", "--exec-path", "--git-dir", "--work-tree", "--config-env", "--upload-pack", "--receive-pack",
        "--extcmd", "--open-files-in-pager", "--output", "--template", "--sendmail-cmd", "--server-option",
    ),
    ("git", "grep"): ("-O",),
    ("git", "clone"): ("-u", "-c", "--config", "*::*"),
    ("git", "fetch"): ("*::*",),
    ("git", "pull"): ("*::*",),
    ("git", "push"): ("*::*",),
    ("git", "ls-remote"): ("*::*",),
    ("git", "remote"): ("*::*",),
    ("git", "archive"): ("--remote",),
    ("git", "rebase"): ("-x",),
    ("git", "bisect"): ("run",),
    ("git", "submodule"): ("foreach", "add"),
    ("git", "difftool"): ("-x", "-t", "--tool"),
    ("hg",): ("--config", "--cwd", "-R", "--repository", "--ssh", "--remotecmd", "--tool"),
    ("svn",): ("--config-option", "--config-dir", "--diff-cmd", "--diff3-cmd", "--editor-cmd", "svn+*"),
    # pytest accepts no abbreviations; --cov must not match --cov-config.
    ("pytest",): (
        "-p", "-c", "-o", "-rootdir", "-config-file", "-confcutdir", "-override-ini", "-pdbcls", "-tx", "-pyargs",
        "-cov-config", "-rsyncdir", "@*",
    ),
    ("coverage",): ("--rcfile", "--concurrency"),
    ("mypy",): ("--config-file", "--python-executable", "--install-types", "--custom-typeshed-dir"),
    ("pylint",): ("--rcfile", "--load-plugins", "--init-hook"),
    ("flake8",): ("--config", "--append-config"),
    ("sphinx-build",): ("-c", "-D", "-C"),
    ("eslint",): (
        "-c", "-f", "--config", "--rulesdir", "--plugin", "--parser", "--format", "--resolve-plugins-relative-to",
    ),
    ("prettier",): ("--config", "--plugin"),
    ("jest",): (
        "-c", "--config", "--globalSetup", "--globalTeardown", "--runner", "--testRunner", "--reporters", "--rootDir",
        "--env", "--transform", "--resolver", "--setupFiles*", "--testEnvironment",
    ),
    ("vitest",): ("-c", "-r", "--config", "--root", "--reporter", "--environment", "--globals-setup"),
    ("mocha",): (
        "-r", "-n", "--require", "--config", "--package", "--file", "--ui", "--reporter", "--import", "--loader",
        "--node-option",
    ),
    ("vite",): ("-c", "--config"),
    ("webpack",): ("-c", "--config"),
    ("go",): (
        "-exec", "-toolexec", "-vettool", "-overlay", "-modfile", "-ldflags", "-gcflags", "-asmflags", "-gccgoflags",
        "-compiler", "-pkgdir", "-C*", "-[o]", "-[o]=*", "--[o]", "--[o]=*", "-[w]", "*@*",
    ),
    ("cargo",): ("-C", "-Z", "--config", "--manifest-path", "--git", "--path", "--registry", "--index", "+*"),
    ("pip",): _PIP,
    ("pipx",): _PIP,
    ("uv", "pip"): _PIP,
    ("uv", "add"): _PIP,
    ("uv", "tool"): _PIP,
    ("uv",): (
        "-p", "-c", "-i", "-f", "--with*", "--python", "--project", "--directory", "--config-file", "--index*",
        "--default-index", "--extra-index-url", "--find-links", "--env-file", "--script", "*://*",
    ),
    ("poetry",): ("-C", "-P", "--directory", "--project", "--source"),
    ("poetry", "add"): ("*:*", "*@*", "*/*", ".*", "--editable"),
    ("conda",): ("-c", "-f", "--channel", "--file", "--override-channels", "*://*", "*::*"),
    ("gem",): ("--source", "-s", "*://*", "*.gem"),
    ("npm",): (
        "-C", "-g", "--script-shell", "--shell", "--prefix", "--dir", "--cwd", "--registry", "--userconfig",
        "--globalconfig", "--node-options", "--git", "--editor", "--viewer", "--location", "--global",
    ),
    ("npm", "install"): _FROM_ELSEWHERE,
    ("npm", "i"): _FROM_ELSEWHERE,
    ("npm", "add"): _FROM_ELSEWHERE,
    ("npm", "update"): _FROM_ELSEWHERE,
    ("docker", "build"): (
        "-f", "-o", "--file", "--output", "--build-context", "--ssh", "--secret", "--allow", "--network", "*://*",
        "git@*",
    ),
    ("docker", "compose"): ("-f", "--file", "--project-directory", "--env-file", "run", "exec", "*://*"),
    ("docker-compose",): ("-f", "--file", "--project-directory", "--env-file", "run", "exec"),
    ("kubectl",): ("--kubeconfig", "--exec-command", "*://*"),
    ("helm",): ("--post-renderer*", "--kubeconfig", "--registry-config", "--repository-config", "*://*"),
    ("terraform",): ("-chdir", "-plugin-dir", "-from-module"),
    ("apt",): ("-o", "-c", "--option", "--config-file", "*/*", "*.deb"),
    ("dnf",): ("-c", "--setopt", "--config", "--repofrompath", "--installroot", "*://*", "*.rpm"),
    ("gh",): ("--upload-pack", "--config"),
    ("dotnet",): (
        "-p:*", "/p:*", "-property:*", "--property", "/l:*", "-l:*", "--logger", "--settings", "--test-adapter-path",
    ),
    ("cmake",): ("-P", "-E", "-C", "-D", "-T", "--toolchain", "--preset"),
    ("ninja",): ("-f", "-C", "-t"),
    ("gcc",): ("-wrapper", "-fplugin*", "-B*", "-specs*", "--specs", "-load", "-Xclang", "@*"),
    ("rg",): ("--pre", "--hostname-bin"),
    ("fd",): ("-x", "-X", "--exec", "--exec-batch"),
    ("bat",): ("--pager", "--config-file"),
    ("wget",): ("-e", "--execute", "--config", "--use-askpass"),
    ("pre-commit",): ("-c", "--config", "try-repo"),
    ("install",): ("--strip-program",),
}  # fmt: skip
ALIASES = {
    "gmake": "make", "mvnw": "mvn", "gradlew": "gradle", "pnpm": "npm", "yarn": "npm", "bun": "npm", "podman": "docker",
    "nerdctl": "docker", "oc": "kubectl", "tofu": "terraform", "mamba": "conda", "micromamba": "conda",
    "apt-get": "apt", "cc": "gcc", "c++": "gcc", "g++": "gcc", "clang": "gcc", "clang++": "gcc", "fdfind": "fd",
    "batcat": "bat", "py.test": "pytest",
}  # fmt: skip
KNOWN = (
    RUNS_ANYTHING
    | INTERPRETERS
    | TWO_WORDS
    | THREE_WORDS
    | frozenset(ALIASES)
    | {key[0] for key in DIVERTING}
)
