"""The mounter, as the helper that a hostile user may call: what it takes, where it keeps secrets, how it is called."""

from __future__ import annotations

import ast
import contextlib
import copy
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from langchain_daytona_ws._core.guest_rpc.attachments import GuestRequest
from langchain_daytona_ws._core.guest_rpc.payload import separate_program
from langchain_daytona_ws._core.mount.manager import MountManager, mounter_source
from langchain_daytona_ws._core.s3.store import Credentials
from langchain_daytona_ws._core.s3.workspace import Mount, S3Workspace
from langchain_daytona_ws._guest import mount
from langchain_daytona_ws._guest.dirs import SetupError
from tests.unit_tests.attached import exchange

DIRECTORY = "/mnt/workspaces/demo"
REQUEST: dict[str, Any] = {
    "version": 2,
    "mounts": [
        {"bucket": "agents", "prefix": "sandbox/demo/", "directory": DIRECTORY, "read_only": False},
        {"bucket": "skills", "prefix": "", "directory": "/mnt/skills", "read_only": True},
    ],
    "region": "eu-central-1",
    "endpoint": None,
    "expires_at": None,
}
CREDENTIALS: dict[str, Any] = {"Version": 1, "AccessKeyId": "AKIAKEY", "SecretAccessKey": "se/cr+et="}


FIRST = "0: initial ListObjectsV2 failed for bucket agents in region us-east-1\n1: Client error\n2: "


def loaded(workspaces: str = "/mnt/workspaces", skills: str = "/mnt/skills") -> Any:
    """Return the program as a module of its own, as it stands in a snapshot."""
    module = ModuleType("mounter")
    exec(compile(mounter_source(workspaces, skills), "mounter", "exec"), module.__dict__)
    return module


@pytest.fixture
def helper(tmp_path: Path) -> Any:
    made = loaded()
    made.HOME = str(tmp_path / "home")
    os.mkdir(made.HOME)
    return made


def changed(at: str, value: object) -> Any:
    """Return the request with one thing changed; ``at`` is such as ``mounts.0.bucket``."""
    request = copy.deepcopy(REQUEST)
    *above, last = [int(part) if part.isdigit() else part for part in at.split(".")]
    location: Any = request
    for step in above:
        location = location[step]
    location[last] = value
    return request


class TestProgram:
    def test_the_mounter_is_one_file_in_which_no_name_is_defined_twice(self) -> None:
        text = mounter_source()
        tree = ast.parse(text)
        imported = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        assert imported <= sys.stdlib_module_names
        assert {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} == {
            "__future__",
            "typing",
        }
        names = Counter(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
        assert set(names.values()) == {1}

    def test_the_mounter_runs_on_the_oldest_python(self) -> None:
        ast.parse(mounter_source(), feature_version=(3, 8))

    def test_a_helper_is_bound_to_the_directories_of_its_snapshot(self) -> None:
        bound = loaded("/srv/w", "/srv/s")
        assert (bound.WORKSPACES, bound.SKILLS) == ("/srv/w", "/srv/s")
        assert not {location for location in bound.PROGRAM_PATHS if location.startswith("/usr/local")}
        assert (loaded("", "").WORKSPACES, "/usr/local/bin" in loaded("", "").PROGRAM_PATHS) == ("", True)

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            (b"", "bad_request"),
            (b"[" * 60_000, "bad_request"),
            (b'{"version": 2}' + b" " * 70_000, "bad_request"),
            (json.dumps(REQUEST).encode() + b"\n{", "bad_request"),
            (b'{"version": 2, "mounts": "\xff"}', "bad_request"),
            (b"[1]", "bad_request"),
            (b"{}", "helper_version"),
            (json.dumps(changed("version", 1)).encode(), "helper_version"),
            (json.dumps(changed("region", "-x")).encode(), "bad_request"),
        ],
    )
    def test_any_input_is_answered_with_one_object(self, given: bytes, code: str) -> None:
        done = ran(given)
        answer = json.loads(done.stdout)
        assert (answer["ok"], answer["code"]) == (False, code)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_inherited_limits_do_not_stop_the_mounter(self) -> None:
        poll = (
            "import json, os, resource, signal, sys\n"
            "_reset_inherited()\n"
            "said = [os.getcwd(), os.umask(0), os.getsid(0) == os.getpid(),"
            " resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_CPU),"
            " signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,"
            " signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, sorted(signal.pthread_sigmask(0, ())),"
            " 0 < signal.alarm(0) <= LIMIT_S]\n"
            "print(json.dumps(said))"
        )
        text = (
            mounter_source("/mnt/workspaces", "/mnt/skills").replace("\n    main()\n", "\n    pass\n") + poll
        )
        client = 'trap "" CHLD TERM HUP; ulimit -S -t 50; umask 000; exec "$@"'
        blocked = (
            "import os, signal, sys; signal.pthread_sigmask(0, [10]); "
            "os.execv(sys.executable, ['p', '-IS', '-c', sys.argv[1]])"
        )
        for leader in (False, True):  # who leads a process group cannot leave it
            done = subprocess.run(
                ["sh", "-c", client, "sh", sys.executable, "-c", blocked, text],
                check=True, capture_output=True, timeout=60, process_group=0 if leader else None,
            )  # fmt: skip
            directory, mask, own_session, core, cpu, *rest = json.loads(done.stdout)
            assert (directory, mask, own_session, core) == ("/", 0o022, True, 0)
            assert cpu[0] == cpu[1]
            assert rest == [True, True, [], True]


def ran(given: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-IS", "-c", mounter_source("/mnt/workspaces", "/mnt/skills")],
        input=given, check=False, capture_output=True, timeout=60,
    )  # fmt: skip


def sent_by(manager: MountManager) -> GuestRequest:
    """Return the request that a manager sends to a sandbox that it does not know."""
    request = GuestRequest(None, "box", "command", {}, 60.0)  # type: ignore[arg-type]
    return exchange(manager, request)[1][0]


@pytest.mark.parametrize(("life_s", "is_short"), [(3.2, True), (299.0, True), (900.0, False), (None, False)])
def test_credentials_that_end_at_once_are_not_blamed_on_the_clocks(
    life_s: float | None, is_short: bool
) -> None:
    workspace = S3Workspace(
        region="eu-central-1", endpoint=None, workspace=Mount("agents", "sandbox/demo/", DIRECTORY), skills=None,
        kms_key_arn=None, role=None, keys=None,
    )  # fmt: skip

    async def give(min_life_s: float) -> Credentials:
        return Credentials("AKIAKEY", "secret", "token", 1_900_000_000.0, life_s)

    manager = MountManager(workspace, give, lambda _: None, delivered={}, add_notice=print)
    sent_by(manager)
    error = manager.refusal("mount_expired", "ExpiredToken")
    assert ("they are issued for 3 s only (ExpiredToken). Let the role's STS" in error.message) is (
        life_s == 3.2
    )
    assert ("15 minutes or more" in error.message) is is_short
    assert ("and the sandbox's" in error.message) is not is_short
    assert error.code == "mount_expired"


class TestRequest:
    def test_host_and_mounter_compute_the_same_ids(self, helper: Any) -> None:
        for endpoint, skills in ((None, True), ("https://s3.example.com/a", False)):
            workspace = S3Workspace(
                region="eu-central-1",
                endpoint=endpoint,
                workspace=Mount("agents", "sandbox/demo/", DIRECTORY),
                skills=Mount("skills", "", "/mnt/skills", read_only=True) if skills else None,
                kms_key_arn=None,
                role=None,
                keys=None,
            )
            for token, expires_at in ((None, None), ("tok/en==", 1_900_000_000.5)):
                keys = Credentials("AKIAKEY", "se/cr+et=", token, expires_at)

                async def give(min_life_s: float, keys: Credentials = keys) -> Credentials:
                    return keys

                sent = sent_by(MountManager(workspace, give, lambda _: None, delivered={}, add_notice=print))
                mounts = sent.fields["mount"]
                request = json.loads(str(mounts["request"]))
                reported = helper.checked(request)
                assert (reported["id"], helper.digest(reported)) == (mounts["id"], mounts["spec"])
                brought = json.loads(sent.secret or b"")
                given = helper.credentials(brought)
                assert given == brought
                kept = helper.CredentialStore(reported["id"], helper.digest(reported))
                kept.replace(given, helper.expiry(request))
                kept.publish()
                assert mount_sees(helper, reported["id"])[:2] == [
                    mounts["spec"],
                    mounts["serial"],
                ]

    @pytest.mark.parametrize(
        ("at", "value"),
        [
            ("mounts", None),
            ("mounts", {}),
            ("mounts", []),
            ("mounts", [None]),
            ("mounts", [*REQUEST["mounts"], *REQUEST["mounts"]]),
            ("mounts.0", "x"),
            *[
                ("mounts.0.bucket", bucket)
                for bucket in (None, 7, "", "-x", "--help", "s3://agents", "a b", "agents\n", "AGENTS", "a" * 64, ["a"])
            ],
            *[
                ("mounts.0.prefix", prefix)
                for prefix in (
                    None, "", "sandbox/", "sandbox/other/", "sandbox/demo", "sandbox/demo2/", "--x", "/demo/", "demo//",
                    "a//demo/", "../demo/", "demo/./", "--x/demo/", "-/demo/", "a b/demo/", "*/demo/", "demo/\n",
                    "é/demo/", "{namespace}/", "demo/" * 65, "x" * 129 + "/demo/", ["demo/"],
                )
            ],
            ("mounts.0.read_only", True),
            ("mounts.0.read_only", 0),
            ("mounts.1.read_only", False),
            ("mounts.1.prefix", "sandbox/demo/"),
            *[
                ("mounts.0.directory", directory)
                for directory in (None, "", "demo", "/", "//mnt/workspaces/demo", "/mnt/workspaces/demo/", "-x")
            ],
            ("mounts.0.directory", "/mnt/workspaces/../demo"),
            ("mounts.0.directory", "/mnt/workspaces/./demo"),
            ("mounts.0.directory", "/mnt/workspaces/demo\n"),
            ("mounts.0.directory", "/mnt/workspaces/de\u202emo"),
            ("mounts.0.directory", "/mnt/workspaces/de\x00mo"),
            ("mounts.0.directory", "/mnt/workspaces/\ud800"),
            *[("region", region) for region in (None, "", "-x", "--x", "a b", "eu-1\n", "é", 5, "a" * 64)],
            *[
                ("endpoint", endpoint)
                for endpoint in ("", "-x", "file:///etc/passwd", "https://", "http://a b", "http://a\n", "http://é", 5)
            ],
        ],
    )  # fmt: skip
    def test_a_request_with_an_invalid_value_is_refused(self, helper: Any, at: str, value: object) -> None:
        with pytest.raises(helper.MountError) as refused:
            helper.checked(changed(at, value))
        assert refused.value.code == "bad_request"
        assert refused.value.detail in {
            "mounts",
            "mount",
            "bucket",
            "prefix",
            "directory",
            "region",
            "endpoint",
            "read_only",
        }

    @pytest.mark.parametrize(
        "prefix", ["demo/", "team=a/demo/", "demo/demo/", ".hidden/demo/files/", "sandbox/demo/"]
    )
    def test_the_prefix_contains_the_workspaces_name(self, helper: Any, prefix: str) -> None:
        assert helper.checked(changed("mounts.0.prefix", prefix))["mounts"][0]["prefix"] == prefix

    @pytest.mark.parametrize("name", ["..", ".", ".ssh", "-rf", "a b", "a\\b", "a" * 129, "ä"])
    def test_an_invalid_workspace_name_is_refused(self, helper: Any, name: str) -> None:
        request = changed("mounts.0.directory", f"/mnt/workspaces/{name}")
        request["mounts"][0]["prefix"] = f"sandbox/{name}/"
        with pytest.raises(helper.MountError) as refused:
            helper.checked(request)
        assert refused.value.code == "bad_request"

    @pytest.mark.parametrize(
        ("at", "directory"),
        [
            (0, "/etc/demo"),
            (0, "/mnt/demo"),
            (0, "/mnt/workspaces/x/demo"),
            (0, "/mnt/skills/demo"),
            (1, "/mnt/workspaces/demo"),
            (1, "/mnt/skills/x"),
            (1, "/usr/local/sbin"),
        ],
    )
    def test_the_helper_refuses_other_directories(self, helper: Any, at: int, directory: str) -> None:
        request = changed(f"mounts.{at}.directory", directory)
        with pytest.raises(helper.MountError) as refused:
            helper.checked(request)
        assert refused.value.code == "other_place"
        # Where it is sent along, the host says where.
        assert loaded("", "").checked(request)["mounts"][at]["directory"] == directory

    @pytest.mark.parametrize("name", ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"])
    @pytest.mark.parametrize("value", [None, 5, "", "a b", "a\nb", "é", "\ud800", "a" * 16385, ["a"], {}])
    def test_invalid_credentials_are_refused(self, helper: Any, name: str, value: object) -> None:
        with pytest.raises(helper.MountError) as refused:
            helper.credentials({**CREDENTIALS, name: value})
        assert (refused.value.code, refused.value.detail) == ("bad_request", name)

    def test_unknown_fields_of_credentials_are_dropped(self, helper: Any) -> None:
        assert helper.credentials({**CREDENTIALS, "Extra": "x"}) == CREDENTIALS
        assert helper.credentials(None) is None
        for value in ("x", [], 5, True):
            with pytest.raises(helper.MountError):
                helper.credentials(value)

    def test_the_expiry_of_credentials_is_a_time(self, helper: Any) -> None:
        assert helper.expiry(changed("expires_at", 1_900_000_000.9)) == "1900000000"
        assert helper.expiry(changed("expires_at", None)) == ""
        for value in ("1", True, -1, 1e12, float("nan"), float("inf"), [1], 10**400):
            with pytest.raises(helper.MountError):
                helper.expiry(changed("expires_at", value))


def mount_sees(helper: Any, name: str) -> list[str]:
    return Path(helper.HOME, f"{name}.status").read_text().split()


KEY = {"Version": 1, "AccessKeyId": "AKIAKEY", "SecretAccessKey": "secret"}
OTHER = {"Version": 1, "AccessKeyId": "AKIAOTHER", "SecretAccessKey": "other", "SessionToken": "token"}


class TestCredentialStore:
    def stored(self, helper: Any, spec: str, keys: dict[str, Any], expires: str = "") -> Any:
        made = helper.CredentialStore("id", spec)
        made.replace(keys, expires)
        made.publish()
        return made

    def test_only_root_reads_the_credentials(self, helper: Any) -> None:
        old = os.umask(0)
        try:
            self.stored(helper, "a", KEY).environment("/bin")
        finally:
            os.umask(old)
        home = Path(helper.HOME)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in (*home.iterdir(), *home.glob("id/*"))
        }
        assert modes == {"id": 0o700, "id.status": 0o644, "a.json": 0o600, "config": 0o600}
        assert "secret" not in Path(helper.HOME, "id.status").read_text()

    def test_mount_s3_finds_no_other_credentials(self, helper: Any) -> None:
        variables = self.stored(helper, "a", KEY).environment("/bin")
        assert set(variables) == {
            "PATH", "HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED",
        }  # fmt: skip
        _, _, process = Path(variables["AWS_CONFIG_FILE"]).read_text().partition("credential_process = ")
        printed = subprocess.run(process, shell=True, check=True, capture_output=True).stdout
        assert json.loads(printed) == KEY

    def test_credentials_are_kept_for_the_same_mounts(self, helper: Any) -> None:
        self.stored(helper, "a", KEY)
        again = helper.CredentialStore("id", "a")
        assert again.is_current
        assert again.replace(None, "") is False

    def test_credentials_are_not_used_for_other_mounts(self, helper: Any) -> None:
        self.stored(helper, "a", KEY)
        other = helper.CredentialStore("id", "b")
        assert not other.is_current
        with pytest.raises(helper.MountError, match="credentials"):
            other.replace(None, "")

    def test_credentials_of_other_mounts_have_other_files(self, helper: Any) -> None:
        # A mount that was detached while in use stays alive, and reads its file again.
        own = Path(self.stored(helper, "a", KEY).directory, "a.json")
        helper.CredentialStore("id", "b").replace(OTHER, "")
        assert json.loads(own.read_text()) == KEY
        self.stored(helper, "b", OTHER)
        assert not own.exists()

    def test_credentials_of_a_failed_mount_are_not_used(self, helper: Any) -> None:
        self.stored(helper, "a", KEY)
        helper.CredentialStore("id", "b").replace(OTHER, "")  # and then it failed
        with pytest.raises(helper.MountError, match="credentials"):
            helper.CredentialStore("id", "b").replace(None, "")

    @pytest.mark.parametrize("text", ["", "a", "a b c d", "a b tomorrow", "a b nan", "\udcff b never"])
    def test_credentials_with_a_garbled_status_are_requested_again(self, helper: Any, text: str) -> None:
        self.stored(helper, "a", KEY)
        Path(helper.HOME, "id.status").write_text(text, errors="surrogateescape")
        with pytest.raises(helper.MountError, match="credentials"):
            helper.CredentialStore("id", "a").replace(None, "")

    def test_expired_credentials_are_requested_again(self, helper: Any) -> None:
        self.stored(helper, "a", KEY, str(int(time.time()) - 1))
        with pytest.raises(helper.MountError, match="credentials"):
            helper.CredentialStore("id", "a").replace(None, "")

    def test_credentials_that_end_soon_cause_a_check_of_the_mount(self, helper: Any) -> None:
        for left_s, stale in ((200, True), (400, False)):
            self.stored(helper, f"a{left_s}", KEY, str(int(time.time()) + left_s))
            assert helper.CredentialStore("id", f"a{left_s}").replace(OTHER, "") is stale

    @pytest.mark.parametrize("ending", [False, True])
    def test_replaced_credentials_reach_the_running_mount(self, helper: Any, ending: bool) -> None:
        end = str(int(time.time()) + 3600) if ending else ""
        self.stored(helper, "a", KEY, end)
        again = helper.CredentialStore("id", "a")
        again.replace(KEY, end)
        assert again.is_current
        again.replace(OTHER, end)
        assert again.is_current is ending, (
            "credentials without an expiry are read again only after 15 minutes"
        )

    def test_no_report_contains_the_credentials(self, helper: Any) -> None:
        keys = self.stored(helper, "a", OTHER)
        assert keys.redacted("no AKIAOTHER: other, token; 1") == "no ***: ***, ***; 1"

    def test_a_failed_write_keeps_the_old_credentials(
        self, helper: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = Path(self.stored(helper, "a", KEY).directory)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fchmod", full)
        with pytest.raises(OSError, match="No space left"):
            helper.CredentialStore("id", "a").replace(OTHER, "")
        assert [path.name for path in directory.iterdir()] == ["a.json"]
        assert json.loads((directory / "a.json").read_text()) == KEY

    def test_valid_credentials_are_used_on_a_full_disk(
        self, helper: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for left_s, enough in ((400, True), (200, False)):
            end = str(int(time.time()) + left_s)
            own = Path(self.stored(helper, f"a{left_s}", KEY, end).directory, f"a{left_s}.json")
            before = Path(helper.HOME, "id.status").read_text()
            with monkeypatch.context() as patch:
                patch.setattr(os, "fchmod", full)
                keys = helper.CredentialStore("id", f"a{left_s}")
                if enough:
                    assert keys.replace(OTHER, "9999999999") is False
                    assert keys.is_current
                    keys.publish()
                else:
                    with pytest.raises(OSError, match="No space left"):
                        keys.replace(OTHER, "9999999999")
            assert json.loads(own.read_text()) == KEY
            assert Path(helper.HOME, "id.status").read_text() == before, "so that new ones are sent again"


class TestLock:
    def test_only_root_opens_the_lock_file(self, helper: Any) -> None:
        with open(helper.HOME + "/lock", "w", opener=helper.open_for_root) as lock:
            assert stat.S_IMODE(os.fstat(lock.fileno()).st_mode) == 0o600

    def test_the_lock_is_waited_for_a_limited_time(self, helper: Any) -> None:
        helper.LOCK_S = 0.1
        with open(helper.HOME + "/lock", "w") as lock, open(helper.HOME + "/lock", "w") as other:
            helper.acquire(other.fileno())
            with pytest.raises(helper.MountError, match="busy"):
                helper.acquire(lock.fileno())

    def test_a_hanging_check_does_not_keep_the_lock(self, helper: Any) -> None:
        with open(helper.HOME + "/lock", "w") as lock:
            helper.acquire(lock.fileno())
            held, holder = os.pipe()
            # Where the check is stuck no signal ends it: this one only keeps the test from waiting for it.
            helper._examine = lambda *_: signal.pause()
            check = helper.Check("/")
            assert not check.is_alive(0.2)
            os.close(holder)
            assert os.read(held, 1) == b""
            os.close(held)
            fcntl.flock(lock, fcntl.LOCK_UN)
        with open(helper.HOME + "/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check.end()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(check.descriptor)


class TestCheck:
    @pytest.mark.parametrize(
        ("message", "alive", "refused"),
        [
            ([], False, False),
            ([b"ali"], False, False),
            ([b"alive"], True, False),
            ([b"alive", b"+"], True, False),
            ([b"al", b"ive-"], True, True),
        ],
    )
    def test_a_check_reports_the_state_of_the_mount(
        self, helper: Any, message: list[bytes], alive: bool, refused: bool
    ) -> None:
        def examine(_: str, write: int) -> None:
            for piece in message:
                os.write(write, piece)

        helper._examine = examine
        check = helper.Check("/")
        assert (check.is_alive(20), check.is_refused(20)) == (alive, refused)
        check.end()

    def test_a_failed_check_finds_no_mount(self, helper: Any) -> None:
        def examine(*_: object) -> None:
            raise OSError(107, "Transport endpoint is not connected")

        helper._examine = examine
        check = helper.Check("/")
        assert not check.is_alive(20)
        check.end()

    def test_a_directory_that_is_no_mount_of_ours_is_not_alive(self, helper: Any) -> None:
        for directory in ("/proc", "/tmp", "/nowhere/at/all"):
            check = helper.Check(directory)
            assert not check.is_alive(20)
            check.end()

    @pytest.mark.parametrize(
        ("stat", "scandir", "reaches"),
        [(2, 0, True), (5, 0, True), (5, 5, False), (0, 5, True)],
        ids=["nothing of that name", "listing only", "refused", "a name that is there"],
    )
    def test_only_an_input_output_error_of_both_is_a_refusal(
        self, helper: Any, monkeypatch: pytest.MonkeyPatch, stat: int, scandir: int, reaches: bool
    ) -> None:
        def answering(number: int) -> Any:
            def answer(_: object) -> Any:
                if number:
                    raise OSError(number, os.strerror(number))
                return contextlib.nullcontext(iter(()))

            return answer

        monkeypatch.setattr(os, "stat", answering(stat))
        monkeypatch.setattr(os, "scandir", answering(scandir))
        found = helper._reaches_s3("/mnt")
        monkeypatch.undo()
        assert found is reaches


class TestRefusal:
    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ("Error: Timeout after 30 seconds while waiting for mount process to be ready", "unreachable"),
            ("fuse: device not found, try 'modprobe fuse' first", "no_fuse"),
            (FIRST + "Wrong region (expecting eu-central-1)", "wrong_region"),
            (FIRST + "Forbidden: The provided token has expired.", "expired"),
            (FIRST + "Forbidden: Access Denied", "denied"),
            (
                FIRST + "Forbidden: The request signature we calculated does not match the signature",
                "signature",
            ),
            (FIRST + "The bucket does not exist", "no_bucket"),
            ("Error: something else", "refused"),
        ],
    )
    def test_a_refusal_is_recognised_by_the_output_of_mount_s3(
        self, helper: Any, message: str, code: str
    ) -> None:
        assert helper.failure_of(message).code == code


class TestMount:
    def item(self, helper: Any, directory: str = DIRECTORY, **more: Any) -> Any:
        wanted = {
            "bucket": "agents",
            "prefix": "sandbox/demo/",
            "directory": directory,
            "read_only": False,
            **more,
        }
        return helper.Mount(wanted, "eu-central-1", None)

    @pytest.mark.parametrize(
        ("uid", "options"),
        [("1000", ["--uid", "1000"]), ("0", []), ("-1", []), ("²", []), ("01", []), ("1 --x", []), ("", [])],
    )
    def test_the_mounted_files_belong_to_the_user_of_sudo(
        self, helper: Any, monkeypatch: pytest.MonkeyPatch, uid: str, options: list[str]
    ) -> None:
        monkeypatch.setenv("SUDO_UID", uid)
        monkeypatch.setenv("SUDO_GID", "0")
        expected = self.item(helper)._arguments()
        assert expected[:5] == ["agents", DIRECTORY, "--region", "eu-central-1", "--allow-other"]
        assert [word for word in expected if word in {"--uid", "1000", uid}] == options
        assert "--gid" not in expected

    @pytest.mark.parametrize(
        ("script", "code", "message"),
        [
            (
                "sleep 0.1; grep SigBlk /proc/self/status; echo Timeout after 30 seconds; exit 1",
                "unreachable",
                "0" * 16,
            ),
            ("exec sleep 300", "refused", "mount-s3 ended with status 9"),
        ],
    )
    def test_mount_s3_is_waited_for_a_limited_time(
        self, helper: Any, script: str, code: str, message: str
    ) -> None:
        keys = helper.CredentialStore("id", "a")
        keys.replace(KEY, "")
        helper.START_S = 20.0 if code == "unreachable" else 0.2
        made = self.item(helper)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            child = os.fork()
            if child == 0:
                helper._exec(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, made._log(keys))
            while os.getpgid(child) != child:  # on a busy machine it starts later than START_S
                time.sleep(0.01)
            with pytest.raises(helper.MountError) as failed:
                made.finish(child, keys)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert failed.value.code == code
        assert message in failed.value.detail

    def test_the_helper_moves_no_files(self, helper: Any, tmp_path: Path) -> None:
        location = tmp_path / "w" / "demo"
        location.mkdir(parents=True)
        (location / "planted").symlink_to("/etc/shadow")
        with pytest.raises(helper.MountError, match="not_empty"):
            self.item(helper, str(location))._make_empty()
        assert [path.name for path in location.iterdir()] == ["planted"]

    def test_a_mount_below_a_file_is_refused(self, helper: Any, tmp_path: Path) -> None:
        (tmp_path / "demo").touch()
        with pytest.raises(helper.MountError, match="not_a_directory"):
            self.item(helper, str(tmp_path / "demo"))._make_empty()

    def test_a_foreign_mount_is_refused(self, helper: Any) -> None:
        assert self.item(helper).device() == ""
        with pytest.raises(helper.MountError, match="foreign_mount"):
            self.item(helper, "/proc").device()


class TestSudo:
    @pytest.fixture
    def box(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Act as a user who is not root, with the helper, and with a sudo that records its calls."""
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "sudo").write_text(
            f'#!/bin/sh\nprintf "%s " "$@" >>{tmp_path}/called\n'
            '[ "$1" = -n ] || exit 9\nshift\n[ "$1" != -- ] || shift\nexec "$@"\n'
        )
        (programs / "sudo").chmod(0o755)
        helper = tmp_path / "helper"
        helper.write_text(f"#!{sys.executable} -IS\n{mounter_source('/mnt/workspaces', '/mnt/skills')}")
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setattr(mount, "HELPER", str(helper))
        monkeypatch.setattr(mount.os, "getuid", lambda: 1000)
        monkeypatch.setattr(mount.dirs, "state_directory", lambda: str(tmp_path))
        return tmp_path

    def repair(self, directory: str) -> str:
        request = changed("mounts.0.directory", directory)
        program = separate_program(mounter_source().encode(), with_source=True)
        wanted = {"request": json.dumps(request), "program": program}
        with pytest.raises(SetupError) as refused:
            mount.Mounter(wanted, json.dumps(KEY).encode()).moved()
        assert "secret" not in refused.value.detail
        return refused.value.code

    def test_the_helper_is_called_without_arguments(self, box: Path) -> None:
        # That it refuses the place shows that it was the helper, and not what came along.
        assert self.repair("/srv/demo") == "mount_other_place"
        assert (box / "called").read_text() == f"-n {box}/helper "

    def test_without_a_helper_sudo_runs_the_sent_program(self, box: Path) -> None:
        (box / "helper").unlink()
        assert self.repair("demo") == "mount_bad_request"
        assert (
            (box / "called")
            .read_text()
            .startswith(f"-n -- {os.path.realpath(sys.executable)} -I -S -c import sys")
        )

    def test_a_sudo_that_needs_a_password_is_not_used(self, box: Path) -> None:
        (box / "bin" / "sudo").write_text("#!/bin/sh\necho sudo: a password is required >&2\nexit 1\n")
        assert self.repair(DIRECTORY) == "mount_not_root"

    def test_a_missing_sudo_is_reported(self, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(box))
        assert self.repair(DIRECTORY) == "mount_not_root"
