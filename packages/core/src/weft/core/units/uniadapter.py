"""UniAdapter: one bottleneck for all modalities of a layer, with an up-projection for each of them.

Source: UniAdapter (Lu et al., ICLR 2024, arXiv 2302.06605), and its public code where the paper is silent. Each
choice on which the two differ is an option.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from weft.core.backbone.layer_sites import on_stream
from weft.core.backbone.sites import Modality, Site, SiteMap
from weft.core.errors import ConfigError, RoutingError
from weft.core.sharing import Axes
from weft.core.unit.branch_tensors import BranchTensors, TokenTensors
from weft.core.unit.initialisers import fan_in, normal, ones, zeros
from weft.core.unit.layers import routed_bottleneck, routed_norm
from weft.core.unit.places import Activation
from weft.core.unit.protocol import ConfiguredUnit, Init, TensorSpec, UnitConfig, Weights, register_unit

if TYPE_CHECKING:
    from torch import Tensor

ACROSS_MODALITIES: Axes = frozenset({"task", "modality", "stack"})
ACROSS_STACKS: Axes = frozenset({"task", "stack"})
Start = Literal["identity", "repo", "repo_vqa"]


@register_unit
class UniAdapterConfig(UnitConfig):
    """A bottleneck in parallel to the feed-forward block of every layer of both towers.

    With `A_m(x) = scale * (g(LN(x) D + b) U_m + b_m)` the vision layer adds `A_vision(a)` to its output, where
    `a` is the stream that enters the feed-forward block, before its norm. A text layer that reads text alone
    adds `A_text(a)` after its last norm. One that also reads an image, with `c` the stream after its
    cross-attention, adds `A_text(a) + A_cross(c)`, where the up-projection of `A_cross` is `U_cross + U_text`.
    The first of the two terms is the query-residual.

    Layer `i` of every tower and stack shares `D`; text encoder and text decoder share `U_text` and `U_cross`.
    `sharing` says otherwise, part by part, in the four schemes of the paper's ablation; the preset `unified` is the
    default with weights of its own for every task:

    | scheme | `sharing` |
    |---|---|
    | UniAdapter: one down, own ups | the default |
    | nothing shared | `{down: [task, stack], up: [task, stack]}` |
    | own downs, one up | `{down: [task, stack], up: [task, modality, stack]}` |
    | one of each | `{down: [task, modality, stack], up: [task, modality, stack]}` |

    Args:
        bottleneck_size: Width of `D`. 128 gives the paper's 2.2 % on BLIP-base, 512 its best tables.
        branches: Modalities adapted, of `text`, `vision` and `cross`. A dual encoder such as CLIP has no `cross`.
        activation: `g`.
        scale: Factor of every branch; 0.1 in the code.
        norm: LayerNorm on what is read, the `LN` above; it shares as `down` does. The paper's formulas have none, its
            code has one.
        cross_norm: LayerNorm on the output of the cross branch: `none` as in the paper, `frozen` as in its code
            (where a name test froze it by mistake), or `trained`.
        query_residual: Whether a text layer that reads an image also adds `A_text(a)`.
        reuse_text_up: Whether `U_text` is part of the cross branch; not where both are one tensor anyway.
        decoder: `shared` lets a text decoder use the adapters of the encoder, as the code does; `separate`
            gives it a set of its own.
        core: A square matrix of the bottleneck after `D`, with its own activation, that is shared instead of
            `D`. This is our own variant, after MMA (Yang et al., CVPR 2024), for towers of unequal width.
        per_token: Whether text layers hold tokens of images too, as in a decoder-only model, and each token takes
            the up-projection of its own modality. Ours as well.
        init: `identity` starts as the backbone. `repo` is how the retrieval code starts: `U_text` zero, the
            other ups N(0, 0.02). `repo_vqa` is how its VQA code starts: every matrix N(0, 0.02).

    Parts: `down`, `up`, `norm`, `cross_norm`, `core`.
    """

    parts = ("down", "up", "norm", "cross_norm", "core")
    requires = ("stream",)
    start_fields = ("init",)

    method: Literal["uniadapter"] = "uniadapter"
    bottleneck_size: int = Field(default=128, ge=1)
    branches: tuple[Modality, ...] = ("text", "vision", "cross")
    activation: Activation = "relu"
    scale: float = 0.1
    norm: bool = True
    cross_norm: Literal["none", "frozen", "trained"] = "none"
    query_residual: bool = True
    reuse_text_up: bool = True
    decoder: Literal["shared", "separate"] = "shared"
    core: bool = False
    per_token: bool = False
    init: Start = "identity"

    @model_validator(mode="after")
    def _options_fit(self) -> UniAdapterConfig:
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(
                f"`branches` must name modalities, each once, but is {list(self.branches)}. Choose of text, vision "
                "and cross."
            )
        if self.init == "identity" and self.cross_norm == "frozen":
            raise ValueError(
                "`cross_norm` must be 'none' or 'trained' where `init` is 'identity', but is 'frozen': the branch "
                "would stay zero for ever. Take init: repo, or train the norm."
            )
        if self.per_token and "cross" in self.branches:
            raise ValueError(
                "`branches` must not hold 'cross' where `per_token` is true, because a decoder of one sequence has "
                "no cross-attention. Write branches: [text, vision]."
            )
        return self

    @property
    def signals(self) -> tuple[str, ...]:
        """Which tokens stand for images, if each token takes the branch of its modality."""
        return ("token_modality",) if self.per_token else ()

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The feed-forward block of every layer, read and written on the residual stream.

        Raises:
            AddressError: If a word of the configuration fits nothing.
            ConfigError: If a branch has nothing to act at.
        """
        wanted: set[str] = {"text" if branch == "cross" else branch for branch in self.branches}
        towers = self.towers if self.towers is not None else self._towers(sites, wanted)
        chosen = sites.select(towers=towers, blocks=["ffn"], layers=self.layers, stacks=self.stacks)
        every = {site.address: site for site in sites.sites}
        found = []
        for site in chosen:
            beside = every.get(site.address.removesuffix("ffn") + "cross_attention")
            if "cross" in self.branches and site.modality == "text" and beside is None:
                raise ConfigError(
                    f"`branches` may hold 'cross' only where text layers have cross-attention, but {site.address} "
                    "has none. Write branches: [text, vision] for a dual encoder; a BLIP text encoder needs "
                    "`is_decoder: true` in its config."
                )
            query = beside.wiring.residual.before if beside is not None else None
            found.append(on_stream(site, sites).rewired(query=query))
        return tuple(found)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The tensors of every branch that acts at a site."""
        width, size = site.width, self.bottleneck_size
        front = "decoder." if self.decoder == "separate" and site.stack == "decoder" else ""
        specs: list[TensorSpec] = []
        for branch in self.at(site):
            names = {"down.weight": (width, size), "down.bias": (size,)}
            names |= {"up.weight": (size, width), "up.bias": (width,)}
            if self.norm:
                names |= {"norm.weight": (width,), "norm.bias": (width,)}
            if self.core:
                names |= {"core.weight": (size, size), "core.bias": (size,)}
            if self.cross_norm != "none" and branch == "cross":
                names |= {"cross_norm.weight": (width,), "cross_norm.bias": (width,)}
            for name, shape in names.items():
                specs.append(self._spec(front + name, name, shape, branch, width))
        return tuple(specs)

    def at(self, site: Site) -> tuple[Modality, ...]:
        """The branches that act at a site."""
        if site.modality == "vision":
            return ("vision",)
        if self.per_token:
            return ("text", "vision")
        return tuple(branch for branch in self.branches if branch != "vision")

    def build(self, site: Site) -> UniAdapter:
        """The computation at a site."""
        return UniAdapter(self, site)

    @classmethod
    def example(cls) -> UniAdapterConfig:
        """A small configuration for any model of text or of two towers."""
        return cls(bottleneck_size=4, branches=("text", "vision"), core=True)

    def _towers(self, sites: SiteMap, wanted: set[str]) -> tuple[str, ...]:
        if self.per_token:
            return ("text",)
        towers = tuple(tower for tower in sites.towers if tower in wanted)
        return towers or sites.check_towers(sorted(wanted))

    def _spec(self, key: str, name: str, shape: tuple[int, ...], branch: Modality, width: int) -> TensorSpec:
        part = name.split(".", 1)[0]
        default, follows = ACROSS_STACKS, None
        if part in ("norm", "core") or (part == "down" and not self.core):
            default = ACROSS_MODALITIES
        if part == "norm":
            default = ACROSS_STACKS if self.core else ACROSS_MODALITIES
            follows = "down"
        return TensorSpec(
            key,
            shape,
            self._start(name, branch, width),
            part,
            default=default,
            follows=follows,
            modality=branch,
            trainable=part != "cross_norm" or self.cross_norm == "trained",
            alias=f"{branch}.{name}",
        )

    def _start(self, name: str, branch: Modality, width: int) -> Init:
        if name == "norm.weight":
            return ones
        if name == "cross_norm.weight":
            return zeros if self.init == "identity" else ones
        if name.endswith("bias"):
            return zeros
        if self.init == "repo_vqa":
            return normal(0.02)
        if name == "core.weight":
            return fan_in(self.bottleneck_size)
        if name == "down.weight":
            return fan_in(width)
        # A norm on zeros has a gradient of 1 / sqrt(eps): the branch starts at zero by its norm instead.
        behind_norm = branch == "cross" and self.cross_norm != "none"
        if branch == "text" or (self.init == "identity" and not behind_norm):
            return zeros
        return normal(0.02)


class UniAdapter(ConfiguredUnit[UniAdapterConfig]):
    """The branches of one layer."""

    taps = ("query",)

    def __init__(self, config: UniAdapterConfig, site: Site) -> None:
        super().__init__(config, site)
        held = config.sharing.at(site)
        one_up = "text" not in config.branches or "modality" in held.axes("up", default=ACROSS_STACKS)
        self.branches = config.at(site)
        self.reuse_text_up = config.reuse_text_up and not one_up
        self.one_down = not config.core and "modality" in held.axes("down", default=ACROSS_MODALITIES)

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """`output` plus the branches that the layer's pass calls for.

        Args:
            output: The layer's stream after the feed-forward block, shape `(rows, ..., width)`.
            source: The stream before it, of the same shape.
            weights: The tensors; `tapped("query")` is the stream before cross-attention, if the pass had one, and
                `signal("token_modality")` tells tokens of images (1) from those of text (0).
        """
        if self.config.per_token and self.site.modality == "text":
            return self._by_token(output, source, weights)
        if self.branches == ("vision",):
            return self._add(output, source, BranchTensors(weights, "vision"))
        query = weights.tapped("query")
        text = BranchTensors(weights, "text")
        if query is None:
            return self._add(output, source, text) if "text" in self.branches else output
        if "text" in self.branches and self.config.query_residual:
            output = self._add(output, query, text)
        if "cross" not in self.branches:
            return output
        cross = BranchTensors(weights, "cross", text if self.reuse_text_up else None)
        if self.config.cross_norm == "none":
            return self._add(output, source, cross)
        delta = self._add(None, source, cross, 1.0)
        normed = self.config.scale * routed_norm(delta, cross, "cross_norm")
        return weights.keep_identity(output + normed.to(output.dtype), output)

    def _by_token(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        modality = weights.signal("token_modality")
        if modality is None or modality.shape != inputs.shape[:-1]:
            found = "there is none" if modality is None else f"it is {tuple(modality.shape)}"
            raise RoutingError(
                f"`token_modality` must have one entry per token, shape {tuple(inputs.shape[:-1])}, but {found}. "
                "Call the model with `input_ids`, or set it by `with model.signal(token_modality=...)`: 1 for tokens "
                "of images, 0 for text."
            )
        tensors = TokenTensors(weights, modality, one_down=self.one_down)
        flat = self._add(output.flatten(0, -2), inputs.flatten(0, -2), tensors)
        return flat.view(output.shape)

    def _add(
        self, output: Tensor | None, read: Tensor, tensors: BranchTensors, scale: float | None = None
    ) -> Tensor:
        import torch

        from weft.kernels import BottleneckWeights, adapter_bottleneck

        config = self.config
        norm = "norm" if config.norm else None
        options: dict[str, Any] = {
            "scale": config.scale if scale is None else scale,
            "activation": config.activation,
        }
        if not config.core:
            return routed_bottleneck(read, tensors, output, norm=norm, **options)
        read = routed_bottleneck(read, tensors, None, norm=norm, up="core", activation=config.activation)
        alike = torch.eye(read.shape[-1], dtype=read.dtype, device=read.device)[None]
        up, slots = tensors.stored("up.weight")
        back = BottleneckWeights(alike, up, up_bias=tensors["up.bias"], up_slots=slots)
        return adapter_bottleneck(read, back, tensors.routed, residual=output, **options)
