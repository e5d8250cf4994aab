"""Parallel pages contain each key once, in order, whatever the keys are."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_daytona_ws._core.run_sync import run_sync
from langchain_daytona_ws._core.s3.pages import PARTS, Pages
from langchain_daytona_ws._core.s3.store import KeyPage, StoreFault, StoreFaultKind

from .bucket import MemoryBucket

KEYS = st.text(st.sampled_from("0129aZz/-.é"), min_size=1, max_size=6)


def listed(bucket: MemoryBucket, prefix: str = "", *, delimiter: bool = False) -> list[KeyPage]:
    pages, found = Pages(bucket, prefix, delimiter=delimiter), list[KeyPage]()
    while not found or found[-1].more is not None:
        found.append(run_sync(pages.next()))
    return found


def keys_of(pages: list[KeyPage]) -> list[str]:
    return [info.key for page in pages for info in page.objects]


@given(st.sets(KEYS, max_size=60), st.integers(1, 7), st.sampled_from(["", "0", "a/"]))
def test_all_keys_are_listed_once_in_order(keys: set[str], size: int, prefix: str) -> None:
    bucket = MemoryBucket(page=size)
    for key in keys:
        bucket.put_by_others(key)
    wanted = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
    assert keys_of(listed(bucket, prefix)) == wanted
    pages = listed(bucket, prefix, delimiter=True)
    below = {key: key[len(prefix) :].partition("/") for key in wanted}
    assert keys_of(pages) == [key for key in wanted if not below[key][1]]
    assert {name for page in pages for name in page.prefixes} == {
        f"{prefix}{head}/" for head, slash, _ in below.values() if slash
    }


@given(st.sets(KEYS, min_size=1, max_size=60), st.integers(1, 7), st.data())
def test_it_can_go_on_behind_a_key(keys: set[str], size: int, data: st.DataObject) -> None:
    bucket = MemoryBucket(page=size)
    for key in keys:
        bucket.put_by_others(key)
    pages, found, behind = Pages(bucket, ""), list[str](), ""
    while True:
        page = run_sync(pages.next(behind))
        found += keys_of([page])
        if page.more is None:
            break
        behind = data.draw(st.sampled_from(["", *(key for key in keys if key > max(found, default=""))]))
        found += [key for key in sorted(keys) if max(found, default="") < key <= behind]
    assert sorted(set(found)) == sorted(keys)


@pytest.mark.parametrize("name", ["{:05}.txt", "part-{:05}", "{:05x}", "dir{:05}/file"])
def test_ten_pages_take_few_rounds(name: str) -> None:
    bucket = MemoryBucket()
    for number in range(10_000):
        bucket.put_by_others(f"top/{name.format(number)}")
    bucket.put_by_others("top/~last")
    assert len(keys_of(listed(bucket, "top/"))) == 10_001
    together = [int(count) for kind, count in bucket.requests if kind == "list at once"]
    alone = len(bucket.asked("list")) - sum(together)
    assert alone + len(together) <= 7  # 11 without parallel requests
    assert len(bucket.asked("list")) <= 30


TREES = {
    "many directories": "{0:03}/file-{1}.txt",
    "packages below one directory": "src/package_{0}/module_{1}.py",
    "names that do not resemble each other": "{2}/{3}/{1}",
    "one large directory among small ones": "{4}/{1:05}",
}


@pytest.mark.parametrize("form", TREES.values(), ids=TREES)
def test_directories_are_listed_at_the_same_time(form: str) -> None:
    bucket = MemoryBucket()
    hashes = [hashlib.md5(b"%d" % (number // 100)).hexdigest() for number in range(10_000)]
    for number, digest in enumerate(hashes):
        large = "lib" if number < 7_000 else digest[:2]
        bucket.put_by_others(form.format(number // 100, number, digest[:1], digest[1:6], large))
    assert len(keys_of(listed(bucket))) == 10_000
    together = [int(count) for kind, count in bucket.requests if kind == "list at once"]
    alone = len(bucket.asked("list")) - sum(together)
    assert alone + len(together) <= 7  # 10 without parallel requests
    assert len(bucket.asked("list")) <= 10 + 3 * PARTS


def test_a_failed_listing_of_directories_costs_only_time() -> None:
    bucket = MemoryBucket(page=2)
    for number in range(10):
        bucket.put_by_others(f"{number}/{number}")
    bucket.script["list"] = [None, None, StoreFault(StoreFaultKind.DENIED, "AccessDenied")]
    assert len(keys_of(listed(bucket))) == 10


def test_a_failure_is_raised_when_its_turn_comes() -> None:
    bucket = MemoryBucket(page=2)
    for number in range(10):
        bucket.put_by_others(str(number))
    fault = StoreFault(StoreFaultKind.PASSING, "busy")
    bucket.script["list"] = [None, fault]
    pages = Pages(bucket, "")
    assert keys_of([run_sync(pages.next())]) == ["0", "1"]
    with pytest.raises(StoreFault):
        run_sync(pages.next())
    assert keys_of([run_sync(pages.next())]) == ["2"]
