"""The published JSON Schema: the envelope or the inner object, with camelCase keys."""

from __future__ import annotations

from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def with_envelope(inner: dict[str, Any], *, ref_template: str) -> dict[str, Any]:
    """Return the schema of a document: the inner object, or the envelope ``{"name", "config"}`` around it.

    ``$defs`` contains the schema of the inner object under its title.

    Args:
        inner: Schema of the inner object; its ``$defs`` are moved to the result.
        ref_template: Format of the references, with ``{model}`` for the title.
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
