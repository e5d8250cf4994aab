"""Facts of S3 and STS, and workspaces there; checked if a bucket and a role are configured."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from langchain_daytona_ws import WorkspaceSession
from tests.live.account import Account
from tests.live.fact import Facts

fact = Facts()

ROLE, POLICY, CONDITIONS, OBJECTS, WORKSPACE = "role", "policy", "conditional", "objects", "workspace on S3"


def answer(call: Callable[[], Any]) -> str:
    """Return the HTTP status of an answer."""
    try:
        return str(call()["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return str(error.response["ResponseMetadata"]["HTTPStatusCode"])


def at(account: Account, name: str = "fact") -> dict[str, str]:
    """Return the location of an object in the workspace."""
    assert account.workspace is not None
    where = account.workspace.workspace
    return {"Bucket": where.bucket, "Key": where.prefix + name}


def elsewhere(account: Account) -> dict[str, str]:
    """Return a location in another workspace."""
    assert account.workspace is not None
    where = account.workspace.workspace
    return {"Bucket": where.bucket, "Key": where.prefix.rstrip("/") + "-other/fact"}


@fact(ROLE, "the role is assumed with the session policy; its credentials expire within an hour", "True")
def _(account: Account) -> bool:
    return 0 < (account.role.life_s or 0) <= 3660


@fact(POLICY, "in the workspace's prefix: put, get, head, list and delete", "200 200 200 200 204")
def _(account: Account) -> str:
    s3, here = account.s3, at(account)
    calls = (
        lambda: s3.put_object(**here, Body=b"x"), lambda: s3.get_object(**here), lambda: s3.head_object(**here),
        lambda: s3.list_objects_v2(Bucket=here["Bucket"], Prefix=here["Key"].rpartition("/")[0] + "/"),
        lambda: s3.delete_object(**here),
    )  # fmt: skip
    return " ".join(answer(call) for call in calls)


@fact(POLICY, "in another prefix: put, get and delete are denied", "403 403 403")
def _(account: Account) -> str:
    s3, there = account.s3, elsewhere(account)
    calls = (
        lambda: s3.put_object(**there, Body=b"x"), lambda: s3.get_object(**there), lambda: s3.delete_object(**there),
    )  # fmt: skip
    return " ".join(answer(call) for call in calls)


@fact(POLICY, "listing without the prefix, above it and beside it is denied", "403 403 403")
def _(account: Account) -> str:
    bucket, prefix = at(account)["Bucket"], at(account, "")["Key"]
    prefixes = ("", prefix.rstrip("/").rpartition("/")[0] + "/", prefix.rstrip("/"))
    return " ".join(
        answer(lambda p=p: account.s3.list_objects_v2(Bucket=bucket, Prefix=p))  # type: ignore[misc]
        for p in prefixes
    )


@fact(OBJECTS, "HEAD of a missing key in the prefix is a 404", "404")
def _(account: Account) -> str:
    return answer(lambda: account.s3.head_object(**at(account, "missing")))


@fact(OBJECTS, "a rename request (PUT with renameObject) is refused with 501", "501")
def _(account: Account) -> str:
    """Send the request that mount-s3 sends, by boto3's signer: the operation is for directory buckets only."""
    import urllib.error
    import urllib.request

    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    account.s3.put_object(**at(account, "source"), Body=b"content")
    assert account.workspace is not None
    where = at(account, "renamed")
    host = account.workspace.endpoint or f"https://s3.{account.workspace.region}.amazonaws.com"
    url = f"{host}/{where['Bucket']}/{where['Key']}?renameObject="
    request = AWSRequest(
        "PUT", url, data=b"", headers={"x-amz-rename-source": f"/{at(account, 'source')['Key']}"}
    )
    key = Credentials(account.role.access_key_id, account.role.secret_access_key, account.role.session_token)
    request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    SigV4Auth(key, "s3", account.workspace.region).add_auth(request)
    sent = urllib.request.Request(url, data=b"", headers=dict(request.headers.items()), method="PUT")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sent, timeout=20) as seen:
            return str(seen.status)
    except urllib.error.HTTPError as error:
        return str(error.code)


@fact(CONDITIONS, "PUT If-None-Match: * creates once", "200 412")
def _(account: Account) -> str:
    here = at(account, f"once-{secrets.token_hex(4)}")
    put = lambda: account.s3.put_object(**here, Body=b"x", IfNoneMatch="*")  # noqa: E731 - called twice
    return f"{answer(put)} {answer(put)}"


@fact(CONDITIONS, "PUT If-Match replaces the known content only", "412 200")
def _(account: Account) -> str:
    here = at(account, "matched")
    etag = account.s3.put_object(**here, Body=b"1")["ETag"]
    wrong = answer(
        lambda: account.s3.put_object(**here, Body=b"2", IfMatch='"0123456789abcdef0123456789abcdef"')
    )
    return f"{wrong} {answer(lambda: account.s3.put_object(**here, Body=b'2', IfMatch=etag))}"


@fact(CONDITIONS, "DELETE If-Match deletes the known content only", "412 204")
def _(account: Account) -> str:
    here = at(account, "matched")
    etag = account.s3.put_object(**here, Body=b"3")["ETag"]
    wrong = answer(lambda: account.s3.delete_object(**here, IfMatch='"0123456789abcdef0123456789abcdef"'))
    return f"{wrong} {answer(lambda: account.s3.delete_object(**here, IfMatch=etag))}"


@fact(
    WORKSPACE, "synchronised: a file of a command is in S3, and a new object is a file", "from bash from S3 0"
)
def _(account: Account) -> str:
    session = account.open(options={"mountAwsS3Buckets": True, "s3Mode": "sync"})
    session.run("echo from bash > a.txt")
    saved = account.s3.get_object(**at(account, "a.txt"))["Body"].read().decode().strip()
    account.s3.put_object(**at(account, "b.txt"), Body=b"from S3\n")
    result = session.run("cat b.txt; mv a.txt c.txt")
    return f"{saved} {result.output.strip()} {result.exit_code}"


MOUNTED = Facts()


@MOUNTED(
    WORKSPACE,
    "mounted: a written file is in S3 after it was closed, and a rename is refused",
    "from bash True",
)
def _(account: Account) -> str:
    session = account.notes["mounted"] = account.open(options={"mountAwsS3Buckets": True, "s3Mode": "mount"})
    session.run("echo from bash > mounted.txt")
    saved = account.s3.get_object(**at(account, "mounted.txt"))["Body"].read().decode().strip()
    renamed = session.run("mv mounted.txt other.txt")
    return f"{saved} {renamed.exit_code != 0 and 'not implemented' in renamed.output}"


@MOUNTED(WORKSPACE, "mounted: an existing file cannot be appended to", "True")
def _(account: Account) -> bool:
    session: WorkspaceSession = account.notes["mounted"]
    return "not permitted" in session.run("echo a > append.txt; echo b >> append.txt").output


@MOUNTED(WORKSPACE, "mounted: chmod, links and truncation of an existing file are refused", "1 1 1 1")
def _(account: Account) -> str:
    session: WorkspaceSession = account.notes["mounted"]
    commands = ("chmod +x old", "ln -s old link", "ln old hard", "truncate -s 1 old")
    script = "; ".join(f"{command} 2>/dev/null; printf '%s ' $?" for command in commands)
    return session.run(f"echo old > old; sleep 1; {script}").output.strip()


@MOUNTED(WORKSPACE, "mounted: another writer's object is seen at once, and its replacement too", "one two")
def _(account: Account) -> str:
    session: WorkspaceSession = account.notes["mounted"]
    seen = []
    for text in ("one", "two"):
        account.s3.put_object(**at(account, "outside.txt"), Body=text.encode())
        time.sleep(1.5)  # attributes of directories are kept for a second
        seen.append(session.run("cat outside.txt").output.strip())
    return " ".join(seen)


@MOUNTED(WORKSPACE, "mounted: everyday writes work: heredoc, cp, cp -r, rm, reading in Python", "0 done")
def _(account: Account) -> str:
    session: WorkspaceSession = account.notes["mounted"]
    copies = "cp h i && mkdir d && cp h d/j && cp -r d e && rm i"
    result = session.run(f"cat > h <<'E'\ndone\nE\n{copies} && python3 -c 'print(open(\"e/j\").read())'")
    return f"{result.exit_code} {result.output.strip()}"
