"""The Dockerfile of the S3 snapshot: read as a linter would, and its scripts run over stand-ins for apt and curl."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from langchain_daytona_ws._core.mount.manager import mounter_source
from langchain_daytona_ws._core.mount.snapshot import (
    MOUNT_S3_VERSION,
    RELEASE_KEYS,
    Recipe,
    build_error,
    checked_name,
)
from langchain_daytona_ws._core.mount.snapshot_helper import SUDOERS
from langchain_daytona_ws._core.ports import FaultKind, PortFault
from langchain_daytona_ws._guest import guard
from langchain_daytona_ws._guest.mount import HELPER
from langchain_daytona_ws._guest.mount_credentials import HOME
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


def shell_of(script: str) -> str:
    """Leave out the programs that a script writes line by line."""
    return re.sub(r"printf '%s\\n' .*?>\"\$file\"", "", script)


class TestTheDockerfile:
    def test_starts_from_the_base_as_root(self) -> None:
        assert instructions(Recipe("node:22").dockerfile())[:2] == [("FROM", "node:22"), ("USER", "root")]

    def test_knows_only_what_every_builder_does(self) -> None:
        text = Recipe("node:22").dockerfile()
        assert {word for word, _ in instructions(text)} == {"FROM", "USER", "RUN"}
        assert "<<" not in text
        # Docker's first parser takes lines of 64 KiB, and execve takes scripts of 128 KiB.
        assert max(map(len, text.splitlines())) < 400
        assert max(map(len, scripts(Recipe("node:22")))) < 100_000

    def test_its_scripts_stop_at_the_first_failure(self) -> None:
        for script in scripts(Recipe("node:22")):
            assert script.startswith(("set -eux; ", "set -eu; "))
            # Without pipefail, which sh does not have, a pipe would hide one.
            assert " | " not in shell_of(script)

    def test_every_script_is_posix_shell(self) -> None:
        for script in scripts(Recipe("node:22")):
            subprocess.run(["sh", "-n", "-c", script], check=True)

    def test_root_needs_no_sudo(self) -> None:
        text = Recipe("node:22", user="root").dockerfile()
        assert "sudo" not in text
        assert "langchain-daytona-ws" not in text

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
        assert "@" not in text

    def test_names_what_is_needed(self) -> None:
        packages = scripts(Recipe("node:22"))[1]
        for package in ("ca-certificates", "curl", "gpg", "ripgrep", "sudo", '"$fuse"', '"$libfuse"'):
            assert package in packages

    def test_ends_as_the_user_asked_for(self) -> None:
        assert instructions(Recipe("node:22", user="node").dockerfile())[-1] == ("USER", "node")
        assert instructions(Recipe("node:22").dockerfile())[-1] == ("USER", "daytona")
        assert instructions(Recipe("node:22", user="root").dockerfile())[-1][0] == "RUN"

    @pytest.mark.parametrize(
        ("arguments", "output"),
        [
            (("",), "base image"),
            (("node:22\nRUN evil",), "base image"),
            (("node:22 AS x",), "base image"),
            (("--platform=x",), "base image"),
            (("node:22", "latest"), "not pinned"),
            (("node:22", "1.24"), "not pinned"),
            (("node:22", "1.24.0\n"), "not pinned"),
            (("node:22", "1.24.0", "a b"), "account"),
            (("node:22", "1.24.0", "a", "mnt"), "workspace root"),
            (("node:22", "1.24.0", "a", "/"), "workspace root"),
            (("node:22", "1.24.0", "a", "/mnt/../etc"), "workspace root"),
            (("node:22", "1.24.0", "a", "/a b"), "workspace root"),
            (("node:22", "1.24.0", "a", "/a$(id)"), "workspace root"),
            (("node:22", "1.24.0", "a", "/a\n"), "workspace root"),
            (("node:22", "1.24.0", "a", "/a", "/b/"), "skills mount path"),
            (("node:22", "1.24.0", "a", "/a", "/a/b"), "overlap"),
            (("node:22", "1.24.0", "a", "/a/b", "/a"), "overlap"),
            (("node:22", "1.24.0", "a", "/a", "/a"), "overlap"),
        ],
    )
    def test_refuses_what_could_not_stand_in_it(self, arguments: tuple[str, ...], output: str) -> None:
        with pytest.raises(ConfigError, match=output):
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
    output: str
    apt: str


class Builder:
    """A folder of programs that stand in for a base image's; what is not there is not found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.release = folder / "release"
        self.programs.mkdir()
        self.release.mkdir()
        for name in (
            *(
                "sh",
                "bash",
                "mktemp",
                "rm",
                "grep",
                "gpg",
                "cat",
                "cp",
                "basename",
                "sha256sum",
                "chmod",
                "mkdir",
            ),
            *("realpath", "ls"),
        ):
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

    def target(self, path: str) -> Path:
        """Return what stands in for a file of the image."""
        return self.folder / path.lstrip("/").replace("/", "-")

    def run(self, script: str) -> Ran:
        # Never the lists and files of the machine that the tests run on.
        script = script.replace("/var/lib/apt/lists/*", str(self.folder / "lists"))
        for target in (HELPER, SUDOERS, HOME):
            script = re.sub(rf"(?<=[ <>!]){re.escape(target)}", str(self.target(target)), script)
        env = {"PATH": str(self.programs), "TMPDIR": str(self.folder)}
        done = subprocess.run(
            [str(self.programs / "sh"), "-c", script],
            check=False, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        log = self.folder / "apt"
        return Ran(done.returncode, done.stdout + done.stderr, log.read_text() if log.exists() else "")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


class TestTheChecks:
    script = scripts(Recipe("node:22"))[0]

    def test_pass(self, builder: Builder) -> None:
        assert builder.run(self.script).code == 0

    @pytest.mark.parametrize(
        ("missing", "output"),
        [
            ("apt-get", "apt-get"),
            ("bash", "bash"),
            ("node", "Node"),
            ("python3", "python3"),
        ],
    )
    def test_say_what_is_missing(self, builder: Builder, missing: str, output: str) -> None:
        (builder.programs / missing).unlink()
        ran = builder.run(self.script)
        assert ran.code == 1
        assert f"ERROR: s3-snapshot: the base image has no {output}; use" in ran.output

    def test_an_old_python(self, builder: Builder) -> None:
        builder.program("python3", "exit 1")
        assert "older than 3.8" in builder.run(self.script).output

    def test_the_python_test_itself(self, builder: Builder) -> None:
        builder.program("python3", f'exec {sys.executable} "$@"')
        assert builder.run(self.script).code == 0
        assert builder.run(self.script.replace("(3, 8)", "(4, 0)")).code == 1

    def test_another_architecture(self, builder: Builder) -> None:
        builder.program("dpkg", "echo riscv64")
        assert "amd64 and arm64 only" in builder.run(self.script).output


class TestThePackages:
    script = scripts(Recipe("node:22"))[1]

    def test_on_debian_12(self, builder: Builder) -> None:
        ran = builder.run(self.script)
        assert ran.code == 0, ran.output
        assert " ca-certificates curl fuse gpg libfuse2 ripgrep sudo\n" in ran.apt

    def test_on_ubuntu_24_04_with_fuse3(self, builder: Builder) -> None:
        builder.program("apt-cache", '[ "$2" = libfuse2t64 ]')
        builder.program("fusermount3", "")
        assert " ca-certificates curl fuse3 gpg libfuse2t64 ripgrep sudo\n" in builder.run(self.script).apt

    def test_a_failing_apt_stops_it(self, builder: Builder) -> None:
        builder.program("apt-get", '[ "$1" = update ]')
        assert builder.run(self.script).code != 0


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
        # gpg writes the certificate with each key, after a colon that prevents accidental use.
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
        (_, _, script) = scripts(Recipe("node:22", user="root"))
        for old, new in zip(RELEASE_KEYS, fingerprints, strict=False):
            assert old in script
            script = script.replace(old, new)
        return script

    def test_is_good(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release)
        ran = builder.run(self.script(signer.fingerprint))
        assert ran.code == 0, ran.output
        assert f"install -y --no-install-recommends ./mount-s3-{MOUNT_S3_VERSION}-x86_64.deb" in ran.apt
        base = f"https://s3.amazonaws.com/mountpoint-s3-release/{MOUNT_S3_VERSION}/x86_64/mount-s3-{MOUNT_S3_VERSION}"
        assert (builder.folder / "urls").read_text().split() == [
            f"{base}-x86_64.deb",
            f"{base}-x86_64.deb.asc",
            "https://s3.amazonaws.com/mountpoint-s3-release/public_keys/KEYS",
        ]

    def test_of_the_older_key_is_good_too(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release)
        assert builder.run(self.script("0" * 40, signer.fingerprint)).code == 0

    def test_on_arm(self, builder: Builder, signer: Signer) -> None:
        builder.program("dpkg", "echo arm64")
        signer.publish(builder.release, arch="arm64")
        ran = builder.run(self.script(signer.fingerprint))
        assert ran.code == 0, ran.output
        assert f"/{MOUNT_S3_VERSION}/arm64/mount-s3-" in (builder.folder / "urls").read_text()

    @pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap to hide the agent")
    def test_needs_no_agent(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release)
        hidden = shutil.which("gpg-agent")
        builder.program(
            "gpg",
            f'exec {shutil.which("bwrap")} --dev-bind / / --ro-bind /dev/null {hidden} {shutil.which("gpg")} "$@"',
        )
        ran = builder.run(self.script(signer.fingerprint))
        assert ran.code == 0, ran.output
        assert "a key was not imported" not in ran.output

    def test_of_another_key_in_the_same_file_is_refused(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release)
        ran = builder.run(self.script())
        assert (ran.code, ran.apt) == (1, "")
        assert "not signed with a release key" in ran.output

    def test_of_other_bytes_is_refused(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release).write_bytes(b"another package")
        ran = builder.run(self.script(signer.fingerprint))
        assert (ran.code, ran.apt) == (1, "")
        assert "is not good" in ran.output

    def test_of_a_revoked_key_is_refused(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release)
        signer.revoke()
        (builder.release / "KEYS").write_text(signer.gpg("--armor", "--export"))
        ran = builder.run(self.script(signer.fingerprint))
        assert (ran.code, ran.apt) == (1, "")
        assert "is not good" in ran.output

    def test_of_a_key_that_expired_since_is_good(self, builder: Builder, signer: Signer) -> None:
        signer.publish(builder.release)
        signer.gpg("--quick-set-expire", signer.fingerprint, "seconds=1")
        (builder.release / "KEYS").write_text(signer.gpg("--armor", "--export"))
        later = "gpg --faked-system-time 20990101T000000 --batch"
        script = self.script(signer.fingerprint).replace("gpg --batch", later)
        ran = builder.run(script.replace("grep -Eq", "cat status; grep -Eq", 1))
        assert "EXPKEYSIG" in ran.output
        assert ran.code == 0, ran.output

    def test_that_is_missing_is_refused(self, builder: Builder, signer: Signer) -> None:
        deb = signer.publish(builder.release)
        Path(f"{deb}.asc").unlink()
        ran = builder.run(self.script(signer.fingerprint))
        assert (ran.code, ran.apt) == (1, "")
        assert "can't download" in ran.output
        assert MOUNT_S3_VERSION in ran.output

    def test_another_version_than_asked_for_is_refused(self, builder: Builder, signer: Signer) -> None:
        builder.program("mount-s3", "echo mount-s3 1.0.0")
        signer.publish(builder.release)
        ran = builder.run(self.script(signer.fingerprint))
        assert ran.code == 1
        assert f"mount-s3 is not {MOUNT_S3_VERSION}" in ran.output


class TestTheAccount:
    script = scripts(Recipe("node:22"))[3]

    def accounts(self, builder: Builder, *, groups: str = "daytona", uid: str = "1000") -> None:
        """Stand in for a base image that has the account, in these groups."""
        (builder.folder / "groups").write_text(groups)
        builder.program("id", f'[ "$1" != -u ] || echo {uid}; [ "$1" != -Gn ] || cat {builder.folder}/groups')
        builder.program("sed", f'exec {shutil.which("sed")} "$@"')
        builder.program("gpasswd", f'sed -i "s/\\b$3\\b//" {builder.folder}/groups')
        builder.program("passwd", f'echo "$@" >>{builder.folder}/passwd')

    def test_is_made(self, builder: Builder) -> None:
        self.accounts(builder)
        builder.program("id", f"[ -e {builder.folder}/made ] && echo 1000")
        builder.program("useradd", f'echo "$@" >{builder.folder}/made')
        ran = builder.run(self.script)
        assert ran.code == 0, ran.output
        assert (builder.folder / "made").read_text() == "--create-home --shell /bin/bash daytona\n"
        assert (builder.folder / "passwd").read_text() == "--lock root\n"

    def test_that_is_there_leaves_the_groups_that_could_make_it_root(self, builder: Builder) -> None:
        self.accounts(builder, groups="daytona sudo audio docker")
        ran = builder.run(self.script)
        assert ran.code == 0, ran.output
        assert (builder.folder / "groups").read_text().split() == ["daytona", "audio"]

    def test_whose_own_group_is_one_of_them_is_refused(self, builder: Builder) -> None:
        self.accounts(builder, groups="root")
        builder.program("gpasswd", "exit 3")
        ran = builder.run(self.script)
        assert ran.code == 1
        assert "ERROR: s3-snapshot: the account daytona stays in the group root; choose another" in ran.output

    def test_that_is_root_by_another_name_is_refused(self, builder: Builder) -> None:
        self.accounts(builder, uid="0")
        ran = builder.run(self.script)
        assert ran.code == 1
        assert "has the uid of root" in ran.output


class TestTheHelper:
    script = scripts(Recipe("node:22", workspace_root="/srv/w", skills_mount_path="/srv/s"))[4]

    def test_is_the_mounter_bound_to_the_directories(self, builder: Builder) -> None:
        builder.program("python3", f'exec {sys.executable} "$@"')
        ran = builder.run(self.script)
        assert ran.code == 0, ran.output
        helper = builder.target(HELPER)
        first, _, program = helper.read_text().partition("\n")
        assert re.fullmatch(r"#!(/[^ ]+) -IS", first)
        assert program == mounter_source("/srv/w", "/srv/s")
        assert stat.S_IMODE(helper.stat().st_mode) == 0o755
        assert not list(builder.folder.glob("tmp.*"))

    def test_is_refused_when_it_arrives_altered(self, builder: Builder) -> None:
        builder.program("python3", f'exec {sys.executable} "$@"')
        ran = builder.run(self.script.replace("import fcntl", "import  fcntl"))
        assert ran.code == 1
        assert "the builder has altered the program" in ran.output

    def test_that_does_not_run_is_refused(self, builder: Builder) -> None:
        builder.program("broken", "echo oops")
        script = self.script.replace('echo "#!$python -IS"', f'echo "#!{builder.programs}/broken"')
        ran = builder.run(script)
        assert ran.code == 1
        assert "the mount helper does not run" in ran.output


class TestTheRightsOfTheAccount:
    script = scripts(Recipe("node:22"))[5]

    def sudo(self, builder: Builder, *rights: str) -> Ran:
        listed = "".join(f"\n    {right}" for right in rights)
        (builder.folder / "listed").write_text(
            "Matching Defaults entries for daytona on box:\n    env_reset\n\n"
            f"User daytona may run the following commands on box:{listed}\n"
            if rights
            else "User daytona is not allowed to run sudo on box.\n"
        )
        builder.program("sudo", f'[ "$*" = "-n -l -U daytona" ] && cat {builder.folder}/listed')
        builder.program("visudo", f'echo "$@" >{builder.folder}/checked')
        return builder.run(self.script)

    def helper(self, builder: Builder) -> str:
        return f'(root) NOPASSWD: {builder.target(HELPER)} ""'

    def test_are_the_helper_without_arguments(self, builder: Builder) -> None:
        ran = self.sudo(builder, self.helper(builder))
        assert ran.code == 0, ran.output
        rules = builder.target(SUDOERS)
        assert stat.S_IMODE(rules.stat().st_mode) == 0o440
        assert f"daytona ALL={self.helper(builder)}\n" in rules.read_text()
        for setting in ("env_reset", "!env_keep", "!setenv", "!log_input"):
            assert setting in rules.read_text()
        assert (builder.folder / "checked").read_text() == f"-cf {rules}\n"

    def test_and_nothing_else(self, builder: Builder) -> None:
        for rights in ((), ("(ALL) NOPASSWD: ALL",), (self.helper(builder), "(ALL : ALL) ALL")):
            ran = self.sudo(builder, *rights)
            assert ran.code == 1
            assert "ERROR: s3-snapshot: the base image changes the sudo rights of daytona" in ran.output

    def test_are_written_as_sudo_reads_them(self, builder: Builder) -> None:
        self.sudo(builder, self.helper(builder))
        rules = builder.target(SUDOERS)
        done = subprocess.run(
            [
                shutil.which("visudo", path="/usr/sbin:/sbin:/usr/bin") or "visudo",
                "-c",
                "-s",
                "-f",
                str(rules),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class TestTheDirectories:
    def script(self, builder: Builder) -> str:
        self.root, self.skills = builder.folder / "w", builder.folder / "s"
        builder.program("chown", f'echo "$@" >>{builder.folder}/chown')
        builder.program("guard", f'shift; shift; echo "$@" >{builder.folder}/guarded')
        helper = builder.target(HELPER)
        helper.write_text(f"#!{builder.programs}/guard -IS\n")
        return scripts(Recipe("node:22", workspace_root=str(self.root), skills_mount_path=str(self.skills)))[
            6
        ]

    def test_are_roots_own_and_guarded_with_all_that_it_runs(self, builder: Builder) -> None:
        ran = builder.run(self.script(builder))
        assert ran.code == 0, ran.output
        assert stat.S_IMODE(self.root.stat().st_mode) == stat.S_IMODE(self.skills.stat().st_mode) == 0o755
        assert f"root:root {self.root}\nroot:root {self.skills}\n" in (builder.folder / "chown").read_text()
        guarded = (builder.folder / "guarded").read_text().split()
        assert {str(self.root), str(self.skills), "/usr/bin/mount-s3", "/etc/sudoers", "/bin/cat"} <= set(
            guarded
        )

    def test_with_files_in_them_are_refused(self, builder: Builder) -> None:
        script = self.script(builder)
        self.skills.mkdir()
        (self.skills / ".hidden").touch()
        ran = builder.run(script)
        assert ran.code == 1
        assert f"{self.skills} has files in the base image" in ran.output

    def test_that_are_links_are_refused(self, builder: Builder) -> None:
        script = self.script(builder)
        self.root.symlink_to("/usr")
        ran = builder.run(script)
        assert ran.code == 1
        assert f"{self.root} has a link in the base image" in ran.output


class TestTheGuard:
    @pytest.fixture
    def owned(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """Make a folder, its content and its parents appear to the guard as owned and writable by root only."""
        lstat = os.lstat
        group = 1000

        def seen(path: str) -> os.stat_result:
            found = lstat(path)
            own = str(path).startswith(f"{tmp_path}/")
            mode = found.st_mode if own else found.st_mode & ~0o022
            return os.stat_result((mode, *found[1:4], 0, group, *found[6:]))

        monkeypatch.setattr(guard.os, "lstat", seen)
        return tmp_path

    def test_lets_pass_what_is_roots(self, owned: Path) -> None:
        (owned / "a").mkdir(mode=0o755)
        guard.check(str(owned / "a"), set())

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
    def test_refuses_what_others_may_write_and_what_lies_below(self, owned: Path, mode: int) -> None:
        (owned / "a" / "b").mkdir(parents=True)
        (owned / "a").chmod(mode)
        with pytest.raises(SystemExit, match=f"users other than root can change {owned}/a,"):
            guard.check(str(owned / "a" / "b"), set())

    @pytest.mark.parametrize("group", guard.GROUPS)
    def test_lets_pass_what_a_group_without_the_account_may_write(
        self, owned: Path, monkeypatch: pytest.MonkeyPatch, group: int
    ) -> None:
        (owned / "a").mkdir()
        (owned / "a").chmod(0o775)
        seen = guard.os.lstat
        monkeypatch.setattr(
            guard.os, "lstat", lambda path: os.stat_result((*seen(path)[:5], group, *seen(path)[6:]))
        )
        guard.check(str(owned / "a"), set())
        (owned / "a").chmod(0o777)
        with pytest.raises(SystemExit):
            guard.check(str(owned / "a"), set())

    def test_follows_links_step_by_step(self, owned: Path) -> None:
        (owned / "open").mkdir()
        (owned / "open").chmod(0o777)
        (owned / "file").touch(0o644)
        (owned / "open" / "second").symlink_to("../file")
        (owned / "first").symlink_to("open/second")
        with pytest.raises(SystemExit, match=f"change {owned}/open,"):
            guard.check(str(owned / "first"), set())

    def test_refuses_what_is_somebody_elses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lstat = os.lstat
        others = os.stat_result((*lstat("/usr")[:4], 1000, *lstat("/usr")[5:]))
        monkeypatch.setattr(guard.os, "lstat", lambda path: others if path == "/usr" else lstat(path))
        with pytest.raises(SystemExit, match="users other than root can change /usr,"):
            guard.check("/usr/bin", set())

    def test_as_a_program_looks_at_the_library_too(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        program = "import sys, __future__, os, stat; sys.path[:] = [sys.argv.pop()]; exec(open(sys.argv.pop()).read())"
        done = subprocess.run(
            ["/usr/bin/python3", "-IS", "-c", program, guard.__file__, str(tmp_path)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("ERROR: s3-snapshot: users other than root can change /")


def fault(kind: FaultKind, message: str, **more: int) -> PortFault:
    return PortFault(kind, message, **more)


@pytest.mark.parametrize(
    ("failure", "code", "output"),
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
def test_an_error_says_what_to_do(failure: PortFault, code: str, output: str) -> None:
    error = build_error(failure, "s")
    assert error.code == code
    assert re.search(output, error.message), error.message
    assert error.retryable == (failure.passing or code == "no_runner")
