"""Read the guest's answers, which are hostile input in size, types and encodings."""

from __future__ import annotations

import binascii
import json
import re

from langchain_daytona_ws.errors import SandboxError

Answer = dict[str, object]

_NAME = re.compile(r"[\w.+:@-]{1,15}", re.ASCII)
_NAMES_MAX = 5


def _killed_processes(printed: str, nonce: str) -> list[str]:
    """Return the names of the processes that were killed because they held the output of the call itself."""
    for line in printed.split("\n"):
        if line.startswith(f"{nonce}+ "):
            try:
                names = json.loads(line[len(nonce) + 2 :])
            except (ValueError, RecursionError):
                return []
            if isinstance(names, list):
                return [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)][
                    :_NAMES_MAX
                ]
    return []


def read_frame(printed: str, nonce: str) -> dict[str, object]:
    """Return the answer in the output of an execute request.

    Raises:
        SandboxError: ``code="no_python"`` if the sandbox has no Python; ``code="unreadable_answer"`` unless the output
            contains exactly one well-formed answer (other output, a cut or forged answer).
    """
    lines = [line for line in printed.split("\n") if line.startswith(nonce + " ")]
    if len(lines) == 1:
        try:
            answer = json.loads(lines[0][len(nonce) + 1 :])
        except (ValueError, RecursionError):  # RecursionError: nested too deeply
            answer = None
        if isinstance(answer, dict):
            return (
                {**answer, "ended": _killed_processes(printed, nonce)}
                if f"\n{nonce}+ " in printed
                else answer
            )
    if not lines and "python3" in printed and "not found" in printed:
        raise SandboxError(
            "The sandbox has no python3, which the workspace tools need. Use a snapshot or image with Python "
            "3.8 or later and Node (options.snapshot or options.image).",
            code="no_python",
            op="execute",
            for_model="This machine cannot run the workspace tools: python3 is missing. Tell the user.",
        )
    raise SandboxError(
        f"The sandbox's answer could not be read ({len(lines)} answers in {len(printed):,} characters).",
        code="unreadable_answer",
        op="execute",
        retryable=True,
        for_model="The machine's answer could not be read. The call may or may not have taken effect: check "
        "before you do it again.",
    )


def decode_base64(value: object) -> bytes:
    """Decode a base64 field of an answer.

    Raises:
        SandboxError: The field is not base64 text.
    """
    try:
        return binascii.a2b_base64(value if isinstance(value, str) else b"?", strict_mode=True)
    except ValueError:
        raise SandboxError(
            "A field of the sandbox's answer is not what it should be.",
            code="unreadable_answer",
            op="execute",
        ) from None
