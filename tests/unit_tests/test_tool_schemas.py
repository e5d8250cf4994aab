"""The tools' schemas in the formats of OpenAI, Anthropic and Gemini, by LangChain's own converters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_daytona_ws import WorkspaceSession, WorkspaceToolkit

NAMES = ["bash", "workspace_file", "bash_job"]
REQUIRED = {"bash": {"command"}, "workspace_file": {"action"}, "bash_job": {"action"}}
MAIN_TOOLS_TOKENS = 1200
JOB_TOOL_TOKENS = 300


@pytest.fixture(params=["disk", "s3"])
def tools(request: pytest.FixtureRequest) -> Iterator[list[BaseTool]]:
    config: dict[str, Any] = {"onTimeout": "background"}
    if request.param == "s3":
        options = {"mountAwsS3Buckets": True, "workspaceBucketName": "agents", "awsRegion": "eu-west-1"}
        keys = {"AWS_ACCESS_KEY_ID": "AKIAWORKSPACE", "AWS_SECRET_ACCESS_KEY": "a-secret"}
        config = {**config, "options": options, "envVars": keys}
    with WorkspaceSession(config, namespace="schemas") as session:
        yield WorkspaceToolkit(session=session).get_tools()


def _check(name: str, schema: dict[str, Any], tool: BaseTool) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(tool.tool_call_schema.model_json_schema()["properties"])  # type: ignore[union-attr]
    assert set(schema["required"]) >= REQUIRED[name]
    assert schema["type"] == "object"


@pytest.mark.parametrize("strict", [None, True])
def test_openai(tools: list[BaseTool], strict: bool | None) -> None:
    for name, tool in zip(NAMES, tools, strict=True):
        reported = convert_to_openai_tool(tool, strict=strict)["function"]
        assert reported["name"] == name
        assert reported["description"] == tool.description
        assert reported.get("strict") is strict
        _check(name, reported["parameters"], tool)
        if strict:
            assert reported["parameters"]["additionalProperties"] is False


def test_anthropic(tools: list[BaseTool]) -> None:
    from langchain_anthropic import ChatAnthropic  # here, as each worker would load it for a second

    model = ChatAnthropic(model_name="claude-sonnet-4-5", api_key="none", timeout=None, stop=None)
    bound: Any = model.bind_tools(tools)
    for name, tool, reported in zip(NAMES, tools, bound.kwargs["tools"], strict=True):
        assert reported["name"] == name
        assert reported["description"] == tool.description
        _check(name, reported["input_schema"], tool)


def test_gemini(tools: list[BaseTool]) -> None:
    from langchain_google_genai._function_utils import convert_to_genai_function_declarations

    groups = convert_to_genai_function_declarations(tools)
    reported = [item for group in groups for item in group.function_declarations or []]
    assert [item.name for item in reported] == NAMES
    for tool, item in zip(tools, reported, strict=True):
        assert item.description == tool.description
        assert item.parameters is not None
        assert set(item.parameters.properties or {}) == set(tool.args)
        assert set(item.parameters.required or []) == REQUIRED[tool.name]
        for about in (item.parameters.properties or {}).values():
            assert about.type is not None or about.any_of


def test_the_tools_are_small(tools: list[BaseTool]) -> None:
    reported = [json.dumps(convert_to_openai_tool(tool)) for tool in tools]
    sizes = {name: _tokens(text) for name, text in zip(NAMES, reported, strict=True)}
    assert sizes["bash"] + sizes["workspace_file"] < MAIN_TOOLS_TOKENS, sizes
    assert sizes["bash_job"] < JOB_TOOL_TOKENS, sizes


def _tokens(text: str) -> int:
    """Estimate tokens, without the vocabulary of any model, which would have to be fetched.

    The larger of two rules of thumb: four characters a token; or a token for each seven letters of a word, three
    digits, or two signs that stand together.
    """
    message = re.findall(r"[A-Za-z]+|\d{1,3}", text)
    signs = re.findall(r"[^\sA-Za-z\d]+", text)
    pieces = sum(-(-len(word) // 7) for word in message) + sum(-(-len(run) // 2) for run in signs)
    return max(pieces, len(text) // 4)
