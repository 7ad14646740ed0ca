"""Orders are torch's own, with and without a worker that hears of them."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: ./dev test brings it")

from torch.utils.data import (  # noqa: E402
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from cacheop.torch import PlannedSampler, paths_of, plan  # noqa: E402
from cacheop.torch.sampler import _following  # noqa: E402


class Numbers(Dataset):
    def __init__(self, count):
        self.paths = [f"nowhere/{i:04}" for i in range(count)]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return index


@pytest.fixture(autouse=True)
def no_worker(monkeypatch, tmp_path):
    monkeypatch.setenv("CACHEOP_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("CACHEOP_CACHE", str(tmp_path))


def distributed(count=101, ranks=4, rank=1, epoch=0, **more):
    sampler = DistributedSampler(Numbers(count), ranks, rank, seed=3, **more)
    sampler.set_epoch(epoch)
    return sampler


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_order_is_that_of_the_sampler_inside(ranks, drop_last):
    for rank in range(ranks):
        planned = PlannedSampler(distributed(ranks=ranks, rank=rank, drop_last=drop_last))
        for epoch in range(3):
            planned.set_epoch(epoch)
            expected = distributed(ranks=ranks, rank=rank, epoch=epoch, drop_last=drop_last)
            assert list(planned) == list(expected)
            assert len(planned) == len(expected)
        planned.close()


def test_batches_too():
    inner = BatchSampler(distributed(), 7, drop_last=False)
    planned = PlannedSampler(inner)
    planned.set_epoch(2)
    assert list(planned) == list(BatchSampler(distributed(epoch=2), 7, drop_last=False))
    assert planned.batch_size == 7
    loader = DataLoader(Numbers(101), batch_sampler=planned)
    assert torch.cat(list(loader)).tolist() == list(distributed(epoch=2))


@pytest.mark.parametrize("replacement", [True, False])
def test_the_dice_fall_as_without(replacement):
    torch.manual_seed(5)
    expected = [list(RandomSampler(Numbers(50), replacement=replacement)) for _ in range(2)]
    torch.manual_seed(5)
    planned = PlannedSampler(RandomSampler(Numbers(50), replacement=replacement))
    assert [list(planned) for _ in range(2)] == expected


class Endless:
    dataset = Numbers(10)

    def __iter__(self):
        number = 0
        while True:
            yield number % 10
            number += 1


class EndlessWithLength(Endless):
    def __len__(self):
        return 10


@pytest.mark.parametrize("endless", [Endless(), EndlessWithLength()])
def test_a_sampler_without_an_end_goes_on(endless):
    given = iter(PlannedSampler(endless))
    assert [next(given) for _ in range(70_000)] == [n % 10 for n in range(70_000)]
    batches = iter(PlannedSampler(BatchSampler(endless, 4, drop_last=False)))
    assert [next(batches) for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


def test_items_that_are_no_indexes_are_given_too():
    planned = PlannedSampler(["a", "b"], ["nowhere/a"])
    assert list(planned) == ["a", "b"]
    assert planned.state == ""


def test_the_next_epoch_is_known_where_it_follows_from_the_seed():
    sampler = distributed()
    assert _following(sampler) == list(distributed(epoch=1))
    assert sampler.epoch == 0
    batches = BatchSampler(sampler, 5, drop_last=True)
    assert _following(batches) == list(BatchSampler(distributed(epoch=1), 5, drop_last=True))
    assert _following(SequentialSampler(Numbers(4))) == [0, 1, 2, 3]
    assert _following(RandomSampler(Numbers(4))) is None


def test_paths_are_found():
    numbers = Numbers(10)
    assert paths_of(Subset(numbers, [3, 5])) == [numbers.paths[3], numbers.paths[5]]

    class Folder:
        samples = (("/mnt/a", 0), ("/mnt/b", 1))

    assert paths_of(Folder()) == ["/mnt/a", "/mnt/b"]
    with pytest.raises(TypeError, match="paths="):
        paths_of(object())


@pytest.mark.parametrize("batched", [True, False])
def test_a_loader_that_exists_is_planned(batched):
    def loader():
        return DataLoader(Numbers(101), batch_size=8 if batched else None, sampler=distributed())

    planned = plan(loader())
    assert [list(map(int, torch.as_tensor(b).reshape(-1))) for b in planned] == [
        list(map(int, torch.as_tensor(b).reshape(-1))) for b in loader()
    ]


@pytest.mark.parametrize("inner", ["distributed", "random"])
@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("batched", [True, False])
def test_a_job_resumes_in_mid_epoch(inner, processes, batched):
    data = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata not installed")

    def loader(seed):
        numbers = Numbers(101)
        if inner == "distributed":
            sampler = DistributedSampler(numbers, 1, 0, seed=3)
            sampler.set_epoch(1)
        else:
            generator = torch.Generator().manual_seed(seed)
            sampler = data.sampler.RandomSampler(numbers, generator=generator)
        batch = {"batch_size": 8} if batched else {"batch_size": None}
        return data.StatefulDataLoader(
            numbers, sampler=PlannedSampler(sampler), num_workers=processes, **batch
        )

    first = loader(1)
    batches = iter(first)
    head = [next(batches) for _ in range(5)]
    state = first.state_dict()
    tail = list(batches)
    second = loader(2)
    second.load_state_dict(state)
    assert len(head) == 5
    assert torch.as_tensor(_flat(second)).tolist() == torch.as_tensor(_flat(tail)).tolist()
    assert sorted(_flat(head) + _flat(tail)) == list(range(101))


def _flat(batches):
    return [int(n) for batch in batches for n in torch.as_tensor(batch).reshape(-1)]
