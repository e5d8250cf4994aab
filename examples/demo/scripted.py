"""The script of the demo's scripted model."""

from __future__ import annotations

from examples.demo.project import BROKEN, BROKEN_FILE, PUBLISHED, TESTS
from examples.scripted import turn

SCRIPT = [
    turn(
        "I'll run the tests first, to see what fails.",
        bash={"command": TESTS, "description": "Run the project's tests"},
    ),
    turn(
        "All failures are about encoding object identifiers. Where is that?",
        workspace_file={
            "action": "grep",
            "pattern": "class ObjectIdentifierEncoder",
            "path": "pyasn1",
            "output_mode": "content",
        },
    ),
    turn(workspace_file={"action": "read", "path": BROKEN_FILE, "offset": 326, "limit": 28}),
    turn(
        "The octets of a long arc are collected from the last to the first, and have to be turned round before "
        "they are added; here they are not.",
        workspace_file={
            "action": "edit",
            "path": BROKEN_FILE,
            "old_string": BROKEN,
            "new_string": PUBLISHED,
        },
    ),
    turn(
        "Now the tests again.",
        bash={"command": TESTS, "description": "Run the project's tests again"},
    ),
    turn("ObjectIdentifierEncoder wrote the octets of long arcs in reverse order. That is repaired."),
]
