"""Cache directories on the node: attacks on them, and their end."""

from __future__ import annotations

import json
import os
import time

import pytest

from cache_worker.csi.directories import Directories
from cache_worker.csi.places import Places
from cache_worker.csi.refusals import Refusal
from cache_worker.csi.upkeep import Upkeep
from tests.fakes.kubelet import wait_for
from tests.node.csi.conftest import checksums

pytestmark = pytest.mark.node


def test_a_symlink_in_the_way_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    cache = tmp_path / "cache"
    (cache / "vision").mkdir(parents=True)
    (cache / "vision" / "imagenet").symlink_to(outside)
    directories = Directories([str(cache)])
    with pytest.raises(Refusal):
        directories.make("vision", "imagenet", "u", 0)
    assert list(outside.iterdir()) == []
    assert directories.all() == []


def test_somebody_elses_directory_is_left_as_it_is(tmp_path):
    cache = tmp_path / "cache"
    theirs = cache / "docker"
    theirs.mkdir(parents=True, mode=0o700)
    os.chown(theirs, 1000, 1000)
    with pytest.raises(Refusal):
        Directories([str(cache)]).make("docker", "data", "u", 0)
    assert (theirs.stat().st_mode & 0o777, theirs.stat().st_uid) == (0o700, 1000)


def test_what_a_worker_puts_into_its_directory_leads_nowhere(kubelet, stored, tmp_path):
    """The worker may do what it likes in its own directory: nothing outside of it is touched."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    worker = kubelet.worker("imagenet", stored().mounts)
    worker.wait_ready()
    root = worker.root
    worker.stop()
    kubelet.kill()
    for name in ("holder.sock", "budget.json", ".budget.json.new", "worker.sock"):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(secret)
    kubelet.start()
    time.sleep(6)  # a round of upkeep
    assert secret.read_text() == "x"
    assert (root / "holder.sock").is_socket()
    assert json.loads((root / "budget.json").read_text())["quota_bytes"] > 0
    code, _ = kubelet.refusal("reader", {"dataset": "imagenet"})
    assert code == "UNAVAILABLE"
    (root / "data").rename(root / "data.old")
    (root / "data").symlink_to("/etc")
    (root / "worker.sock").unlink()
    worker.start()
    code, _ = kubelet.refusal("client", {"dataset": "imagenet", "access": "client"})
    assert code in {"UNAVAILABLE", "INTERNAL"}
    assert not any(target.endswith("client/mount") for target, _ in kubelet.mounted())


def test_the_directory_of_a_dataset_that_is_gone_goes(kubelet, stored):
    data = stored()
    gone, stays = kubelet.worker("gone", data.mounts), kubelet.worker("stays", data.mounts)
    target = kubelet.publish_in_the_end("reader", {"dataset": "stays"})
    gone.wait_ready()
    root = gone.root
    gone.remove()
    directories = Directories([str(path) for path in kubelet.cache_dirs])
    places = Places(print)

    def round_of(generation: int, uids: list[str]) -> None:
        listed = [{"namespace": "vision", "name": "x", "uid": uid} for uid in uids]
        kubelet.lists.write_text(json.dumps({"generation": generation, "datasets": listed}))
        upkeep = Upkeep(directories, Places(print), str(kubelet.lists), print, grace_seconds=0)
        upkeep._remove_gone()

    kubelet.kill()  # its locks on the directories
    round_of(0, [stays.uid])
    assert root.exists()  # the list may be older than the directory
    round_of(7, [stays.uid, gone.uid])
    assert root.exists()
    round_of(8, [])
    assert not root.exists()
    assert stays.root.exists()  # it is mounted
    places.close()
    kubelet.start()
    assert checksums(target) == data.checksums


def test_datasets_without_a_quota_share_the_disk(kubelet, stored):
    one = kubelet.worker("one", stored({"f": 1000}).mounts)
    one.wait_ready()
    wait_for((one.root / "budget.json").exists)
    alone = json.loads((one.root / "budget.json").read_text())["quota_bytes"]
    two = kubelet.worker("two", stored({"f": 1000}).mounts)
    two.wait_ready()

    def shares() -> set[int]:
        return {pod.ask("status")["quota_bytes"] for pod in (one, two)}

    wait_for(lambda: shares() == {alone // 2})
    found = os.statvfs(kubelet.cache_dirs[0])
    assert abs(alone - 0.8 * found.f_blocks * found.f_frsize) < 1 << 20
    one.configure(cache={"tiers": [{"medium": "Disk", "quota": "100Mi"}]})
    wait_for(lambda: one.ask("status")["quota_bytes"] == 100 << 20)
