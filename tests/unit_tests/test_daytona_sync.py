"""Sessions of one account in one process share a sync client, which the last of them closes."""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_daytona_ws._adapters import daytona_sync
from langchain_daytona_ws._adapters.daytona_sync import Client, SyncDaytonaPort
from langchain_daytona_ws._adapters.sdk import Account

ACCOUNT = Account(api_key="one", api_url="http://127.0.0.1:1/api", target=None)
OTHER = Account(api_key="two", api_url="http://127.0.0.1:1/api", target=None)


def test_a_client_is_shared_and_closed_by_its_last_port() -> None:
    ports = [SyncDaytonaPort(ACCOUNT) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(lambda port: port._daytona(), ports * 2))
    assert len(set(map(id, clients))) == 1
    other = SyncDaytonaPort(OTHER)
    assert other._daytona() is not clients[0]
    other.close()
    for port in ports[1:] * 2:  # a second close releases nothing
        port.close()
    assert not clients[0]._http_client.is_closed
    ports[0].close()
    assert clients[0]._http_client.is_closed
    later = ports[0]._daytona()
    assert later is not clients[0]
    ports[0].close()


def test_a_client_is_closed_when_its_last_port_is_collected() -> None:
    port = SyncDaytonaPort(ACCOUNT)
    client = port._daytona()
    del port
    gc.collect()
    assert client._http_client.is_closed


def _is_other_in_child(
    port: SyncDaytonaPort, inherited: Client, results: multiprocessing.Queue[bool]
) -> None:
    own = SyncDaytonaPort(ACCOUNT)
    results.put(own._daytona() is port._daytona() is not inherited)
    own.close()
    port.close()
    results.put(not inherited._http_client.is_closed)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12
def test_a_forked_child_uses_and_closes_no_client_of_its_parent() -> None:
    port = SyncDaytonaPort(ACCOUNT)
    client = port._daytona()
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    with daytona_sync._shared_clients()._lock, port._connections.lock:  # held at the moment of the fork
        child = fork.Process(target=_is_other_in_child, args=(port, client, results))
        child.start()
    assert [results.get(timeout=60), results.get(timeout=60)] == [True, True]
    child.join()
    port.close()
