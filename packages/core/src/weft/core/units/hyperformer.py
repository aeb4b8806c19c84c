"""Hyperformer: the weights of bottleneck adapters are generated from the task and the layer.

Source: Mahabadi et al. 2021, "Parameter-efficient Multi-task Fine-tuning for Transformers via Shared
Hypernetworks"; as in VL-Adapter (Sung et al. 2022), with task vectors that both stacks share, one network per
stack, and no conditional norms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.sharing import Axes
from weft.core.unit.initialisers import normal, zeros
from weft.core.unit.layers import affine, affine_tensors, norm_tensors, slot_affine
from weft.core.unit.places import SubLayerConfig
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor

Condition = Literal["task", "layer", "block"]

# What each part is shared across unless `sharing` says otherwise: the scheme of the paper.
_AXES: dict[str, Axes] = {
    "task": frozenset({"modality", "stack", "layer", "block"}),
    "layer": frozenset({"task", "block"}),
    "block": frozenset({"task", "layer"}),
    "projection": frozenset({"task", "layer", "block"}),
}


@register_unit
class HyperformerConfig(SubLayerConfig):
    """`u = norm(W_2 relu(W_1 [t; l] + b_1) + b_2)`; each adapter tensor is an affine function of `u`.

    Args:
        embedding_size: Width of the task, layer and block vectors.
        hidden_size: Width of the hidden layer, the rows of `W_1`.
        projected_size: Width of `u`.
        condition_on: Vectors joined as input. With `block`, one generator serves all sub-layers; without,
            each kind of sub-layer has its own.
        init: `zero` is `bert` with up-projections that start at zero, so that the model starts as the backbone. `bert`
            draws linear maps and layer vectors from N(0, 0.02), `t5` maps from N(0, 0.01) and vectors from N(0, 1), as
            VL-BART and VL-T5 do. Task vectors are always N(0, 1).

    Parts: `task`, `layer`, `block`, `projection`, `generator`.
    """

    parts = ("task", "layer", "block", "projection", "generator")
    start_fields = ("init",)

    method: Literal["hyperformer"] = "hyperformer"
    embedding_size: int = Field(default=512, ge=1)
    hidden_size: int = Field(default=128, ge=1)
    projected_size: int = Field(default=8, ge=1)
    condition_on: tuple[Condition, ...] = Field(default=("task", "layer"), min_length=1)
    init: Literal["bert", "t5", "zero"] = "zero"

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The vectors, the projection's two layers and norm, and four generators."""
        width = site.width
        size = self.size(width)
        maps, vectors = (normal(0.01), normal(1.0)) if self.init == "t5" else (normal(0.02), normal(0.02))
        specs = [
            TensorSpec(
                f"{name}.vector",
                (self.embedding_size,),
                normal(1.0) if name == "task" else vectors,
                name,
                default=_AXES[name],
            )
            for name in self.condition_on
        ]
        joined = self.embedding_size * len(self.condition_on)
        network: dict[str, Any] = {"part": "projection", "default": _AXES["projection"]}
        specs += affine_tensors("projection.inner", joined, self.hidden_size, maps, **network)
        specs += affine_tensors("projection.outer", self.hidden_size, self.projected_size, maps, **network)
        specs += norm_tensors("projection.norm", self.projected_size, **network)
        shared: Axes = frozenset({"task", "layer"})
        if "block" in self.condition_on:
            shared |= {"block"}
        for name, count in (
            ("down.weight", width * size),
            ("down.bias", size),
            ("up.weight", size * width),
            ("up.bias", width),
        ):
            draw = zeros if name.startswith("up") and self.init == "zero" else maps
            shape = (self.projected_size, count)
            specs += [
                TensorSpec(f"{name}.generator", shape, draw, "generator", shared),
                TensorSpec(f"{name}.offset", (count,), zeros, "generator", shared),
            ]
        return tuple(specs)

    def build(self, site: Site) -> Hyperformer:
        """The computation at a site."""
        return Hyperformer(self, site)

    @classmethod
    def example(cls) -> HyperformerConfig:
        """A small configuration."""
        return cls(bottleneck_size=4, embedding_size=6, hidden_size=5, projected_size=3)


class Hyperformer(ConfiguredUnit[HyperformerConfig]):
    """The computation."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """`output` plus the generated adapter of `output`; shape `(rows, ..., width)`."""
        from weft.kernels import BottleneckWeights, adapter_bottleneck

        generated = self.generate(weights)
        tensors = BottleneckWeights(
            generated["down.weight"], generated["up.weight"], generated["down.bias"], generated["up.bias"]
        )
        return adapter_bottleneck(
            output, tensors, weights.routed, residual=output, activation=self.config.activation
        )

    def generate(self, weights: Weights) -> dict[str, Tensor]:
        """The adapter of every task.

        Returns:
            `down.weight` `(tasks or 1, width, size)`, `up.weight` `(tasks or 1, size, width)` and their
            biases.
        """
        import torch
        from torch.nn import functional

        vectors = [weights[f"{name}.vector"] for name in self.config.condition_on]
        slots = max(vector.shape[0] for vector in vectors)
        joined = torch.cat([vector.expand(slots, -1) for vector in vectors], dim=-1)
        hidden = torch.relu(slot_affine(joined, weights, "projection.inner"))
        projected = slot_affine(hidden, weights, "projection.outer")
        normed = functional.layer_norm(projected, projected.shape[-1:], eps=1e-6)
        normed = normed * weights["projection.norm.weight"] + weights["projection.norm.bias"]
        generated = {
            name: affine(normed, weights[f"{name}.generator"], weights[f"{name}.offset"])
            for name in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        count = generated["down.weight"].shape[0]
        generated["down.weight"] = generated["down.weight"].view(count, self.site.width, -1)
        generated["up.weight"] = generated["up.weight"].view(count, -1, self.site.width)
        return generated
