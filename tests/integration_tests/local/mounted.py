"""A sandbox with mounts of a local S3, and a client for the same bucket."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from daytona import Daytona, DaytonaConfig, Sandbox

from langchain_daytona_ws.local import LocalDaytona

BUCKET = "agents"
HOME = "sandbox/demo/"
FLAGS = "--allow-delete --allow-overwrite --allow-other"
KEYS = "AWS_ACCESS_KEY_ID=AKIAEXAMPLE AWS_SECRET_ACCESS_KEY=example AWS_EC2_METADATA_DISABLED=true"
ROLE = "arn:aws:iam::123456789012:role/workspace"

# For the small programs that are run in sandboxes: what a call is answered with, by its errno's name.
PRELUDE = """
import errno, os, shutil, sys, time
def err(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
W = os.O_CREAT | os.O_WRONLY
def pause():
    open("/tmp/paused", "w").close()
    while os.path.exists("/tmp/paused"):
        time.sleep(0.02)
def write(name, data):
    with open(name, "wb") as file:
        file.write(data)
"""


class Mounted:
    """A server with S3 and one sandbox, driven as an outsider would."""

    def __init__(self, server: LocalDaytona, daytona: Daytona, bucket: str = BUCKET) -> None:
        self.server = server
        self.daytona = daytona
        self.bucket = server.make_bucket(bucket)
        self.sandbox: Sandbox = daytona.create()
        self.s3 = client("s3", server)

    def run(self, script: str, timeout: int = 60) -> tuple[int, str]:
        answer = self.sandbox.process.exec(script, timeout=timeout)
        return int(answer.exit_code), answer.result

    def ok(self, script: str) -> str:
        code, output = self.run(script)
        assert code == 0, output
        return output

    def python(self, program: str, cwd: str = "/mnt", meanwhile: Callable[[], object] | None = None) -> str:
        """Run a program with the prelude; return what it printed, one space between words.

        `meanwhile` is called when the program comes to its `pause()`.
        """
        script = f"cd {cwd} && /usr/bin/python3 -I -c {shlex.quote(PRELUDE + program)} 2>&1"
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.run, script)
            if meanwhile is not None:
                assert within(60, lambda: self.run("test -e /tmp/paused")[0] == 0)
                meanwhile()
                self.ok("rm /tmp/paused")
            return " ".join(running.result()[1].split())

    def mount_command(self, folder: str, prefix: str = HOME, flags: str = FLAGS, bucket: str = "") -> str:
        where = f"--endpoint-url {self.server.s3_endpoint} --force-path-style --region us-east-1"
        return f"mount-s3 {bucket or self.bucket} {folder} --prefix {prefix} {where} {flags}"

    def mount(self, folder: str, prefix: str = HOME, flags: str = FLAGS, env: str = KEYS) -> None:
        command = self.mount_command(folder, prefix, flags)
        self.ok(f"mkdir -p {folder} && env {env} setsid {command} && stat {folder}/. >/dev/null")

    def put(self, key: str, body: bytes = b"") -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str) -> list[str]:
        return [
            item["Key"]
            for item in self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        ]

    def close(self) -> None:
        self.s3.close()
        self.sandbox.delete()

    def assume(
        self, policy: dict[str, Any] | None = None, lifetime_s: float | None = None, **options: Any
    ) -> dict[str, str]:
        """Return credentials as a credential_process prints them."""
        self.server.s3.credential_lifetime_s = lifetime_s
        if policy is not None:
            options["Policy"] = json.dumps(policy, separators=(",", ":"))
        with contextlib.closing(client("sts", self.server)) as sts:
            given = sts.assume_role(RoleArn=ROLE, RoleSessionName="session", **options)["Credentials"]
        return {
            "Version": 1,  # type: ignore[dict-item]
            "AccessKeyId": given["AccessKeyId"],
            "SecretAccessKey": given["SecretAccessKey"],
            "SessionToken": given["SessionToken"],
            "Expiration": given["Expiration"].isoformat(),
        }

    def hand_over(self, credentials: dict[str, str], folder: str = "/root/aws") -> str:
        """Write credentials for a credential_process, atomically; return the environment that selects them."""
        written = shlex.quote(json.dumps(credentials))
        config = f"[default]\\ncredential_process = cat {folder}/credentials.json\\n"
        self.ok(
            f"mkdir -p {folder} && printf '{config}' > {folder}/config && printf %s {written} > {folder}/new"
            f" && mv {folder}/new {folder}/credentials.json"
        )
        return (
            f"-u AWS_ACCESS_KEY_ID AWS_CONFIG_FILE={folder}/config AWS_SHARED_CREDENTIALS_FILE={folder}/none "
            "AWS_EC2_METADATA_DISABLED=true"
        )


def client(service: str, server: LocalDaytona, **keys: str) -> Any:
    keys = keys or {"aws_access_key_id": "AKIAHOST", "aws_secret_access_key": "host"}
    return boto3.client(
        service,
        endpoint_url=server.s3_endpoint,
        region_name="us-east-1",
        config=Config(proxies={}, retries={"max_attempts": 1}),
        **keys,
    )


@contextmanager
def mounted() -> Iterator[Mounted]:
    with LocalDaytona(s3=True, shell="bash") as server, connected(server) as daytona:
        with contextlib.closing(Mounted(server, daytona)) as made:
            yield made


@contextmanager
def connected(server: LocalDaytona) -> Iterator[Daytona]:
    daytona = Daytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url, target="local"))
    try:
        yield daytona
    finally:
        daytona._http_client.close()
        daytona._api_client.rest_client.pool_manager.clear()
        daytona._toolbox_api_client.rest_client.pool_manager.clear()


def within(seconds: float, happens: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
