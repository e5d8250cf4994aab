"""The command line of mount-s3, with the messages and exit codes of its parser (clap)."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

VERSION = "1.24.0"
_USAGE = "mount-s3 [OPTIONS] <BUCKET_NAME> <DIRECTORY>"
_BUCKET = re.compile(r"[a-zA-Z0-9.\-_]{3,63}\Z")


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser with the error format of clap."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument [^:]+: (?=invalid value)", "", message)
        self.exit(2, f"error: {message}\n\nUsage: {_USAGE}\n\nFor more information, try '--help'.\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options. `bucket` and `prefix` can come from an S3 URI. On errors, exit with code 2."""
    parser = _parser()
    options, unknown = parser.parse_known_intermixed_args(argv)
    stray = next((word for word in unknown if word.startswith("-")), None)
    if stray is not None:
        parser.error(f"unexpected argument '{stray.partition('=')[0]}' found")
    missing = [name for name in ("bucket_name", "directory") if getattr(options, name) is None]
    if missing:
        listed = "".join(f"\n  <{name.upper()}>" for name in missing)
        parser.error(f"the following required arguments were not provided:{listed}")
    if unknown:
        parser.error(f"unexpected argument '{unknown[0]}' found")
    _cross_check(parser, options)
    return options


def _cross_check(parser: _Parser, options: argparse.Namespace) -> None:
    if options.allow_root and options.allow_other:
        parser.error("the argument '--allow-other' cannot be used with '--allow-root'")
    if options.max_cache_size is not None and options.cache is None:
        parser.error("the following required arguments were not provided:\n  --cache <DIRECTORY>")
    if options.no_log and (
        options.log_directory or options.debug or options.debug_crt or options.log_metrics
    ):
        parser.error(
            "the argument '--no-log' cannot be used with one or more of the other specified arguments"
        )
    bucket: str = options.bucket_name
    prefix: str = options.prefix or ""
    if bucket.startswith("s3://"):
        if prefix:
            parser.error("explicit prefix option not allowed with S3 URI")
        bucket, _, prefix = bucket.removeprefix("s3://").partition("/")
    if not _BUCKET.match(bucket):
        parser.error(
            f"invalid value '{options.bucket_name}' for '<BUCKET_NAME>': the bucket must have a valid name "
            "(only letters, numbers, . and -)"
        )
    if prefix and not prefix.endswith("/"):
        parser.error(f"invalid value '{prefix}' for '--prefix <PREFIX>': prefix must end in '/'")
    options.bucket, options.prefix = bucket, prefix


def _parser() -> _Parser:
    parser = _Parser(
        prog="mount-s3",
        usage=_USAGE,
        description="Mountpoint for Amazon S3 (local stand-in)",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bucket_name", nargs="?", help="Name of bucket, or an S3 URI, to mount")
    add("directory", nargs="?", help="Directory to mount the bucket at")
    add("-V", "--version", action="version", version=f"mount-s3 {VERSION}")
    for name in _SWITCHES:
        add(*(("-f", name) if name == "--foreground" else ("-d", name) if name == "--debug" else (name,)),
            action="store_true")  # fmt: skip
    for name in _TEXTS:
        add(*(("-l", name) if name == "--log-directory" else (name,)))
    for name in ("--uid", "--gid", "--max-threads"):
        add(name, type=_number(name, 1), default=None)
    for name in ("--maximum-throughput-gbps", "--part-size", "--read-part-size", "--write-part-size"):
        add(name, type=_number(name, 1), default=None)
    add("--max-cache-size", type=_number("--max-cache-size", 0))
    for name, default in (("--dir-mode", 0o755), ("--file-mode", 0o644)):
        add(name, type=_mode(name), default=default)
    for name in ("--metadata-ttl", "--negative-metadata-ttl"):
        add(name, type=_duration(name), default=None)
    for name, allowed in _CHOICES.items():
        add(name, type=_choice(name, allowed), default=None)
    return parser


_SWITCHES = (
    "--force-path-style", "--transfer-acceleration", "--dual-stack", "--requester-pays", "--no-sign-request",
    "--read-only", "--allow-delete", "--allow-overwrite", "--incremental-upload", "--auto-unmount", "--allow-root",
    "--allow-other", "--foreground", "--log-metrics", "--debug", "--debug-crt", "--no-log",
)  # fmt: skip
_TEXTS = (
    "--prefix", "--region", "--endpoint-url", "--profile", "--storage-class", "--expected-bucket-owner",
    "--log-directory", "--cache", "--cache-xz", "--user-agent-prefix", "--sse-kms-key-id", "--bind",
)  # fmt: skip
_CHOICES = {
    "--upload-checksums": ("crc32c", "off"),
    "--bucket-type": ("general-purpose", "directory"),
    "--sse": ("aws:kms", "aws:kms:dsse", "AES256"),
}


class _Invalid(argparse.ArgumentTypeError):
    pass


def _invalid(name: str, text: str, reason: str) -> _Invalid:
    return _Invalid(f"invalid value '{text}' for '{name} <{name[2:].upper().replace('-', '_')}>': {reason}")


def _number(name: str, lowest: int) -> Any:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit():
            raise _invalid(name, text, "invalid digit found in string")
        if int(text) < lowest:
            raise _invalid(name, text, f"{text} is not in {lowest}..=4294967295")
        return int(text)

    return convert


def _mode(name: str) -> Any:
    def convert(text: str) -> int:
        try:
            bits = int(text, 8)
        except ValueError:
            raise _invalid(name, text, "must be a valid octal number") from None
        if not 0 <= bits <= 0o777:
            raise _invalid(name, text, "only user/group/other permissions are supported")
        return bits

    return convert


def _duration(name: str) -> Any:
    def convert(text: str) -> float:
        if text == "indefinite":
            return 1e9
        if text == "minimal":
            return 0.0
        return float(_number(name, 0)(text))

    return convert


def _choice(name: str, allowed: tuple[str, ...]) -> Any:
    def convert(text: str) -> str:
        if text not in allowed:
            raise _invalid(name, text, f"possible values: {', '.join(allowed)}")
        return text

    return convert
