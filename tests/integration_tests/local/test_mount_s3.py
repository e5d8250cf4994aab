"""A mount and its bucket: which changes of each the other shows, and when."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import pytest

from .mounted import BUCKET, FLAGS, HOME, Mounted, within

MIB = 1024 * 1024


def test_a_file_is_there_for_s3_when_its_command_has_returned(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.ok("mkdir -p /mnt/w/seen && echo bytes > /mnt/w/seen/f")
    assert mounted_sandbox.get(f"{HOME}seen/f") == b"bytes\n"
    mounted_sandbox.put(f"{HOME}seen/f", b"changed outside\n")
    assert mounted_sandbox.ok("cat /mnt/w/seen/f; stat -c %s /mnt/w/seen/f") == "changed outside\n16\n"
    mounted_sandbox.put(f"{HOME}seen/deeper/g", b"new\n")
    assert mounted_sandbox.ok("cat /mnt/w/seen/deeper/g; ls /mnt/w/seen") == "new\ndeeper\nf\n"
    mounted_sandbox.s3.delete_object(Bucket=BUCKET, Key=f"{HOME}seen/f")
    assert mounted_sandbox.run("cat /mnt/w/seen/f")[0] == 1


def test_an_empty_file_is_there_within_two_seconds(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.ok(": > /mnt/w/empty; touch /mnt/w/touched")
    assert within(60, lambda: {f"{HOME}empty", f"{HOME}touched"} <= set(mounted_sandbox.keys(HOME)))
    assert mounted_sandbox.get(f"{HOME}empty") == b""


@pytest.mark.full
def test_a_hundred_mebibytes_each_way(mounted_sandbox: Mounted) -> None:
    data = bytes(range(256)) * 4096
    summed = mounted_sandbox.ok("head -c 104857600 /dev/urandom | tee /mnt/w/large | md5sum").split()[0]
    with contextlib.closing(mounted_sandbox.s3.get_object(Bucket=BUCKET, Key=f"{HOME}large")["Body"]) as body:
        assert hashlib.md5(body.read(), usedforsecurity=False).hexdigest() == summed
    mounted_sandbox.put(f"{HOME}large", data * 100)
    assert mounted_sandbox.ok("md5sum < /mnt/w/large").split()[0] == hashlib.md5(data * 100).hexdigest()
    mounted_sandbox.ok("rm /mnt/w/large")


def test_nothing_is_there_for_s3_before_the_close(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.put(f"{HOME}atomic", b"before")
    seen = []
    mounted_sandbox.python(
        "f = os.open('/mnt/w/atomic', os.O_WRONLY | os.O_TRUNC); os.write(f, b'x' * 20_000_000); pause(); os.close(f)",
        meanwhile=lambda: seen.append(mounted_sandbox.get(f"{HOME}atomic")),
    )
    assert seen == [b"before"]
    assert mounted_sandbox.get(f"{HOME}atomic") == b"x" * 20_000_000


def test_an_upload_given_up_leaves_nothing(mounted_sandbox: Mounted) -> None:
    printed = mounted_sandbox.python(
        "f = os.open('/mnt/w/given-up', W); os.write(f, b'x' * 9_000_000); print(err(os.pwrite, f, b'x', 1))"
    )
    assert printed == "EINVAL"
    assert mounted_sandbox.keys(f"{HOME}given-up") == []
    # The original gives it up in the background.
    assert within(30, lambda: "Uploads" not in mounted_sandbox.s3.list_multipart_uploads(Bucket=BUCKET))


def test_a_replaced_object_is_stale_for_its_readers(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.put(f"{HOME}stale", b"a" * 12 * MIB)
    printed = mounted_sandbox.python(
        "f = open('/mnt/w/stale', 'rb', 0); f.read(10); pause(); f.seek(11 * 1024 * 1024)\n"
        "print(err(f.read, 10), open('/mnt/w/stale', 'rb').read(3))",
        meanwhile=lambda: mounted_sandbox.put(f"{HOME}stale", b"b" * 12 * MIB),
    )
    assert printed == "ESTALE b'bbb'"


def test_folders_exist_while_they_have_files(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.ok("mkdir /mnt/w/local")
    assert mounted_sandbox.keys(f"{HOME}local") == []
    mounted_sandbox.ok("mkdir /mnt/w/local/deeper && echo x > /mnt/w/local/deeper/f")
    assert mounted_sandbox.keys(f"{HOME}local") == [f"{HOME}local/deeper/f"]
    assert mounted_sandbox.run("rmdir /mnt/w/local/deeper")[0] == 1
    mounted_sandbox.put(f"{HOME}marked/", b"")
    assert mounted_sandbox.ok("ls -A /mnt/w/marked; test -d /mnt/w/marked && echo folder") == "folder\n"


def test_keys_that_can_be_no_file_are_hidden(mounted_sandbox: Mounted) -> None:
    for name in ("f", "./g", "../h", "/i", "sub/", "both", "both/inner"):
        mounted_sandbox.put(f"{HOME}hide/{name}", b"x")
    assert mounted_sandbox.ok("ls -A /mnt/w/hide") == "both\nf\nsub\n"
    assert mounted_sandbox.ok("stat -c %F /mnt/w/hide/both") == "directory\n"  # which hides the file


def test_a_folder_is_remembered_for_a_second_and_a_file_for_a_tenth(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.put(f"{HOME}gone/f", b"x")
    printed = mounted_sandbox.python(
        "os.stat('gone/f'); pause(); time.sleep(0.2); print(os.path.exists('gone/f')); time.sleep(1.1)\n"
        "print(os.path.exists('gone'))",
        "/mnt/w",
        lambda: mounted_sandbox.s3.delete_object(Bucket=BUCKET, Key=f"{HOME}gone/f"),
    )
    assert printed == "False False"


def test_closing_by_another_process_completes_nothing(mounted_sandbox: Mounted) -> None:
    printed = mounted_sandbox.python(
        "f = os.open('/mnt/w/forked', W); os.write(f, b'a')\n"
        "if os.fork() == 0:\n os.close(f); os._exit(0)\n"
        "os.wait(); print(os.path.getsize('/mnt/w/forked')); os.write(f, b'b')\n"
        "print(err(os.open, '/mnt/w/forked', os.O_RDONLY)); os.close(f); print(open('/mnt/w/forked').read())"
    )
    assert printed == "1 EPERM ab"
    assert mounted_sandbox.get(f"{HOME}forked") == b"ab"


@pytest.mark.parametrize("how", ["os.O_RDONLY", "os.O_WRONLY | os.O_TRUNC"])
def test_opening_a_file_ends_its_writing_by_other_processes(mounted_sandbox: Mounted, how: str) -> None:
    # A name of its own: the mount remembers the other for a tenth of a second.
    cut = f"/mnt/w/cut-{'r' if how == 'os.O_RDONLY' else 'w'}"
    printed = mounted_sandbox.python(
        f"f = os.open('{cut}', W); os.write(f, b'a')\n"
        "if os.fork() == 0:\n os.write(f, b'b'); os.close(f); os._exit(0)\n"
        f"os.wait(); g = os.open('{cut}', {how}); print(err(os.write, f, b'c'), err(os.close, f)); os.close(g)\n"
        f"print(open('{cut}').read())"
    )
    assert printed == ("EBADF ok ab" if how == "os.O_RDONLY" else "EBADF ok")


def test_looking_at_the_log_of_a_background_command_loses_the_rest(mounted_sandbox: Mounted) -> None:
    code, output = mounted_sandbox.run(
        "cd /mnt/w; rm -f /tmp/seen; (/bin/echo 1; until test -e /tmp/seen; do sleep 0.02; done; /bin/echo 2) > bg.log "
        "2> /tmp/bg.err & until test -s bg.log; do sleep 0.02; done; sleep 0.1; cat bg.log; touch /tmp/seen; wait; "
        "cat bg.log /tmp/bg.err"
    )
    assert code == 0
    assert output.splitlines()[:2] == ["1", "1"]
    assert "Bad file descriptor" in output
    assert mounted_sandbox.get(f"{HOME}bg.log") == b"1\n"


def test_a_closed_descriptor_of_a_reader_reads_on_until_somebody_writes(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.put(f"{HOME}shared", b"a" * 3 * MIB)
    child = "\nif os.fork() == 0:\n os.close(f); os._exit(0)\nos.wait()\n"
    printed = mounted_sandbox.python(
        f"f = os.open('/mnt/w/shared', os.O_RDONLY){child}"
        "print(len(os.pread(f, 4096, 2_500_000)), err(os.open, '/mnt/w/shared', os.O_WRONLY | os.O_TRUNC))"
        f"{child}write('/mnt/w/shared', b'b'); print(err(os.pread, f, 4096, 1_200_000))"
    )
    assert printed == "4096 EPERM EBADF"


@pytest.mark.full
def test_only_so_many_files_can_be_open_for_writing(alone: Mounted) -> None:
    alone.mount("/mnt/w")
    printed = alone.python(
        "opened = [os.open(f'f{i}', W) for i in range(47)]; print(err(os.open, 'more', W), err(os.unlink, 'more'))\n"
        "os.write(opened[0], b'x'); os.close(opened[0])\n"
        "until = time.monotonic() + 60\n"
        "while err(os.open, 'more', W) != 'ok' and time.monotonic() < until: time.sleep(0.02)\n"
        "print(time.monotonic() < until)",
        "/mnt/w",
    )
    assert printed == "ENOMEM EPERM True"


def test_a_name_whose_upload_failed_is_missing_for_a_moment(alone: Mounted) -> None:
    alone.mount("/mnt/w")
    printed = alone.python(
        "f = os.open('n', W); os.write(f, b'abc'); print(err(os.pwrite, f, b'x', 0), err(os.open, 'n', W))\n"
        "time.sleep(0.2); print(err(write, 'n', b'x'))",
        "/mnt/w",
    )
    assert printed == "EINVAL ENOENT ok"


@pytest.mark.parametrize(
    ("command", "empty"),
    [
        ("mv a b", "b"),
        ("sed -i s/x/y/ a", "a"),
        ("/usr/bin/python3 -c \"import os; os.replace('a', 'b')\"", "b"),
    ],
)
@pytest.mark.one_in(3)
def test_on_a_store_that_accepts_renames_they_leave_empty_files(
    alone: Mounted, command: str, empty: str
) -> None:
    alone.put(f"{HOME}a", b"x\n")
    alone.mount("/mnt/w")
    alone.server.s3.accept_renames = True
    try:
        alone.ok(f"cd /mnt/w && {command}")
    finally:
        alone.server.s3.accept_renames = False
    assert alone.get(f"{HOME}{empty}") == b""


def test_the_last_to_close_learns_nothing_unless_it_opened(mounted_sandbox: Mounted) -> None:
    program = (
        "f = os.open('/mnt/w/refused/f', W); os.write(f, b'a')\n"
        "if os.fork() == 0:\n time.sleep(0.3); print(err(os.close, f)); sys.stdout.flush(); os._exit(0)\n"
        "os._exit(0)"
    )
    mounted_sandbox.ok("mkdir -p /mnt/w/refused")
    mounted_sandbox.python(program)
    assert within(60, lambda: mounted_sandbox.keys(f"{HOME}refused/") != [])


@pytest.fixture
def denied(mounted_sandbox: Mounted) -> Iterator[str]:
    """Make a part of the bucket that S3 refuses all requests for, and that the kernel knows nothing of."""
    mounted_sandbox.put(f"{HOME}refused-part/f", b"x")
    mounted_sandbox.server.s3.deny = (f"{BUCKET}/{HOME}refused-part",)
    yield "/mnt/w/refused-part"
    mounted_sandbox.server.s3.deny = ()


def test_a_refusal_of_s3_is_an_input_output_error(mounted_sandbox: Mounted, denied: str) -> None:
    printed = mounted_sandbox.python(
        f"p = '{denied}'; print(err(os.stat, p), err(open, p + '/f'), err(os.listdir, p), err(os.unlink, p + '/f'),"
        " err(os.mkdir, p + '2'), err(os.open, p + '2', W), err(os.rename, p + '2', p + '3'))"
    )
    assert printed == "EIO EIO EIO EIO EIO EIO EIO"


def test_an_upload_that_fails_is_an_error_of_the_close(mounted_sandbox: Mounted) -> None:
    def deny() -> None:
        mounted_sandbox.server.s3.deny = (f"{BUCKET}/{HOME}late",)

    try:
        program = "f = os.open('/mnt/w/late', W); os.write(f, b'x'); pause(); print(err(os.close, f))"
        assert mounted_sandbox.python(program, meanwhile=deny) == "EIO"
    finally:
        mounted_sandbox.server.s3.deny = ()
    assert mounted_sandbox.keys(f"{HOME}late") == []


def test_if_missing_keys_are_forbidden_nothing_can_be_created_and_no_folder_entered(
    mounted_sandbox: Mounted,
) -> None:
    mounted_sandbox.put(f"{HOME}forbidden/f", b"x")
    mounted_sandbox.put(f"{HOME}known", b"x")
    mounted_sandbox.server.s3.head_403 = True
    try:
        program = "print(err(os.stat, 'no'), err(os.open, 'no', W), err(os.stat, 'forbidden'), open('known').read())"
        assert mounted_sandbox.python(program, "/mnt/w") == "EIO EIO EIO x"
    finally:
        mounted_sandbox.server.s3.head_403 = False
    assert mounted_sandbox.python("print(err(os.stat, 'no'))", "/mnt/w/forbidden") == "ENOENT"


def test_on_a_store_with_milliseconds_in_listings_a_file_changes_its_time(mounted_sandbox: Mounted) -> None:
    mounted_sandbox.put(f"{HOME}listed/f", b"x")
    mounted_sandbox.server.s3.list_fractions = True
    try:
        assert mounted_sandbox.run("cd /mnt/w && tar cf /tmp/listed.tar listed") == (
            1,
            "tar: listed/f: file changed as we read it\n",
        )
    finally:
        mounted_sandbox.server.s3.list_fractions = False


def test_a_folder_is_renamed_never(alone: Mounted) -> None:
    alone.put(f"{HOME}d/f", b"x")
    alone.put(f"{HOME}g", b"x")
    alone.mount("/mnt/w")
    program = "print(err(os.rename, 'd', 'e'), err(os.rename, 'g', 'h'), err(os.rename, 'd', 'e'))"
    assert alone.python(program, "/mnt/w") == "EPERM ENOSYS ENOSYS"


def test_flags(alone: Mounted) -> None:
    alone.put(f"{HOME}f", b"x")
    alone.mount("/mnt/plain", flags="")
    printed = alone.python(
        "print(err(os.unlink, 'f'), err(os.open, 'f', os.O_WRONLY | os.O_TRUNC), err(write, 'new', b'x'))",
        "/mnt/plain",
    )
    assert printed == "EPERM EPERM ok"
    alone.mount("/mnt/ro", flags="--read-only")
    assert (
        alone.python("print(open('f').read(), err(os.unlink, 'f'), err(os.open, 'g', W))", "/mnt/ro")
        == "x EROFS EROFS"
    )
    # Without --uid and --gid: a sandbox has no user but root.
    alone.mount("/mnt/modes", flags=f"{FLAGS} --dir-mode 700 --file-mode 0600 --upload-checksums off")
    assert alone.ok("stat -c '%u %g %a' /mnt/modes/f /mnt/modes") == "0 0 600\n0 0 700\n"


def test_with_a_cache_outside_changes_are_missed(alone: Mounted) -> None:
    alone.put(f"{HOME}f", b"x")
    alone.mount("/mnt/w", flags=f"{FLAGS} --metadata-ttl 60")
    assert alone.run("cat /mnt/w/f; cat /mnt/w/later")[0] == 1
    alone.put(f"{HOME}f", b"longer")
    alone.put(f"{HOME}later", b"x")
    assert alone.ok("stat -c %s /mnt/w/f") == "1\n"
    assert alone.run("cat /mnt/w/later")[0] == 1
