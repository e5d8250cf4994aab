"""Start a local Daytona, put a real package with a planted bug on it, and let an agent repair it.

Run it with ``make demo``; ``make demo ARGS="--yes"`` asks nothing, ``ARGS="--model provider:name"`` takes a
real model.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from langchain_core.language_models import BaseChatModel
from rich.console import Console

from examples.demo.agent import model_for, work
from examples.demo.project import (
    BROKEN_FILE,
    DemoFailed,
    Package,
    TestRun,
    fingerprint_of_tests,
    run_tests,
    set_up,
)
from examples.demo.screen import Screen
from langchain_daytona_ws import WorkspaceError, WorkspaceSession
from langchain_daytona_ws.local import IsolationUnavailable, LocalDaytona


async def repair(
    server: LocalDaytona, package: Package, model: BaseChatModel, screen: Screen
) -> tuple[TestRun, TestRun]:
    """Return the first and the last run of the package's tests; raise unless the agent repaired it."""
    config = {
        "permissionMode": "ask",
        "options": {"apiKey": server.api_key, "apiUrl": server.api_url},
    }
    async with WorkspaceSession(config, namespace="demo", approver=screen.approve) as session:
        screen.title(f"1. {package.name} {package.version}, its tests, and a bug")
        screen.busy("creating a sandbox and unpacking the source")
        await set_up(session, package)
        tests = await fingerprint_of_tests(session)
        screen.note(f"Unpacked into sandbox {session.sandbox_id}. One line of {BROKEN_FILE} was broken.")

        screen.title("2. The agent")
        deeds = await work(model, session, screen)

        screen.title("3. Is it repaired?")
        screen.busy("running the tests once more, apart from the agent")
        final = await run_tests(session)
        deeds.judge(final, tests_unchanged=await fingerprint_of_tests(session) == tests)
        screen.idle()
        return deeds.test_runs[0], final


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--yes", action="store_true", help="allow all that the agent wants to do")
    parser.add_argument(
        "--model", metavar="PROVIDER:NAME", help="chat model; default: a script plays its part"
    )
    options = parser.parse_args(arguments)
    console = console or Console(highlight=False)
    screen = Screen(console, yes=options.yes)
    if not options.yes and not sys.stdin.isatty():
        console.print(
            "There is no terminal to ask on. Allow everything with: make demo ARGS=--yes", style="red"
        )
        return 2
    # The demo's own server is meant, whatever account the environment names.
    for name in [name for name in os.environ if name.startswith("DAYTONA_")]:
        del os.environ[name]
    try:
        package = Package.pinned()
        model = model_for(options.model)
        if options.model is None:
            screen.note("No model given: a scripted model plays the agent's part. All else is real.", "bold")
        with LocalDaytona() as server:
            screen.note(f"A local Daytona serves on {server.api_url}.")
            before, after = asyncio.run(repair(server, package, model, screen))
    except KeyboardInterrupt:
        screen.note("\nStopped. The sandbox and the server are gone.")
        return 130
    except (DemoFailed, IsolationUnavailable, WorkspaceError) as error:
        because = " (what you said no to was not done)" if screen.denied else ""
        screen.note(f"✘ {error}{because}", "bold red")
        return 1
    screen.note(
        f"✔ {package.name}'s own tests: {after} after the repair, {before} before it "
        f"({screen.asked} approvals, {screen.seconds()})",
        "bold green",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
