"""Check the contents of the wheel and the source distribution in a folder: ``check_dist.py FOLDER``.

It must run in the root of the checkout.
"""

from __future__ import annotations

import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

PACKAGE = "langchain_daytona_ws"


def package_files() -> set[str]:
    return {
        str(path)
        for path in Path(PACKAGE).rglob("*")
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def problems_in(folder: Path) -> list[str]:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    stem = f"{PACKAGE}-{project['version']}"
    found: list[str] = []
    with zipfile.ZipFile(next(folder.glob(f"{stem}-py3-none-any.whl"))) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        info = f"{stem}.dist-info"
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
    code = {name for name in names if not name.startswith(f"{info}/")}
    found += [f"the wheel lacks {name}" for name in sorted(package_files() - code)]
    found += [f"the wheel should not hold {name}" for name in sorted(code - package_files())]
    for name in (f"{PACKAGE}/py.typed", f"{info}/licenses/LICENSE"):
        if name not in names:
            found.append(f"the wheel lacks {name}")
    for name, target in project["scripts"].items():
        if f"{name} = {target}" not in scripts.splitlines():
            found.append(f"the wheel has no entry point {name}")
    extras = set(metadata.get_all("Provides-Extra", []))
    if extras != set(project["optional-dependencies"]):
        found.append(f"the wheel offers the extras {sorted(extras)}")
    if metadata["Description-Content-Type"] != "text/markdown":
        found.append("the description is not marked as Markdown")
    if str(metadata.get_payload()).strip() != Path("README.md").read_text(encoding="utf-8").strip():
        found.append("the description is not the README")
    with tarfile.open(next(folder.glob(f"{stem}.tar.gz"))) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    wanted = {*package_files(), "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/__init__.py"}
    found += [f"the source distribution lacks {name}" for name in sorted(wanted - held)]
    stray = {name for name in held if "__pycache__" in name or name.startswith((".venv/", "build/", "dist/"))}
    found += [f"the source distribution should not hold {name}" for name in sorted(stray)]
    return found


if problems := problems_in(Path(sys.argv[1])):
    sys.exit("\n".join(problems))
