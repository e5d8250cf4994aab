"""Credentials that expire during use, without any visible effect."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from langchain_daytona_ws import CredentialsRefused, SandboxError
from tests.integration_tests.conftest import Driven
from tests.integration_tests.mounted_sandbox import MountedSandbox
from tests.integration_tests.s3 import Bucket, bucket, host_keys
from tests.sample import sample

__all__ = ["bucket", "host_keys"]  # fixtures

OpenSession = Callable[..., Driven]

LIFE_S = 10.0
# Long enough to start a sandbox and mount-s3 on a busy machine.
MOUNTABLE_S = 15.0


def wait_until(moment: float) -> None:
    """Wait for a point in time, which is what ends credentials."""
    while time.time() < moment:
        time.sleep(0.05)


def keys_used(bucket: Bucket) -> set[str]:
    """Return which of the role's credentials S3 was asked with."""
    used = {item.access_key for item in bucket.server.s3.requests if item.service == "s3"}
    return used - {"", "AKIAHOST", "AKIAOUTSIDE"}


@pytest.mark.full
@pytest.mark.usefixtures("host_keys")
def test_three_ends_of_credentials_cost_no_command(bucket: Bucket, open_session: OpenSession) -> None:
    bucket.server.s3.credential_lifetime_s = LIFE_S
    bucket.server.s3.clear_requests()
    workspace = bucket.session(open_session, role=True)
    # It writes all the time, also between the calls.
    workspace.run(
        "while [ ! -e /tmp/enough ]; do date > bg.txt || date >> /tmp/failed; sleep 0.1; done >/dev/null 2>&1 &"
    )
    ends_at, ends, number = time.time() + LIFE_S, 0, 0
    while ends < 3:
        number += 1
        result = workspace.run(f"echo {number} > f{number} && cat f{number} && ls | wc -l && cat /tmp/failed")
        assert result.output.startswith(f"{number}\n{number + 1}\n"), result.output
        assert "cat: /tmp/failed: No such file" in result.output
        if time.time() > ends_at:
            ends, ends_at = ends + 1, time.time() + LIFE_S
    assert len(keys_used(bucket)) > 3
    workspace.run("touch /tmp/enough")
    assert len(bucket.paths()) == number + 1
    assert bucket.server.count("create") == 1


@pytest.mark.usefixtures("host_keys")
def test_credentials_that_ended_long_ago(bucket: Bucket, open_session: OpenSession) -> None:
    bucket.server.s3.credential_lifetime_s = MOUNTABLE_S
    workspace = bucket.session(open_session, role=True)
    workspace.run("echo one > f")
    wait_until(time.time() + MOUNTABLE_S)
    before = bucket.server.count("execute")
    assert workspace.run("cat f && echo two > f && cat f").output == "one\ntwo\n"
    assert bucket.server.count("execute") == before + 1


@pytest.mark.full
@pytest.mark.usefixtures("host_keys")
def test_ends_with_a_stop_and_start_and_a_killed_daemon_in_the_middle(bucket: Bucket) -> None:
    bucket.server.s3.credential_lifetime_s = MOUNTABLE_S
    workspace = MountedSandbox(bucket, role=True)
    for number in range(4):
        assert workspace.run(f"echo {number} > f; cat f").output == f"{number}\n"
        if number % 2:
            bucket.server.stop_sandbox(workspace.info.id)
        else:
            workspace.run("pkill -9 -f '[m]ount-s3.*workspaces'")
        if number == 1:  # as well after the end of the credentials as before it
            wait_until(time.time() + MOUNTABLE_S)
    assert workspace.run("cat f").output == "3\n"
    workspace.close()


@pytest.mark.usefixtures("host_keys")
def test_refused_credentials_create_nothing(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session, role=True, options={"stsEndpoint": "http://127.0.0.1:9"})
    with pytest.raises(CredentialsRefused):
        workspace.run("true")
    assert bucket.server.count("create") == 0


@pytest.mark.usefixtures("host_keys")
@pytest.mark.parametrize("daemon", sample(["lives", "is dead"], "is dead"))
def test_credentials_that_are_revoked_are_replaced_by_the_call_that_meets_it(
    bucket: Bucket, open_session: OpenSession, daemon: str
) -> None:
    workspace = bucket.session(open_session, role=True)
    workspace.run("echo one > f")
    if daemon == "is dead":
        workspace.run("pkill -9 -f '[m]ount-s3.*workspaces'")
    bucket.server.s3.expire_credentials()  # long before the end that they name
    bucket.server.clear_requests()
    bucket.server.s3.clear_requests()
    result = workspace.run("cat f && echo two > g && cat g; echo ran >> /tmp/ran")
    assert (result.output, result.exit_code) == ("one\ntwo\n", 0)
    assert [request.action for request in bucket.server.requests] == ["execute", "execute"]
    assert len(asked_for(bucket)) == 1
    assert workspace.run("cat f /tmp/ran").output == "one\nran\n"
    assert bucket.server.count("execute") == 3
    assert bucket.get("g") == b"two\n"


@pytest.mark.usefixtures("host_keys")
def test_a_role_that_is_revoked_for_good_is_said_to_be(bucket: Bucket, open_session: OpenSession) -> None:
    workspace = bucket.session(open_session, role=True)
    workspace.run("echo one > f")
    bucket.server.s3.deny = ("agents/",)
    bucket.server.s3.clear_requests()
    with pytest.raises(SandboxError) as caught:
        workspace.run("echo ran >> /tmp/ran")
    assert caught.value.code == "mount_denied"
    assert "Nothing ran" in caught.value.for_model
    assert len(asked_for(bucket)) == 1
    bucket.server.s3.deny = ()
    assert workspace.run("cat f; ls /tmp/ran").output.startswith("one\nls: ")


@pytest.mark.full
def test_keys_without_an_end_that_are_revoked_are_said_to_be(
    bucket: Bucket, open_session: OpenSession
) -> None:
    workspace = bucket.session(open_session)
    workspace.run("echo one > f")
    bucket.server.s3.deny = ("agents/",)
    with pytest.raises(SandboxError) as caught:
        workspace.run("true")
    assert caught.value.code == "mount_denied"
    bucket.server.s3.deny = ()
    assert workspace.run("cat f").output == "one\n"


def asked_for(bucket: Bucket) -> list[str]:
    """Return for which services credentials were asked, each time."""
    return [item.service for item in bucket.server.s3.requests if item.service == "sts"]
