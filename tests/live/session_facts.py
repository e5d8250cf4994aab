"""Sessions on the real service: commands, jobs, terminals, and persistent sandboxes."""

from __future__ import annotations

import time

import httpx

from langchain_daytona_ws import WorkspaceSession
from tests.live.account import GONE, TTL_MINUTES, Account, awaited, state_of
from tests.live.fact import Facts

fact = Facts()

LIFE = {"idleTimeoutSeconds": 900, "maxLifetimeSeconds": TTL_MINUTES * 60}
SESSION, JOBS = "session", "jobs"


@fact(SESSION, "a command runs in the workspace; its exit code is reported", "3 here False")
def _(account: Account) -> str:
    result = account.session.run("pwd | grep -q /live-check- && echo here; exit 3")
    return f"{result.exit_code} {result.output.strip()} {result.timed_out}"


@fact(SESSION, "the same call runs once", "1 True")
def _(account: Account) -> str:
    for _ in range(2):
        result = account.session.run("echo x >> ran; wc -l < ran", idempotency_key="live")
    return f"{result.output.strip()} {result.from_record}"


@fact(SESSION, "a time-out kills all processes and keeps the output", "124 begun 0")
def _(account: Account) -> str:
    result = account.session.run("echo begun; setsid sleep 511 & sleep 512", timeout_s=2)
    left = account.session.run("ps axo args | grep -c '[s]leep 51'").output.strip()
    return f"{result.exit_code} {result.output.strip()} {left}"


@fact(SESSION, "a long output is saved in a file", "True 1000000")
def _(account: Account) -> str:
    result = account.session.run("head -c 1000000 /dev/zero | tr '\\0' a")
    size = account.session.run(f"wc -c < {result.log_path}").output.strip()
    return f"{result.truncated} {size}"


@fact(SESSION, "output is streamed while a command runs", "True")
def _(account: Account) -> bool:
    times: list[float] = []
    began = time.monotonic()
    account.session.run("echo a; sleep 3; echo b", on_output=lambda _: times.append(time.monotonic() - began))
    return len(times) > 1 and times[-1] - times[0] > 1


@fact(SESSION, "a command can run in a terminal", "24 80 end")
def _(account: Account) -> str:
    return (
        account.session.run("stty size; cat; printf 'x\\rend'", pty=True, timeout_s=20).screen or ""
    ).replace("\n", " ")


@fact(SESSION, "files are written, read and found", "héllo 1")
def _(account: Account) -> str:
    account.session.files.write("notes/ä.txt", "héllo\n")
    text = account.session.run("cat notes/*.txt").output.strip()
    return f"{text} {len(account.session.files.glob('**/*.txt').entries)}"


@fact(
    JOBS, "a job outlives its call; the auto-stop interval covers it, and is restored after it", "1 2 75 15"
)
def _(account: Account) -> str:
    session = account.session
    job = session.jobs.start("for i in 1 2; do echo $i; sleep 1; done", max_duration_s=3600)
    raised = account.client.get(str(session.sandbox_id)).auto_stop_interval
    lines = [line.text.strip() for line in session.jobs.follow(job.id) if line.kind == "output"]
    session.run("true")
    restored = account.client.get(str(session.sandbox_id)).auto_stop_interval
    return f"{' '.join(lines)} {raised:g} {restored:g}"


@fact(JOBS, "a stopped job leaves no process", "stopped 0")
def _(account: Account) -> str:
    job = account.session.jobs.start("setsid sleep 611 & sleep 612")
    ended = account.session.jobs.stop(job.id)
    left = account.session.run("ps axo args | grep -c '[s]leep 61'").output.strip()
    return f"{ended.state} {left}"


@fact(JOBS, "a page of a server in a job is reached by a preview link", "200 hello")
def _(account: Account) -> str:
    port = 3001 + int(account.run, 16) % 6000
    session = account.session
    session.run("mkdir -p site; echo hello > site/page.txt")
    job = session.jobs.start(f"cd site; exec python3 -u -m http.server --bind 127.0.0.1 {port}")
    next(iter(session.jobs.follow(job.id)))
    link = session.preview_url(port, expires_s=120)
    seen = httpx.get(f"{link.url}/page.txt", timeout=30, headers={"X-Daytona-Skip-Preview-Warning": "true"})
    return f"{seen.status_code} {seen.text.strip()[:50]}"


@fact("persistent", "another session finds the sandbox and its files", "True kept")
def _(account: Account) -> str:
    first = account.open(persistent=True, lifecycle=LIFE)
    first.run("echo kept > /tmp/kept")
    account.notes["persistent"] = first
    second = account.open(persistent=True, lifecycle=LIFE)
    text = second.run("cat /tmp/kept").output.strip()
    return f"{second.sandbox_id == first.sandbox_id} {text}"


@fact("persistent", "a stopped sandbox is started by the next call, and its job is lost", "0 True lost")
def _(account: Account) -> str:
    session: WorkspaceSession = account.notes["persistent"]
    job = session.jobs.start("sleep 900")
    account.client.get(str(session.sandbox_id)).stop(timeout=60)
    result = session.run("true")
    state = session.jobs.status(job.id).state
    return f"{result.exit_code} {any('started again' in notice for notice in result.notices)} {state}"


@fact("persistent", "release deletes it", "gone")
def _(account: Account) -> str:
    session: WorkspaceSession = account.notes["persistent"]
    name = account.client.get(str(session.sandbox_id)).name
    session.release()
    state = awaited(lambda: state_of(account, name), GONE)
    return "gone" if state == "destroyed" else state
