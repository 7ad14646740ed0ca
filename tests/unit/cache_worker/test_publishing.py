"""`publish`: which version, and whether its tree is whole and good."""

import asyncio
import os
import random
import shutil
import stat

import pytest

from cache_worker.indexing import Indexing
from cache_worker.publishing import Publishing
from cache_worker.settings import Settings
from cacheop.api.dataset import parse_dataset
from cacheop.api.errors import NotFoundError, OriginError, WorkerUnavailable
from tests.fakes.node_cache import NodeCache
from tests.fakes.origin import MemoryOrigin

MIB = 1 << 20


def objects():
    found = {f"a/b{i % 4}/f{i}": random.Random(i).randbytes(2000 + i) for i in range(60)}
    return found | {"big": random.Random(99).randbytes(9 * MIB), "empty": b"", "a/none": b""}


@pytest.fixture
def node(tmp_path):
    node = NodeCache(tmp_path / "root", MemoryOrigin(objects()))
    yield node
    node.close()


def publishing(node, *, grace="600s", mode="Auto", is_verifying=lambda: False):
    document = {
        "apiVersion": "cacheop.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "demo"},
        "spec": {
            "mounts": [{"mountPoint": "s3://memory/"}],
            "mount": {"grace": grace, "mode": mode},
        },
    }
    root = node.root
    config = Settings(root / "c", parse_dataset(document), "ns", "demo", "n0", root, root / "s")
    return Publishing(config, node.cache, Indexing(config, node.store, node.cache), is_verifying)


def publish(node, version="", **options):
    return asyncio.run(publishing(node, **options).publish(version))


def fill(node, version, *, but=()):
    async def run():
        for path in node.origin.objects:
            if path not in but:
                await node.read(version, path)

    asyncio.run(run())


def assert_whole(node, version):
    """By the tree alone, as a bind mount shows it."""
    found = {}
    for directory, names, files in os.walk(version.data):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o755
        assert all(not os.path.islink(os.path.join(directory, name)) for name in names)
        for name in files:
            path = os.path.join(directory, name)
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
            with open(path, "rb") as file:
                found[os.path.relpath(path, version.data)] = file.read()
    assert found == node.origin.objects


def test_the_fields(node):
    version = node.add_version()
    fill(node, version, but=["big"])
    found = publish(node, mode="Passthrough")
    total = sum(map(len, node.origin.objects.values()))
    assert found == {
        "version": version.name,
        "rows": version.index.rows,
        "bytes": total,
        "complete": False,
        "cached_percentage": round(100 * (total - 9 * MIB) / total, 2),
        "mode": "Passthrough",
        "grace_seconds": 600.0,
        "data": f"data/{version.name}",
    }


def test_empty_files_are_made_without_the_origin(node):
    version = node.add_version()
    fill(node, version, but=["empty", "a/none"])
    node.origin.fetched.clear()
    assert publish(node)["complete"]
    assert_whole(node, version)
    assert node.origin.fetched == []


def test_what_another_version_has_is_linked_in(node):
    old = node.add_version()
    fill(node, old)
    node.origin.objects["a/b0/f0"] = b"changed"
    new = node.add_version()
    asyncio.run(node.read(new, "a/b0/f0"))
    assert not os.path.exists(f"{new.data}/a/b1/f1")
    assert publish(node)["complete"]
    assert_whole(node, new)
    assert os.stat(f"{new.data}/big").st_ino == os.stat(f"{old.data}/big").st_ino


def test_modes_are_mended_whatever_the_umask_was(node):
    version = node.add_version()
    umask = os.umask(0o077)
    try:
        fill(node, version)
        assert publish(node)["complete"]
    finally:
        os.umask(umask)
    assert_whole(node, version)


def cut_short(path):
    os.truncate(path, 5)


def made_a_directory(path):
    os.unlink(path)
    os.mkdir(path)


def made_a_link(path):
    os.unlink(path)
    os.symlink("/etc/hostname", path)


@pytest.mark.parametrize("harm", [os.unlink, cut_short, made_a_directory, made_a_link])
def test_a_tree_that_somebody_harmed_is_not_complete(node, harm):
    version = node.add_version()
    fill(node, version)
    harm(f"{version.data}/a/b1/f1")
    assert not publish(node)["complete"]


def test_a_directory_that_is_gone_is_not_complete(node):
    version = node.add_version()
    fill(node, version)
    shutil.rmtree(f"{version.data}/a")
    assert not publish(node)["complete"]


def test_what_is_dropped_during_the_look_is_not_complete(node):
    version = node.add_version()
    fill(node, version)
    asked = publishing(node)

    async def run():
        task = asyncio.create_task(asked.publish(""))
        while not os.path.exists(f"{version.data}/marker"):
            await asyncio.sleep(0)
            row = version.index.resolve("a/b1/f1")
            if node.store.drop_file(version, row):
                await node.read(version, "a/b1/f1")
                break
        return await task

    assert not asyncio.run(run())["complete"]
    assert asyncio.run(asked.publish(""))["complete"]
    assert_whole(node, version)


def test_a_proof_holds_only_while_nothing_is_dropped(node):
    version = node.add_version()
    fill(node, version)
    asked = publishing(node)
    assert asyncio.run(asked.publish(""))["complete"]
    node.store.drop_file(version, version.index.resolve("big"))
    assert not asyncio.run(asked.publish(""))["complete"]


@pytest.mark.parametrize("is_verifying", [True, False])
def test_suspect_chunks_are_waited_for_while_somebody_verifies(tmp_path, is_verifying):
    node = NodeCache(tmp_path, MemoryOrigin(objects()))
    fill(node, node.add_version())
    node.close(clean=False)
    node = NodeCache(tmp_path, node.origin)
    version = node.versions.get()
    asked = publishing(node, is_verifying=lambda: is_verifying)

    async def run():
        task = asyncio.create_task(asked.publish(""))
        await asyncio.sleep(0.01)
        for row in range(version.index.rows):
            if not version.index.is_directory(row):
                for chunk in range(-(-version.index.size(row) // (8 * MIB)) or 1):
                    await node.store.verify(version, row, chunk)
        return await task

    assert asyncio.run(run())["complete"] is is_verifying
    node.close()


def test_it_waits_for_the_first_version_and_may_be_cancelled(node):
    asked = publishing(node)

    async def run():
        gone = asyncio.create_task(asked.publish(""))
        task = asyncio.create_task(asked.publish(""))
        await asyncio.sleep(0.1)
        assert not task.done()
        gone.cancel()
        version = node.add_version()
        assert (await asyncio.wait_for(task, 5))["version"] == version.name
        assert version.uses == 0

    asyncio.run(run())


def test_it_does_not_wait_in_vain(node):
    with pytest.raises(WorkerUnavailable, match="no version of demo"):
        publish(node, grace="1s")
    asked = publishing(node)
    asked._indexing.error = OriginError("no such bucket")
    with pytest.raises(OriginError, match="no such bucket"):
        asyncio.run(asked.publish(""))
    node.add_version()
    with pytest.raises(NotFoundError, match="feed"):
        publish(node, "feed")
