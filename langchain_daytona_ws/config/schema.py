"""The published JSON Schema: the envelope or the inner object, in camelCase."""

from __future__ import annotations

from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def with_envelope(inner: dict[str, Any], *, ref_template: str) -> dict[str, Any]:
    """Make a schema of the inner object one of a document: that object, or ``{"name", "config"}`` around it.

    The inner object is found under ``$defs`` by its own title.
    """
    definitions = inner.pop("$defs", {})
    title = inner["title"]
    name = inner["properties"]["name"]
    envelope = {
        "title": f"{title}Envelope",
        "description": "A named configuration.",
        "type": "object",
        "properties": {"name": name, "config": {"$ref": ref_template.format(model=title)}},
        "required": ["config"],
        "additionalProperties": False,
    }
    return {
        "$schema": DIALECT,
        "title": f"{title}Document",
        "description": "A workspace's configuration: an object of settings, or a named envelope around it.",
        "anyOf": [{"$ref": ref_template.format(model=model)} for model in (envelope["title"], title)],
        "$defs": {**definitions, title: inner, envelope["title"]: envelope},
    }
