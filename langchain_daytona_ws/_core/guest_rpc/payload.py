"""Pack a guest program and its request into a line of shell and environment variables.

A program is a set of guest modules. The first request that needs the program carries its source. The sandbox keeps the
compiled modules in a file, and answers with the digest of this file. Later requests carry only the digest.

Daytona's daemon sends the script to the standard input of a shell: zsh, bash or sh (Daytona API). zsh and bash read
such a script one byte per system call: 8 KiB cost 10 ms (measured). So the script is one short line, followed only by a
secret, and means the same in all these shells. Program and request are in environment variables, which the guest
removes. So the shell parses no text of the model.
"""

from __future__ import annotations

import binascii
import functools
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from langchain_daytona_ws._guest.dirs import STATE_NAME, STATE_PARENT
from langchain_daytona_ws._guest.loader import digest_of
from langchain_daytona_ws._guest.starter import PACKAGE

# Linux refuses a variable of 128 KiB (MAX_ARG_STRLEN), and variables of 2 MiB in total.
VARIABLE_BYTES = 96 * 1024
# With a digest, a request of ASCII text up to this size is sent as it is. All other requests are compressed;
# decompressing takes 0.5 ms in the guest.
TEXT_BYTES = 1024

_IMPORT = rf"(?m)^from {re.escape(PACKAGE)}(?:\.(\w+))? import (?:\(([\w,\s]+)\)|([\w, ]+))"

_IMPORT_LINE = rf"(?m)^from {re.escape(PACKAGE)}(?:\.\w+)? import (?:\([^)]*\)|[^\n]*)\n"
# A string (kept), or an operator with the spaces around it (the spaces are removed).
_SPACED = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?<=\S) ?([-+*/%|&<>=!,:]+) ?"""
_INDENT = r"(?m)^(?: {4})+"
# Docstrings and comment lines. Guest modules contain no other multi-line strings.
_PROSE = r'(?m)^([ \t]*)(?:(r?"""[\s\S]*?""")(?=(\s*?\n\1\S)?)|#.*)$'
_REMARK = r"(?m)  # .*$"
_SIGNATURE = r"(?m)^([ \t]*def \w+\()([\s\S]*?)\)(?: -> [^\n]+)?:$"
# Text with brackets inside brackets, three deep: the types of parameters and variables.
_NESTED = r"[^][]*"
for _ in range(3):
    _NESTED = rf"(?:[^][]|\[{_NESTED}\])*"
_TYPE = rf": (?:[^][,=()\n]|\[{_NESTED}\])+"
_PARAMETER = rf"\b(\w+){_TYPE}"
_VARIABLE = rf"(?m)^([ \t]*(?:self\.)?\w+){_TYPE} = "
_FOR_TYPES = r"(?m)^TYPE_CHECKING = False\nif TYPE_CHECKING:.*\n(?:(?: .*)?\n)+"
_FUTURE = "from __future__ import annotations\n"

ENV_PREFIX = "LANGCHAIN_DAYTONA_WS_"
Program = tuple[str, ...]  # names of guest modules; the modules that they import, and ``boot``, are sent too
# Field of a request → the guest module that is added for it. The guest loads the modules in this order. The first
# modules start their work while the later modules are loaded.
_FIELD_MODULES = {
    "mount": "mount",
    "sync": "sync",
    "sync_resident": "sync_resident",
    "job": "job_run",
    "keep_alive": "jobs",
    "editors": "editors",
    "pty": "pty_run",
}
_HERE_DOCUMENT_END = "END-OF-SECRET"  # with hyphens, which base64 does not contain
MISSING = "program"  # the error code of a guest that received a digest, but lacks the program
MISSING_MAX = 3  # after this many missing programs in a row, no more digests are recorded for the sandbox
_DIGEST = r"[0-9a-f]{64}"

_DIRECTORY = f"{STATE_PARENT}/{STATE_NAME}"
_BOOT = f'import posix;exec(posix.environ[b"{ENV_PREFIX}PROGRAM0"])'
_UNPACKING = (
    f"import binascii,zlib;exec(zlib.decompress(binascii.a2b_base64(posix.environ[b'{ENV_PREFIX}SOURCE0'])))"
)


@dataclass(frozen=True, slots=True)
class GuestCall:
    """A request to the daemon's execute endpoint.

    Attributes:
        script: The text for the shell.
        env: The environment variables that contain program and request.
        nonce: The random text that begins the answer's line.
        digest: Digest of the program's file in the sandbox; "" if the source is sent.
    """

    script: str = field(repr=False)  # contains the secret
    env: dict[str, str] = field(repr=False)
    nonce: str
    program: Program
    digest: str


class KeptPrograms:
    """The digests of the program files in the sandboxes; shared by the clients of a session.

    Other processes can change these files. So the guest uses a file only if its content has the digest that the host
    sends.
    """

    def __init__(self) -> None:
        self._digests: dict[tuple[str, Program], str] = {}
        self._missing: dict[str, int] = {}

    def call(
        self,
        sandbox_id: str,
        entry: str,
        request: Mapping[str, object],
        nonce: str,
        *,
        secret: bytes | None = None,
        with_source: bool = False,
    ) -> GuestCall:
        """Pack a request (see `guest_call`): with its program's digest if it is known and ``with_source`` is false."""
        digest = "" if with_source else self._digests.get((sandbox_id, _program_of(entry, request)), "")
        return guest_call(entry, request, nonce, digest=digest, secret=secret)

    def lacks(self, sandbox_id: str, call: GuestCall, answer: dict[str, object]) -> bool:
        """Return True if the sandbox lacks the program, so that nothing ran.

        Otherwise the answer to a call with the source has the digest of the stored program: remove it from the answer,
        and record it.
        """
        if answer.get("error") == MISSING:
            self._missing[sandbox_id] = self._missing.get(sandbox_id, 0) + 1
            self.forget(sandbox_id, call.program)
            return True
        if call.digest:
            self._missing.pop(sandbox_id, None)
            return False
        digest = answer.pop("program", None)
        if (
            isinstance(digest, str)
            and re.fullmatch(_DIGEST, digest)
            and self._missing.get(sandbox_id, 0) < MISSING_MAX
        ):
            self._digests[sandbox_id, call.program] = digest
        return False

    def forget(self, sandbox_id: str, program: Program) -> None:
        """Forget the digest of a program: the next request that needs the program carries its source."""
        self._digests.pop((sandbox_id, program), None)


def guest_call(
    entry: str, request: Mapping[str, object], nonce: str, *, digest: str = "", secret: bytes | None = None
) -> GuestCall:
    """Pack a request for ``_guest/<entry>.py``.

    Args:
        entry: Name of the guest module whose ``main`` is called.
        request: Plain values only: None, bool, int, float, str, bytes, list, dict.
        nonce: Prefix of the answer's line; 16 or more random characters.
        digest: Digest of the program's file in the sandbox; "" to send the source.
        secret: Bytes that the guest reads from file descriptor 3. They are not in the environment, which all processes
            of the same user can read.
    """
    env: dict[str, str] = {}
    call = repr({"entry": entry, "request": request, "nonce": nonce})
    program = _program_of(entry, request)
    _add(env, "PROGRAM", _loading_code(env, call, digest) if digest else _compiling_code(env, call, program))
    # Python sets LC_CTYPE for itself and its child processes (PEP 538); the guest restores it.
    keep = f'export {ENV_PREFIX}CTYPE="${{LC_CTYPE-}}"'
    script = f"{keep}; exec python3 -I -S -c '{_BOOT}'"
    if secret is not None:
        encoded = binascii.b2a_base64(secret, newline=False).decode("ascii")
        script += f" 3<<'{_HERE_DOCUMENT_END}'\n{encoded}\n{_HERE_DOCUMENT_END}\n"
    return GuestCall(script, env, nonce, program, digest)


def _program_of(entry: str, request: Mapping[str, object]) -> Program:
    return (*(module for field, module in _FIELD_MODULES.items() if field in request), entry)


def _add(env: dict[str, str], name: str, value: str) -> str:
    """Add a value to the variables of the request; return the expression that reads it in the guest."""
    parts = [value[i : i + VARIABLE_BYTES] for i in range(0, len(value), VARIABLE_BYTES)]
    env.update((f"{ENV_PREFIX}{name}{i}", part) for i, part in enumerate(parts))
    return f"take(b'{name}',{len(parts)})"


def _loading_code(env: dict[str, str], call: str, digest: str) -> str:
    """Add a call to the variables; return the code that loads its modules from the sandbox's file, and runs it."""
    is_text = len(call) <= TEXT_BYTES and call.isascii()
    reading = _add(env, "REQUEST", call if is_text else _packed(call, level=1))
    value = reading if is_text else f"unpack({reading})"
    return f"{_bare_text('variables', 'loader')}load(eval({value}),{_DIRECTORY!r},{digest!r})"


def _compiling_code(env: dict[str, str], call: str, program: Program) -> str:
    """Add a call and its modules to the variables; return the code that compiles, stores and runs the modules."""
    _add(env, "SOURCE", _source(program))
    reading = _add(env, "REQUEST", _packed(call, level=1))
    return f"{_UNPACKING}\nrun(eval(unpack({reading})),modules)"


@functools.cache
def _source(program: Program) -> str:
    # Each source is in a raw string (r'''…'''), in which a line break is one byte. ``repr`` would write two bytes: \n.
    modules = "".join(
        f"({name!r},r'''{_bare(guest_source(name))}'''),"
        for name in ("starter", *_load_order(*program, "boot"))
    )
    return _packed(f"{_bare_text('variables', 'loader', 'keep')}modules={modules}", level=9)


@functools.cache
def _bare_text(*names: str) -> str:
    """Return guest modules as one text without empty lines, docstrings, comments and types."""
    return re.sub(r"\n\n+", "\n", joined_source(*names, bare=True).lstrip())


def joined_source(*names: str, bare: bool = False) -> str:
    """Return guest modules as one module with one namespace; ``bare`` removes docstrings, comments and types."""
    text = "\n\n".join(re.sub(_IMPORT_LINE, "", guest_source(name)) for name in names)
    # Python accepts ``from __future__`` only at the beginning.
    before, future, after = text.partition(_FUTURE)
    text = before + future + after.replace(_FUTURE, "")
    return _bare(text) if bare else text


def separate_program(source: bytes, *, with_source: bool) -> dict[str, object]:
    """Return the request field for a program that runs in its own process, for example to mount.

    The field contains the digest of the source, and the source itself if ``with_source`` is true. The sandbox keeps the
    source in a file.
    """
    return {"digest": digest_of(source), "source": source if with_source else None}


def _bare(source: str) -> str:
    """Remove docstrings, comments, types and most of the spaces; each line keeps its number.

    An idle connection sends about 14 KB at once, and the rest one round trip later (RFC 6928). With types, each call
    would have to import ``__future__``, which reads a file.
    """

    def replacement(prose: re.Match[str]) -> str:
        # If a class body is only a docstring, keep an empty string in its place.
        rest = "" if prose[3] or not prose[2] else f'{prose[1]}""'
        return rest + "\n" * (prose[2] or "").count("\n")

    source = re.sub(_FOR_TYPES, lambda block: "\n" * block[0].count("\n"), source.replace(_FUTURE, "\n"))
    source = re.sub(_REMARK, "", re.sub(_PROSE, replacement, source))
    source = re.sub(_SIGNATURE, lambda found: found[1] + re.sub(_PARAMETER, r"\1", found[2]) + "):", source)
    source = re.sub(_VARIABLE, r"\1 = ", source)
    source = re.sub(_SPACED, lambda found: found[1] or found[2], source)
    return re.sub(_INDENT, lambda indent: " " * (len(indent[0]) // 4), source)


def _load_order(*names: str) -> list[str]:
    """Return guest modules and all modules that they import. Imported modules come first."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for needed in _imports(name):
            visit(needed)
        order.append(name)

    for name in names:
        visit(name)
    return order


def _imports(name: str) -> list[str]:
    found: list[str] = []
    for module, lines, line in re.findall(_IMPORT, guest_source(name)):
        names = [part.split()[0] for part in (lines or line).split(",") if part.strip()]
        found += [module] if module else names
    return found


@functools.cache
def guest_source(name: str) -> str:
    return resources.files(PACKAGE).joinpath(f"{name}.py").read_text("utf-8")


def whole_source(name: str) -> str:
    """Return the source of a guest module and of all guest modules that it imports."""
    return "".join(map(guest_source, _load_order(name)))


def load_guest() -> None:
    """Read all guest modules into the cache, so that later calls on an event loop read no files."""
    for file in resources.files(PACKAGE).iterdir():
        if file.name.endswith(".py"):
            guest_source(file.name.removesuffix(".py"))


def _packed(value: str, *, level: int) -> str:
    data = zlib.compress(value.encode("utf-8", "surrogatepass"), level)
    return binascii.b2a_base64(data, newline=False).decode("ascii")
