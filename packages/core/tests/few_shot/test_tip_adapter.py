"""Zero-shot, Tip-Adapter and Tip-Adapter-F: golden numbers, identities, searches, classes that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot import TipAdapter, TipAdapterConfig, TipAdapterF, TipAdapterFConfig, ZeroShotHead
from weft.core.few_shot.grid import steps
from weft.core.few_shot.selection import TestSelectionWarning

RAGGED = Path(__file__).parents[1] / "data" / "tip_ragged.safetensors"

# A worked example by hand (specification of the cache models): three dimensions, two classes, two shots.
KEYS = functional.normalize(
    torch.tensor([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0.6, 0.8]], dtype=torch.float64), dim=-1
)
LABELS = torch.tensor([0, 0, 1, 1])
WEIGHTS = functional.normalize(torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.9, 0.3]], dtype=torch.float64), dim=-1)
QUERY = functional.normalize(torch.tensor([[0.7, 0.6, 0.2]], dtype=torch.float64), dim=-1)


def tip(alpha: float, beta: float, **options: object) -> TipAdapter:
    return TipAdapter(WEIGHTS, TipAdapterConfig(alpha=alpha, beta=beta, **options)).fit(KEYS, LABELS)  # type: ignore[arg-type]


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor([expected], dtype=found.dtype), atol=1e-6, rtol=0)


def test_the_worked_example_holds_to_six_places() -> None:
    close(ZeroShotHead(WEIGHTS).fit(KEYS, LABELS).logits(QUERY), [83.440833, 74.449040])
    close(tip(1.0, 5.5).logits(QUERY), [84.555271, 74.668824])
    close(tip(1.17, 1.0).logits(QUERY), [85.486107, 76.008982])


def test_the_worked_example_names_its_votes() -> None:
    (why,) = tip(1.0, 5.5).explain(QUERY, top=4)
    near = {vote.sample: vote.affinities["image"] for vote in why.votes}
    assert near == pytest.approx({0: 0.241954, 1: 0.872484, 2: 0.135064, 3: 0.084720}, abs=1e-6)
    assert [vote.sample for vote in why.votes] == [1, 0, 2, 3]
    assert why.margin == pytest.approx(84.555271 - 74.668824, abs=1e-5)
    assert why.zero_shot == pytest.approx(83.440833 - 74.449040, abs=1e-5)
    assert "cat" in why.table(["cat", "dog"])


def test_uneven_classes_equal_the_published_formula() -> None:
    data = load_file(RAGGED)
    head = TipAdapter(data["W"].T.contiguous(), TipAdapterConfig(alpha=1.7, beta=3.3))
    head.fit(data["F"], data["y"])
    assert len(set(data["y"].bincount().tolist())) > 1
    torch.testing.assert_close(head.logits(data["f"]), data["z"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_zero_is_zero_shot_to_the_bit(make_task, dtype: torch.dtype) -> None:
    weights, features, labels, queries, _ = (v.to(dtype) if v.is_floating_point() else v for v in make_task())
    head = TipAdapter(weights, TipAdapterConfig(alpha=0.0)).fit(features, labels)
    assert torch.equal(head.logits(queries), ZeroShotHead(weights).logits(queries))


def test_no_epoch_of_tip_adapter_f_is_tip_adapter_to_the_bit(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    plain = TipAdapter(weights, TipAdapterConfig(alpha=1.17, beta=1.0)).fit(features, labels)
    trained = TipAdapterF(weights, TipAdapterFConfig(alpha=1.17, beta=1.0, epochs=0)).fit(features, labels)
    assert torch.equal(plain.logits(queries), trained.logits(queries))


@pytest.mark.parametrize("scale", [7.0, 50.0])
def test_a_grid_of_betas_does_not_drift_from_direct_evaluation(make_task, scale: float) -> None:
    weights, features, labels, queries, _ = make_task(classes=10, shots=16, width=512)
    config = TipAdapterConfig(search_scale=(scale, 3.0))
    head = TipAdapter(weights, config).fit(features, labels)
    grid = torch.tensor(config.betas())
    assert grid.dtype == torch.float32
    one_hot = functional.one_hot(labels, 10).double()
    similarity = queries.double() @ features.double().T
    for beta, found in zip(grid.double(), head.cache.logits(queries, grid), strict=True):
        direct = (-beta * (1 - similarity)).exp() @ one_hot
        assert float(((found - direct) / direct).abs().max()) <= 1e-4


def test_the_search_finds_what_evaluating_every_pair_finds(make_task) -> None:
    weights, features, labels, queries, truth = make_task(noise=1.6)
    config = TipAdapterConfig(search_scale=(12, 5), search_steps=(25, 7))
    head = TipAdapter(weights, config).fit(features, labels)
    one_hot = functional.one_hot(labels, 6).float()
    right = {}
    for beta in config.betas():
        for alpha in config.alphas():
            logits = 100 * queries @ weights.T
            logits = logits + alpha * torch.exp(-beta * (1 - queries @ features.T)) @ one_hot
            right[beta, alpha] = int((logits.argmax(1) == truth).sum())
    first = max(right, key=lambda pair: right[pair])
    with pytest.warns(TestSelectionWarning):
        found = head.search(queries, truth, selected_on="paper")
    assert (found.selected["beta"], found.selected["alpha"]) == first
    assert found.accuracy == pytest.approx(100 * right[first] / len(truth))
    assert found.evaluated == 175
    assert head.search(queries, truth).accuracy == found.accuracy
    assert head.selected["alpha"] > 0


def test_a_grid_of_sharpness_does_not_drift(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    head = TipAdapter(weights).fit(features, labels)
    betas = steps(50, 200)
    grid = head.cache.logits(queries, torch.tensor(betas))
    direct = torch.stack([head.cache.logits(queries, beta) for beta in betas])
    torch.testing.assert_close(grid, direct, atol=0, rtol=1e-4)


def test_a_search_holds_the_sums_of_all_betas_once(make_task, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, features, labels, queries, _ = make_task()
    head = TipAdapter(weights).fit(features, labels)
    made = torch.zeros(200, len(queries), len(weights))
    monkeypatch.setattr(head, "_class_sums", lambda *arguments: made)
    assert head.grid(queries, head.config.axes()).sums_of(slice(None)) is made


def test_training_the_keys_helps_on_other_images(make_task) -> None:
    weights, features, labels, queries, truth = make_task(classes=8, shots=8, noise=1.5, queries=60)

    def score(head: TipAdapter) -> float:
        return float((head.fit(features, labels).logits(queries).argmax(1) == truth).float().mean())

    zero = float((ZeroShotHead(weights).logits(queries).argmax(1) == truth).float().mean())
    options = {"alpha": 3.0, "beta": 2.0, "logit_scale": 10.0}
    plain = score(TipAdapter(weights, TipAdapterConfig(**options)))
    trained = score(TipAdapterF(weights, TipAdapterFConfig(**options, learning_rate=0.01)))
    assert zero < plain < trained


def test_validation_chooses_the_epoch_and_the_last_one_stays_without_it(make_task) -> None:
    weights, features, labels, queries, truth = make_task(noise=1.5)
    config = TipAdapterFConfig(learning_rate=0.5, epochs=6, search_steps=(1, 1), start="given")
    last = TipAdapterF(weights, config).fit(features, labels, seed=3)
    best = TipAdapterF(weights, config).fit(features, labels, (queries, truth), seed=3)
    epochs = [
        TipAdapterF(weights, config.model_copy(update={"select_epoch": False})).fit(
            features, labels, (queries, truth), seed=3
        )
    ]
    assert torch.equal(epochs[0].cache.keys, last.cache.keys)
    right = [float((head.logits(queries).argmax(1) == truth).float().mean()) for head in (last, best)]
    assert right[1] >= right[0]
    assert best.selected_on == "validation"
    assert last.selected_on is None


def test_keys_are_trained_at_the_values_that_fit_the_untrained_cache(make_task) -> None:
    weights, features, labels, *chooser = make_task(noise=1.5)
    options = {"logit_scale": 25.0, "search_steps": (20, 10), "select_epoch": False}
    untrained = TipAdapterConfig(logit_scale=25.0, search_steps=(20, 10), select_by="loss")
    plain = TipAdapter(weights, untrained)
    found = plain.fit(features, labels, tuple(chooser)).selected
    searched = TipAdapterF(weights, TipAdapterFConfig(**options)).fit(features, labels, tuple(chooser))
    given = TipAdapterF(weights, TipAdapterFConfig(**options, **found)).fit(features, labels, tuple(chooser))
    assert searched.config.start == "searched"
    assert given.config.start == "given"
    assert torch.equal(searched.cache.keys, given.cache.keys)
    default = TipAdapterF(weights, TipAdapterFConfig(**options)).fit(features, labels)
    assert not torch.equal(searched.cache.keys, default.cache.keys)


@pytest.mark.filterwarnings("ignore::weft.core.few_shot.selection.TestSelectionWarning")
def test_validation_may_choose_the_keys_before_training_and_a_paper_does_not(make_task) -> None:
    weights, features, labels, *chooser = make_task()
    harmful = TipAdapterFConfig(learning_rate=5.0, epochs=3)
    plain = TipAdapter(weights).fit(features, labels, tuple(chooser))
    kept = TipAdapterF(weights, harmful).fit(features, labels, tuple(chooser))
    assert torch.equal(kept.logits(chooser[0]), plain.logits(chooser[0]))
    paper = TipAdapterF(weights, harmful).fit(features, labels, tuple(chooser), selected_on="paper")
    assert not torch.equal(paper.cache.keys, plain.cache.keys)


def test_selecting_on_the_test_set_says_so(make_task) -> None:
    weights, features, labels, queries, truth = make_task()
    with pytest.warns(
        TestSelectionWarning, match="tip_adapter chooses epochs and hyper-parameters on the test"
    ):
        head = TipAdapter(weights).fit(features, labels, (queries, truth), selected_on="paper")
    assert head.selected_on == "paper"


def test_views_are_averaged_into_keys_of_length_one(make_task) -> None:
    weights, features, labels, _, _ = make_task()
    views = functional.normalize(features + 0.3 * torch.randn(5, *features.shape), dim=-1)
    head = TipAdapter(weights).fit(views, labels)
    expected = functional.normalize(views.mean(0), dim=-1)
    torch.testing.assert_close(head.cache.keys.data, expected)


def test_a_class_without_keys_keeps_its_zero_shot_logit(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    seen = labels != 2
    head = TipAdapter(weights).fit(features[seen], labels[seen], allow_missing=True)
    logits, zero = head.logits(queries), ZeroShotHead(weights).logits(queries)
    assert torch.equal(logits[:, 2], zero[:, 2])
    assert (logits[:, 3] > zero[:, 3]).all()
    new = head.logits(queries, classes=[2])
    assert torch.equal(new, zero[:, [2]])


def test_added_and_removed_classes_leave_what_a_fresh_fit_would_make(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    old = labels < 4
    head = TipAdapter(weights[:4]).fit(features[old], labels[old])
    head.add_classes(weights[4:], features[~old], labels[~old])
    whole = TipAdapter(weights).fit(features, labels)
    torch.testing.assert_close(head.logits(queries), whole.logits(queries))
    head.remove_classes([1, 5])
    keep = [0, 2, 3, 4]
    chosen = torch.isin(labels, torch.tensor(keep))
    renumbered = torch.tensor([keep.index(int(label)) for label in labels[chosen]])
    fresh = TipAdapter(weights[keep]).fit(features[chosen], renumbered)
    torch.testing.assert_close(head.logits(queries), fresh.logits(queries))
    with pytest.raises(FewShotError, match="must leave at least one key"):
        head.remove_classes([0, 1, 2, 3])


def test_balanced_classes_vote_alike_however_many_keys_they_have() -> None:
    keys = functional.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    features, labels = keys[[0, 0, 0, 1]], torch.tensor([0, 0, 0, 1])
    even = TipAdapter(keys, TipAdapterConfig(balance_classes=True)).fit(features, labels)
    sums = even.logits(keys) - even.zero_shot(keys)
    assert float(sums[0, 0]) == pytest.approx(float(sums[1, 1]), abs=1e-4)
    plain = TipAdapter(keys).fit(features, labels)
    sums = plain.logits(keys) - plain.zero_shot(keys)
    assert float(sums[0, 0]) == pytest.approx(3 * float(sums[1, 1]), rel=1e-3)


def test_the_number_of_trained_keys_is_known_beforehand() -> None:
    count = TipAdapterFConfig().trainable_parameters(num_classes=1000, num_samples=16000, width=1024)
    assert count == 16_384_000
