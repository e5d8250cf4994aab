"""The attachment that mounts the workspace: when credentials travel, and when a request is sent again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from langchain_daytona_ws._core.answer import Answer
from langchain_daytona_ws._core.guest_rpc.attachments import SENDS_MAX, GuestRequest
from langchain_daytona_ws._core.guest_rpc.payload import guest_source
from langchain_daytona_ws._core.mount.manager import MountManager
from langchain_daytona_ws._core.mount.rename_probe import Probed, Renames
from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws.errors import SandboxError
from tests.unit_tests.attached import exchange, workspace_of

MOUNTED: Answer = {"outcome": "finished"}


def refusal(code: str) -> Answer:
    return {"error": "setup", "code": code, "detail": ""}


class Session:
    """A manager, and the requests that it sends.

    Args:
        renames: The result of the probe of the store.
    """

    def __init__(self, renames: Renames = Renames.REFUSED) -> None:
        self.keys = 0
        self.delivered: dict[str, str] = {}
        self.notices: list[str] = []
        workspace = workspace_of("mount")

        async def probe() -> Probed:
            return Probed(renames)

        self.manager = MountManager(
            workspace,
            self.credentials,
            self.forget,
            delivered=self.delivered,
            add_notice=self.notices.append,
            probe=probe,
        )

    async def credentials(self, min_life_s: float) -> Credentials:
        return Credentials(f"AKIA{self.keys}", "secret", None, expires_at=3600.0)

    def forget(self, credentials: Credentials) -> None:
        self.keys += 1

    def send(self, *answers: Answer) -> str:
        """Answer the sends of one request, the last answer for ever.

        Returns:
            A letter for each send: ``s`` with the credentials, ``-`` without.
        """
        request = GuestRequest(None, "sb", "command", {"key": "k"}, 60.0)  # type: ignore[arg-type]
        self.answer, sent = exchange(self.manager, request, *answers)
        assert all(each.fields["key"] == "k" for each in sent)
        mounts: list[Any] = [each.fields["mount"] for each in sent]
        assert [mount["has_secret"] for mount in mounts] == [each.secret is not None for each in sent]
        return "".join("-" if each.secret is None else "s" for each in sent)


def test_credentials_travel_once() -> None:
    session = Session()
    assert [session.send(MOUNTED) for _ in range(3)] == ["s", "-", "-"]


@pytest.mark.parametrize("code", ["mount_credentials", "mount_program"])
def test_a_sandbox_that_lost_the_credentials_gets_them_at_once(code: str) -> None:
    session = Session()
    session.send(MOUNTED)
    assert session.send(refusal(code), MOUNTED) == "-s"
    assert session.answer == MOUNTED


@pytest.mark.parametrize("code", ["mount_eio", "mount_expired", "mount_denied"])
def test_refused_credentials_are_renewed_once_a_request(code: str) -> None:
    session = Session()
    session.send(MOUNTED)
    assert session.send(refusal(code), MOUNTED) == "-s"
    assert session.keys == 1
    assert session.send(refusal(code)) == "-s"
    assert (session.keys, session.answer) == (2, refusal(code))


def test_credentials_that_expire_on_their_way_are_renewed_once() -> None:
    session = Session()
    assert session.send(refusal("mount_expired")) == "ss"
    assert session.keys == 1


def test_a_sandbox_that_keeps_no_credentials_is_given_up() -> None:
    session = Session()
    session.send(MOUNTED)
    assert len(session.send(refusal("mount_credentials"))) == SENDS_MAX


def test_another_failure_is_not_sent_again() -> None:
    session = Session()
    assert session.send(refusal("mount_no_fuse")) == "s"
    assert session.send(refusal("no_bash")) == "s"  # the mount was not the cause
    assert session.send(MOUNTED) == "-"


@pytest.mark.parametrize("renames", [Renames.ACCEPTED, Renames.UNKNOWN, Renames.NO_BUCKET])
def test_an_unsafe_store_is_never_mounted(renames: Renames) -> None:
    session = Session(renames)
    with pytest.raises(SandboxError) as early:
        run_sync(session.manager.prepare())
    with pytest.raises(SandboxError) as late:  # the sandbox existed already
        session.send(MOUNTED)
    assert early.value.code == late.value.code
    assert session.delivered == {}


def test_moved_files_are_reported() -> None:
    session = Session()
    session.send({**MOUNTED, "moved": ["/tmp/found-under-workspace-ab1", "/etc", 7]})
    [notice] = session.notices
    assert "/tmp/found-under-workspace-ab1" in notice


def test_every_failure_of_the_guest_has_its_message() -> None:
    text = "".join(guest_source(name) for name in ("mount", "mounter", "mount_check", "mount_credentials"))
    codes = {*re.findall(r'MountError\("(\w+)"', text), *re.findall(r'SetupError\("mount_(\w+)"', text)}
    assert len(codes) > 15
    messages = {Session().manager.refusal(f"mount_{code}", "").message for code in codes}
    assert len(messages) == len(codes)
