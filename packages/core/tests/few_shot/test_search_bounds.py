"""Searches that know their bounds: grids that go with the logit scale, values at an end, and what chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from weft.core.few_shot import (
    TipAdapter,
    TipAdapterConfig,
    TipAdapterF,
    TipAdapterFConfig,
    load_head,
    make_head,
    parse_head,
)
from weft.core.few_shot.grid import search_grid, steps
from weft.core.few_shot.selection import TestSelectionWarning

CACHES = ["tip_adapter", "tip_adapter_f", "xmadapter", "ape", "ape_t"]
COARSE: dict[str, Any] = {"search_steps": (4, 5)}
QUICK = {"tip_adapter_f": {"epochs": 2}, "xmadapter": {"epochs": 2}, "ape_t": {"epochs": 2}}


@pytest.mark.parametrize("method", CACHES)
def test_at_the_scale_of_clip_grids_are_those_of_the_papers(method: str) -> None:
    config = parse_head({"method": method})
    assert (config.betas(), config.alphas()) == (steps(7, 200), steps(3, 20))
    for scale in (1.0, 25.0, 100.0):
        given = parse_head({"method": method, "search_scale": (12, 5), "logit_scale": scale})
        assert (given.betas(), given.alphas()) == (steps(12, 200), steps(5, 20))
        assert given.widenings() == 0


@pytest.mark.parametrize("scale", [2.0, 25.0, 400.0])
@pytest.mark.parametrize("method", ["tip_adapter", "ape", "gda"])
def test_a_search_finds_the_same_predictions_at_every_logit_scale(make_task, method, scale) -> None:
    weights, features, labels, queries, truth = make_task(classes=8, noise=1.6)
    heads = []
    for logit_scale in (100.0, scale):
        head: Any = make_head(weights, {"method": method, "logit_scale": logit_scale})
        with pytest.warns(TestSelectionWarning):  # of equally accurate values it takes the first
            heads.append(head.fit(features, labels, (queries, truth), selected_on="paper"))
    found, expected = heads[1], heads[0]
    assert found.selected["alpha"] == pytest.approx(expected.selected["alpha"] * scale / 100)
    torch.testing.assert_close(found.logits(queries) * 100 / scale, expected.logits(queries))


@pytest.mark.parametrize("method", [*CACHES, "gda"])
def test_a_grid_goes_on_beyond_an_end_that_is_best(make_task, method: str) -> None:
    # The names are of other classes, so that the more the cache weighs, the better.
    weights, features, labels, queries, truth = make_task(classes=8, shots=8, noise=1.5, queries=30)
    words = {"method": method, "select_by": "accuracy", **QUICK.get(method, {})}
    own = {"alphas": (0.01, 0.1)} if method == "gda" else {**COARSE, "search_scale": (7, 3)}
    validation = queries, truth
    kept = make_head(weights.roll(1, 0), {**words, **own}).fit(features, labels, validation)
    found = kept.search(*validation)
    assert (found.at_bounds["alpha"], found.widened) == ("highest", 0)
    assert kept.selection.at_bounds == found.at_bounds
    steps_of_it = {} if method == "gda" else COARSE
    head = make_head(weights.roll(1, 0), {**words, **steps_of_it, "logit_scale": 30})
    better = head.fit(features, labels, validation).search(*validation)
    assert 1 <= better.widened <= 4
    assert better.selected["alpha"] > max(
        parse_head({**words, **steps_of_it, "logit_scale": 30}).axes()["alpha"]
    )
    assert better.accuracy > found.accuracy
    assert better.evaluated > found.evaluated


def test_a_grid_is_widened_a_bounded_number_of_times(make_task) -> None:
    weights, features, _, queries, truth = make_task(classes=8, noise=0.3, names=0.1)
    wrong = torch.arange(8).repeat_interleave(4).roll(4)  # every vote is for another class
    for widenings in (0, 1, 3):
        config = TipAdapterConfig(search_steps=(4, 5), search_widenings=widenings)
        head = TipAdapter(weights, config).fit(features, wrong)
        found = head.search(queries, truth)
        assert (found.widened, found.at_bounds["alpha"]) == (widenings, "lowest")
        assert found.selected["alpha"] == pytest.approx(0.1 / 4**widenings)


def test_selecting_on_the_test_set_leaves_the_papers_grid_alone(make_task) -> None:
    weights, features, labels, queries, truth = make_task(classes=8, shots=8, noise=1.5, queries=30)
    head = TipAdapter(weights.roll(1, 0), TipAdapterConfig()).fit(features, labels)
    with pytest.warns(TestSelectionWarning):
        found = head.search(queries, truth, selected_on="paper")
    assert (found.evaluated, found.widened, found.at_bounds) == (4000, 0, {"alpha": "highest"})


def test_inner_values_natural_ends_and_single_values_are_at_no_bound(make_task) -> None:
    weights, features, labels, queries, truth = make_task(noise=1.2)
    head = TipAdapter(weights, TipAdapterConfig(search_steps=(1, 1))).fit(features, labels)
    assert head.search(queries, truth).at_bounds == {}
    words = {"method": "xmadapter", "epochs": 0, "ratio_mode": "fixed", "search_steps": (1, 1)}
    ratio = make_head(weights, words).fit(features, labels)
    assert ratio.search(queries, truth).at_bounds == {}


@pytest.mark.parametrize("method", ["tip_adapter", "linear_probe"])
def test_files_keep_that_a_value_is_at_a_bound(make_task, tmp_path: Path, method: str) -> None:
    weights, features, labels, queries, truth = make_task(noise=1.5)
    words = {"search_scale": (1, 0.2)} if method == "tip_adapter" else {"penalties": (1e-5, 1e-4)}
    head = make_head(weights.roll(1, 0), {"method": method, **words}).fit(features, labels, (queries, truth))
    assert head.selection.at_bounds
    assert load_head(head.save(tmp_path)).selection == head.selection


def test_the_least_loss_chooses_if_it_is_asked_to(make_task) -> None:
    weights, features, labels, queries, truth = make_task(classes=8, noise=2.2)
    config = TipAdapterConfig(search_scale=(12, 5), search_steps=(9, 7), select_by="loss", logit_scale=10.0)
    head = TipAdapter(weights, config).fit(features, labels, (queries, truth))
    losses = {}
    for beta in config.betas():
        for alpha in config.alphas():
            head.selected = {"alpha": alpha, "beta": beta}
            losses[beta, alpha] = float(functional.cross_entropy(head.logits(queries), truth))
    found = head.search(queries, truth)
    least = min(losses, key=lambda pair: losses[pair])
    assert (found.selected["beta"], found.selected["alpha"]) == least
    right = float((head.logits(queries).argmax(1) == truth).double().mean())
    assert found.accuracy == pytest.approx(100 * right)
    most = search_grid(head.zero_shot(queries), truth, head.grid(queries, head.config.axes()))
    assert most.accuracy > found.accuracy


def test_the_epoch_of_least_loss_is_kept_if_it_is_asked_for(make_task) -> None:
    weights, features, labels, queries, truth = make_task(noise=1.7)
    options: dict[str, Any] = {"learning_rate": 0.3, "search_steps": (1, 1), "epochs": 8, "start": "given"}

    def loss(**words: Any) -> float:
        config = TipAdapterFConfig(**options, **words)
        head = TipAdapterF(weights, config).fit(features, labels, (queries, truth), seed=3)
        head.selected = {"alpha": config.alpha, "beta": config.beta}
        return float(functional.cross_entropy(head.logits(queries), truth))

    least = loss(select_by="loss")
    assert least < loss(select_epoch=False)
    assert least < loss(select_by="accuracy")
