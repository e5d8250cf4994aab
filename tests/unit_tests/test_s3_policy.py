"""The session policy, put to an evaluator that is not ours: what a workspace's credentials may do, and what not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_daytona_ws._core.s3.policy import SESSION_NAME_LENGTH, session_name, session_policy
from langchain_daytona_ws._core.s3.workspace import Mount, MountRole, S3Workspace
from tests.policy_evaluator import ACCOUNT, Evaluator, Request

KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "kms:*",
            "Resource": "*",
        }
    ],
}


def workspace(namespace: str = "demo", *, skills: str | None = None, partition: str = "aws") -> S3Workspace:
    return S3Workspace(
        region="eu-central-1",
        endpoint=None,
        workspace=Mount("agents", f"sandbox/{namespace}/", f"/mnt/workspaces/{namespace}"),
        skills=Mount(skills, "", "/mnt/skills", read_only=True) if skills else None,
        kms_key_arn=None,
        role=MountRole(f"arn:{partition}:iam::{ACCOUNT}:role/mount", None, "eu-central-1", None),
        keys=None,
    )


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator() as running:
        yield running


def on(key: str, action: str = "s3:GetObject", bucket: str = "agents") -> Request:
    return Request(action, f"arn:aws:s3:::{bucket}/{key}")


def listing(prefix: str | None, bucket: str = "agents", action: str = "s3:ListBucket") -> Request:
    """A request without a prefix has no such key in its context."""
    return Request(action, f"arn:aws:s3:::{bucket}", {} if prefix is None else {"s3:prefix": prefix})


ALLOWED = [
    *(
        on(f"sandbox/demo/{name}", action)
        for name in ("f", "dir/sub/f", "dir/", "", "with space é [x] ${aws:username}", "../demo2/f")
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    ),
    # As mount-s3 and boto3 list: the workspace, a directory in it, and whether one key is there.
    listing("sandbox/demo/"),
    listing("sandbox/demo/dir/"),
    listing("sandbox/demo/dir/file"),
]
DENIED = [
    # Neighbours, whose names begin like this one's, and parents.
    *(
        on(key, action)
        for key in (
            "sandbox/demo2/f", "sandbox/demo-/f", "sandbox/demo", "sandbox/dem/f", "sandbox/Demo/f", "sandbox/f",
            "sandbox/", "f", "demo/f", "xsandbox/demo/f", "sandbox//demo/f",
        )
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    ),
    *(
        listing(prefix)
        for prefix in (
            None, "", "s", "sandbox", "sandbox/", "sandbox/d", "sandbox/demo", "sandbox/demo2/", "sandbox/Demo/",
            "/sandbox/demo/", "demo/", "sandbox//demo/",
        )
    ),
    # Other buckets, some with names that begin alike.
    *(
        on("sandbox/demo/f", action, bucket)
        for bucket in ("other", "agents2", "agent")
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
    ),
    listing("sandbox/demo/", "other"),
    # Everything else that one can do to the own files and the own bucket.
    *(
        on("sandbox/demo/f", f"s3:{action}")
        for action in (
            "GetObjectVersion", "DeleteObjectVersion", "PutObjectAcl", "GetObjectAcl", "PutObjectTagging",
            "GetObjectTagging", "RestoreObject", "BypassGovernanceRetention", "PutObjectRetention",
            "ListMultipartUploadParts", "ReplicateObject",
        )
    ),
    *(
        listing("sandbox/demo/", action=f"s3:{action}")
        for action in ("ListBucketVersions",)
    ),
    *(
        Request(f"s3:{action}", "arn:aws:s3:::agents")
        for action in (
            "PutBucketPolicy", "GetBucketPolicy", "DeleteBucket", "PutBucketAcl", "PutLifecycleConfiguration",
            "PutReplicationConfiguration", "GetBucketLocation", "ListBucketMultipartUploads",
            "PutEncryptionConfiguration",
        )
    ),
    Request("s3:ListAllMyBuckets", "*"),
    Request("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/mount"),
    Request("iam:CreateAccessKey", f"arn:aws:iam::{ACCOUNT}:user/x"),
]  # fmt: skip


def shown(request: Request) -> str:
    return f"{request.action} {request.resource} {request.context or ''}"


@pytest.mark.parametrize("request_", ALLOWED, ids=shown)
@pytest.mark.parametrize("skills", [None, "skills"])
def test_the_own_prefix_is_allowed(evaluator: Evaluator, request_: Request, skills: str | None) -> None:
    assert evaluator.allowed(session_policy(workspace(skills=skills)), [request_]) == [True]


@pytest.mark.parametrize("request_", DENIED, ids=shown)
@pytest.mark.parametrize("skills", [None, "skills"])
def test_all_else_is_denied(evaluator: Evaluator, request_: Request, skills: str | None) -> None:
    made = replace(workspace(skills=skills), kms_key_arn=KEY)
    assert evaluator.allowed(session_policy(made), [request_]) == [False]


def test_skills_are_read_and_listed_and_not_written(evaluator: Evaluator) -> None:
    reading = [
        on("python/SKILL.md", bucket="skills"),
        listing(None, "skills"),
        listing("", "skills"),
        listing("python/", "skills"),
    ]
    writing = [
        on("python/SKILL.md", f"s3:{action}", "skills")
        for action in (
            "PutObject",
            "DeleteObject",
            "AbortMultipartUpload",
            "GetObjectVersion",
            "PutObjectAcl",
        )
    ]
    elsewhere = [on("f", bucket="skills2"), listing("", "skills2"), on("f"), listing("")]
    policy = session_policy(workspace(skills="skills"))
    assert evaluator.allowed(policy, reading) == [True] * len(reading)
    assert not any(evaluator.allowed(policy, [*writing, *elsewhere]))
    assert not any(evaluator.allowed(session_policy(workspace()), [*reading, *writing]))


def test_the_key_is_used_when_it_is_configured_and_never_managed(evaluator: Evaluator) -> None:
    using = [Request("kms:Decrypt", KEY), Request("kms:GenerateDataKey", KEY)]
    more = [
        *(Request(f"kms:{action}", KEY) for action in ("Encrypt", "ScheduleKeyDeletion", "CreateGrant")),
        Request("kms:Decrypt", f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/another"),
    ]
    policy = session_policy(replace(workspace(), kms_key_arn=KEY))
    assert evaluator.allowed(policy, using, resource_policy=KEY_POLICY) == [True, True]
    assert not any(evaluator.allowed(policy, more, resource_policy=KEY_POLICY))
    assert not any(evaluator.allowed(session_policy(workspace()), using, resource_policy=KEY_POLICY))


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov"])
def test_the_partition_is_the_roles(evaluator: Evaluator, partition: str) -> None:
    policy = session_policy(workspace(partition=partition, skills="skills"))
    there = [
        Request("s3:GetObject", f"arn:{partition}:s3:::agents/sandbox/demo/f"),
        Request("s3:ListBucket", f"arn:{partition}:s3:::agents", {"s3:prefix": "sandbox/demo/"}),
        Request("s3:GetObject", f"arn:{partition}:s3:::skills/f"),
    ]
    assert evaluator.allowed(policy, there) == [True] * 3
    assert evaluator.allowed(policy, [on("sandbox/demo/f")]) == [False]


NAMESPACES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
# Pairs that have nothing to do with each other, and pairs of which one begins like the other or differs in case.
PAIRS = (
    st.tuples(NAMESPACES, NAMESPACES)
    | NAMESPACES.flatmap(
        lambda name: st.tuples(st.just(name), st.integers(1, len(name)).map(lambda n: name[:n]))
    )
    | NAMESPACES.map(lambda name: (name, name.swapcase()))
).filter(lambda pair: pair[0] != pair[1])
# The evaluator reads * and ? in a resource as a question about many.
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"], exclude_characters="*?"))


@settings(max_examples=200)
@given(pair=PAIRS, name=NAMES, turned=st.booleans())
def test_no_workspace_reaches_another(
    evaluator: Evaluator, pair: tuple[str, str], name: str, turned: bool
) -> None:
    own, other = reversed(pair) if turned else pair
    policy = session_policy(workspace(own, skills="skills"))
    actions = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
    mine = [on(f"sandbox/{own}/{name}", action) for action in actions]
    mine += [listing(f"sandbox/{own}/"), listing(f"sandbox/{own}/{name}")]
    others = [on(f"sandbox/{other}/{name}", action) for action in actions]
    others += [listing(f"sandbox/{other}"), listing(f"sandbox/{other}/"), listing(f"sandbox/{other}/{name}")]
    assert evaluator.allowed(policy, mine) == [True] * len(mine)
    assert evaluator.allowed(policy, others) == [False] * len(others)


@pytest.mark.parametrize("template", ["{}/", "team/{}/files/"])
def test_the_policy_follows_the_prefix(evaluator: Evaluator, template: str) -> None:
    def at(namespace: str) -> S3Workspace:
        mount = Mount("agents", template.format(namespace), f"/mnt/workspaces/{namespace}")
        return replace(workspace(), workspace=mount)

    policy = session_policy(at("demo"))
    own, other = template.format("demo"), template.format("demo2")
    assert evaluator.allowed(policy, [on(f"{own}f"), on(own, "s3:PutObject"), listing(own)]) == [True] * 3
    elsewhere = [on(f"{other}f"), on(f"sandbox/{own}f"), listing(other), listing(own[:-1]), listing("")]
    assert not any(evaluator.allowed(policy, elsewhere))
    assert session_name(at("demo")) == "ldw-demo"


def test_the_longest_legal_names_leave_room_for_session_tags() -> None:
    longest = S3Workspace(
        region="x" * 63,
        endpoint=None,
        workspace=Mount("b" * 63, f"{'p' * 116}/{'n' * 128}/", f"/mnt/{'n' * 128}"),
        skills=Mount("s" * 63, "", "/mnt/skills", read_only=True),
        kms_key_arn=f"arn:aws-us-gov:kms:{'r' * 30}:{ACCOUNT}:key/{'k' * 128}",
        role=MountRole(f"arn:aws-us-gov:iam::{ACCOUNT}:role/{'r' * 512}", None, "us-gov-west-1", None),
        keys=None,
    )
    policy = session_policy(longest)
    # STS takes 2,048 characters, and packs them together with the tags.
    assert len(policy) < 1600
    assert policy == json.dumps(json.loads(policy), separators=(",", ":"))
    assert policy.isascii()


@given(name=NAMESPACES)
def test_a_session_name_is_one_that_sts_takes(name: str) -> None:
    made = session_name(workspace(name))
    assert re.fullmatch(r"[\w+=,.@-]{2,64}", made, re.ASCII)
    assert name in made or len(name) > SESSION_NAME_LENGTH - len("ldw-")


def test_long_namespaces_have_session_names_of_their_own() -> None:
    names = {session_name(workspace("n" * 100 + tail)) for tail in ("a", "b")} | {
        session_name(workspace("n" * 51))
    }
    assert len(names) == 3
    assert session_name(workspace("demo")) == "ldw-demo"
