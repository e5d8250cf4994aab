"""JSON without importing ``json``, in the program that runs requests in the sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._guest import encode
from langchain_daytona_ws._guest.encode import encode as encoded

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_the_encoder_writes_what_json_writes(value: object) -> None:
    assert encoded(value) == json.dumps(value)
    assert encoded(value).isascii()
    assert "\n" not in encoded(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}, object()])
@pytest.mark.parametrize("is_missing", [False, True], ids=["C", "json"])
def test_no_other_value_is_written(value: object, is_missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_missing:
        monkeypatch.setitem(sys.modules, "_json", None)
    with pytest.raises((TypeError, ValueError)):
        encoded({"a": [value]})


def test_without_the_c_encoder_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    value = {"a": [1, 2.5, True, None, ("é\udc80\n",)]}
    assert encoded(value) == json.dumps(value)


def test_json_is_not_imported() -> None:
    program = f"import sys; exec(open({str(Path(encode.__file__))!r}).read()); "
    checks = 'assert encode({"a": [1.5]}) == \'{"a": [1.5]}\'; assert "json" not in sys.modules'
    subprocess.run([sys.executable, "-I", "-S", "-c", program + checks], check=True)
