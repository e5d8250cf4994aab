"""Any string is the key of a workspace, and two keys never share a namespace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws import ConfigError, SandboxConfig, namespace_of
from langchain_daytona_ws._core.sandbox.specification import specification
from langchain_daytona_ws.config import validate_namespace

# Characters that separate, escape or are lost somewhere on the way to S3, IAM, the shell or the sandbox's name.
KEYS = st.text(
    st.sampled_from("aAbB01.-_@|/\\ \n\0\t*?${}'\"%:;,+~ßİıé\u0301\ud800\u202e"), min_size=1, max_size=12
)


@pytest.mark.parametrize(
    "key",
    ["demo", "a", "_x", "team-a_project.1", "3f0c2a34-8d0e-4b6c-9a51-7d7d4a5b0d2c", "User-42", "x" * 128],
)
def test_a_valid_namespace_is_unchanged(key: str) -> None:
    assert namespace_of(key) == key


@pytest.mark.parametrize(
    ("key", "readable"),
    [
        ("a@b.com", "a-b.com"),
        ("auth0|1", "auth0-1"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf", "rf"),
        (".hidden", "hidden"),
        ("a b\n", "a-b"),
        ("私", "key"),
        ("\ud800", "key"),
        ("x" * 129, "x" * 40),
    ],
)
def test_other_keys_get_a_readable_name_with_a_hash(key: str, readable: str) -> None:
    namespace = namespace_of(key)
    assert namespace[:-40] == f"{readable}--"
    assert validate_namespace(namespace) == namespace


def test_the_namespace_of_another_key_cannot_be_claimed() -> None:
    """A client whose id is the namespace of another client gets a workspace of its own."""
    victim = namespace_of("alice@example.com")
    assert namespace_of(victim) != victim
    assert namespace_of(namespace_of(victim)) not in (victim, namespace_of(victim))


@given(st.lists(KEYS, unique=True, min_size=2, max_size=20))
def test_two_keys_never_share_one(keys: list[str]) -> None:
    keys += [namespace_of(key) for key in keys]
    assert len({namespace_of(key) for key in keys}) == len({*keys})
    for key in keys:
        validate_namespace(namespace_of(key))


@given(st.text(min_size=1), st.text(min_size=1))
def test_nor_do_any_two_strings(key: str, other: str) -> None:
    assert (namespace_of(key) == namespace_of(other)) == (key == other)


def test_upper_and_lower_case_have_their_own_sandboxes() -> None:
    """Sandboxes' names are in lower case, but have a hash of the namespace as it is."""
    config = SandboxConfig(persistent=True)
    names = {specification(config, name, None, unique="").name.lower() for name in ("Ann", "ann", "ANN")}
    assert len(names) == 3


@pytest.mark.parametrize("key", ["", None, 1, b"a"])
def test_a_key_is_a_string_that_is_not_empty(key: object) -> None:
    with pytest.raises(ConfigError, match="key of a workspace"):
        namespace_of(key)  # type: ignore[arg-type]
