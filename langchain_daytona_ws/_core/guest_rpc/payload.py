"""The one line of shell that runs a guest program, and the environment variables that carry program and request.

The daemon feeds a script on standard input to zsh, bash or sh, whichever it finds (Daytona API), and zsh and
bash read such a script one byte a system call: 8 KiB cost 10 ms. So the script is one short line in which
those shells do not differ, and program and request travel beside it as compressed base64 in the request's
environment variables, which the guest removes again. The shell sees no byte of what the model wrote.
"""

from __future__ import annotations

import binascii
import functools
import re
import zlib
from dataclasses import dataclass, field
from importlib import resources

PACKAGE = "langchain_daytona_ws._guest"
# execve refuses a single variable of 128 KiB (MAX_ARG_STRLEN), and 2 MiB of them together.
VARIABLE_BYTES = 96 * 1024

_IMPORT = re.compile(
    rf"^from {re.escape(PACKAGE)}(?:\.(\w+))? import (?:\(([\w,\s]+)\)|([\w, ]+))", re.MULTILINE
)

_INDENT = re.compile(r"^(?: {4})+", re.MULTILINE)
# Docstrings and comments of guest modules. These modules hold no other text of several lines.
_PROSE = re.compile(r'^([ \t]*)(?:(r?"""[\s\S]*?""")|#.*)$', re.MULTILINE)

ENV_PREFIX = "LANGCHAIN_DAYTONA_WS_"
# Part of a request → the module that it needs beside the entry's own.
_BESIDE = {"mount": "mount", "job": "job_run", "awake": "jobs"}
_EARLY = "mount"
_END = "END-OF-SECRET"  # no base64 has a hyphen

_BOOT = (
    "import os,zlib,binascii as b;e=os.environ;"
    f'u=lambda k:zlib.decompress(b.a2b_base64("".join(e.pop("{ENV_PREFIX}"+k+str(i))'
    f'for i in range(int(e.pop("{ENV_PREFIX}"+k))))));'
    'p=u("PROGRAM");r=u("REQUEST");exec(p,{"request":r})'
)
_PROGRAM = """import sys
call = eval(request)
for name, source in {modules!r}:
    module = type(sys)(name)
    sys.modules[name] = module
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    setattr(sys.modules[{package!r}], name.rpartition(".")[2], module)
    if name == {early!r}:
        module.begin(call["request"]["mount"])
module.run(**call)
"""


@dataclass(frozen=True, slots=True)
class GuestCall:
    """What to send to the daemon's execute endpoint, and how to know the answer again."""

    script: str = field(repr=False)  # with the secret in it
    env: dict[str, str] = field(repr=False)
    nonce: str


def guest_call(
    entry: str, request: dict[str, object], nonce: str, *, secret: bytes | None = None
) -> GuestCall:
    """Wrap a request for ``_guest/<entry>.py``.

    Args:
        entry: Name of the guest module whose ``main`` is called.
        request: Plain values only: None, bool, int, float, str, bytes, list, dict.
        nonce: What the answer's line begins with; 16 or more random characters.
        secret: What must not stand in an environment, which any process of the user can read: it comes to the guest
            on file descriptor 3.
    """
    payload = repr({"entry": entry, "request": request, "nonce": nonce})
    env = _variables("PROGRAM", _program(entry, *(_BESIDE[key] for key in _BESIDE if key in request)))
    env.update(_variables("REQUEST", _encode(payload.encode("utf-8", "surrogatepass"), level=1)))
    # Python sets LC_CTYPE for itself and all that it starts (PEP 538); the guest puts it back.
    keep = f'export {ENV_PREFIX}CTYPE="${{LC_CTYPE-}}"'
    script = f"{keep}; exec python3 -I -S -c '{_BOOT}'"
    if secret is not None:
        encoded = binascii.b2a_base64(secret, newline=False).decode("ascii")
        script += f" 3<<'{_END}'\n{encoded}\n{_END}\n"
    return GuestCall(script=script, env=env, nonce=nonce)


def _variables(name: str, encoded: str) -> dict[str, str]:
    parts = [encoded[i : i + VARIABLE_BYTES] for i in range(0, len(encoded), VARIABLE_BYTES)]
    variables = {f"{ENV_PREFIX}{name}{i}": part for i, part in enumerate(parts)}
    return {f"{ENV_PREFIX}{name}": str(len(parts)), **variables}


@functools.cache
def _program(*names: str) -> str:
    modules = [(PACKAGE, "")]
    # First what examines the mounts: that goes on while the others are compiled.
    for name in _load_order(*sorted(names, key=lambda name: name != _EARLY), "boot"):
        modules.append((f"{PACKAGE}.{name}", _bare(guest_source(name))))
    program = _PROGRAM.format(modules=modules, package=PACKAGE, early=f"{PACKAGE}.{_EARLY}")
    return _encode(program.encode(), level=9)


def _bare(source: str) -> str:
    """Leave out docstrings, comments and three of four spaces of each indent; each line keeps its number.

    A connection that was idle takes some 14 KB at once (RFC 6928): a larger request waits for one more round trip.
    """

    def rest(prose: re.Match[str]) -> str:
        # A docstring may be all that there is of a class.
        return f'{prose[1]}""' + "\n" * prose[2].count("\n") if prose[2] else ""

    return _INDENT.sub(lambda indent: " " * (len(indent[0]) // 4), _PROSE.sub(rest, source))


def _load_order(*names: str) -> list[str]:
    """List guest modules so that each comes after those that it imports."""
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
    for module, lines, line in _IMPORT.findall(guest_source(name)):
        names = [part.split()[0] for part in (lines or line).split(",") if part.strip()]
        found += [module] if module else names
    return found


@functools.cache
def guest_source(name: str) -> str:
    """Read the text of a module that runs in the sandbox."""
    return resources.files(PACKAGE).joinpath(f"{name}.py").read_text("utf-8")


def load_guest() -> None:
    """Read all that may be sent, once, for those whose calls must not read files."""
    for file in resources.files(PACKAGE).iterdir():
        if file.name.endswith(".py"):
            guest_source(file.name.removesuffix(".py"))


def _encode(data: bytes, *, level: int) -> str:
    return binascii.b2a_base64(zlib.compress(data, level), newline=False).decode("ascii")
