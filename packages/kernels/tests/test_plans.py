import pytest

from weft.kernels.plans.choosing import INTERPRETER, LaunchPlan, choose_plan, padded, table


@pytest.mark.parametrize(("size", "want"), [(1, 16), (16, 16), (17, 32), (96, 128), (128, 128)])
def test_inner_sizes_are_padded_to_what_matrix_units_take(size, want):
    assert padded(size) == want


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_every_shipped_table_serves_every_kernel_and_size(architecture):
    plans = table(architecture)
    assert plans.keys() == table(90).keys()
    for kernel, entries in plans.items():
        limits = [entry.get("max_inner", 1 << 30) for entry in entries]
        assert limits == sorted(limits), kernel
        for entry in entries:
            assert entry["block_tokens"] & (entry["block_tokens"] - 1) == 0
            assert entry["block_width"] & (entry["block_width"] - 1) == 0


def test_a_relative_of_a_known_architecture_uses_its_table():
    assert table(86) == table(80)
    assert table(70) == {}


def test_wide_elements_take_half_the_width_and_few_tokens_small_tiles():
    half = choose_plan("bottleneck_forward", 90, 64, 2, 1 << 16)
    full = choose_plan("bottleneck_forward", 90, 64, 4, 1 << 16)
    assert full.block_width * 2 == half.block_width
    assert full.num_stages <= 2
    assert choose_plan("bottleneck_forward", 90, 64, 2, 100).block_tokens < half.block_tokens


@pytest.mark.parametrize("inner", [16, 64, 128, 512])
def test_without_a_table_a_rule_decides(inner):
    assert isinstance(choose_plan("bottleneck_forward", 70, inner, 2, 1 << 16), LaunchPlan)
    assert choose_plan("bottleneck_forward", INTERPRETER, inner, 2, 1 << 16).num_stages == 1


def test_backends_know_the_machine():
    import torch

    from weft.kernels import backends

    assert backends.architecture(torch.device("cpu")) == INTERPRETER
    assert backends.dot_precision(torch.float32) == "ieee"
    assert isinstance(backends.triton_installed(), bool)
    assert backends.use_triton(torch.zeros(1), "auto") is False
