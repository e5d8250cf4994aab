"""An original mount-s3 and a store in place of the local ones. Here the store is another local S3."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from langchain_daytona_ws.local import LocalDaytona, S3Store

from .mounted import ROLE, client, connected

POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject",'
    '"Resource":"arn:aws:s3:::agents/mine/*"}]}'
)


def test_a_store_answers_in_motos_place_and_holds_its_own_sessions() -> None:
    with LocalDaytona(s3=True, isolation="bubblewrap") as behind:
        store = S3Store(behind.s3_endpoint, "AKIASTORE", "secret")
        with LocalDaytona(s3=True, s3_store=store) as server, contextlib.ExitStack() as stack:
            server.make_bucket("agents")
            assert server.make_bucket("agents") == "agents", "it outlives the servers"
            s3: Any = stack.enter_context(contextlib.closing(client("s3", server)))
            s3.put_object(Bucket="agents", Key="mine/a é+b", Body=b"one")
            s3.put_object(Bucket="agents", Key="other", Body=b"two")
            assert s3.get_object(Bucket="agents", Key="mine/a é+b")["Body"].read() == b"one"
            assert s3.head_object(Bucket="agents", Key="other")["ContentLength"] == 3
            assert [item["Key"] for item in s3.list_objects_v2(Bucket="agents")["Contents"]] == [
                "mine/a é+b",
                "other",
            ]
            # Requests that it signs again have the store's key, whatever key the client used.
            assert {item.access_key for item in behind.s3.requests if item.key} == {"AKIASTORE"}
            sts: Any = stack.enter_context(contextlib.closing(client("sts", server)))
            given = sts.assume_role(RoleArn=ROLE, RoleSessionName="one", Policy=POLICY)["Credentials"]
            session: Any = stack.enter_context(
                contextlib.closing(
                    client(
                        "s3",
                        server,
                        aws_access_key_id=given["AccessKeyId"],
                        aws_secret_access_key=given["SecretAccessKey"],
                        aws_session_token=given["SessionToken"],
                    )
                )
            )
            assert session.get_object(Bucket="agents", Key="mine/a é+b")["Body"].read() == b"one"
            with pytest.raises(ClientError, match="AccessDenied"):
                session.get_object(Bucket="agents", Key="other")
            # The store refused, by its own session's policy; the gate before it checks no policy.
            assert behind.s3.requests[-1].access_key == given["AccessKeyId"]
            server.s3.expire_credentials()
            with pytest.raises(ClientError, match="ExpiredToken"):
                session.get_object(Bucket="agents", Key="mine/a é+b")


def test_sandboxes_get_the_given_mount_s3(tmp_path: Path) -> None:
    program = tmp_path / "any-name"
    program.write_text("#!/bin/sh\necho the original, with $*\n")
    program.chmod(0o700)
    with LocalDaytona(s3=True, mount_s3=program, shell="bash") as server, connected(server) as daytona:
        answer = daytona.create().process.exec("mount-s3 --version")
    assert answer.result == "the original, with --version\n"


def test_invalid_combinations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need s3=True"):
        LocalDaytona(mount_s3="/bin/true")
    with pytest.raises(ValueError, match=r"mount_s3: .*does not exist"):
        LocalDaytona(s3=True, mount_s3=tmp_path / "missing")
