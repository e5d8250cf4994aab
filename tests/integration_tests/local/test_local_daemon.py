"""The daemon in a sandbox answers as Daytona's own, raw over HTTP: what was measured of 0.190, one table a kind.

A newer daemon, as the models of SDK 0.226 describe it, differs in what the last table says.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from daytona import Daytona, DaytonaConfig

from langchain_daytona_ws.local import LocalDaytona
from langchain_daytona_ws.local.proxy import DAEMON_KINDS

ENVELOPE = {"statusCode", "message", "code", "timestamp", "path", "method"}
NO_SUCH = "fork/exec /usr/bin/zsh: no such file or directory"
TOO_LONG = "fork/exec /usr/bin/zsh: argument list too long"


@dataclass
class Toolbox:
    """One sandbox, asked without the SDK."""

    server: LocalDaytona
    sandbox_id: str
    http: httpx.Client

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self.http.request(method, path, **given)

    def execute(self, command: str, **body: Any) -> httpx.Response:
        return self.request("POST", "/process/execute", json={"command": command, **body})

    def run(self, command: str) -> str:
        answer = self.execute(command).json()
        assert answer["exitCode"] == 0, answer
        return str(answer["result"])

    def folder(self) -> str:
        """Make a folder of the test's own, below the daemon's own directory, and return its name."""
        name = f"t-{uuid.uuid4().hex[:8]}"
        self.run(f"mkdir {name}")
        return name


@pytest.fixture(scope="module")
def toolboxes() -> Iterator[dict[str, Toolbox]]:
    made: dict[str, Toolbox] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")
        for kind in DAEMON_KINDS:
            server = LocalDaytona(daemon=kind).start()
            client = Daytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url, target="local"))
            sandbox = client.create()
            base = server.api_url.removesuffix("/api")
            headers = {"Authorization": f"Bearer {server.api_key}"}
            http = httpx.Client(base_url=f"{base}/toolbox/{sandbox.id}", headers=headers, timeout=60)
            made[kind] = Toolbox(server, sandbox.id, http)
            client._http_client.close()
            client._api_client.rest_client.pool_manager.clear()
            client._toolbox_api_client.rest_client.pool_manager.clear()
        yield made
        for toolbox in made.values():
            toolbox.http.close()
            toolbox.server.stop()


@pytest.fixture
def toolbox(toolboxes: dict[str, Toolbox]) -> Toolbox:
    return toolboxes["0.190"]


@pytest.fixture(params=DAEMON_KINDS)
def either(request: pytest.FixtureRequest, toolboxes: dict[str, Toolbox]) -> Toolbox:
    return toolboxes[request.param]


# --- process/execute ---

REFUSED = {
    "no command": {},
    "an empty command": {"command": ""},
    "a blank command": {"command": " \t\n\u3000"},
    "a command that is no text": {"command": 1},
    "a directory that is no text": {"command": "true", "cwd": 1},
    "a negative time-out": {"command": "true", "timeout": -1},
    "a fractional time-out": {"command": "true", "timeout": 0.5},
    "a time-out as text": {"command": "true", "timeout": "1"},
    "a time-out of 33 bits": {"command": "true", "timeout": 2**32},
    "a key with a dash": {"command": "true", "envs": {"a-b": "x"}},
    "a key that begins with a digit": {"command": "true", "envs": {"1a": "x"}},
    "an empty key": {"command": "true", "envs": {"": "x"}},
    "a value that is no text": {"command": "true", "envs": {"A": 1}},
    "variables that are a list": {"command": "true", "envs": ["A=1"]},
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_wrong_execute_is_refused(either: Toolbox, body: dict[str, Any]) -> None:
    answer = either.request("POST", "/process/execute", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"[" * 100_000], ids=lambda body: repr(body[:5]))
def test_a_body_must_be_a_json_object(toolbox: Toolbox, body: bytes) -> None:
    answer = toolbox.request("POST", "/process/execute", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


RESULTS = {
    "a missing directory": ({"command": "true", "cwd": "/no/such"}, -1, NO_SUCH),
    "a relative directory": ({"command": "true", "cwd": "no/such"}, -1, NO_SUCH),
    "a file as directory": ({"command": "true", "cwd": "/etc/passwd"}, -1, "fork/exec /usr/bin/zsh: not a directory"),
    "a NUL in the directory": (
        {"command": "true", "cwd": "/a\0b"}, -1, "exec: environment variable contains NUL",
    ),
    "no directory": ({"command": "pwd", "cwd": None}, 0, "/home/daytona\n"),
    "a NUL in a variable": (
        {"command": "true", "envs": {"A": "a\0b"}}, -1, "exec: environment variable contains NUL",
    ),
    "a variable that is null": ({"command": 'echo "${A-unset}."', "envs": {"A": None}}, 0, ".\n"),
    "the longest time-out": ({"command": "echo x", "timeout": 2**32 - 1}, 0, "x\n"),
    "a time-out of 10⁹ s": ({"command": "echo x", "timeout": 10**9}, 0, "x\n"),
    "a time-out of null": ({"command": "echo x", "timeout": None}, 0, "x\n"),
    "no time-out": ({"command": "echo x", "timeout": 0}, 0, "x\n"),
    "half a pair in the command": ({"command": "echo '\ud800'"}, 0, "\ufffd\n"),
    "half a pair in a variable": ({"command": "echo $A", "envs": {"A": "x\udc00"}}, 0, "x\ufffd\n"),
    "a long variable": ({"command": "echo ${#A}", "envs": {"A": "x" * 131_069}}, 0, "131069\n"),
    "one that is too long": ({"command": "true", "envs": {"A": "x" * 131_071}}, -1, TOO_LONG),
    "3 MB of variables": ({"command": "true", "envs": {f"A{i}": "x" * 100_000 for i in range(30)}}, -1, TOO_LONG),
    "undecodable output": ({"command": r"printf 'a\377\376b'"}, 0, "a\ufffd\ufffdb"),
    "output and errors": ({"command": "echo 1; echo 2 >&2; exit 3"}, 3, "1\n2\n"),
    "a signal": ({"command": "kill -9 $$"}, -1, ""),
    "stdin is the script": ({"command": "read x\necho eaten\necho got: $x\n"}, 0, "got: echo eaten\n"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "result"), RESULTS.values(), ids=RESULTS)
def test_execute_returns_exit_code_and_output(
    toolbox: Toolbox, body: dict[str, Any], code: int, result: str
) -> None:
    content = json.dumps(body).encode()  # httpx refuses half a pair
    answer = toolbox.request("POST", "/process/execute", content=content)
    assert (answer.status_code, answer.json()) == (200, {"exitCode": code, "result": result})


def test_two_megabytes_of_variables_pass(toolbox: Toolbox) -> None:
    variables = {f"A{i}": "x" * 100_000 for i in range(19)}
    assert toolbox.execute("echo ${#A18}", envs=variables).json() == {"exitCode": 0, "result": "100000\n"}


def test_a_time_out_answers_only_when_the_output_is_let_go_of(toolbox: Toolbox) -> None:
    folder = toolbox.folder()
    began = time.monotonic()
    holder = f"setsid sh -c 'until [ -e {folder}/go ]; do sleep 0.05; done' & sleep 60"
    with pytest.raises(httpx.ReadTimeout):
        toolbox.request("POST", "/process/execute", json={"command": holder, "timeout": 1}, timeout=3)
    assert (
        toolbox.run("ps axo args | grep -c '^sleep 60' || true") == "0\n"
    )  # the group is gone, the holder is not
    # Without the duplicate that the shell forks for each sleep.
    assert toolbox.run("ps axo args | grep '^sh -c until' | sort -u | wc -l").strip() == "1"
    toolbox.run(f"touch {folder}/go")
    answer = toolbox.execute("setsid sleep 2 & sleep 60", timeout=1)
    assert answer.status_code == 408
    assert answer.json()["code"] in ("REQUEST_TIMEOUT", "PROCESS_EXECUTION_TIMEOUT")
    assert time.monotonic() - began >= 5


def test_each_execute_reads_the_list_of_shells(toolbox: Toolbox) -> None:
    name = toolbox.folder()
    assert toolbox.run("cat /proc/$$/comm") == "zsh\n"
    try:
        toolbox.run(f"cp /etc/shells {name}; printf '# x\\n/bin/bash\\n' > /etc/shells")
        assert toolbox.run("cat /proc/$$/comm") == "bash\n"
        toolbox.run("echo '# nothing' > /etc/shells")
        assert toolbox.run("cat /proc/$$/comm") == "sh\n"
        toolbox.run("echo /bin/fish > /etc/shells")
        assert toolbox.run("cat /proc/$$/comm") == "bash\n"  # which is $SHELL
        toolbox.run("printf '/bin/fish\\n/usr/bin/zsh-static\\n' > /etc/shells")  # as text
        assert toolbox.run("cat /proc/$$/comm") == "zsh\n"
    finally:
        toolbox.execute(f"cp {name}/shells /etc/shells")


# --- errors ---

MISSING_FILES = {
    "info": ("GET", "/files/info", {"path": "no/such"}),
    "list": ("GET", "/files", {"path": "no/such"}),
    "delete": ("DELETE", "/files", {"path": "no/such"}),
    "move": ("POST", "/files/move", {"source": "no/such", "destination": "x"}),
    "permissions": ("POST", "/files/permissions", {"path": "no/such", "mode": "700"}),
    "download": ("GET", "/files/download", {"path": "no/such"}),
}
NO_PATH = {
    "info": ("GET", "/files/info"),
    "delete": ("DELETE", "/files"),
    "folder": ("POST", "/files/folder"),
    "move": ("POST", "/files/move"),
    "find": ("GET", "/files/find"),
    "search": ("GET", "/files/search"),
    "permissions": ("POST", "/files/permissions"),
    "download": ("GET", "/files/download"),
}


@pytest.mark.parametrize(("method", "path", "query"), MISSING_FILES.values(), ids=MISSING_FILES)
def test_a_missing_file_is_404_without_a_body(toolbox: Toolbox, method: str, path: str, query: Any) -> None:
    answer = toolbox.request(method, path, params=query)
    assert (answer.status_code, answer.content) == (404, b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize(("method", "path"), NO_PATH.values(), ids=NO_PATH)
def test_a_missing_path_is_400_without_a_body(toolbox: Toolbox, method: str, path: str) -> None:
    for query in ({}, {"path": "", "source": "", "pattern": ""}):
        answer = toolbox.request(method, path, params=query)
        assert (answer.status_code, answer.content) == (400, b"")
        assert "content-type" not in answer.headers


@pytest.mark.parametrize(("method", "path", "query"), MISSING_FILES.values(), ids=MISSING_FILES)
def test_a_file_in_the_way_and_a_nul_are_400(either: Toolbox, method: str, path: str, query: Any) -> None:
    for wrong in ("/etc/passwd/x", "a\0b"):
        given = {name: wrong if value == "no/such" else value for name, value in query.items()}
        assert either.request(method, path, params=given).status_code == 400


def test_a_replacement_without_a_body_is_400_without_one(toolbox: Toolbox) -> None:
    answer = toolbox.request("POST", "/files/replace", content=b"{")
    assert (answer.status_code, answer.content) == (400, b"")


@pytest.mark.parametrize("path", ["/env", "/files/upload-v2", "/no/such/thing"])
def test_unknown_paths_return_404(toolbox: Toolbox, path: str) -> None:
    assert toolbox.request("POST", path, json={}).status_code == 404


def test_the_envelope_has_no_source(toolbox: Toolbox) -> None:
    answer = toolbox.execute(" ")
    assert set(answer.json()) == ENVELOPE
    assert answer.json()["statusCode"] == 400


def test_a_session_without_a_body_has_a_code_of_its_own(either: Toolbox) -> None:
    answer = either.request("POST", "/process/session", content=b"{")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST_BODY")


def test_a_missing_session_is_not_found(toolbox: Toolbox) -> None:
    answer = toolbox.request("GET", "/process/session/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


# --- files: what they do ---


def parts(*named: tuple[str, bytes | str]) -> Any:
    """Write parts in this order: text for a path, bytes for a file."""
    return [
        (name, (None, value) if isinstance(value, str) else ("x", value, "application/octet-stream"))
        for name, value in named
    ]


def test_an_upload_returns_the_written_files(toolbox: Toolbox) -> None:
    folder = toolbox.folder()
    files = parts(
        ("files[0].path", f"  {folder}/deep/a \n"), ("files[0].file", b"123"),
        ("files[1].path", f"{folder}/b"), ("files[1].file", b""),
    )  # fmt: skip
    answer = toolbox.request("POST", "/files/bulk-upload", files=files)
    assert answer.status_code == 200
    written = [{"path": f"{folder}/deep/a", "bytes": 3}, {"path": f"{folder}/b", "bytes": 0}]
    assert answer.json() == {"files": written}
    assert toolbox.run(f"cat {folder}/deep/a; stat -c %a {folder}/deep {folder}/b") == "123755\n644\n"


UPLOADS = {
    "the file before its path": [("files[0].file", b"x"), ("files[0].path", "{}/x")],
    "no path": [("files[0].file", b"x")],
    "a blank path": [("files[0].path", "  "), ("files[0].file", b"x")],
    "another's path": [("files[1].path", "{}/x"), ("files[0].file", b"x")],
    "onto a folder": [("files[0].path", "{}"), ("files[0].file", b"x")],
    "below a file": [("files[0].path", "/etc/passwd/x"), ("files[0].file", b"x")],
}


@pytest.mark.parametrize("order", UPLOADS.values(), ids=UPLOADS)
def test_a_wrong_part_is_reported_and_the_others_are_written(either: Toolbox, order: Any) -> None:
    folder = either.folder()
    given = [(name, value.format(folder) if isinstance(value, str) else value) for name, value in order]
    given += [("files[9].path", f"{folder}/fine"), ("files[9].file", b"fine")]
    answer = either.request("POST", "/files/bulk-upload", files=parts(*given))
    assert answer.status_code == 400
    assert answer.json()["errors"]
    assert answer.json()["files"] == [{"path": f"{folder}/fine", "bytes": 4}]
    assert either.run(f"ls {folder}") == "fine\n"


def test_an_upload_must_be_a_form(toolbox: Toolbox) -> None:
    answer = toolbox.request(
        "POST", "/files/bulk-upload", content=b"x", headers={"Content-Type": "text/plain"}
    )
    assert (answer.status_code, list(answer.json())) == (400, ["errors"])
    answer = toolbox.request(
        "POST", "/files/bulk-upload", content=b"x", headers={"Content-Type": "multipart/form-data"}
    )
    assert (answer.status_code, list(answer.json())) == (400, ["errors"])


DELETIONS = {
    # path, recursive, status, remaining files
    "a file": ("f", None, 204, "d dangling link"),
    "a file, recursively": ("f", "true", 204, "d dangling link"),
    "a folder": ("d", None, 400, "d dangling f link"),
    "a folder, with 1": ("d", "1", 400, "d dangling f link"),
    "a folder, with True": ("d", "True", 400, "d dangling f link"),
    "a folder, recursively": ("d", "true", 204, "dangling f link"),
    "a link to a folder": ("link", None, 400, "d dangling f link"),
    "a link to a folder, recursively": ("link", "true", 204, "d dangling f"),
    "a dangling link": ("dangling", None, 404, "d dangling f link"),
    "a dangling link, recursively": ("dangling", "true", 404, "d dangling f link"),
}


@pytest.mark.parametrize(("name", "recursive", "status", "left"), DELETIONS.values(), ids=DELETIONS)
def test_deletions(toolbox: Toolbox, name: str, recursive: str | None, status: int, left: str) -> None:
    folder = toolbox.folder()
    toolbox.run(f"cd {folder}; mkdir d; touch d/kept f; ln -s d link; ln -s nowhere dangling")
    query = {"path": f"{folder}/{name}"} | ({} if recursive is None else {"recursive": recursive})
    assert toolbox.request("DELETE", "/files", params=query).status_code == status
    assert toolbox.run(f"ls {folder}").split() == left.split()


MOVES = {
    # source, destination, status, files afterwards
    "a file": ("f", "g", 200, "d d/x g other"),
    "a folder": ("d", "e", 200, "e e/x f other"),
    "into a folder that is not there": ("f", "no/such/g", 404, "d d/x f other"),
    "onto a file": ("f", "other", 409, "d d/x f other"),
    "onto itself": ("f", "f", 409, "d d/x f other"),
    "below a file": ("f", "other/g", 400, "d d/x f other"),
    "a folder into itself": ("d", "d/y", 200, "f other"),
}


@pytest.mark.parametrize(("source", "destination", "status", "left"), MOVES.values(), ids=MOVES)
def test_moves(toolbox: Toolbox, source: str, destination: str, status: int, left: str) -> None:
    folder = toolbox.folder()
    toolbox.run(f"cd {folder}; mkdir d; touch d/x f other")
    query = {"source": f"{folder}/{source}", "destination": f"{folder}/{destination}"}
    assert toolbox.request("POST", "/files/move", params=query).status_code == status
    assert toolbox.run(f"cd {folder}; find . -mindepth 1 | sed 's|./||' | sort").split() == left.split()


FOLDERS = {
    # mode, umask's effect, status
    "no mode": (None, "755", 201),
    "an empty mode": ("", "755", 201),
    "one that the umask narrows": ("777", "755", 201),
    "a narrow one": ("0700", "700", 201),
    "one with set-user-id": ("4755", "755", 201),
    "no number": ("rwx", None, 400),
    "a Python number": ("0o755", None, 400),
    "a negative number": ("-1", None, 400),
    "a digit of 9": ("799", None, 400),
}


@pytest.mark.parametrize(("mode", "made", "status"), FOLDERS.values(), ids=FOLDERS)
def test_folders(toolbox: Toolbox, mode: str | None, made: str | None, status: int) -> None:
    name = toolbox.folder()
    query = {"path": f"{name}/a/b"} | ({} if mode is None else {"mode": mode})
    assert toolbox.request("POST", "/files/folder", params=query).status_code == status
    if made is not None:
        assert toolbox.run(f"stat -c %a {name}/a {name}/a/b").split() == [made, made]


def test_an_existing_folder_is_unchanged(toolbox: Toolbox) -> None:
    name = toolbox.folder()
    toolbox.run(f"chmod 700 {name}; touch {name}/file")
    query = {"path": name, "mode": "755"}
    assert toolbox.request("POST", "/files/folder", params=query).status_code == 201
    assert toolbox.run(f"stat -c %a {name}") == "700\n"
    assert toolbox.request("POST", "/files/folder", params={"path": f"{name}/file"}).status_code == 400


PERMISSIONS = {
    "a mode": ({"mode": "640"}, 200),
    "a leading zero": ({"mode": "0640"}, 200),
    "an owner by name": ({"owner": "daytona"}, 200),
    "an owner by number": ({"owner": "0", "group": "0"}, 200),
    "nothing": ({}, 200),
    "no number": ({"mode": "u+x"}, 400),
    "nobody's name": ({"owner": "no-such-user"}, 400),
    "no group's name": ({"group": "no-such-group"}, 400),
}


@pytest.mark.parametrize(("query", "status"), PERMISSIONS.values(), ids=PERMISSIONS)
def test_permissions(toolbox: Toolbox, query: dict[str, str], status: int) -> None:
    name = toolbox.folder()
    toolbox.run(f"touch {name}/f; chmod 600 {name}/f")
    answer = toolbox.request("POST", "/files/permissions", params={"path": f"{name}/f", **query})
    assert answer.status_code == status
    assert toolbox.run(f"stat -c %a {name}/f") == ("640\n" if "640" in query.get("mode", "") else "600\n")


MODES = {
    "a folder": ("mkdir x; chmod 750 x", "drwxr-x---", "0750"),
    "a file": ("touch x; chmod 644 x", "-rw-r--r--", "0644"),
    "set-user-id": ("touch x; chmod 4755 x", "urwxr-xr-x", "0755"),
    "set-group-id": ("touch x; chmod 2755 x", "grwxr-xr-x", "0755"),
    "sticky": ("mkdir x; chmod 1777 x", "dtrwxrwxrwx", "0777"),
    "a FIFO": ("mkfifo x; chmod 600 x", "prw-------", "0600"),
}


@pytest.mark.parametrize(("made", "mode", "permissions"), MODES.values(), ids=MODES)
def test_modes_are_written_as_go_does(toolbox: Toolbox, made: str, mode: str, permissions: str) -> None:
    name = toolbox.folder()
    toolbox.run(f"cd {name}; {made}")
    described = toolbox.request("GET", "/files/info", params={"path": f"{name}/x"}).json()
    assert (described["mode"], described["permissions"]) == (mode, permissions)
    assert (described["owner"], described["group"]) == ("0", "0")
    assert toolbox.request("GET", "/files/info", params={"path": "/dev/null"}).json()["mode"][:2] == "Dc"


def test_times_have_no_trailing_zeros(toolbox: Toolbox) -> None:
    name = toolbox.folder()
    for moment, ending in (("1.5", "01.5"), ("1", "01"), ("1.000000001", "01.000000001")):
        toolbox.run(f"touch -d @{moment} {name}")
        described = toolbox.request("GET", "/files/info", params={"path": name}).json()
        assert described["modifiedAt"] == f"1970-01-01T00:00:{ending}Z"
        assert f"00:00:{ending} +0000" in described["modTime"] or os.environ.get("TZ")


def test_a_listing_skips_unreadable_entries(toolbox: Toolbox) -> None:
    name = toolbox.folder()
    toolbox.run(f"cd {name}; mkdir d; touch d/x f; ln -s nowhere dangling; ln -s d link; ln -s loop loop")
    entries = toolbox.request("GET", "/files", params={"path": name, "depth": "2"}).json()
    assert [entry["name"] for entry in entries] == ["d", "f", "link"]
    assert set(entries[0]) == {
        "name", "size", "mode", "modTime", "modifiedAt", "isDir", "owner", "group", "permissions",
    }  # fmt: skip
    assert name in {entry["name"] for entry in toolbox.request("GET", "/files").json()}


def test_find_and_search(either: Toolbox) -> None:
    name = either.folder()
    either.run(
        f"cd {name}; mkdir sub; printf 'one\\r\\nneedle (.*)\\n' > a.py; printf 'needle\\0' > b.py; "
        "echo needle > sub/c.py; ln -s a.py link.py; touch empty '[x].py'"
    )
    query = {"path": name, "pattern": "needle"}
    assert either.request("GET", "/files/find", params=query).json() == [
        {"file": f"{name}/a.py", "line": 2, "content": "needle (.*)"},
        {"file": f"{name}/sub/c.py", "line": 1, "content": "needle"},
    ]
    searches = {
        "*.py": ["[x].py", "a.py", "b.py", "link.py", "sub/c.py"], "[ab].py": ["a.py", "b.py"],
        "[^a].py": ["b.py", "sub/c.py"], r"\[x\].py": ["[x].py"], "?.py": ["a.py", "b.py", "sub/c.py"],
        "sub": ["sub"], "[": [], name: [""],
    }  # fmt: skip
    for pattern, found in searches.items():
        answer = either.request("GET", "/files/search", params={"path": name, "pattern": pattern}).json()
        assert answer == {"files": [f"{name}/{item}".rstrip("/") for item in found]}, pattern


def test_find_and_search_below_nothing_are_empty(toolbox: Toolbox) -> None:
    query = {"path": "no/such", "pattern": "x"}
    assert toolbox.request("GET", "/files/find", params=query).json() == []
    assert toolbox.request("GET", "/files/search", params=query).json() == {"files": []}


def test_replacements_report_for_each_file(toolbox: Toolbox) -> None:
    name = toolbox.folder()
    toolbox.run(f"echo needle > {name}/a; chmod 600 {name}/a")
    body = {"files": [f"{name}/a", f"{name}/none"], "pattern": "needle", "newValue": "pin"}
    done, failed = toolbox.request("POST", "/files/replace", json=body).json()
    assert done == {"file": f"{name}/a", "success": True}
    assert failed["success"] is False
    assert "no such file or directory" in failed["error"]
    assert toolbox.run(f"cat {name}/a; stat -c %a {name}/a") == "pin\n600\n"
    for missing in body:
        answer = toolbox.request("POST", "/files/replace", json={**body, missing: None})
        assert (answer.status_code, answer.content) == (400, b"")
    body = {"files": [f"{name}/a"], "pattern": "pin", "newValue": ""}
    assert toolbox.request("POST", "/files/replace", json=body).json() == [
        {"file": f"{name}/a", "success": True}
    ]
    assert toolbox.run(f"cat {name}/a") == "\n"


def download(toolbox: Toolbox, *paths: str) -> bytes:
    return toolbox.request("POST", "/files/bulk-download", json={"paths": list(paths)}).content


DOWNLOADS = {
    "none/such": "FILE_NOT_FOUND", "/etc": "INVALID_FILE_PATH", "": "INVALID_FILE_PATH",
    "/etc/passwd/x": "FILE_READ_FAILED",
}  # fmt: skip


@pytest.mark.parametrize(("path", "code"), DOWNLOADS.items())
def test_a_failed_download_has_its_error_in_its_part(either: Toolbox, path: str, code: str) -> None:
    content = download(either, path)
    assert b'name="error"' in content
    error = json.loads(content[content.index(b"{") : content.rindex(b"}") + 1])
    assert (error["code"], error["path"], error["method"]) == (code, path, "POST")


def test_a_download_of_nothing_is_refused(toolbox: Toolbox) -> None:
    for body in ({}, {"paths": []}, {"paths": [1]}):
        answer = toolbox.request("POST", "/files/bulk-download", json=body)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])


# --- what a newer daemon has ---


def test_a_newer_daemon_names_itself(toolboxes: dict[str, Toolbox]) -> None:
    newer = toolboxes["0.226"]
    for answer in (newer.execute(" "), newer.request("GET", "/files/info", params={"path": "no/such"})):
        assert set(answer.json()) == {*ENVELOPE, "source"}
        assert answer.json()["source"] == "DAYTONA_DAEMON"
    assert newer.request("GET", "/files/info", params={"path": "no/such"}).json()["code"] == "FILE_NOT_FOUND"
    assert newer.request("GET", "/process/session/none").json()["code"] == "PROCESS_NOT_FOUND"
    assert newer.execute("sleep 60", timeout=1).json()["code"] == "PROCESS_EXECUTION_TIMEOUT"


def test_a_newer_daemon_says_paths_and_goes_deeper(toolboxes: dict[str, Toolbox]) -> None:
    newer = toolboxes["0.226"]
    name = newer.folder()
    newer.run(f"cd {name}; mkdir d; touch d/x")
    entries = newer.request("GET", "/files", params={"path": name, "depth": "2"}).json()
    assert [entry["path"] for entry in entries] == [f"/home/daytona/{name}/d", f"/home/daytona/{name}/d/x"]


def test_a_newer_daemon_takes_variables(toolboxes: dict[str, Toolbox]) -> None:
    newer = toolboxes["0.226"]
    assert newer.request("POST", "/env", json={"set": {"ADDED": "yes"}}).status_code == 200
    assert newer.run("echo $ADDED") == "yes\n"
    assert newer.request("POST", "/env", json={"set": {"A": 1}}).status_code == 400
    assert newer.request("GET", "/files", params={"depth": "x"}).status_code == 400
