"""Features, labels and options that break a rule are named before anything is fitted."""

from __future__ import annotations

import pytest
import torch

from weft.core.errors import ConfigError, FewShotError
from weft.core.few_shot import (
    FewShotHead,
    TipAdapter,
    TipAdapterConfig,
    ZeroShotConfig,
    ZeroShotHead,
    heads,
    make_head,
    parse_head,
)
from weft.core.few_shot.head_config import HeadConfig, register_head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("long", "`features` must have rows of length one, but row 3 has length 2"),
        ("nan", "`features` must be finite, but 2 rows are not: 1, 4"),
        ("integers", "`features` must be a floating-point tensor, but is torch.int64"),
        (
            "wide",
            r"must have shape \(samples, 24\), the width of the class weights, but has shape \(24, 23\)",
        ),
        ("flat", r"must have shape \(samples, 24\)"),
        ("high", r"`labels` must lie in 0\.\.5, but hold 6"),
        ("negative", r"`labels` must lie in 0\.\.5, but hold -1"),
        ("few", "`labels` must hold one class per row of `features` \\(24\\), but holds 23"),
        ("float", "`labels` must be integers of shape"),
        ("absent", "`labels` must hold every class, but 1 of 6 have no sample: 2"),
        ("empty", "`features` must hold at least one sample"),
    ],
)
def test_bad_samples_are_refused(make_task, change: str, message: str) -> None:
    weights, features, labels, _, _ = make_task()
    changed = {
        "long": lambda: features * torch.ones(24, 1).index_fill(0, torch.tensor([3]), 2.0),
        "nan": lambda: features.index_fill(0, torch.tensor([1, 4]), float("nan")),
        "integers": lambda: features.long(),
        "wide": lambda: features[:, 1:],
        "flat": lambda: features[0],
    }
    other = {
        "high": labels + 1,
        "negative": labels - 1,
        "few": labels[1:],
        "float": labels.float(),
        "absent": labels.masked_fill(labels == 2, 1),
    }
    given = changed[change]() if change in changed else features
    truth = other.get(change, labels)
    if change == "empty":
        given, truth = features[:0], labels[:0]
    with pytest.raises(FewShotError, match=message):
        TipAdapter(weights).fit(given, truth)


def test_class_weights_must_be_unit_vectors(make_task) -> None:
    weights, *_ = make_task()
    with pytest.raises(FewShotError, match="`class_weights` must have rows of length one"):
        TipAdapter(3 * weights)


def test_queries_of_another_encoder_are_refused(make_task) -> None:
    weights, features, labels, queries, _ = make_task()
    head = TipAdapter(weights).fit(features, labels)
    with pytest.raises(FewShotError, match="Take features of the encoder that made the class weights"):
        head.logits(queries[:, :8])
    with pytest.raises(FewShotError, match=r"`classes` must lie in 0\.\.5, but hold 9"):
        head.logits(queries, classes=[9])
    with pytest.raises(FewShotError, match="`validation features` must have rows of length one"):
        head.search(2 * queries, torch.zeros(len(queries), dtype=torch.int64))


def test_a_head_without_a_cache_cannot_take_classes(make_task) -> None:
    weights, features, labels, *_ = make_task()
    with pytest.raises(FewShotError, match="TipAdapter must be fitted first"):
        TipAdapter(weights).add_classes(weights, features, labels)


def test_an_unknown_head_is_named_with_its_neighbours() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tip_adapter'"):
        parse_head({"method": "tip_adaptor"})
    with pytest.raises(ConfigError, match="the head 'tip_adapter' is wrong:\n- bta: Extra inputs"):
        parse_head({"method": "tip_adapter", "bta": 1.0})


def test_a_config_of_another_head_is_refused(make_task) -> None:
    weights, *_ = make_task()
    with pytest.raises(
        ConfigError, match="`config` of TipAdapter must be a TipAdapterConfig, but is a ZeroShot"
    ):
        TipAdapter(weights, ZeroShotConfig())


def test_a_head_cannot_take_the_name_of_another() -> None:
    with pytest.raises(ConfigError, match="`method` must be new, but 'tip_adapter' is taken by weft"):

        @register_head
        class Other(HeadConfig):
            method: str = "tip_adapter"

    assert heads()["tip_adapter"] is TipAdapterConfig


def test_a_configuration_makes_the_head_that_names_it(make_task) -> None:
    class Config(HeadConfig):
        method: str = "from_outside"

    class Head(ZeroShotHead):
        config_class = Config

    class Variant(Head):
        config_class = Config

    class Derived(Config):
        pass

    class Other(Head):
        config_class = Derived

    weights, *_ = make_task()
    assert type(make_head(weights, Config())) is Head
    assert type(make_head(weights, Derived())) is Other
    assert type(make_head(weights, ZeroShotConfig())) is ZeroShotHead
    assert type(Variant(weights)) is Variant

    class Again(ZeroShotHead):
        config_class = Config

    assert type(make_head(weights, Config())) is Again


@pytest.mark.parametrize("method", sorted(heads()))
def test_every_head_is_made_from_its_name(make_task, method: str) -> None:
    weights, *_ = make_task()
    head = make_head(weights, {"method": method})
    assert isinstance(head, FewShotHead)
    assert head.config.method == method
