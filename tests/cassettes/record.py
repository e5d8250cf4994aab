"""Record the cassettes: ``python -m tests.cassettes.record [scenario ...]``.

It uses a local server, or the Daytona of ``DAYTONA_API_KEY`` and ``DAYTONA_API_URL`` if these are set. There, S3
scenarios need a bucket (``FILESYSTEM_BUCKET_NAME``), a role (``SANDBOX_MOUNT_ROLE_ARN``), and credentials for boto3
that may assume it. ``--options`` sets options without an environment variable, such as the snapshot. Sandboxes
and objects of the namespace ``cassette`` are deleted before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from langchain_daytona_ws import SandboxConfig
from langchain_daytona_ws._adapters.clock import SYSTEM_CLOCK
from langchain_daytona_ws._session.account import AccountSandboxes
from langchain_daytona_ws.local import LocalDaytona
from tests.cassettes.normalised import Normaliser
from tests.cassettes.scenarios import ON_S3, SCENARIOS
from tests.cassettes.stage import NAMESPACE, Stage
from tests.cassettes.tape import HOST, S3_HOST, Tape, save

RECORDED = Path(__file__).parent / "recorded"
RUNTIMES = {"sync": False, "async": True}
LOCAL = "the local Daytona"
BUCKET = "agents"
ROLE = "arn:aws:iam::123456789012:role/sandbox-s3mount"
_STOP = "import sys; from daytona import Daytona; Daytona().get(sys.argv[1]).stop()"
_OF_DAYTONA = ("apiUrl", "target", "snapshot")
_OF_S3 = (
    "mountAwsS3Buckets", "workspaceBucketName", "awsRegion", "s3Endpoint", "mountRoleArn", "mountRoleExternalId",
    "stsRegion", "stsEndpoint",
)  # fmt: skip

Plain = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """The server to record.

    Attributes:
        name: The server and its version.
        options: The options of its address, its key, and S3 if available.
    """

    name: str
    options: Plain

    @property
    def has_s3(self) -> bool:
        return "mountRoleArn" in self.options

    def settings(self, *, on_s3: bool) -> Plain:
        wanted = ("apiKey", *_OF_DAYTONA, *(_OF_S3 if on_s3 else ()))
        return {"options": {name: self.options[name] for name in wanted if name in self.options}}

    def names(self) -> dict[str, str]:
        """Return names of the settings → their replacements in the cassettes."""
        named = {_origin(self.options["apiUrl"]): HOST}
        if self.has_s3:
            named[self.options["workspaceBucketName"]] = BUCKET
            named[self.options["mountRoleArn"]] = ROLE
            account, role = (
                self.options["mountRoleArn"].split(":")[4],
                self.options["mountRoleArn"].split("/")[-1],
            )
            named[f"arn:aws:sts::{account}:assumed-role/{role}"] = (
                "arn:aws:sts::123456789012:assumed-role/sandbox-s3mount"
            )
            for endpoint in ("stsEndpoint", "s3Endpoint"):
                if endpoint in self.options:
                    named[_origin(self.options[endpoint])] = S3_HOST
        return named


def record(subject: Subject, name: str, runtime: str, folder: Path) -> None:
    """Record one scenario; write its cassette if it succeeded."""
    settings = subject.settings(on_s3=name in ON_S3)
    stage = Stage(settings, SYSTEM_CLOCK, RUNTIMES[runtime], stop_sandbox=_stopper(settings["options"]))
    with _cleared(subject, on_s3=name in ON_S3), Tape.recording(subject.names()) as tape:
        stage.run(SCENARIOS[name])
    cassette = {
        "recorded": {"server": subject.name, **_versions(on_s3=name in ON_S3)},
        "settings": Normaliser(subject.names())(settings),
        "interactions": tape.interactions,
    }
    secrets = [settings["options"]["apiKey"], *_host_secrets()]
    save(folder / f"{name}-{runtime}.yaml", cassette, secrets=secrets)
    print(f"{name}-{runtime}: {len(tape.interactions)} interactions")


def main() -> None:
    """Record all or the chosen scenarios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all")
    parser.add_argument(
        "--options", type=json.loads, default={}, help="options of the account's configuration, as JSON"
    )
    parser.add_argument("--runtime", action="append", choices=RUNTIMES, help="default: both")
    parser.add_argument("--to", type=Path, default=RECORDED, help="the folder of the cassettes")
    arguments = parser.parse_args()
    wanted = arguments.scenario or list(SCENARIOS)
    arguments.to.mkdir(exist_ok=True)
    with _subject(arguments.options) as subject:
        for name in wanted:
            if name in ON_S3 and not subject.has_s3:
                print(f"{name}: not recorded, since the environment names no bucket and role")
                continue
            for runtime in arguments.runtime or RUNTIMES:
                record(subject, name, runtime, arguments.to)


@contextlib.contextmanager
def _subject(options: Plain) -> Iterator[Subject]:
    """Yield the server to record: the environment's account, or a local server.

    Args:
        options: Additional options of the configuration.
    """
    if os.environ.get("DAYTONA_API_KEY") and os.environ.get("DAYTONA_API_URL"):
        yield _account(options)
        return
    # The local STS accepts any keys.
    keys = {"AWS_ACCESS_KEY_ID": "AKIARECORDER", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-recorder"}
    with mock.patch.dict(os.environ, keys), LocalDaytona(s3=True) as server:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
            os.environ.pop(name, None)
        server.make_bucket(BUCKET)
        local = {
            "apiKey": server.api_key,
            "apiUrl": server.api_url,
            "mountAwsS3Buckets": True,
            "workspaceBucketName": BUCKET,
            "s3Endpoint": server.s3_endpoint,
            "mountRoleArn": ROLE,
            "stsEndpoint": server.s3_endpoint,
        }
        version = importlib.metadata.version("langchain-daytona-ws")
        yield Subject(f"{LOCAL} of langchain-daytona-ws {version}", {**local, **options})


def _account(more: Plain) -> Subject:
    """Return the environment's account, with the values that the configuration reads from there."""
    on_s3 = bool(os.environ.get("FILESYSTEM_BUCKET_NAME") and os.environ.get("SANDBOX_MOUNT_ROLE_ARN"))
    options = SandboxConfig.model_validate({"options": {"mountAwsS3Buckets": on_s3, **more}}).options
    values = options.model_dump(mode="json", by_alias=True, exclude_none=True)
    wanted = (*_OF_DAYTONA, *(_OF_S3 if on_s3 else ()))
    chosen = {name: values[name] for name in wanted if name in values}
    assert options.api_key is not None
    key = options.api_key.get_secret_value()
    host = urlsplit(chosen["apiUrl"]).hostname
    return Subject(f"Daytona at {host}, version {_version(chosen['apiUrl'])}", {"apiKey": key, **chosen})


def _version(api_url: str) -> str:
    """Return the control plane's version, which needs no key."""
    try:
        with urllib.request.urlopen(f"{api_url}/config", timeout=10) as answer:
            return str(json.load(answer).get("version", "unknown"))
    except (OSError, ValueError):
        return "unknown"


@contextlib.contextmanager
def _cleared(subject: Subject, *, on_s3: bool) -> Iterator[None]:
    _clear(subject, on_s3=on_s3)
    try:
        yield
    finally:
        _clear(subject, on_s3=on_s3)


def _clear(subject: Subject, *, on_s3: bool) -> None:
    account = AccountSandboxes(SandboxConfig.model_validate(subject.settings(on_s3=False)))
    for sandbox in account.all(NAMESPACE):
        account.remove(sandbox)
    if not on_s3:
        return
    import boto3

    options = subject.options
    region = options.get("awsRegion", "us-east-1")
    client = boto3.client("s3", endpoint_url=options.get("s3Endpoint"), region_name=region)
    with contextlib.closing(client):
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=options["workspaceBucketName"], Prefix=f"sandbox/{NAMESPACE}/"
        )
        for key in [entry["Key"] for page in pages for entry in page.get("Contents", [])]:
            client.delete_object(Bucket=options["workspaceBucketName"], Key=key)


def _stopper(options: Plain) -> Callable[[str], None]:
    """Return a function that stops a sandbox from another process: this process would record the request."""
    env = {**os.environ, "DAYTONA_API_KEY": options["apiKey"], "DAYTONA_API_URL": options["apiUrl"]}

    def stop(sandbox_id: str) -> None:
        subprocess.run([sys.executable, "-W", "ignore", "-c", _STOP, sandbox_id], env=env, check=True)

    return stop


def _versions(*, on_s3: bool) -> dict[str, str]:
    packages = {"sdk": "daytona", **({"aws": "boto3"} if on_s3 else {}), "recorder": "vcrpy"}
    return {part: f"{package} {importlib.metadata.version(package)}" for part, package in packages.items()}


def _host_secrets() -> list[str]:
    return [
        os.environ.get(name, "")
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
    ]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


if __name__ == "__main__":
    main()
