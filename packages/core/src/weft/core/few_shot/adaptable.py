"""Encoders whose inside a head may adapt: units come in for as long as they are needed, and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.core.adapted.attaching import attach, detach
from weft.core.adapted.bank import store_of
from weft.core.backbone.resolving import resolve
from weft.core.errors import FewShotError
from weft.core.few_shot.encoder import ImageTextEncoder, texts_of
from weft.core.few_shot.layer_tokens import LayerTokens
from weft.core.few_shot.projection import VisualProjection
from weft.core.planning import Plan, plan

# Texts that are read at a time where no gradients are kept.
_TEXTS = 256


class AdaptableEncoder:
    """An encoder of images and texts with the names of some classes, for heads that adapt it.

    Any number of heads may share the encoder. The other arguments and the errors are those of
    `ImageTextEncoder.class_weights`. A training that adapts the text tower reads all texts at every step, so that one
    template is much cheaper than many.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        class_names: Sequence[str],
        templates: Sequence[str] = ("a photo of a {}.",),
        *,
        texts: Mapping[str, Sequence[str]] | None = None,
        allow_duplicates: bool = False,
    ) -> None:
        self.encoder = encoder
        every = texts_of(class_names, templates, texts, allow_duplicates=allow_duplicates)
        self.num_classes = len(every)
        self._counts = [len(about) for about in every]
        self._layer_tokens: dict[int, LayerTokens] = {}
        self._tokens = encoder.tokens([text for about in every for text in about])

    def fingerprint(self) -> str:
        """See `Adaptable`."""
        return self.encoder.fingerprint()

    def plan(self, units: Any) -> Plan:
        """What units within the encoder would be.

        Raises:
            ConfigError, AddressError, BackboneError: The encoder has no place for them; it is said why.
        """
        return plan(self.encoder.model, units)

    def start(self, units: Any) -> dict[str, Tensor]:
        """See `Adaptable`; drawn from torch's global generator of the CPU, wherever the encoder is.

        Raises:
            FewShotError: A tower that is named has no place for them, or they have tensors that nothing trains.
            ConfigError, AddressError, BackboneError: As `plan`.
        """
        planned = self.plan(units)
        _check_towers(self.encoder.model, planned)
        found: dict[str, Tensor] = {}
        for bank in planned.banks.values():
            if not bank.spec.trainable:
                raise FewShotError(
                    f"`units` must train every tensor that a head holds, but {bank.key} stays as it was drawn. Choose "
                    "units without such tensors."
                )
            for slot in bank.slots:
                value = torch.empty(bank.spec.shape)
                with torch.no_grad():
                    bank.spec.init(value)
                found[f"{bank.key}.{slot}"] = value
        own = dict(self.encoder.model.named_parameters())
        return found | {full.key: own[full.path].detach().to("cpu", copy=True) for full in planned.full}

    @contextmanager
    def wearing(self, units: Any, tensors: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """See `Adaptable`; while the encoder wears the tensors that `start` names, they are on its device.

        Raises:
            FewShotError: The encoder has the units of another head now.
        """
        model = self.encoder.model
        if hasattr(model, "weft"):
            raise FewShotError(
                "`encoder` must have no units when a head puts on its own, but has some. Let one head work at a time, "
                "or detach them."
            )
        self.fingerprint()  # of the plain encoder
        place = self.encoder.device
        with ExitStack() as after:
            with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
                attach(model, units)  # what is drawn is replaced
            after.callback(detach, model)
            store = store_of(model)
            for key, slot, fresh in list(store.slots()):
                _swap(after, store.banks_by_key[key], slot, fresh, tensors[f"{key}.{slot}"])
            own = dict(model.named_parameters())
            for full in store.plan.full:
                path, _, name = full.path.rpartition(".")
                _swap(after, model.get_submodule(path), name, own[full.path], tensors[full.key])
            yield

    def train(self, mode: bool) -> None:
        """See `Adaptable`."""
        store_of(self.encoder.model).train(mode)

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """See `Adaptable`."""
        return self.encoder.image_features(pixel_values)

    def class_features(self) -> Tensor:
        """See `Adaptable`."""
        total = sum(self._counts)
        size = total if torch.is_grad_enabled() else _TEXTS
        parts = [
            self.encoder.text_features(
                {name: value[first : first + size] for name, value in self._tokens.items()}
            )
            for first in range(0, total, size)
        ]
        means = [about.mean(0) for about in torch.cat(parts).split(self._counts)]
        return functional.normalize(torch.stack(means), dim=-1)

    def projection(self) -> VisualProjection:
        """See `Adaptable`.

        Raises:
            BackboneError: Its image side ends in something else.
        """
        return VisualProjection(self.encoder)

    def layer_tokens(self, last: int) -> LayerTokens:
        """See `Adaptable`.

        Raises:
            BackboneError: It is no CLIP of transformers.
        """
        if last not in self._layer_tokens:
            self._layer_tokens[last] = LayerTokens(self.encoder.model, last)
        return self._layer_tokens[last]


def _check_towers(model: nn.Module, planned: Plan) -> None:
    """Require something to train in every tower that is named: a head that adapts one of two is another head."""
    paths = resolve(model).towers
    reached = {unit.site.tower for unit in planned.units}
    reached |= {
        tower
        for tower, inside in paths.items()
        for full in planned.full
        if any(path == "" or full.path == path or full.path.startswith(f"{path}.") for path in inside)
    }
    for config in planned.configs:
        bare = [tower for tower in config.towers or () if tower not in reached]
        if bare:
            raise FewShotError(
                f"`towers` must name towers that {config.method!r} changes, but it finds nothing in the {bare[0]} "
                f"tower of {type(model).__name__}. Leave it out, or name other "
                "places, such as `linears: [query, key, value, up, down]`."
            )


def _swap(after: ExitStack, module: nn.Module, name: str, own: nn.Parameter, other: nn.Parameter) -> None:
    """Put another parameter in the place of one, with its device and dtype, until `after` ends."""
    place, dtype = other.device, other.dtype

    def back() -> None:
        module._parameters[name] = own
        other.data = other.data.to(place, dtype)

    other.data = other.data.to(own.device, own.dtype)
    module._parameters[name] = other
    after.callback(back)
