"""Start a local Daytona, upload a real package with a planted bug, and run an agent that repairs it.

Run it with ``make demo``, or with options, as in ``make demo ARGS="--yes"``. ``--yes`` allows everything. ``--s3``
keeps the workspace on a local S3, and ``--s3-mount`` mounts it. ``--model provider:name`` uses a real model.
"""

from __future__ import annotations

import argparse
import asyncio
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
from examples.demo.storage import BUCKET, S3Mode, options_for, own_environment, prefix_of, repaired_object
from langchain_daytona_ws import WorkspaceError, WorkspaceSession
from langchain_daytona_ws.local import IsolationUnavailable, LocalDaytona, S3Unavailable

NAMESPACE = "demo"


async def repair(
    server: LocalDaytona, package: Package, model: BaseChatModel, screen: Screen, *, s3_mode: S3Mode | None
) -> tuple[TestRun, TestRun]:
    """Run the agent; return the agent's first test run and the final one. Raise DemoFailed without a repair."""
    options = {
        "apiKey": server.api_key,
        "apiUrl": server.api_url,
        **(options_for(server, s3_mode) if s3_mode else {}),
    }
    config = {"permissionMode": "ask", "options": options}
    async with WorkspaceSession(config, namespace=NAMESPACE, approver=screen.approve) as session:
        screen.title(f"1. {package.name} {package.version}, its tests, and a bug")
        screen.busy("creating a sandbox and unpacking the source")
        await set_up(session, package)
        tests = await fingerprint_of_tests(session)
        screen.note(f"Unpacked into sandbox {session.sandbox_id}. One line of {BROKEN_FILE} was broken.")
        if s3_mode:
            how = "synchronised with every call" if s3_mode == "sync" else "mounted there with mount-s3"
            screen.note(f"The workspace is s3://{BUCKET}/{prefix_of(NAMESPACE)}, {how}.")

        screen.title("2. The agent")
        record = await work(model, session, screen)

        screen.title("3. Is it repaired?")
        screen.busy("running the tests once more, apart from the agent")
        final = await run_tests(session)
        record.check(final, tests_unchanged=await fingerprint_of_tests(session) == tests)
        screen.idle()
        return record.test_runs[0], final


def main(
    arguments: Sequence[str] | None = None, console: Console | None = None, screen: Screen | None = None
) -> int:
    """Run the demo; return its exit code. With a screen, the demo needs no terminal."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--yes", action="store_true", help="allow all that the agent wants to do")
    storage = parser.add_mutually_exclusive_group()
    storage.add_argument(
        "--s3", dest="s3_mode", action="store_const", const="sync", help="keep the workspace on a local S3"
    )
    storage.add_argument(
        "--s3-mount", dest="s3_mode", action="store_const", const="mount", help="mount it from a local S3"
    )
    parser.add_argument(
        "--model", metavar="PROVIDER:NAME", help="chat model; default: a script plays its part"
    )
    options = parser.parse_args(arguments)
    console = console or Console(highlight=False)
    can_ask = options.yes or screen is not None or sys.stdin.isatty()
    screen = screen or Screen(console, yes=options.yes)
    if not can_ask:
        console.print(
            "There is no terminal to ask on. Allow everything with: make demo ARGS=--yes", style="red"
        )
        return 2
    try:
        package = Package.pinned()
        model = model_for(options.model)
        if options.model is None:
            screen.note("No model given: a scripted model plays the agent's part. All else is real.", "bold")
        mode: S3Mode | None = options.s3_mode
        with own_environment(s3=bool(mode)), LocalDaytona(s3=bool(mode)) as server:
            also = f", a local S3 on {server.s3_endpoint}" if mode else ""
            screen.note(f"A local Daytona serves on {server.api_url}{also}.")
            before, after = asyncio.run(repair(server, package, model, screen, s3_mode=mode))
            if mode:
                screen.note(
                    f"The sandbox is gone; boto3 reads the repaired file from {repaired_object(server, NAMESPACE)}"
                )
    except KeyboardInterrupt:
        screen.note("\nStopped. The sandbox and the server are gone.")
        return 130
    except (DemoFailed, IsolationUnavailable, S3Unavailable, WorkspaceError) as error:
        because = " (the calls that you denied did not run)" if screen.denied else ""
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
