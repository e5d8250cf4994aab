"""Validators for strings, numbers and lists. Each returns the value to store, or raises an error with a remedy.

No error quotes a value that may be a secret.
"""

from __future__ import annotations

import posixpath
import re
import sys
from typing import Annotated, Protocol

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    SecretStr,
    Strict,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from langchain_daytona_ws.config.problems import refusal

# The part of options.workspacePrefix that is replaced by the workspace's name.
NAMESPACE_FIELD = "{namespace}"
MAX_PREFIX_LENGTH = 128
MAX_PATTERN_LENGTH = 1000
MAX_PATTERNS = 200

MAX_LABELS = 32
MAX_LABEL_LENGTH = 255
# Labels that this package and the Daytona SDK set themselves.
RESERVED_LABELS = frozenset(
    {"managed-by", "namespace", "lifetime", "config-hash", "sync-location", "code-toolbox-language"}
)

MASK = str(SecretStr("x"))  # the text that pydantic shows in place of every secret
RESERVED_PREFIX = "LANGCHAIN_DAYTONA_WS_"
MAX_VARIABLE_BYTES = 128 * 1024 - 1  # Linux: limit of one "NAME=value" in execve, without its NUL byte

_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_REGION = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_ROLE_ARN = r"arn:aws[a-z-]{0,20}:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}"
_KMS_KEY_ARN = r"arn:aws[a-z-]{0,20}:kms:[a-z0-9-]{1,30}:[0-9]{12}:key/[A-Za-z0-9-]{1,128}"
# The prefix becomes part of an IAM policy, so wildcards, variables and escapes of policies are not allowed in it.
_PREFIX_PART = r"(?!\.{1,2}/)[A-Za-z0-9_.=+,:-]+/"
_PREFIX = rf"(?!-)(?=.{{1,{MAX_PREFIX_LENGTH}}}$)(?:{_PREFIX_PART})*\{{namespace\}}/(?:{_PREFIX_PART})*"
_IGNORE_PATTERN = rf"[^\0\r\n]{{1,{MAX_PATTERN_LENGTH}}}"
_USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"
_LABEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}"
_EXTERNAL_ID = r"[A-Za-z0-9_+=,.@:/-]{2,1224}"


class ImageDefinition(Protocol):
    """The part of ``daytona.Image`` that this package uses, so that it need not import ``daytona``."""

    def dockerfile(self) -> str: ...


class WholeNumber:
    """Annotation of a whole number from ``low`` to ``high``, both included; ``unit`` is for the error message."""

    def __init__(self, low: int, high: int, unit: str) -> None:
        self.low, self.high, self.unit = low, high, unit

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # These bounds are for the JSON Schema. `_check` runs before them, and raises the error.
        bounded = core_schema.int_schema(ge=self.low, le=self.high)
        return core_schema.no_info_before_validator_function(self._check, bounded)

    def _check(self, value: object) -> int:
        rule = f"must be a whole number of {self.unit} from {self.low} to {self.high}"
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise refusal(f"{rule}, written without quotes")
        if not self.low <= value <= self.high:
            # Python refuses to print integers with thousands of digits.
            raise refusal(f"{rule}; it is {value if abs(value) < 10**15 else 'far outside'}")
        return int(value)


def one_line(value: str) -> str:
    """Accept a non-empty line of printable text without leading or trailing white space."""
    if not value:
        raise refusal("must not be empty; leave it out instead")
    if value != value.strip() or not value.isprintable():
        raise refusal(
            "starts or ends with white space, or contains a control character (often a final newline); remove it"
        )
    return value


def api_key(value: SecretStr) -> SecretStr:
    """Accept an API key that can be sent in an HTTP header; refuse the mask of a key in a dump."""
    key = value.get_secret_value()
    if not key:
        raise refusal("must not be empty; leave it out instead")
    if key == MASK:
        raise refusal("is the mask of a secret in a dump; use the key itself")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise refusal(
            "contains white space, a control character or a non-ASCII character (often a final newline); remove it"
        )
    if set(key) & set("\"'`${}<>"):
        raise refusal(
            "contains a quotation mark, or a placeholder such as ${NAME}: placeholders are not expanded; use the key "
            "itself"
        )
    return value


def variable_name(value: str) -> str:
    if not re.fullmatch(_VARIABLE, value):
        raise refusal(
            "is not a valid name of an environment variable; use letters, digits and _, not starting with a digit"
        )
    if value.startswith(RESERVED_PREFIX):
        raise refusal(f"starts with {RESERVED_PREFIX}, which is reserved for this package; use another name")
    return value


def variable_value(value: SecretStr) -> SecretStr:
    """Accept a value that is valid in a process environment; refuse the mask of a secret in a dump."""
    text = value.get_secret_value()
    if "\0" in text or _has_lone_surrogate(text):
        raise refusal(
            "contains a NUL byte or is not valid Unicode, and can't be in an environment; correct it"
        )
    if text == MASK:
        raise refusal("is the mask of a secret in a dump; use the value itself")
    return value


def _has_lone_surrogate(text: str) -> bool:
    # Python and JSON strings may contain lone surrogates; UTF-8 cannot encode them.
    return any("\ud800" <= character <= "\udfff" for character in text)


def variables(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Refuse a variable that is longer than Linux allows in the environment of a new process."""
    for name, secret in value.items():
        if len(name) + 1 + len(secret.get_secret_value().encode()) > MAX_VARIABLE_BYTES:
            raise refusal(
                f"{name} and its value are longer than {MAX_VARIABLE_BYTES} bytes; write it to a file instead"
            )
    return value


def directory(value: str) -> str:
    """Accept an absolute POSIX directory, but not ``/``, and none in ``/proc``, ``/sys`` or ``/dev``; normalise it."""
    if not value.isprintable():
        raise refusal("contains a control character; use a path such as /mnt/workspaces")
    if not value.startswith("/"):
        raise refusal('must be an absolute path, starting with "/", such as /mnt/workspaces')
    if ".." in value.split("/"):
        raise refusal('must not contain ".."; use the resulting path, such as /mnt/workspaces')
    if len(value.encode()) > 1024:
        raise refusal("is longer than 1,024 bytes; use a shorter path such as /mnt/workspaces")
    path = normal_path(value)
    if path == "/":
        raise refusal('must not be "/"; use a directory below it, such as /mnt/workspaces')
    if path.split("/")[1] in ("proc", "sys", "dev"):
        raise refusal(
            "is below /proc, /sys or /dev, which can't store files; use a path such as /mnt/workspaces"
        )
    return path


def normal_path(path: str) -> str:
    """Normalise a path. `posixpath.normpath` alone keeps two slashes at the start."""
    return posixpath.normpath(path).replace("//", "/")


def bucket(value: str) -> str:
    """Accept a bucket name of the length and characters that Amazon S3 allows; not all of its rules are checked."""
    if not re.fullmatch(_BUCKET, value) or ".." in value:
        raise refusal(
            "is not a bucket name; use the name only (without s3://, ARN or path): 3 to 63 of a-z, 0-9, '.' and '-'"
        )
    return value


def region(value: str) -> str:
    if not re.fullmatch(_REGION, value):
        raise refusal("is not a region; example: eu-central-1")
    return value


def role_arn(value: str) -> str:
    if not re.fullmatch(_ROLE_ARN, value):
        raise refusal(
            "is not the ARN of an IAM role; example: arn:aws:iam::123456789012:role/sandbox-s3mount"
        )
    return value


def kms_key_arn(value: str) -> str:
    """Accept the ARN of a KMS key. An alias is refused, because an IAM policy can't contain it."""
    if not re.fullmatch(_KMS_KEY_ARN, value):
        raise refusal(
            "is not the ARN of a KMS key (an alias is not accepted); example: "
            "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        )
    return value


def external_id(value: str) -> str:
    """Accept an external id (STS API: 2 to 1,224 characters)."""
    if not re.fullmatch(_EXTERNAL_ID, value):
        raise refusal("is not an external id; use 2 to 1,224 letters, digits and _+=,.@:/-")
    return value


def user(value: str) -> str:
    """Accept the name of a user in the sandbox (Linux: at most 32 characters)."""
    if not re.fullmatch(_USER, value):
        raise refusal(
            "is not the name of a user; use 1 to 32 letters, digits and _.-, starting with a letter or _, such as "
            '"daytona"'
        )
    return value


def label_name(value: str) -> str:
    if not re.fullmatch(_LABEL_NAME, value):
        raise refusal(
            "is not the name of a label; use 1 to 63 letters, digits and ._/-, starting with a letter or digit"
        )
    if value in RESERVED_LABELS:
        raise refusal("is a label that this package or Daytona's SDK sets itself; use another name")
    return value


def label_value(value: str) -> str:
    if len(value) > MAX_LABEL_LENGTH or not value.isprintable():
        raise refusal(
            f"must be printable text of at most {MAX_LABEL_LENGTH} characters; shorten it, and remove control "
            "characters such as a final newline"
        )
    return value


def labels(value: dict[str, str]) -> dict[str, str]:
    """Refuse too many labels: each listing of sandboxes contains all labels."""
    if len(value) > MAX_LABELS:
        raise refusal(f"has more than {MAX_LABELS} labels; keep the rest elsewhere")
    return value


def workspace_prefix(value: str) -> str:
    """Accept the prefix of the workspaces in their bucket, with ``{namespace}`` as one of its parts."""
    example = f'such as "sandbox/{NAMESPACE_FIELD}/"'
    if value.split("/").count(NAMESPACE_FIELD) != 1 or value.count(NAMESPACE_FIELD) != 1:
        raise refusal(
            f"must contain {NAMESPACE_FIELD} once, as a whole part of the path, which keeps the workspaces apart; "
            f"use a prefix {example}"
        )
    if not value.endswith("/") or value.startswith(("/", "-")):
        raise refusal(f'must end with "/", and must not start with "/" or "-"; use a prefix {example}')
    if len(value) > MAX_PREFIX_LENGTH:
        raise refusal(f"is longer than {MAX_PREFIX_LENGTH} characters; use a shorter prefix {example}")
    if not re.fullmatch(_PREFIX, value):
        raise refusal(
            'has an empty part, a part "." or "..", or a character other than A-Z, a-z, 0-9 and _.=+,:- '
            f"(others have a meaning in IAM policies); use a prefix {example}"
        )
    return value


def ignore_pattern(value: str) -> str:
    if not value.strip():
        raise refusal("must not be empty; leave it out instead")
    if not re.fullmatch(_IGNORE_PATTERN, value) or _has_lone_surrogate(value):
        raise refusal(
            f"must be one line of valid Unicode, without a NUL byte, of at most {MAX_PATTERN_LENGTH:,} characters; "
            "put each pattern into a string of its own"
        )
    return value


def ignore_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a list with too many patterns: each file is compared with each pattern."""
    if len(value) > MAX_PATTERNS:
        raise refusal(f"has more than {MAX_PATTERNS} patterns; combine them, for example with *")
    return value


def commands(value: object) -> object:
    """Accept a command or a list of commands, and return a tuple of commands. Refuse blank commands."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(command, str) for command in items):
        raise refusal("must be a shell command or a list of them")
    if not items or not all(command.strip() for command in items):
        raise refusal("contains no command, or a blank command; leave it out instead")
    if any("\0" in command or _has_lone_surrogate(command) for command in items):
        raise refusal("contains a NUL byte or is not valid Unicode; correct it")
    return tuple(items)


def image(value: object) -> object:
    """Accept the name of an image or, in Python, a ``daytona.Image``."""
    if isinstance(value, str):
        return one_line(value)
    # Do not import daytona: a caller with a daytona.Image has already imported it.
    daytona = sys.modules.get("daytona")
    if daytona is not None and isinstance(value, daytona.Image):
        return value
    raise refusal('must be the name of an image, such as "python:3.12-slim", or in Python a daytona.Image')


class _ImageType:
    """Annotation of an image. Pydantic's own annotations would import one more module."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        dumped = core_schema.plain_serializer_function_ser_schema(_image_out)
        return core_schema.no_info_plain_validator_function(image, serialization=dumped)


def _image_out(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    # Pydantic would dump {}, because a daytona.Image has only private attributes.
    raise ValueError(
        "options.image is a daytona.Image, which can't be dumped; use the name of a published image instead"
    )


def _pattern(expression: str) -> FieldInfo:
    # Only for the JSON Schema: the validator raises the error.
    return Field(json_schema_extra={"pattern": f"^{expression}$"})  # type: ignore[no-any-return]


Line = Annotated[str, AfterValidator(one_line), Field(min_length=1)]
Flag = Annotated[bool, Strict()]
ApiKey = Annotated[SecretStr, AfterValidator(api_key), Field(min_length=1)]
Directory = Annotated[str, AfterValidator(directory)]
Bucket = Annotated[str, AfterValidator(bucket), _pattern(_BUCKET)]
Region = Annotated[str, AfterValidator(region), _pattern(_REGION)]
RoleArn = Annotated[str, AfterValidator(role_arn), _pattern(_ROLE_ARN)]
KmsKeyArn = Annotated[str, AfterValidator(kms_key_arn), _pattern(_KMS_KEY_ARN)]
ExternalId = Annotated[str, AfterValidator(external_id), _pattern(_EXTERNAL_ID)]
WorkspacePrefix = Annotated[str, AfterValidator(workspace_prefix), _pattern(_PREFIX)]
IgnorePatterns = Annotated[
    tuple[
        Annotated[
            str,
            AfterValidator(ignore_pattern),
            # JSON Schema counts code points, as Python does.
            Field(
                json_schema_extra={
                    "pattern": r"^[^\u0000\r\n]*[^\s\u0000][^\u0000\r\n]*$",
                    "maxLength": MAX_PATTERN_LENGTH,
                }
            ),
        ],
        ...,
    ],
    AfterValidator(ignore_patterns),
    Field(json_schema_extra={"maxItems": MAX_PATTERNS}),
]
User = Annotated[str, AfterValidator(user), _pattern(_USER)]
Labels = Annotated[
    dict[
        Annotated[str, AfterValidator(label_name)],
        Annotated[str, AfterValidator(label_value), Field(json_schema_extra={"maxLength": MAX_LABEL_LENGTH})],
    ],
    AfterValidator(labels),
    Field(
        json_schema_extra={
            "maxProperties": MAX_LABELS,
            "propertyNames": {
                "pattern": f"^(?!({'|'.join(sorted(RESERVED_LABELS))})$){_LABEL_NAME}$",
            },
        }
    ),
]
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
    _ImageType(),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
