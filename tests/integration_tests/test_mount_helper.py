"""The snapshot's mount helper in a sandbox: real mounts, asked for by whom it must not trust."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest

from langchain_daytona_ws._core.mount.manager import mounter_source
from tests.integration_tests.local.mounted import BUCKET, Mounted, mounted
from tests.sample import sample

HELPER = "/root/langchain-daytona-ws-mount"
HOST = {"Version": 1, "AccessKeyId": "AKIAHOST", "SecretAccessKey": "a-secret-of-the-host"}
AGENT = {"Version": 1, "AccessKeyId": "AKIAAGENT", "SecretAccessKey": "a-secret-of-the-agent"}


class Box:
    """A sandbox with the helper, as the build of the snapshot leaves it."""

    def __init__(self, location: Mounted) -> None:
        self.location = location
        source = mounter_source("/mnt/workspaces", "/mnt/skills")
        location.sandbox.fs.upload_file(f"#!/usr/bin/python3 -IS\n{source}".encode(), HELPER)
        location.ok(f"chmod 755 {HELPER}; mkdir /mnt/workspaces /mnt/skills")
        location.put("sandbox/demo/f", b"of the workspace\n")

    def ask(
        self, credentials: dict[str, Any] | None, *, bucket: str = BUCKET, client: str = "", **more: Any
    ) -> dict[str, Any]:
        """Send a request, as the host's program or as an agent that imitates it.

        Args:
            credentials: None for those that are there.
            bucket: Of the workspace.
            caller: Shell commands of who calls, before that.
            more: Other fields of the request.
        """
        mount = {"prefix": "sandbox/demo/", "directory": "/mnt/workspaces/demo", "read_only": False}
        skills = {"bucket": BUCKET, "prefix": "", "directory": "/mnt/skills", "read_only": True}
        request = {
            "version": 2,
            "mounts": [{"bucket": bucket, **mount}, skills],
            "region": "us-east-1",
            "endpoint": self.location.server.s3_endpoint,
            **more,
        }
        message = shlex.join([json.dumps(request), "" if credentials is None else json.dumps(credentials)])
        script = f"{client} printf '%s\\n' {message} | {HELPER}"
        answer: dict[str, Any] = json.loads(self.location.ok(script))
        return answer


@pytest.fixture
def box() -> Iterator[Box]:
    with mounted() as location:
        yield Box(location)


def test_it_mounts_what_it_is_given_credentials_for_and_nothing_else_with_them(box: Box) -> None:
    assert box.ask(HOST) == {"ok": True, "moved": []}
    poll = "cat /mnt/workspaces/demo/f /mnt/skills/sandbox/demo/f; echo x > /mnt/skills/x || echo refused"
    assert box.location.ok(poll).split("\n")[:2] == ["of the workspace"] * 2
    assert "refused" in box.location.ok(poll)

    other = box.location.server.make_bucket("other")
    for wanted in ({"bucket": other}, {"endpoint": "http://127.0.0.1:9"}, {"region": "eu-central-1"}):
        assert box.ask(None, **wanted)["code"] == "credentials"
    assert box.ask(None) == {"ok": True, "moved": []}

    # Who brings credentials of one's own may use them; those of the host are not there any more.
    assert box.ask(AGENT, bucket=other)["ok"] is True
    assert box.ask(None)["code"] == "credentials"
    stored = "cat /var/lib/langchain-daytona-ws/*/*.json"
    assert "AKIAHOST" not in box.location.ok(stored)
    assert box.ask(HOST)["ok"] is True
    assert "AKIAAGENT" not in box.location.ok(stored)
    assert box.location.ok("cat /mnt/workspaces/demo/f") == "of the workspace\n"


def test_its_error_messages_contain_no_secret(box: Box) -> None:
    box.location.server.s3.deny = (f"{BUCKET}/sandbox/demo/",)
    refused = box.ask(HOST)
    assert refused["code"] == "denied"
    assert "AKIAHOST" not in json.dumps(refused)
    assert "a-secret" not in json.dumps(refused)


@pytest.mark.full
def test_it_leaves_files_and_mounts_of_others_alone(box: Box) -> None:
    box.location.ok("mkdir /mnt/workspaces/demo; ln -s /etc/shadow /mnt/workspaces/demo/link")
    assert box.ask(HOST)["code"] == "not_empty"
    box.location.ok("rm /mnt/workspaces/demo/link; mount -t tmpfs mine /mnt/workspaces/demo")
    assert box.ask(HOST)["code"] == "foreign_mount"
    box.location.ok("umount /mnt/workspaces/demo")
    assert box.ask(HOST)["ok"] is True


@pytest.mark.full
def test_the_callers_environment_does_not_reach_the_mount(box: Box) -> None:
    hostile = (
        "trap '' CHLD HUP TERM; ulimit -c unlimited; umask 0; cd /tmp; export AWS_PROFILE=evil TMPDIR=/tmp;"
    )
    assert box.ask(HOST, client=hostile)["ok"] is True
    seen = box.location.ok(
        "p=$(pgrep -of 'mount-s3 agents'); grep core /proc/$p/limits; readlink /proc/$p/cwd;"
        " tr '\\0' '\\n' </proc/$p/environ; find /var/lib/langchain-daytona-ws -perm /022"
    ).splitlines()
    assert seen[0].split()[4:6] == ["0", "0"]
    assert seen[1] == "/"
    names = {line.partition("=")[0] for line in seen[2:]}
    assert names == {
        "PATH",
        "HOME",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_EC2_METADATA_DISABLED",
    }


@pytest.mark.parametrize("signal", sample(["KILL", "STOP"], "STOP"))
def test_a_mount_that_is_dead_or_hangs_is_replaced_and_holds_up_nobody(box: Box, signal: str) -> None:
    assert box.ask(HOST)["ok"] is True
    # A read of a mount whose daemon hangs waits, without reacting to signals; the root's attributes are cached.
    poll = "stat /mnt/workspaces/demo"
    box.location.ok(f"{poll}; pkill -{signal} -f 'mount-s3 agents /mnt/workspaces'; {poll}")
    assert box.ask(None) == {"ok": True, "moved": []}
    assert box.location.ok("cat /mnt/workspaces/demo/f") == "of the workspace\n"
    assert box.ask(None) == {"ok": True, "moved": []}
    assert box.location.ok("pgrep -fc 'mount-s3 agents /mnt/workspaces'") == "1\n"


@pytest.mark.full
def test_only_daemons_of_its_own_mounts_are_ended(box: Box) -> None:
    assert box.ask(HOST)["ok"] is True
    own = "mount-s3 -f /dev/null /mnt/workspaces/demo"
    box.location.ok(
        f"(exec -a {own.replace(' ', ' tail ', 1)}) >/dev/null 2>&1 & pkill -KILL -f 'agents /mnt/w'"
    )
    assert box.ask(None) == {"ok": True, "moved": []}
    assert box.location.run(f"pgrep -fc '^{own}'")[1] == "1\n"


@pytest.mark.full
def test_a_mount_that_s3_refuses_is_made_anew_with_other_credentials_only(box: Box) -> None:
    first, second = (box.location.assume(DurationSeconds=3600) for _ in range(2))
    end = {"expires_at": time.time() + 3600}
    assert box.ask(first, **end)["ok"] is True
    box.location.server.s3.expire_credentials()
    assert box.ask(None, **end)["ok"] is True, "it is not asked for"
    assert box.ask(second, **end)["code"] == "expired"
    assert box.ask(box.location.assume(DurationSeconds=3600), **end)["ok"] is True
    assert box.location.ok("cat /mnt/workspaces/demo/f") == "of the workspace\n"
