"""Agreement, partitions and proposals as pure functions of numbers whose truth is known."""

import itertools

import numpy as np
import pytest

from weft.core import parse_method, plan
from weft.core.testing import tiny_backbone
from weft.train.runs.share.agreement import Products, agreement, mean_and_error
from weft.train.runs.share.cells import across_tasks, cells_of, trained_beside
from weft.train.runs.share.measurement import Measurement
from weft.train.runs.share.partitions import best_by_groups, partitions, progress
from weft.train.runs.share.policy import sharing_of
from weft.train.runs.share.proposal import can_be_said, measurable, proposals
from weft.train.runs.share.report import nothing_in_words, paragraph, plain_data, tables

DRAWS = 10_000
TASKS = ("vqa", "gqa", "nlvr")
BOTTLENECK = {"method": "bottleneck", "bottleneck_size": 4}


def gradients_of(truth, noise, batches, draws, seed=0, parameters=20):
    """Gradients of two tasks whose means have this cosine, with noise of this length relative to them."""
    means = np.zeros((2, parameters))
    means[0, 0], means[1, :2] = 1.0, [truth, np.sqrt(1 - truth**2)]
    drawn = np.random.default_rng(seed).standard_normal((draws, batches, 2, parameters))
    return means + noise * drawn / np.sqrt(parameters)


@pytest.mark.parametrize("truth", [-0.8, 0.0, 0.5, 1.0])
def test_the_corrected_cosine_is_unbiased_over_ten_thousand_draws(truth):
    found = agreement(Products.of(gradients_of(truth, 1.0, 32, DRAWS))).cosine[:, 0, 1]
    error = found.std() / np.sqrt(DRAWS)
    assert abs(found.mean() - truth) < 3 * error
    assert error < 1e-3


def test_the_plain_cosine_is_too_small_by_what_the_ceiling_says():
    drawn = gradients_of(0.5, 2.0, 16, DRAWS)
    means = drawn.mean(axis=1)
    lengths = np.linalg.norm(means, axis=-1)
    plain = (means[:, 0] * means[:, 1]).sum(axis=-1) / lengths.prod(axis=-1)
    found = agreement(Products.of(drawn))
    # At a ceiling of 0.8 the plain one is 0.1 too small, the corrected one less than a tenth of that.
    assert plain.mean() < 0.41
    assert abs(found.cosine[:, 0, 1].mean() - 0.5) < 0.01
    assert found.ceiling.mean() == pytest.approx(0.8, abs=0.02)
    assert 0.5 * found.ceiling.mean() == pytest.approx(plain.mean(), abs=0.01)


def test_standard_errors_are_those_of_repeated_draws():
    found = agreement(Products.of(gradients_of(0.5, 1.0, 32, 2000)))
    spread = found.cosine[:, 0, 1].std()
    assert np.sqrt((found.error[:, 0, 1] ** 2).mean()) == pytest.approx(spread, rel=0.1)


def test_the_products_are_the_mean_over_all_ways_to_halve_the_batches():
    drawn = gradients_of(0.3, 1.0, 6, 1)[0]
    halves = [
        (list(half), [batch for batch in range(6) if batch not in half])
        for half in itertools.combinations(range(6), 3)
    ]
    expected = np.mean(
        [drawn[one].mean(axis=0) @ drawn[other].mean(axis=0).T for one, other in halves], axis=0
    )
    np.testing.assert_allclose(Products.of(drawn).between / 30, expected, rtol=1e-12)


def test_tasks_of_noise_have_no_cosine():
    drawn = np.random.default_rng(3).standard_normal((200, 16, 2, 30))
    found = agreement(Products.of(drawn))
    sure = np.abs(found.cosine[:, 0, 1]) > 2 * found.error[:, 0, 1]
    told = (found.strength > 2 * found.strength_error).all(axis=-1)
    assert np.isnan(found.cosine[:, 0, 1]).mean() > 0.3
    assert (sure & told).mean() < 0.02


def test_products_of_places_add_up_to_those_of_both():
    drawn = gradients_of(0.3, 1.0, 6, 1)[0]
    both = Products.of(drawn[..., :7]) + Products.of(drawn[..., 7:])
    whole = Products.of(drawn)
    np.testing.assert_allclose(both.between, whole.between)
    np.testing.assert_allclose(both.by_batch, whole.by_batch)
    np.testing.assert_allclose(both.squares, whole.squares)


def test_one_value_has_no_standard_error():
    assert np.isinf(mean_and_error(np.ones((1, 2, 2)))[1]).all()


@pytest.mark.parametrize(("count", "bell"), [(1, 1), (2, 2), (3, 5), (4, 15), (6, 203)])
def test_every_partition_is_looked_at_once(count, bell):
    found = [frozenset(map(frozenset, partition)) for partition in partitions(count)]
    assert len(found) == len(set(found)) == bell


def test_progress_is_what_groups_bring_to_their_tasks_with_their_part_of_the_width():
    worth = np.array([[1, 0.5, -0.2], [0.5, 0.8, 0.3], [-0.2, 0.3, 2]])
    assert progress(((0, 1), (2,)), worth) == pytest.approx((1 + 0.8 + 2 * 0.5 + 2) / 2)
    assert progress(((0, 1, 2),), worth) == pytest.approx(1 + 0.8 + 2 + 2 * (0.5 - 0.2 + 0.3))


def test_the_best_partition_of_each_size_brings_tasks_farthest():
    worth = np.random.default_rng(0).standard_normal((5, 5))
    worth += worth.T
    for groups, (value, partition) in best_by_groups(worth).items():
        every = [progress(other, worth) for other in partitions(5) if len(other) == groups]
        assert len(partition) == groups
        assert value == pytest.approx(max(every))


@pytest.mark.parametrize(("cosine", "groups"), [(0.5, 1), (-0.1, 1), (-0.45, 1), (-0.55, 2), (-1.0, 2)])
def test_two_tasks_part_where_the_conflict_costs_more_than_half_the_width(cosine, groups):
    found = best_by_groups(np.array([[1, cosine], [cosine, 1]]))
    assert max(found, key=lambda count: found[count][0]) == groups


def test_many_tasks_are_merged_one_by_one():
    worth = np.full((12, 12), -1.0)
    worth[:6, :6] = worth[6:, 6:] = 1.0
    found = best_by_groups(worth)
    assert set(found) == set(range(1, 13))
    assert found[2][1] == (tuple(range(6)), tuple(range(6, 12)))


def measured_of(truth, backbone="bart", method=BOTTLENECK, noise=0.5, batches=24, looks=8, lowers=0.02):
    """A measurement in which cells have the cosines of a function of the cell, each a matrix over three tasks."""
    model, _ = tiny_backbone(backbone)
    planned = plan(model, method, TASKS)
    generator = np.random.default_rng(0)
    products = []
    for cell in cells_of(planned):
        cosines = truth(cell)
        means = np.zeros((3, 8))
        if cosines is not None:
            means[:, :3] = np.linalg.cholesky(np.asarray(cosines) + 1e-9 * np.eye(3))
        drawn = means + noise * generator.standard_normal((batches, 3, 8))
        products.append(Products.of(drawn))
    affinity = lowers + 0.01 * generator.standard_normal((looks, 3, 3))
    return planned, Measurement(TASKS, tuple(cells_of(planned)), tuple(products), affinity, batches)


AGREE = np.ones((3, 3))
APART = [[1, 0.9, -0.9], [0.9, 1, -0.9], [-0.9, -0.9, 1]]


def conflicting_in_the_decoder(cell):
    return APART if cell.stack == "decoder" and cell.part == "up" else AGREE


def sharing_in(planned, measured, **options):
    found = proposals(measured, **options)[0]
    return found, sharing_of(found, planned, TASKS)[0]


def test_a_conflict_in_one_part_of_one_stack_is_parted_there_alone():
    planned, measured = measured_of(conflicting_in_the_decoder)
    found, sharing = sharing_in(planned, measured)
    assert can_be_said(measured)
    assert sharing == {
        "down": ["task"],
        "up": ["task"],
        "layers": [
            {
                "range": "0-1",
                "towers": ["text"],
                "stacks": ["decoder"],
                "up": {"task": [["vqa", "gqa"], ["nlvr"]]},
            }
        ],
    }
    model, _ = tiny_backbone("bart")
    parse_method({**BOTTLENECK, "sharing": sharing})
    banks = plan(model, {**BOTTLENECK, "sharing": sharing}, TASKS)
    assert banks.banks["bottleneck.text.decoder.1.ffn.up.weight"].slots == ("gqa+vqa", "nlvr")
    assert banks.trainable_parameters == trained_beside(planned, cells_of(planned)) + found.parameters
    told = paragraph(measured, found)
    assert "`up` of text decoder layers 0-1 vqa with gqa; nlvr is alone, because " in told
    assert "Everywhere else all tasks share." in told


def test_layers_are_parted_where_agreement_ends():
    planned, measured = measured_of(
        lambda cell: APART if cell.layer == 1 and cell.stack == "encoder" else AGREE
    )
    _, sharing = sharing_in(planned, measured)
    groups = {"task": [["vqa", "gqa"], ["nlvr"]]}
    assert sharing["layers"] == [
        {"range": "1", "towers": ["text"], "stacks": ["encoder"], "down": groups, "up": groups}
    ]


def test_a_budget_leaves_the_conflicts_that_lose_least():
    def truth(cell):
        if cell.part == "down":
            return AGREE
        return APART if cell.stack == "decoder" else [[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]]

    planned, measured = measured_of(truth, noise=0.1)
    cells = cells_of(planned)
    least = sum(cell.parameters for cell in cells)
    decoder = sum(cell.parameters for cell in cells if cell.part == "up" and cell.stack == "decoder")
    free, _ = sharing_in(planned, measured)
    tight, sharing = sharing_in(planned, measured, budget=least + decoder)
    assert free.parameters > least + decoder
    assert tight.parameters == least + decoder
    assert [rule["stacks"] for rule in sharing["layers"]] == [["decoder"]]
    alone, sharing = sharing_in(planned, measured, budget=least)
    told = paragraph(measured, alone)
    assert "share although they conflict: " in told
    assert " in `up` of text decoder layers 0-1 (-0.9" in told
    assert "No conflict is more than noise" not in told
    assert "share although they conflict" not in paragraph(measured, free)
    assert sharing == {"down": ["task"], "up": ["task"]}
    assert alone.progress < tight.progress < free.progress
    assert proposals(measured, least - 1) == []
    by_slots, _ = sharing_in(planned, measured, budget=len(cells), by="slots")
    assert by_slots.parameters == least


def test_conflicts_that_cost_less_than_separate_weights_are_shared_and_told():
    weak = [[1, 0.5, -0.25], [0.5, 1, -0.2], [-0.25, -0.2, 1]]
    planned, measured = measured_of(lambda cell: weak, noise=0.1)
    found, sharing = sharing_in(planned, measured)
    assert sharing == {"down": ["task"], "up": ["task"]}
    told = paragraph(measured, found)
    assert "There share although they conflict: vqa and nlvr" in told
    assert (
        "1.03 times as far under this policy as if it were alone, 1.03 times if all is shared and 0.33"
        in told
    )


def test_places_that_agree_more_or_less_are_one_range_where_all_share():
    planned, measured = measured_of(
        lambda cell: AGREE if cell.layer == 0 and cell.block == "ffn" else np.eye(3), noise=0.1
    )
    found, sharing = sharing_in(planned, measured)
    assert sharing == {"down": ["task"], "up": ["task"]}
    assert [len(choice.cells) for choice in found.choices] == [4, 4, 6, 6]


def test_blocks_are_told_apart_where_their_agreement_differs():
    planned, measured = measured_of(
        lambda cell: APART if cell.block == "ffn" and cell.stack == "encoder" else AGREE
    )
    found, sharing = sharing_in(planned, measured)
    groups = {"task": [["vqa", "gqa"], ["nlvr"]]}
    rule = {"range": "0-1", "towers": ["text"], "stacks": ["encoder"], "blocks": ["ffn"]}
    assert sharing["layers"] == [{**rule, "down": groups, "up": groups}]
    model, _ = tiny_backbone("bart")
    banks = plan(model, {**BOTTLENECK, "sharing": sharing}, TASKS)
    assert banks.banks["bottleneck.text.encoder.1.ffn.up.weight"].slots == ("gqa+vqa", "nlvr")
    assert banks.banks["bottleneck.text.encoder.1.attention.up.weight"].slots == ("shared",)
    assert banks.trainable_parameters == trained_beside(planned, cells_of(planned)) + found.parameters
    assert "of text encoder ffn layers 0-1 vqa with gqa; nlvr is alone" in paragraph(measured, found)


def test_all_weights_of_equal_tasks_are_shared_and_of_three_strangers_too():
    for cosines in (AGREE, np.eye(3)):
        planned, measured = measured_of(lambda cell, cosines=cosines: cosines)
        _, sharing = sharing_in(planned, measured)
        assert sharing == {"down": ["task"], "up": ["task"]}


def test_towers_are_told_apart():
    planned, measured = measured_of(lambda cell: APART if cell.tower == "text" else AGREE, "clip")
    _, sharing = sharing_in(planned, measured)
    groups = {"task": [["vqa", "gqa"], ["nlvr"]]}
    text = {"range": "0-1", "towers": ["text"], "down": groups, "up": groups}
    vision = {"range": "0-1", "towers": ["vision"], "down": ["task"], "up": ["task"]}
    assert sharing in (
        {"down": ["task"], "up": ["task"], "layers": [text]},
        {"down": groups, "up": groups, "layers": [vision]},
    )


def test_noise_says_nothing():
    _, measured = measured_of(lambda cell: None)
    assert not can_be_said(measured)
    assert "Nothing can be said" in nothing_in_words(measured)


def test_gradients_whose_steps_do_not_lower_losses_say_nothing():
    _, measured = measured_of(lambda cell: AGREE, lowers=-0.02)
    assert measurable(measured).tasks == (False, False, False)
    assert not can_be_said(measured)


def test_what_the_recipe_shares_across_layers_is_one_cell():
    model, _ = tiny_backbone("bart")
    method = {**BOTTLENECK, "sharing": {"down": ["layer", "task"], "up": ["task"]}}
    planned = plan(model, method, TASKS)
    assert {cell.layer for cell in cells_of(planned)} == {None}
    assert across_tasks(planned, shared=True)[0]["sharing"] == {"down": ["layer", "task"], "up": ["task"]}
    assert across_tasks(planned, shared=False)[0]["sharing"] == {"down": ["layer"], "up": []}


def test_tables_and_plain_data_tell_every_pair():
    _, measured = measured_of(conflicting_in_the_decoder)
    found = proposals(measured)[0]
    shown, data = tables(measured, found), plain_data(measured, found)
    for pair in ("vqa and gqa", "vqa and nlvr", "gqa and nlvr"):
        assert f"| {pair} | " in shown
    assert data["measurable"] == dict.fromkeys(TASKS, True)
    assert np.shape(data["all"]["cosine"]) == (3, 3)
    assert {choice["part"] for choice in data["choices"]} == {"down", "up"}
