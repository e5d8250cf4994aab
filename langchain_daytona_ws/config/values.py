"""Values: what one string, number or list must look like, and the remedy when it does not.

Every check returns the value to keep. No refusal quotes a value that may be a secret.
"""

from __future__ import annotations

import posixpath
import re
import sys
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    Strict,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from langchain_daytona_ws.config.problems import refusal

MASK = str(SecretStr("x"))  # how pydantic writes every secret
RESERVED_PREFIX = "LANGCHAIN_DAYTONA_WS_"
MAX_VARIABLE_BYTES = 128 * 1024 - 1  # Linux: one "NAME=value" of an execve, less its NUL byte

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_ROLE_ARN = re.compile(r"arn:aws[a-z-]{0,20}:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}")
_KMS_KEY_ARN = re.compile(r"arn:aws[a-z-]{0,20}:kms:[a-z0-9-]{1,30}:[0-9]{12}:key/[A-Za-z0-9-]{1,128}")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")


class ImageDefinition(Protocol):
    """What this package needs of a ``daytona.Image``; that class itself is never imported here."""

    def dockerfile(self) -> str: ...


@dataclass(frozen=True)
class Whole:
    """Annotation of a whole number within bounds, both included."""

    low: int
    high: int
    unit: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # The bounds stand here for the JSON Schema; the check before them words the refusal.
        bounded = core_schema.int_schema(ge=self.low, le=self.high)
        return core_schema.no_info_before_validator_function(self._check, bounded)

    def _check(self, value: object) -> int:
        wanted = f"must be a whole number of {self.unit} from {self.low} to {self.high}"
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise refusal(f"{wanted}, written without quotes")
        if not self.low <= value <= self.high:
            # Python refuses to print integers of thousands of digits.
            raise refusal(f"{wanted}; it is {value if abs(value) < 10**15 else 'far outside'}")
        return int(value)


def one_line(value: str) -> str:
    """Accept a non-empty line of printable text without white space around it."""
    if not value:
        raise refusal("must not be empty; leave it out instead")
    if value != value.strip() or not value.isprintable():
        raise refusal(
            "has white space around it or a control character in it (often a final newline); remove that"
        )
    return value


def api_key(value: SecretStr) -> SecretStr:
    """Accept what can be sent in an HTTP header; a masked key from a dump is refused."""
    key = value.get_secret_value()
    if not key:
        raise refusal("must not be empty; leave it out instead")
    if key == MASK:
        raise refusal("is the mask that stands for a secret in dumps, not a key; give the key itself")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise refusal(
            "has white space, a control or a non-ASCII character in it (often a final newline); remove that"
        )
    return value


def variable_name(value: str) -> str:
    """Accept the name of an environment variable."""
    if not _VARIABLE.fullmatch(value):
        raise refusal(
            "is no name for an environment variable; use letters, digits and _, not starting with a digit"
        )
    if value.startswith(RESERVED_PREFIX):
        raise refusal(f"starts with {RESERVED_PREFIX}, which is reserved for this package; use another name")
    return value


def variable_value(value: SecretStr) -> SecretStr:
    """Accept what a process environment can hold."""
    text = value.get_secret_value()
    if "\0" in text or _is_broken(text):
        raise refusal("contains a NUL byte or is not valid Unicode, which no variable can hold; remove that")
    if text == MASK:
        raise refusal("is the mask that stands for a secret in dumps, not a value; give the value itself")
    return value


def _is_broken(text: str) -> bool:
    # Half a surrogate pair: Python and JSON let it pass, UTF-8 has no form for it.
    return any("\ud800" <= character <= "\udfff" for character in text)


def variables(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Refuse a variable that is too long for Linux to start a program with."""
    for name, secret in value.items():
        if len(name) + 1 + len(secret.get_secret_value().encode()) > MAX_VARIABLE_BYTES:
            raise refusal(
                f"{name} and its value are longer than {MAX_VARIABLE_BYTES} bytes; write it to a file instead"
            )
    return value


def directory(value: str) -> str:
    """Accept an absolute POSIX directory that is not the root, and normalise it."""
    if not value.isprintable():
        raise refusal("has a control character in it; give a path such as /mnt/workspaces")
    if not value.startswith("/"):
        raise refusal('must be an absolute path, starting with "/", such as /mnt/workspaces')
    if ".." in value.split("/"):
        raise refusal('must not contain ".."; give the path that you mean, such as /mnt/workspaces')
    if len(value.encode()) > 1024:
        raise refusal("is longer than 1,024 bytes; give a shorter path such as /mnt/workspaces")
    path = "/" + posixpath.normpath(value).lstrip("/")
    if path == "/":
        raise refusal('must not be "/" itself; give a directory below it, such as /mnt/workspaces')
    if path.split("/")[1] in ("proc", "sys", "dev"):
        raise refusal(
            "is below /proc, /sys or /dev, which hold no files; give a path such as /mnt/workspaces"
        )
    return path


def bucket(value: str) -> str:
    """Accept the name of an S3 bucket (Amazon S3's naming rules)."""
    if not _BUCKET.fullmatch(value) or ".." in value:
        raise refusal(
            "is no bucket name; give the name only (no s3://, ARN or path): 3 to 63 of a-z, 0-9, '.' and '-'"
        )
    return value


def region(value: str) -> str:
    """Accept the name of a region."""
    if not _REGION.fullmatch(value):
        raise refusal("is no region; give one such as eu-central-1")
    return value


def role_arn(value: str) -> str:
    """Accept the ARN of an IAM role."""
    if not _ROLE_ARN.fullmatch(value):
        raise refusal(
            "is no ARN of an IAM role; give one such as arn:aws:iam::123456789012:role/sandbox-s3mount"
        )
    return value


def kms_key_arn(value: str) -> str:
    """Accept the ARN of a KMS key; an alias cannot stand in a policy."""
    if not _KMS_KEY_ARN.fullmatch(value):
        raise refusal(
            "is no ARN of a KMS key (an alias will not do); give one such as "
            "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        )
    return value


def external_id(value: str) -> str:
    """Accept an external id (STS API: 2 to 1,224 of these characters)."""
    if not _EXTERNAL_ID.fullmatch(value):
        raise refusal("is no external id; it has 2 to 1,224 letters, digits and _+=,.@:/-")
    return value


def commands(value: object) -> object:
    """Make one command a list of one, and refuse blank ones."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(command, str) for command in given):
        raise refusal("must be a shell command or a list of them")
    if not given or not all(command.strip() for command in given):
        raise refusal("has no command, or a blank one; leave it out instead")
    if any("\0" in command or _is_broken(command) for command in given):
        raise refusal("contains a NUL byte or is not valid Unicode; remove that")
    return tuple(given)


def image(value: object) -> object:
    """Accept the name of an image, or in Python a ``daytona.Image``."""
    if isinstance(value, str):
        return one_line(value)
    # Who holds a daytona.Image has imported daytona; who does not should not pay for it.
    daytona = sys.modules.get("daytona")
    if daytona is not None and isinstance(value, daytona.Image):
        return value
    raise refusal('must be the name of an image, such as "python:3.12-slim", or in Python a daytona.Image')


def _image_out(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    # Pydantic would write {}: all that a daytona.Image holds is private to it.
    raise ValueError(
        "options.image is a daytona.Image, which can't be dumped; name a published image instead"
    )


def _pattern(expression: re.Pattern[str]) -> FieldInfo:
    # For the reader of the schema only: the check itself words the refusal.
    return Field(json_schema_extra={"pattern": f"^{expression.pattern}$"})  # type: ignore[no-any-return]


Line = Annotated[str, AfterValidator(one_line), Field(min_length=1)]
Flag = Annotated[bool, Strict()]
ApiKey = Annotated[SecretStr, AfterValidator(api_key), Field(min_length=1)]
Directory = Annotated[str, AfterValidator(directory)]
Bucket = Annotated[str, AfterValidator(bucket), _pattern(_BUCKET)]
Region = Annotated[str, AfterValidator(region), _pattern(_REGION)]
RoleArn = Annotated[str, AfterValidator(role_arn), _pattern(_ROLE_ARN)]
KmsKeyArn = Annotated[str, AfterValidator(kms_key_arn), _pattern(_KMS_KEY_ARN)]
ExternalId = Annotated[str, AfterValidator(external_id), _pattern(_EXTERNAL_ID)]
Variables = Annotated[
    dict[Annotated[str, AfterValidator(variable_name)], Annotated[SecretStr, AfterValidator(variable_value)]],
    AfterValidator(variables),
]
Commands = Annotated[
    tuple[str, ...],
    BeforeValidator(commands),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"\S"},
                {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": r"\S"}},
            ]
        }
    ),
]
Image = Annotated[
    str | ImageDefinition,
    PlainValidator(image),
    PlainSerializer(_image_out),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
