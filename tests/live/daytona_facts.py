"""Facts of Daytona: the control plane, commands, files, previews, and the life of a sandbox."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
from daytona import ListSandboxesQuery
from daytona.common.errors import DaytonaError, DaytonaNotFoundError
from daytona_api_client import CreateSandbox
from daytona_api_client.exceptions import ApiException

from tests.live.account import GONE, REQUEST_S, Account, awaited, in_python, state_of
from tests.live.fact import Facts

fact = Facts()

CREATE, COMMANDS, FILES, TIMEOUT = "create", "commands", "files", "time-out"
PERSISTENCE, NETWORK, PREVIEWS = "persistence", "network", "previews"
SERVE = "cd /tmp && mkdir -p site && echo hello > site/page.txt && cd site && exec python3 -m http.server"


def refusal(call: Callable[[], Any]) -> str:
    """Return the status of a refused request, and its message after the SDK's own words."""
    try:
        call()
    except ApiException as error:
        return f"{error.status} {json.loads(error.body or '{}').get('message', '')}"
    except DaytonaError as error:
        return f"{error.status_code} {str(error).rpartition(': ')[2]}".strip()
    return "accepted"


def status(call: Callable[[], Any]) -> str:
    return refusal(call).partition(" ")[0]


# --- create ---


@fact(CREATE, "a new sandbox is started, and runs as the user daytona", "started daytona")
def _(account: Account) -> str:
    return f"{state_of(account, account.sandbox.id)} {account.sandbox.user}"


@fact(CREATE, "its default size is 1 CPU, 1 GiB of memory and 3 GiB of disk", "1 1 3")
def _(account: Account) -> str:
    box = account.sandbox
    return f"{box.cpu:g} {box.memory:g} {box.disk:g}"


@fact(CREATE, "it is found by its name", "True")
def _(account: Account) -> bool:
    return account.client.get(account.sandbox.name).id == account.sandbox.id


@fact(CREATE, "its name is unique in the organization", "409 already exists")
def _(account: Account) -> str:
    account.sandbox.refresh_data()
    seen = refusal(lambda: account.create("raw", auto_delete_interval=0))
    return f"{seen.partition(' ')[0]} {'already exists' if 'already exists' in seen else seen}"


@fact(CREATE, "an unknown name is a 404", "404")
def _(account: Account) -> str:
    return status(lambda: account.client.get(f"no-such-{account.run}"))


@fact(CREATE, "a listing finds it by its label", "1")
def _(account: Account) -> int:
    found = account.client.list(ListSandboxesQuery(labels=dict(account.labels)))
    return sum(box.id == account.sandbox.id for box in found)


@fact(CREATE, "PUT labels replaces all labels", "added only")
def _(account: Account) -> str:
    account.sandbox.set_labels({**account.labels, "added": "1"})
    both = account.client.get(account.sandbox.id).labels or {}
    account.sandbox.set_labels(dict(account.labels))
    after = account.client.get(account.sandbox.id).labels or {}
    return "added only" if "added" in both and "added" not in after else f"{sorted(both)} {sorted(after)}"


@fact(CREATE, "a time to live is accepted, and reported as a date", "True")
def _(account: Account) -> bool:
    raw = account.client._sandbox_api.get_sandbox(account.sandbox.id)
    known = {**raw.to_dict(), **(raw.additional_properties or {})}
    return bool(known.get("autoDestroyAt"))


@fact(
    CREATE,
    "a size is refused together with a snapshot",
    "400 Cannot specify Sandbox resources when using a snapshot",
)
def _(account: Account) -> str:
    body = CreateSandbox(name=f"live-check-{account.run}-size", labels=dict(account.labels), cpu=1, env={})
    return refusal(lambda: account.client._sandbox_api.create_sandbox(body))


@fact(CREATE, "the auto-stop interval can be changed", "75")
def _(account: Account) -> str:
    account.sandbox.set_autostop_interval(75)
    seen = account.client.get(account.sandbox.id).auto_stop_interval
    account.sandbox.set_autostop_interval(15)
    return f"{seen:g}"


# --- commands ---


@fact(COMMANDS, "the exit code is the script's", "3")
def _(account: Account) -> int:
    return account.execute("exit 3")[0]


@fact(COMMANDS, "standard output and error come in one text, in order", "a b c")
def _(account: Account) -> str:
    return " ".join(account.execute("echo a; echo b >&2; echo c")[1].split())


@fact(
    COMMANDS,
    "the script is the shell's standard input: a command that reads it takes the next lines",
    "echo taken",
)
def _(account: Account) -> str:
    return account.execute("cat\necho taken")[1].strip()


@fact(COMMANDS, "the shell is zsh or bash", "zsh", "bash")
def _(account: Account) -> str:
    return account.execute("ps -p $$ -o comm=")[1].strip().lstrip("-").rpartition("/")[2]


@fact(COMMANDS, "bytes that are not UTF-8 become U+FFFD", "a\ufffdb")
def _(account: Account) -> str:
    return account.execute(r"printf 'a\377b'")[1]


@fact(COMMANDS, "a variable of 131,000 bytes passes, and 1.8 MB in all", "0 1800000")
def _(account: Account) -> str:
    env = {f"PART{number}": "x" * 120_000 for number in range(15)}
    code, _ = account.execute("true", env={"LARGE": "x" * 131_000})
    _, count = account.execute("env | grep '^PART' | cut -d= -f2- | tr -d '\\n' | wc -c", env=env)
    return f"{code} {count.strip()}"


@fact(COMMANDS, "a missing directory is exit code -1, and the shell is blamed", "-1 True")
def _(account: Account) -> str:
    code, output = account.execute("true", cwd="/no/such/directory")
    return f"{code} {'no such file or directory' in output}"


@fact(COMMANDS, "a blank command is refused", "400")
def _(account: Account) -> str:
    return status(lambda: account.sandbox.process.exec("  "))


@fact(COMMANDS, "an answer comes only when the output is closed: a background process holds it", "True")
def _(account: Account) -> bool:
    began = time.monotonic()
    account.execute("sleep 3 & true")
    return time.monotonic() - began > 2.5


@fact(COMMANDS, "bash, Python 3.8 or later and pseudo-terminals are there", "True True True")
def _(account: Account) -> str:
    checks = "bool(shutil.which('bash')), sys.version_info >= (3, 8), len(os.openpty()) == 2"
    return account.python(f"import os, shutil, sys\nprint({checks})")


@fact(COMMANDS, "bash can be started without fork, in its own session (posix_spawn, setsid)", "True")
def _(account: Account) -> str:
    spawn = "os.posix_spawn('/bin/true', ['true'], {}, setsid=True)"
    return account.python(f"import os\nprint(os.waitpid({spawn}, 0)[1] == 0)")


@fact(COMMANDS, "a process that leaves its session and closes its output outlives the call", "True")
def _(account: Account) -> bool:
    account.execute("setsid sleep 47 </dev/null >/dev/null 2>&1 &")
    return "sleep 47" in account.execute("ps axo args")[1]


# --- time-outs ---


@fact(TIMEOUT, "at the time-out the daemon answers 408 and discards the output", "408 True")
def _(account: Account) -> str:
    began = time.monotonic()
    seen = status(lambda: account.sandbox.process.exec("echo lost; sleep 30", timeout=2))
    return f"{seen} {time.monotonic() - began < 15}"


@fact(TIMEOUT, "it kills the process group, and not a process with its own session", "True True")
def _(account: Account) -> str:
    script = "setsid sleep 48 </dev/null >/dev/null 2>&1 & sleep 49"
    status(lambda: account.sandbox.process.exec(script, timeout=2))
    left = account.execute("ps axo args")[1]
    return f"{'sleep 48' in left} {'sleep 49' not in left}"


# --- files ---


@fact(FILES, "an upload makes parent directories, and a download returns the same bytes", "True")
def _(account: Account) -> bool:
    data = bytes(range(256)) * 4096
    account.sandbox.fs.upload_file(data, "/tmp/live/a/b.bin")
    return account.sandbox.fs.download_file("/tmp/live/a/b.bin") == data


@fact(FILES, "a file's size and time are reported; the time changes with the content", "1 2 True")
def _(account: Account) -> str:
    seen = []
    for data in (b"x", b"xy"):
        account.sandbox.fs.upload_file(data, "/tmp/live/times")
        seen.append(account.sandbox.fs.get_file_info("/tmp/live/times"))
        time.sleep(0.05)
    return f"{seen[0].size} {seen[1].size} {seen[0].mod_time != seen[1].mod_time}"


@fact(FILES, "a missing file is a 404", "404")
def _(account: Account) -> str:
    return status(lambda: account.sandbox.fs.get_file_info("/tmp/live/missing"))


@fact(FILES, "a directory is not deleted unless recursively", "400 None")
def _(account: Account) -> str:
    account.execute("mkdir -p /tmp/live/full/inner")
    first = status(lambda: account.sandbox.fs.delete_file("/tmp/live/full"))
    return f"{first} {account.sandbox.fs.delete_file('/tmp/live/full', recursive=True)}"


@fact(FILES, "a move does not replace an existing file", "409")
def _(account: Account) -> str:
    account.execute("touch /tmp/live/one /tmp/live/two")
    return status(lambda: account.sandbox.fs.move_files("/tmp/live/one", "/tmp/live/two"))


# --- previews ---


def _serving(account: Account, port: int) -> str:
    """Start a server that listens on localhost only; return its signed link."""
    account.execute(f"({SERVE} --bind 127.0.0.1 {port}) </dev/null >/dev/null 2>&1 & true")
    connects = f"import socket\nprint(socket.socket().connect_ex(('127.0.0.1', {port})))"
    awaited(lambda: account.python(connects), ["0"])
    return str(account.sandbox.create_signed_preview_url(port, 300, request_timeout=REQUEST_S).url)


def _fetched(url: str) -> httpx.Response:
    return httpx.get(
        url, timeout=30, follow_redirects=True, headers={"X-Daytona-Skip-Preview-Warning": "true"}
    )


@fact(PREVIEWS, "a signed link needs no header, and reaches a server that listens on localhost", "200 hello")
def _(account: Account) -> str:
    port = 3000 + int(account.run, 16) % 6000
    account.notes["preview"] = _serving(account, port)
    seen = _fetched(f"{account.notes['preview']}/page.txt")
    return f"{seen.status_code} {seen.text.strip()[:50]}"


@fact(PREVIEWS, "another token is refused", "401")
def _(account: Account) -> int:
    head, _, rest = account.notes["preview"].partition("-")
    return _fetched(f"{head}-{'x' * 8}{rest[8:]}/page.txt").status_code


@fact(PREVIEWS, "a link ends after its time", "200 401")
def _(account: Account) -> str:
    port = 3000 + int(account.run, 16) % 6000
    url = account.sandbox.create_signed_preview_url(port, 3, request_timeout=REQUEST_S).url
    first = _fetched(f"{url}/page.txt").status_code
    time.sleep(4)
    return f"{first} {_fetched(f'{url}/page.txt').status_code}"


@fact(PREVIEWS, "without a server the answer is a 502", "502")
def _(account: Account) -> int:
    url = account.sandbox.create_signed_preview_url(9998, 60, request_timeout=REQUEST_S).url
    return _fetched(url).status_code


@fact(PREVIEWS, "a time above a day is refused", "400")
def _(account: Account) -> str:
    return status(lambda: account.sandbox.create_signed_preview_url(3000, 86_401))


# --- network ---


@fact(NETWORK, "with networkBlockAll a sandbox connects to no address, and commands run", "blocked")
def _(account: Account) -> str:
    box = account.create("offline", auto_delete_interval=0, network_block_all=True)
    code = "import socket\ntry:\n socket.create_connection(('1.1.1.1', 443), 5)\n print('connected')\n"
    seen = box.process.exec(in_python(f"{code}except OSError: print('blocked')"), timeout=30).result.strip()
    box.delete()
    return seen


# --- persistence ---


@fact(PERSISTENCE, "a stop keeps the disk, /tmp included, and ends all processes", "kept False")
def _(account: Account) -> str:
    account.kept.process.exec("echo kept > /tmp/kept; setsid sleep 999 </dev/null >/dev/null 2>&1 &")
    account.kept.stop(timeout=REQUEST_S)
    account.kept.start(timeout=REQUEST_S)
    seen = account.kept.process.exec("cat /tmp/kept; ps axo args").result
    return f"{seen.split()[0]} {'sleep 999' in seen}"


@fact(PERSISTENCE, "a command in a stopped sandbox is a 400 that asks whether it is started", "400 True")
def _(account: Account) -> str:
    account.kept.stop(timeout=REQUEST_S)
    seen = refusal(lambda: account.kept.process.exec("true"))
    return f"{seen.partition(' ')[0]} {'Is the Sandbox started' in seen or 'no IP address' in seen}"


@fact(PERSISTENCE, "a deleted sandbox is gone within a minute, and its name is free", "gone True")
def _(account: Account) -> str:
    name = account.kept.name
    account.kept.delete(timeout=REQUEST_S)
    state = awaited(lambda: state_of(account, account.kept.id), GONE)
    try:
        account.client.get(name, request_timeout=REQUEST_S)
    except DaytonaNotFoundError:
        return f"{'gone' if state == 'destroyed' else state} True"
    return f"{state} False"


@fact(PERSISTENCE, "with auto-delete 0 a stop destroys the sandbox", "gone")
def _(account: Account) -> str:
    with suppress(DaytonaError):  # it may be gone before it is seen as stopped
        account.sandbox.stop(timeout=REQUEST_S)
    state = awaited(lambda: state_of(account, account.sandbox.id), GONE)
    return "gone" if state == "destroyed" else state
