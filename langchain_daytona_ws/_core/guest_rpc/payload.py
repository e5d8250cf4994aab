"""Pack a guest program and its request: one line of shell, and environment variables.

The daemon feeds a script on standard input to the first of zsh, bash and sh that it finds (Daytona API). zsh and bash
read such a script one byte per system call: 8 KiB cost 10 ms (measured). So the script is one short line that all of
these shells run alike. Program and request are compressed base64 in the request's environment variables, which the
guest removes again. The shell parses no text that the model wrote.
"""

from __future__ import annotations

import binascii
import functools
import re
import zlib
from dataclasses import dataclass, field
from importlib import resources

PACKAGE = "langchain_daytona_ws._guest"
# execve refuses a variable of 128 KiB (MAX_ARG_STRLEN), and variables of 2 MiB in total.
VARIABLE_BYTES = 96 * 1024

_IMPORT = re.compile(
    rf"^from {re.escape(PACKAGE)}(?:\.(\w+))? import (?:\(([\w,\s]+)\)|([\w, ]+))", re.MULTILINE
)

_INDENT = re.compile(r"^(?: {4})+", re.MULTILINE)
# Docstrings and comments of guest modules, which contain no other multi-line strings.
_PROSE = re.compile(r'^([ \t]*)(?:(r?"""[\s\S]*?""")|#.*)$', re.MULTILINE)

ENV_PREFIX = "LANGCHAIN_DAYTONA_WS_"
# Field of a request → the additional guest module that it needs.
_FIELD_MODULES = {
    "mount": "mount",
    "job": "job_run",
    "awake": "jobs",
    "editors": "editors",
    "sync": "sync",
    "sync_resident": "sync_resident",
}
_EARLY = ("mount", "sync")
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
    if name in {early!r}:
        module.begin(call["request"][{early!r}[name]])
module.run(**call)
"""


@dataclass(frozen=True, slots=True)
class GuestCall:
    """A request to the daemon's execute endpoint, and the nonce that marks its answer."""

    script: str = field(repr=False)  # contains the secret
    env: dict[str, str] = field(repr=False)
    nonce: str


def guest_call(
    entry: str, request: dict[str, object], nonce: str, *, secret: bytes | None = None
) -> GuestCall:
    """Wrap a request for ``_guest/<entry>.py``.

    Args:
        entry: Name of the guest module whose ``main`` is called.
        request: Plain values only: None, bool, int, float, str, bytes, list, dict.
        nonce: Prefix of the answer's line; 16 or more random characters.
        secret: Bytes for file descriptor 3 of the guest. An environment is readable by all processes of the user.
    """
    payload = repr({"entry": entry, "request": request, "nonce": nonce})
    env = _variables(
        "PROGRAM", _program(entry, *(_FIELD_MODULES[key] for key in _FIELD_MODULES if key in request))
    )
    env.update(_variables("REQUEST", _encode(payload.encode("utf-8", "surrogatepass"), level=1)))
    # Python sets LC_CTYPE for itself and its child processes (PEP 538); the guest restores it.
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
    # The module that examines the mounts comes first: its work continues while the rest is compiled.
    for name in _load_order(*sorted(names, key=lambda name: name not in _EARLY), "boot"):
        modules.append((f"{PACKAGE}.{name}", _bare(guest_source(name))))
    program = _PROGRAM.format(
        modules=modules, package=PACKAGE, early={f"{PACKAGE}.{name}": name for name in _EARLY}
    )
    return _encode(program.encode(), level=9)


def _bare(source: str) -> str:
    """Remove docstrings, comments and three of four spaces of each indent; each line keeps its number.

    An idle connection sends about 14 KB at once (RFC 6928); a larger request waits for one more round trip.
    """

    def replacement(prose: re.Match[str]) -> str:
        # A class body may consist of its docstring.
        return f'{prose[1]}""' + "\n" * prose[2].count("\n") if prose[2] else ""

    return _INDENT.sub(lambda indent: " " * (len(indent[0]) // 4), _PROSE.sub(replacement, source))


def _load_order(*names: str) -> list[str]:
    """Return guest modules in an order in which each module follows its imports."""
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
    """Return the source text of a guest module."""
    return resources.files(PACKAGE).joinpath(f"{name}.py").read_text("utf-8")


def load_guest() -> None:
    """Read all guest modules into the cache, so that later calls on an event loop read no files."""
    for file in resources.files(PACKAGE).iterdir():
        if file.name.endswith(".py"):
            guest_source(file.name.removesuffix(".py"))


def _encode(data: bytes, *, level: int) -> str:
    return binascii.b2a_base64(zlib.compress(data, level), newline=False).decode("ascii")
