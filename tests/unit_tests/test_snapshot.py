"""The Dockerfile of the S3 snapshot: read as a linter would, and its scripts run over stand-ins for apt and curl."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws._core.snapshot import (
    MOUNT_S3_VERSION,
    RELEASE_KEYS,
    Recipe,
    build_error,
    checked_name,
)
from langchain_daytona_ws.errors import ConfigError

NO_RUNNER = "Failed to create snapshot: No available runners"


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Read a Dockerfile as Docker's first parser does: comments out, continued lines joined."""
    kept = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(kept).replace("\\\n", "")
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def scripts(recipe: Recipe) -> list[str]:
    return [rest for word, rest in instructions(recipe.dockerfile()) if word == "RUN"]


class TestTheDockerfile:
    def test_starts_from_the_base_as_root(self) -> None:
        assert instructions(Recipe("node:22").dockerfile())[:2] == [("FROM", "node:22"), ("USER", "root")]

    def test_knows_only_what_every_builder_does(self) -> None:
        found = {word for word, _ in instructions(Recipe("node:22", user="node").dockerfile())}
        assert found == {"FROM", "USER", "RUN"}
        assert "<<" not in Recipe("node:22").dockerfile()

    def test_its_scripts_stop_at_the_first_failure(self) -> None:
        for script in scripts(Recipe("node:22", user="node")):
            assert script.startswith("set -eux; ")
            # Without pipefail, which sh does not have, a pipe would hide one.
            assert " | " not in script

    def test_every_script_is_posix_shell(self) -> None:
        for script in scripts(Recipe("node:22", user="node")):
            subprocess.run(["sh", "-n", "-c", script], check=True)
            assert "sudo" not in script

    def test_leaves_no_package_lists(self) -> None:
        for script in scripts(Recipe("node:22")):
            assert ("apt-get update" in script) == ("rm -rf" in script and "/var/lib/apt/lists/*" in script)
            for install in re.findall(r"apt-get install[^;]*", script):
                assert "-y --no-install-recommends" in install

    def test_pins_what_it_downloads(self) -> None:
        text = Recipe("node:22", "1.20.0").dockerfile()
        assert "latest" not in text
        assert "/1.20.0/$arch" in text
        assert "mount-s3-1.20.0-$arch.deb" in text
        assert MOUNT_S3_VERSION not in text
        assert "@" not in text.replace("$@", "")

    def test_names_what_is_needed(self) -> None:
        packages = scripts(Recipe("node:22"))[1]
        for package in ("ca-certificates", "curl", "gpg", "ripgrep", '"$fuse"', '"$libfuse"'):
            assert package in packages

    def test_ends_as_the_user_asked_for(self) -> None:
        assert instructions(Recipe("node:22", user="node").dockerfile())[-1] == ("USER", "node")
        assert instructions(Recipe("node:22").dockerfile())[-1][0] == "RUN"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("",), "base image"),
            (("node:22\nRUN evil",), "base image"),
            (("node:22 AS x",), "base image"),
            (("--platform=x",), "base image"),
            (("node:22", "latest"), "not pinned"),
            (("node:22", "1.24"), "not pinned"),
            (("node:22", "1.24.0\n"), "not pinned"),
            (("node:22", "1.24.0", "a b"), "account"),
        ],
    )
    def test_refuses_what_could_not_stand_in_it(self, arguments: tuple[str, ...], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            Recipe(*arguments)

    @pytest.mark.parametrize("name", ["fuse-s3", "team/fuse_s3:2", "a.b@c"])
    def test_a_name(self, name: str) -> None:
        assert checked_name(name) == name

    @pytest.mark.parametrize("name", ["", "a b", "é", "x" * 300, "-a"])
    def test_no_name(self, name: str) -> None:
        with pytest.raises(ConfigError, match="such as fuse-s3"):
            checked_name(name)


@dataclass
class Ran:
    code: int
    said: str
    apt: str


class Machine:
    """A folder of programs that stand in for a base image's; what is not there is not found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.release = folder / "release"
        self.programs.mkdir()
        self.release.mkdir()
        for name in ("sh", "bash", "mktemp", "rm", "grep", "gpg", "cat", "cp", "basename"):
            found = shutil.which(name)
            if found:
                (self.programs / name).symlink_to(found)
        self.program("apt-get", f'echo "$@" >>{folder}/apt')
        self.program("apt-cache", "exit 100")
        self.program("dpkg", "echo amd64")
        self.program("node", "")
        self.program("python3", "")
        self.program("rg", "")
        self.program("mount-s3", f"echo mount-s3 {MOUNT_S3_VERSION}")
        self.program(
            "curl",
            f'for last; do :; done; echo "$last" >>{folder}/urls; cp {self.release}/"$(basename "$last")" .',
        )

    def program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(self, script: str) -> Ran:
        # Never the lists of the machine that the tests run on.
        script = script.replace("/var/lib/apt/lists/*", str(self.folder / "lists"))
        env = {"PATH": str(self.programs), "TMPDIR": str(self.folder)}
        done = subprocess.run(
            [str(self.programs / "sh"), "-c", script],
            check=False, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        log = self.folder / "apt"
        return Ran(done.returncode, done.stdout + done.stderr, log.read_text() if log.exists() else "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestTheChecks:
    script = scripts(Recipe("node:22"))[0]

    def test_pass(self, machine: Machine) -> None:
        assert machine.run(self.script).code == 0

    @pytest.mark.parametrize(
        ("missing", "said"),
        [
            ("apt-get", "apt-get"),
            ("bash", "bash"),
            ("node", "Node"),
            ("python3", "python3"),
        ],
    )
    def test_say_what_is_missing(self, machine: Machine, missing: str, said: str) -> None:
        (machine.programs / missing).unlink()
        ran = machine.run(self.script)
        assert ran.code == 1
        assert f"ERROR: s3-snapshot: the base image has no {said}; use" in ran.said

    def test_an_old_python(self, machine: Machine) -> None:
        machine.program("python3", "exit 1")
        assert "older than 3.8" in machine.run(self.script).said

    def test_the_python_test_itself(self, machine: Machine) -> None:
        machine.program("python3", f'exec {sys.executable} "$@"')
        assert machine.run(self.script).code == 0
        assert machine.run(self.script.replace("(3, 8)", "(4, 0)")).code == 1

    def test_another_architecture(self, machine: Machine) -> None:
        machine.program("dpkg", "echo riscv64")
        assert "amd64 and arm64 only" in machine.run(self.script).said


class TestThePackages:
    script = scripts(Recipe("node:22"))[1]

    def test_on_debian_12(self, machine: Machine) -> None:
        ran = machine.run(self.script)
        assert ran.code == 0, ran.said
        assert " ca-certificates curl fuse gpg libfuse2 ripgrep\n" in ran.apt

    def test_on_ubuntu_24_04_with_fuse3(self, machine: Machine) -> None:
        machine.program("apt-cache", '[ "$2" = libfuse2t64 ]')
        machine.program("fusermount3", "")
        assert " ca-certificates curl fuse3 gpg libfuse2t64 ripgrep\n" in machine.run(self.script).apt

    def test_a_failing_apt_stops_it(self, machine: Machine) -> None:
        machine.program("apt-get", '[ "$1" = update ]')
        assert machine.run(self.script).code != 0


class Signer:
    """A key of a release's signer."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.gpg(
            "--passphrase", "", "--quick-gen-key", "Somebody <somebody@example.com>", "ed25519", "sign", "0"
        )
        listed = self.gpg("--with-colons", "--fingerprint")
        self.fingerprint = re.findall(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)[0]

    def gpg(self, *arguments: str) -> str:
        return subprocess.run(
            ["gpg", "--batch", "--no-tty", "--homedir", str(self.home), *arguments],
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip

    def publish(self, release: Path, *, arch: str = "x86_64") -> Path:
        deb = release / f"mount-s3-{MOUNT_S3_VERSION}-{arch}.deb"
        deb.write_bytes(b"a package")
        self.gpg("--armor", "--detach-sign", str(deb))
        (release / "KEYS").write_text(self.gpg("--armor", "--export"))
        return deb

    def revoke(self) -> None:
        # gpg writes the certificate with each key, and a colon before it so that nobody uses it by accident.
        text = (self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev").read_text()
        certificate = self.home / "revocation"
        certificate.write_text(text.replace(":-----BEGIN", "-----BEGIN"))
        self.gpg("--import", str(certificate))

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)


@pytest.fixture
def signer(tmp_path_factory: pytest.TempPathFactory):
    made = Signer(tmp_path_factory.mktemp("k") / "h")
    yield made
    made.close()


@pytest.mark.skipif(shutil.which("gpg-agent") is None, reason="needs GnuPG to sign")
class TestTheSignature:
    def script(self, *fingerprints: str) -> str:
        (_, _, script) = scripts(Recipe("node:22"))
        for old, new in zip(RELEASE_KEYS, fingerprints, strict=False):
            assert old in script
            script = script.replace(old, new)
        return script

    def test_is_good(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release)
        ran = machine.run(self.script(signer.fingerprint))
        assert ran.code == 0, ran.said
        assert f"install -y --no-install-recommends ./mount-s3-{MOUNT_S3_VERSION}-x86_64.deb" in ran.apt
        base = f"https://s3.amazonaws.com/mountpoint-s3-release/{MOUNT_S3_VERSION}/x86_64/mount-s3-{MOUNT_S3_VERSION}"
        assert (machine.folder / "urls").read_text().split() == [
            f"{base}-x86_64.deb",
            f"{base}-x86_64.deb.asc",
            "https://s3.amazonaws.com/mountpoint-s3-release/public_keys/KEYS",
        ]

    def test_of_the_older_key_is_good_too(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release)
        assert machine.run(self.script("0" * 40, signer.fingerprint)).code == 0

    def test_on_arm(self, machine: Machine, signer: Signer) -> None:
        machine.program("dpkg", "echo arm64")
        signer.publish(machine.release, arch="arm64")
        ran = machine.run(self.script(signer.fingerprint))
        assert ran.code == 0, ran.said
        assert f"/{MOUNT_S3_VERSION}/arm64/mount-s3-" in (machine.folder / "urls").read_text()

    @pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap to hide the agent")
    def test_needs_no_agent(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release)
        hidden = shutil.which("gpg-agent")
        machine.program(
            "gpg",
            f'exec {shutil.which("bwrap")} --dev-bind / / --ro-bind /dev/null {hidden} {shutil.which("gpg")} "$@"',
        )
        ran = machine.run(self.script(signer.fingerprint))
        assert ran.code == 0, ran.said
        assert "a key was not imported" not in ran.said

    def test_of_another_key_in_the_same_file_is_refused(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release)
        ran = machine.run(self.script())
        assert (ran.code, ran.apt) == (1, "")
        assert "not signed with a release key" in ran.said

    def test_of_other_bytes_is_refused(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release).write_bytes(b"another package")
        ran = machine.run(self.script(signer.fingerprint))
        assert (ran.code, ran.apt) == (1, "")
        assert "is not good" in ran.said

    def test_of_a_revoked_key_is_refused(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release)
        signer.revoke()
        (machine.release / "KEYS").write_text(signer.gpg("--armor", "--export"))
        ran = machine.run(self.script(signer.fingerprint))
        assert (ran.code, ran.apt) == (1, "")
        assert "is not good" in ran.said

    def test_of_a_key_that_expired_since_is_good(self, machine: Machine, signer: Signer) -> None:
        signer.publish(machine.release)
        signer.gpg("--quick-set-expire", signer.fingerprint, "seconds=1")
        (machine.release / "KEYS").write_text(signer.gpg("--armor", "--export"))
        later = "gpg --faked-system-time 20990101T000000 --batch"
        script = self.script(signer.fingerprint).replace("gpg --batch", later)
        ran = machine.run(script.replace("grep -Eq", "cat status; grep -Eq", 1))
        assert "EXPKEYSIG" in ran.said
        assert ran.code == 0, ran.said

    def test_that_is_missing_is_refused(self, machine: Machine, signer: Signer) -> None:
        deb = signer.publish(machine.release)
        Path(f"{deb}.asc").unlink()
        ran = machine.run(self.script(signer.fingerprint))
        assert (ran.code, ran.apt) == (1, "")
        assert "can't download" in ran.said
        assert MOUNT_S3_VERSION in ran.said

    def test_another_version_than_asked_for_is_refused(self, machine: Machine, signer: Signer) -> None:
        machine.program("mount-s3", "echo mount-s3 1.0.0")
        signer.publish(machine.release)
        ran = machine.run(self.script(signer.fingerprint))
        assert ran.code == 1
        assert f"mount-s3 is not {MOUNT_S3_VERSION}" in ran.said


def fault(kind: FaultKind, message: str, **more: int) -> PortFault:
    return PortFault(kind, message, **more)


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (fault(FaultKind.REFUSED, NO_RUNNER), "no_runner", "^Daytona has no available runner for snapshot 's' "),
        (fault(FaultKind.REFUSED, NO_RUNNER), "no_runner", "Rebuild it as a general snapshot.*try again later"),
        (fault(FaultKind.REFUSED, "Region not found", status=404), "region_not_found", "Leave out --region"),
        (fault(FaultKind.REFUSED, "Total disk limit exceeded", status=400), "quota", "raise the organization's limits"),
        (fault(FaultKind.UNAUTHORIZED, "Invalid credentials", status=401), "unauthorized", "DAYTONA_API_KEY"),
        (fault(FaultKind.FORBIDDEN, "Forbidden", status=403), "forbidden", "write:snapshots"),
        (fault(FaultKind.NAME_TAKEN, "Snapshot with name s already exists"), "name_taken", "--replace"),
        (fault(FaultKind.NOT_SENT, "refused"), "unreachable", "the network"),
        (fault(FaultKind.NOT_FOUND, "Cannot POST /x", status=404), "snapshot_failed", "options.apiUrl"),
        (fault(FaultKind.BUSY, "Sandbox state change in progress", status=409), "busy", "try again later"),
        (fault(FaultKind.REFUSED, "build_failed, reason: exit 1"), "snapshot_failed", "build log.*--replace"),
        (fault(FaultKind.REFUSED, "Snapshot s is odd"), "snapshot_failed", "build log"),
    ],
)  # fmt: skip
def test_an_error_says_what_to_do(failure: PortFault, code: str, said: str) -> None:
    error = build_error(failure, "s")
    assert error.code == code
    assert re.search(said, error.message), error.message
    assert error.retryable == (failure.passing or code == "no_runner")
