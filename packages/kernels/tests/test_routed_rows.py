import pytest
import torch

from weft.kernels import route_offsets, route_rows
from weft.kernels.errors import KernelValueError


@pytest.mark.parametrize("seed", range(8))
def test_sorted_rows_of_a_task_lie_between_its_bounds(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(-1, 5, (13,), generator=generator)
    rows = route_rows(ids, 5)
    assert rows.tasks == 5
    order = torch.arange(13) if rows.order is None else rows.order
    for task in range(5):
        mine = order[rows.bounds[task] : rows.bounds[task + 1]]
        assert mine.tolist() == (ids == task).nonzero().flatten().tolist()
    assert (ids[order[: rows.bounds[0]]] == -1).all()


def test_sorted_rows_keep_their_places():
    rows = route_rows(torch.tensor([-1, 0, 0, 2], dtype=torch.int32), 3)
    assert rows.order.tolist() == [0, 1, 2, 3]
    assert rows.bounds.tolist() == [1, 3, 3, 4]
    assert rows.ids.dtype == torch.int64


def test_offsets_say_the_same_as_the_ids_of_sorted_rows():
    by_offsets, by_ids = (
        route_offsets(torch.tensor([3, 3, 7]), 7),
        route_rows(torch.tensor([0, 0, 0, 2, 2, 2, 2]), 3),
    )
    assert torch.equal(by_offsets.ids, by_ids.ids)
    assert torch.equal(by_offsets.bounds, by_ids.bounds)
    assert by_offsets.order is None


def test_no_rows_are_routed_too():
    rows = route_rows(torch.zeros(0, dtype=torch.int64), 2)
    assert rows.bounds.tolist() == [0, 0, 0]


def test_a_compiled_routing_is_checked_when_it_runs():
    compiled = torch.compile(lambda ids: route_rows(ids, 2).bounds, backend="eager", fullgraph=True)
    assert compiled(torch.tensor([1, 0, -1])).tolist() == [1, 2, 3]
    with pytest.raises(KernelValueError, match="below the number of tasks"):
        compiled(torch.tensor([1, 0, 2]))


def test_the_registration_of_the_sort_is_sound():
    torch.library.opcheck(torch.ops.weft.sort_rows.default, (torch.tensor([1, -1, 0]), 2))
