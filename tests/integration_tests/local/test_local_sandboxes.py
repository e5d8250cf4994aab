"""The control plane through the sync SDK."""

from __future__ import annotations

import pytest
from daytona import (
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Daytona,
    Image,
    ListSandboxesQuery,
    Resources,
    Sandbox,
    SandboxState,
)
from daytona.common.errors import (
    DaytonaConflictError,
    DaytonaError,
    DaytonaForbiddenError,
    DaytonaNotFoundError,
    DaytonaValidationError,
)

from langchain_daytona_ws.local import Fault, LocalDaytona


def named(name: str, **options: object) -> CreateSandboxFromSnapshotParams:
    return CreateSandboxFromSnapshotParams(name=name, **options)


def test_a_created_sandbox_is_started_at_once_with_all_that_was_asked(
    server: LocalDaytona, daytona: Daytona
) -> None:
    params = named(
        "one",
        env_vars={"A": "b c"},
        labels={"team": "x"},
        auto_stop_interval=7,
        auto_archive_interval=8,
        auto_delete_interval=9,
        ttl_minutes=60,
        network_block_all=True,
        public=True,
        snapshot="fuse-s3",
    )
    sandbox = daytona.create(params)
    assert sandbox.state == SandboxState.STARTED
    assert server.count("get") == 0  # started in the answer means no polling
    for seen in (sandbox, daytona.get("one"), daytona.get(sandbox.id)):
        assert (seen.id, seen.name, seen.env, seen.labels["team"]) == (sandbox.id, "one", {"A": "b c"}, "x")
        assert (seen.auto_stop_interval, seen.auto_archive_interval, seen.auto_delete_interval) == (7, 8, 9)
        assert (seen.network_block_all, seen.public, seen.snapshot) == (True, True, "fuse-s3")
        assert seen.organization_id == server.organization_id
    (record,) = server.sandboxes
    assert (record.id, record.name, record.state, record.ttl_minutes) == (sandbox.id, "one", "started", 60)
    assert sandbox.process.exec("echo $A").result == "b c\n"


def test_a_size_is_for_images_and_has_limits(server: LocalDaytona, daytona: Daytona) -> None:
    made = daytona.create(
        CreateSandboxFromImageParams(image="x", resources=Resources(cpu=4, memory=8, disk=10), os_user="root")
    )
    assert (made.cpu, made.memory, made.disk, made.user) == (4, 8, 10, "root")
    with pytest.raises(DaytonaForbiddenError, match=r"Memory request 9GB exceeds maximum .* \(8GB\)"):
        daytona.create(CreateSandboxFromImageParams(image="x", resources=Resources(memory=9)))
    with pytest.raises(DaytonaError, match="unable to find user nobody-here"):
        daytona.create(named("failed", os_user="nobody-here"))
    assert [record.state for record in server.sandboxes] == ["started", "error"]


def test_names_are_unique_until_deleted(daytona: Daytona) -> None:
    first = daytona.create(named("same"))
    with pytest.raises(DaytonaConflictError, match="Sandbox with name same already exists"):
        daytona.create(named("same"))
    first.delete()
    assert daytona.create(named("same")).id != first.id


def test_a_deleted_sandbox_is_gone(daytona: Daytona) -> None:
    sandbox = daytona.create(named("short"))
    daytona.delete(sandbox, wait=True)
    assert sandbox.state == SandboxState.DESTROYED
    for key in ("short", sandbox.id):
        with pytest.raises(DaytonaNotFoundError, match=f"Sandbox with ID or name {key} not found"):
            daytona.get(key)
    with pytest.raises(DaytonaNotFoundError, match="sandbox container not found"):
        sandbox.process.exec("true")
    assert list(daytona.list()) == []


def test_listing_pages_and_filters(daytona: Daytona) -> None:
    made = [daytona.create(named(f"box-{n}", labels={"parity": str(n % 2), "n": str(n)})) for n in range(5)]
    made[4].stop()
    assert [item.name for item in daytona.list(ListSandboxesQuery(limit=2))] == [f"box-{n}" for n in range(5)]
    odd = daytona.list(ListSandboxesQuery(labels={"parity": "1"}))
    assert [item.name for item in odd] == ["box-1", "box-3"]
    assert list(daytona.list(ListSandboxesQuery(labels={"parity": "1", "n": "2"}))) == []
    assert [item.name for item in daytona.list(ListSandboxesQuery(states=[SandboxState.STOPPED]))] == [
        "box-4"
    ]
    assert [item.name for item in daytona.list(ListSandboxesQuery(name="box-3"))] == ["box-3"]


def test_pages_stay_consistent_when_a_sandbox_is_deleted(daytona: Daytona) -> None:
    made = [daytona.create(named(f"box-{n}")) for n in range(4)]
    pages = daytona.list(ListSandboxesQuery(limit=2))
    seen = [next(pages).name, next(pages).name]
    made[1].delete()
    assert seen + [item.name for item in pages] == ["box-0", "box-1", "box-2", "box-3"]


def test_labels_are_replaced_as_a_whole(daytona: Daytona, sandbox: Sandbox) -> None:
    sandbox.set_labels({"a": "1", "b": "2"})
    sandbox.set_labels({"c": "3"})
    assert daytona.get(sandbox.id).labels == {"c": "3"}


def test_intervals_can_be_changed(server: LocalDaytona, sandbox: Sandbox) -> None:
    sandbox.set_autostop_interval(1)
    sandbox.set_auto_archive_interval(2)
    sandbox.set_auto_delete_interval(3)
    sandbox.set_ttl(4)
    sandbox.refresh_activity()
    (record,) = server.sandboxes
    assert (record.auto_stop_interval, record.auto_archive_interval) == (1, 2)
    assert (record.auto_delete_interval, record.ttl_minutes) == (3, 4)
    assert server.count("interval") == 4
    assert server.count("activity") == 1


def test_stop_and_start_keep_the_disk_and_end_the_processes(daytona: Daytona, sandbox: Sandbox) -> None:
    paths = ["/tmp/kept", "/home/daytona/kept", "/mnt/kept", "/var/tmp/kept", "/opt/kept"]
    sandbox.process.exec(
        "for f in " + " ".join(paths) + "; do echo x > $f; done; sleep 1000 >/dev/null 2>&1 &"
    )
    assert "sleep 1000" in sandbox.process.exec("ps aux").result
    sandbox.stop()
    assert sandbox.state == SandboxState.STOPPED
    assert daytona.get(sandbox.id).state == SandboxState.STOPPED
    with pytest.raises(DaytonaValidationError, match=r"no IP address found\. Is the Sandbox started\?"):
        sandbox.process.exec("true")
    sandbox.start()
    assert sandbox.state == SandboxState.STARTED
    assert sandbox.process.exec("cat " + " ".join(paths)).result == "x\n" * len(paths)
    assert "sleep 1000" not in sandbox.process.exec("ps aux").result


def test_stopping_and_starting_twice_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.start()
    sandbox.stop()
    sandbox.stop()
    sandbox.start()
    assert sandbox.process.exec("echo here").result == "here\n"


def test_an_unknown_snapshot_is_refused(server: LocalDaytona, daytona: Daytona) -> None:
    with pytest.raises(DaytonaValidationError, match="Snapshot nope not found"):
        daytona.create(CreateSandboxFromSnapshotParams(snapshot="nope"))
    assert server.sandboxes == []


@pytest.mark.parametrize("image", ["debian:12", Image.debian_slim("3.12").run_commands("true")])
def test_an_image_is_taken_by_its_dockerfile(daytona: Daytona, image: str | Image) -> None:
    sandbox = daytona.create(CreateSandboxFromImageParams(image=image))
    assert sandbox.build_info is not None
    assert "FROM" in str(sandbox.build_info.dockerfile_content)
    assert sandbox.process.exec("python3 -c 'print(6*7)'").result == "42\n"


def test_snapshots_can_be_listed_made_and_deleted(daytona: Daytona) -> None:
    assert {item.name for item in daytona.snapshot.list().items} == {"default", "fuse-s3"}
    made = daytona.snapshot.create(CreateSnapshotParams(name="mine", image=Image.base("debian:12")))
    assert daytona.snapshot.get("mine").id == made.id
    assert daytona.create(CreateSandboxFromSnapshotParams(snapshot="mine")).snapshot == "mine"
    daytona.snapshot.delete(made)
    with pytest.raises(DaytonaNotFoundError):
        daytona.snapshot.get("mine")


def test_a_create_that_answers_creating_is_polled_for(server: LocalDaytona, daytona: Daytona) -> None:
    server.faults.add(Fault("pending", action="create", delay_s=0.3))
    sandbox = daytona.create()
    assert sandbox.state == SandboxState.STARTED
    assert server.count("get") >= 1
    assert sandbox.process.exec("echo up").result == "up\n"


def test_a_stopped_or_destroyed_sandbox_by_an_outside_party(server: LocalDaytona, daytona: Daytona) -> None:
    sandbox = daytona.create(named("theirs"))
    server.stop_sandbox("theirs")
    sandbox.refresh_data()
    assert sandbox.state == SandboxState.STOPPED
    server.destroy_sandbox(sandbox.id)
    assert server.sandboxes == []
    with pytest.raises(DaytonaNotFoundError):
        sandbox.start()
