"""Credentials of a mount: where they come from, when they are replaced, and what their end does."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from .mounted import BUCKET, FLAGS, HOME, KEYS, Mounted, client, within


def policy(bucket: str, **more: str) -> dict[str, Any]:
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    return {
        "Version": "2012-10-17",
        **more,
        "Statement": [
            {"Effect": "Allow", "Action": objects, "Resource": f"arn:aws:s3:::{bucket}/{HOME}*"},
            {
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": f"arn:aws:s3:::{bucket}",
                "Condition": {"StringLike": {"s3:prefix": f"{HOME}*"}},
            },
        ],
    }


def used(mounted_sandbox: Mounted) -> set[str]:
    """Return the keys that S3 was asked with since the last time."""
    keys = {
        item.access_key
        for item in mounted_sandbox.server.s3.requests
        if item.access_key not in ("", "AKIAHOST")
    }
    mounted_sandbox.server.s3.clear_requests()
    return keys


@pytest.mark.full
def test_a_process_is_asked_again_five_minutes_before_the_end(alone: Mounted) -> None:
    long = alone.assume(DurationSeconds=900)
    env = alone.hand_over(long)
    alone.mount("/mnt/w", env=env)
    used(alone)
    alone.hand_over(alone.assume(DurationSeconds=3600))
    assert "new" not in alone.ok("ls /mnt/w")
    assert used(alone) == {long["AccessKeyId"]}  # more than five minutes left: no question of new ones
    alone.ok("umount /mnt/w")

    short = alone.assume(lifetime_s=299)
    alone.hand_over(short)
    alone.mount("/mnt/w", env=env)
    used(alone)
    new = alone.assume(DurationSeconds=3600)
    alone.hand_over(new)
    alone.ok("echo x > /mnt/w/f && cat /mnt/w/f")
    assert used(alone) == {new["AccessKeyId"]}


def test_a_process_is_asked_at_every_request_until_it_names_a_later_end(alone: Mounted) -> None:
    env = alone.hand_over(alone.assume(lifetime_s=299))
    alone.put(f"{HOME}f", b"x")
    noted = "#!/bin/sh\\necho >>/tmp/asked\\nexec cat $1\\n"
    through = "sed -i 's#= cat #= /root/aws/cat #' /root/aws/config"
    alone.ok(f"{through}; printf '{noted}' >/root/aws/cat; chmod +x /root/aws/cat")
    alone.mount("/mnt/w", env=env)
    asked = "wc -l </tmp/asked"
    before = int(alone.ok(asked))
    alone.ok("for i in 1 2 3 4 5; do cat /mnt/w/f; done")
    assert int(alone.ok(asked)) - before >= 10
    alone.hand_over(alone.assume(DurationSeconds=3600))
    alone.ok(f"{through}; cat /mnt/w/f")
    before = int(alone.ok(asked))
    alone.ok("for i in 1 2 3 4 5; do cat /mnt/w/f; done")
    assert int(alone.ok(asked)) == before


def test_credentials_that_end_three_times_are_not_noticed(alone: Mounted) -> None:
    env = alone.hand_over(alone.assume(lifetime_s=60))
    alone.mount("/mnt/w", env=env)
    for number in range(3):
        alone.server.s3.expire_credentials()
        alone.hand_over(alone.assume(lifetime_s=60))
        alone.ok(f"echo {number} > /mnt/w/f && cat /mnt/w/f && ls /mnt/w")
    assert alone.get(f"{HOME}f") == b"2\n"


def test_a_failed_refresh_drops_credentials_that_would_do(alone: Mounted) -> None:
    env = alone.hand_over(alone.assume(lifetime_s=299))
    alone.put(f"{HOME}f", b"x")
    alone.mount("/mnt/w", env=env)
    alone.ok("cat /mnt/w/f && mv /root/aws/credentials.json /root/aws/away")
    assert alone.python("print(err(open, 'f'))", "/mnt/w") == "EIO"
    alone.ok("printf '{\"Version\": 1' > /root/aws/credentials.json")  # half written
    assert alone.python("print(err(open, 'f'))", "/mnt/w") == "EIO"
    alone.ok("mv /root/aws/away /root/aws/credentials.json && cat /mnt/w/f")


def test_after_their_end_all_is_an_input_output_error_and_the_mount_stays(alone: Mounted) -> None:
    env = alone.hand_over(alone.assume())
    alone.put(f"{HOME}f", b"x")
    alone.mount("/mnt/w", env=env)
    alone.server.s3.expire_credentials()
    printed = alone.python(
        "print(err(open, 'f'), err(os.stat, 'f'), err(os.listdir, '.'), err(write, 'g', b''))", "/mnt/w"
    )
    assert printed == "EIO EIO EIO EIO"
    alone.ok("mountpoint -q /mnt/w")


def test_keys_of_the_environment_beat_the_profile_and_are_never_refreshed(alone: Mounted) -> None:
    env = alone.hand_over(alone.assume())
    given = alone.assume(lifetime_s=299)
    keys = (
        f"AWS_ACCESS_KEY_ID={given['AccessKeyId']} AWS_SECRET_ACCESS_KEY={given['SecretAccessKey']} "
        f"AWS_SESSION_TOKEN={given['SessionToken']} AWS_CREDENTIAL_EXPIRATION={given['Expiration']}"
    )
    alone.mount("/mnt/w", env=f"{env} {keys}")
    used(alone)
    alone.ok("ls /mnt/w")
    assert used(alone) == {given["AccessKeyId"]}
    alone.server.s3.expire_credentials()
    assert alone.python("print(err(open, 'f'))", "/mnt/w") == "EIO"


def test_static_keys_of_a_profile(alone: Mounted) -> None:
    used(alone)
    alone.ok(
        "printf '[mine]\\naws_access_key_id = AKIAMINE\\naws_secret_access_key = x\\n' > /root/credentials"
    )
    alone.mount(
        "/mnt/w",
        flags=f"{FLAGS} --profile mine",
        env="AWS_SHARED_CREDENTIALS_FILE=/root/credentials AWS_EC2_METADATA_DISABLED=true",
    )
    assert used(alone) == {"AKIAMINE"}


def test_no_credentials_at_all(alone: Mounted) -> None:
    command = alone.mount_command("/mnt/w")
    code, output = alone.run(f"mkdir -p /mnt/w; AWS_EC2_METADATA_DISABLED=true {command}")
    assert code == 1
    assert "Error: Failed to create S3 client" in output
    assert "No signing credentials available" in output


def test_a_session_policy_confines_a_mount(alone: Mounted) -> None:
    for key in (f"{HOME}f", "sandbox/demo2/f"):
        alone.put(key, b"x")
    env = alone.hand_over(alone.assume(policy(alone.bucket)))
    alone.mount("/mnt/w", env=env)
    assert alone.ok("cat /mnt/w/f; echo y > /mnt/w/new; cat /mnt/w/new; rm /mnt/w/new") == "xy\n"
    for prefix in ("sandbox/demo2/", "sandbox/"):
        code, output = alone.run(f"mkdir -p /mnt/x; env {env} {alone.mount_command('/mnt/x', prefix)}")
        assert code == 1
        assert f"initial ListObjectsV2 failed for bucket {alone.bucket} in region us-east-1" in output
        assert "Forbidden: Access Denied" in output


def test_sts_and_s3_by_boto3(mounted_sandbox: Mounted) -> None:
    given = mounted_sandbox.assume(policy(BUCKET), DurationSeconds=900, ExternalId="partner")
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    mounted_sandbox.put(f"{HOME}sts/f", b"x")
    s3 = client("s3", mounted_sandbox.server, **keys)
    assert s3.get_object(Bucket=BUCKET, Key=f"{HOME}sts/f")["Body"].read() == b"x"
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{HOME}sts/")["KeyCount"] == 1
    for refused in (
        lambda: s3.get_object(Bucket=BUCKET, Key="sandbox/demo2/f"),
        lambda: s3.put_object(Bucket="other-bucket", Key=f"{HOME}f", Body=b"x"),
        lambda: s3.list_objects_v2(Bucket=BUCKET),
        lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="sandbox/"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    with pytest.raises(ClientError, match=r"PackedPolicyTooLarge.*consumes 1\d\d%"):
        mounted_sandbox.assume(policy(BUCKET, Id="x" * 2000))
    with pytest.raises(ClientError) as renamed:
        s3.rename_object(Bucket=BUCKET, Key=f"{HOME}sts/g", RenameSource=f"{HOME}sts/f")
    assert renamed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    sts = client("sts", mounted_sandbox.server, **keys)
    assert sts.get_caller_identity()["Account"]
    mounted_sandbox.server.s3.expire_credentials()
    for expired in (lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix=HOME), sts.get_caller_identity):
        with pytest.raises(ClientError, match="ExpiredToken"):
            expired()
    s3.close()
    sts.close()


def test_conditional_writes(mounted_sandbox: Mounted) -> None:
    key = f"{HOME}conditional"
    etag = mounted_sandbox.s3.put_object(Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        mounted_sandbox.s3.put_object(Bucket=BUCKET, Key=key, Body=b"2", IfNoneMatch="*")
    mounted_sandbox.s3.put_object(Bucket=BUCKET, Key=key, Body=b"2", IfMatch=etag)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        mounted_sandbox.s3.put_object(Bucket=BUCKET, Key=key, Body=b"3", IfMatch=etag)
    mounted_sandbox.ok("echo written by bash > /mnt/w/conditional")
    etag = mounted_sandbox.s3.head_object(Bucket=BUCKET, Key=key)["ETag"]
    mounted_sandbox.s3.put_object(Bucket=BUCKET, Key=key, Body=b"4", IfMatch=etag)
    assert within(60, lambda: mounted_sandbox.ok("cat /mnt/w/conditional") == "4")


def test_its_keys_show_nowhere_but_where_they_were_put(alone: Mounted) -> None:
    given = alone.assume()
    env = alone.hand_over(given)
    alone.mount("/mnt/w", env=env)
    seen = alone.ok("cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; env; mount")
    assert given["SecretAccessKey"] not in seen
    assert given["AccessKeyId"] not in seen
    assert KEYS.split()[0] not in seen
