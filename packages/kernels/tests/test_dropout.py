import pytest
import torch

from weft.kernels.bottleneck import reference
from weft.kernels.bottleneck.tiles import tile_rows
from weft.kernels.dropout import HIDDEN, INPUT, OUTPUT, keep_mask
from weft.kernels.testing import assert_all_close, call_bottleneck


def test_the_kept_share_is_right_and_rows_and_columns_are_unrelated():
    keep = keep_mask(torch.tensor([11]), torch.arange(2000), 512, 0.3).double()
    assert abs(keep.mean().item() - 0.7) < 2e-3
    assert (keep.mean(0) - 0.7).abs().max() < 0.06
    assert (keep.mean(1) - 0.7).abs().max() < 0.11
    centred = keep - 0.7
    for neighbour in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(neighbour.mean().item()) < 2e-3


def test_seeds_give_unrelated_masks():
    rows = torch.arange(500)
    one, other = (keep_mask(torch.tensor([seed]), rows, 200, 0.5) for seed in (1, 2))
    high = keep_mask(torch.tensor([1 + (1 << 32)]), rows, 200, 0.5)
    for mask in (other, high):
        assert abs((one == mask).double().mean().item() - 0.5) < 1e-2


def test_a_row_keeps_its_mask_wherever_it_is_visited():
    whole = keep_mask(torch.tensor([5]), torch.arange(10), 33, 0.4)
    assert torch.equal(keep_mask(torch.tensor([5]), torch.tensor([7, 2]), 33, 0.4), whole[[7, 2]])


def test_dropped_entries_equal_the_residual_and_kept_ones_are_rescaled():
    torch.manual_seed(0)
    x = torch.randn(5, 3, 16)
    down, up = torch.randn(2, 16, 4), torch.randn(2, 4, 16)
    ids = torch.tensor([1, 0, -1, 1, 0])
    full = call_bottleneck(x, down, up, task_ids=ids)
    dropped = call_bottleneck(x, down, up, task_ids=ids, dropout=0.25, seed=9)
    keep = keep_mask(torch.tensor([9]), torch.arange(15), 16, 0.25).view(5, 3, 16)
    torch.testing.assert_close(dropped, torch.where(keep, full / 0.75, 0.0))


def test_without_a_seed_the_mask_follows_torchs_generator():
    x, down, up = torch.randn(4, 16), torch.randn(1, 16, 4), torch.randn(1, 4, 16)
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(call_bottleneck(x, down, up, dropout=0.5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_tensor_seed_equals_the_number():
    x, down, up = torch.randn(4, 16), torch.randn(1, 16, 4), torch.randn(1, 4, 16)
    one = call_bottleneck(x, down, up, dropout=0.5, seed=12)
    assert torch.equal(one, call_bottleneck(x, down, up, dropout=0.5, seed=torch.tensor([12])))


def test_masks_at_the_places_of_one_call_are_unrelated():
    masks = [
        keep_mask(torch.tensor([3]), torch.arange(500), 200, 0.5, stream)
        for stream in (INPUT, HIDDEN, OUTPUT)
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((masks[one] == masks[other]).double().mean().item() - 0.5) < 1e-2


@pytest.mark.parametrize("visited", ["segments", "tiles"])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_input_hidden_and_output_are_dropped_where_the_formula_says(monkeypatch, visited, norm):
    if visited == "tiles":
        monkeypatch.setattr(reference, "rows_of", tile_rows)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    x, down, up, down_bias, up_bias = draw(5, 3, 12), draw(2, 12, 4), draw(2, 4, 10), draw(2, 4), draw(2, 10)
    options = {"norm_weight": draw(12), "norm_bias": draw(12)} if norm else {}
    inputs, ids = [x, down, up, down_bias, up_bias, *options.values()], torch.tensor([1, 0, -1, 1, 0])
    got = call_bottleneck(
        x, down, up, task_ids=ids, down_bias=down_bias, up_bias=up_bias, activation="relu", scale=0.7, seed=9,
        input_dropout=0.2, hidden_dropout=0.3, dropout=0.4, **options,
    )  # fmt: skip

    def dropped(values, probability, stream):
        mask = keep_mask(torch.tensor([9]), torch.arange(15), values.shape[2], probability, stream)
        return values * mask.view(values.shape) / (1 - probability)

    read = torch.nn.functional.layer_norm(x, (12,), *options.values()) if norm else x
    z = torch.einsum("btd,bdr->btr", dropped(read, 0.2, INPUT), down[ids]) + down_bias[ids].unsqueeze(1)
    h = dropped(z.relu(), 0.3, HIDDEN)
    y = 0.7 * (torch.einsum("btr,brd->btd", h, up[ids]) + up_bias[ids].unsqueeze(1))
    want = dropped(y, 0.4, OUTPUT) * (ids >= 0).view(-1, 1, 1)
    gradient = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    assert_all_close(
        [got, *torch.autograd.grad(got, inputs, gradient)],
        [want, *torch.autograd.grad(want, inputs, gradient)],
        torch.float64,
    )
