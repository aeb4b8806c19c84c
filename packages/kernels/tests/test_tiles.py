import pytest
import torch

from weft.kernels import route_rows
from weft.kernels.bottleneck.tiles import tile_table


@pytest.mark.parametrize("seed", range(20))
def test_tiles_cover_every_token_of_a_task_once(seed):
    generator = torch.Generator().manual_seed(seed)
    tasks = int(torch.randint(1, 7, (), generator=generator))
    tokens = int(torch.randint(0, 80, (), generator=generator))
    block = int(torch.randint(1, 20, (), generator=generator))
    ids = torch.randint(-1, tasks, (tokens,), generator=generator)
    routing = route_rows(ids, tasks)
    order = torch.arange(tokens) if routing.order is None else routing.order
    table = tile_table(routing.bounds, tokens, block)
    assert table.task.shape == (-(-tokens // block) + tasks,)
    seen = []
    for task, start, end in zip(table.task.tolist(), table.start.tolist(), table.end.tolist(), strict=True):
        assert 0 <= end - start <= block
        covered = order[start:end].tolist()
        assert all(ids[token] == task for token in covered)
        seen += covered
    assert sorted(seen) == [i for i, task in enumerate(ids.tolist()) if task >= 0]
