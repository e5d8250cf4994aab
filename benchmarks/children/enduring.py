"""Run many commands in one session, from several threads, and print this process's resources at each stop."""

from __future__ import annotations

import gc
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from langchain_daytona_ws import WorkspaceSession

THREADS = 8
# The guest removes old records of calls once a minute. At a stop it removes them at once, for equal conditions.
TIDY = "touch -d '2 minutes ago' /tmp/.langchain-daytona-ws-*/tidied"


def main(stops: list[int], api_url: str, api_key: str) -> None:
    """Stop after each of these numbers of commands, and continue when a line arrives."""
    config = {"options": {"apiUrl": api_url, "apiKey": api_key}}
    done = 0
    with (
        WorkspaceSession(config, namespace="bench-endurance") as session,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for stop in stops:
            for result in pool.map(session.run, ["echo hello"] * (stop - done)):
                if result.output != "hello\n":
                    raise RuntimeError(f"a command failed: {result}")
            done = stop
            session.run(TIDY)
            session.run(":")
            gc.collect()
            held = {"resident_bytes": _resident_bytes(), "open_files": len(os.listdir("/proc/self/fd"))}
            sys.stdout.write(json.dumps({"sandbox": session.sandbox_id, "held": held}) + "\n")
            sys.stdout.flush()
            sys.stdin.readline()


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main([int(stop) for stop in sys.argv[2:]], sys.argv[1], sys.stdin.readline().strip())
