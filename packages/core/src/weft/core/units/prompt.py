"""Prompt tuning: trained vectors in front of a stack's input, with or without a reparametrising network.

Source: Lester et al. 2021; with the network, Li and Liang 2021; as in VL-Adapter (Sung et al. 2022), the
network is kept at inference and one vector per position enters it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import AddressError, RoutingError
from weft.core.unit.initialisers import normal
from weft.core.unit.layers import affine_tensors, of_rows, slot_affine
from weft.core.unit.protocol import ConfiguredUnit, TensorSpec, UnitConfig, Weights, WeightsOf, register_unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Call = dict[str, Any]


@register_unit
class PromptConfig(UnitConfig):
    """`P = tanh(E W_1 + b_1) W_2 + b_2`, or `P = E` without the network, in front of the text.

    The prompt has no learned positions. A backbone offers a place for it as a site of block `embedding`. In
    front of a decoder it is what the decoder would hold as keys and values after reading it.

    It cannot start as the backbone: attention gives vectors in front of the text a share, whatever they are.

    Args:
        length: Vectors per prompt.
        hidden_size: Width of the network's hidden layer; None leaves the network out.
        stacks: Stacks in front of which a prompt goes; by default the encoder, where there is one.

    Parts: `prompt`, which is the table and its network together.
    """

    parts = ("prompt",)
    requires = ("front",)
    start_fields = None

    method: Literal["prompt"] = "prompt"
    length: int = Field(default=40, ge=1)
    hidden_size: int | None = Field(default=None, ge=1)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The places for prompts.

        Raises:
            AddressError: If the chosen towers have none.
        """
        chosen = sites.check_towers(self.towers)
        if not any(site.tower in chosen and site.block == "embedding" for site in sites.sites):
            raise AddressError(
                f"`towers` must have a place in front of a stack for method {self.method}, but {', '.join(chosen)} of "
                f"family {sites.family} has none. Choose another tower, or the method `prefix`, which puts keys and "
                "values into attentions."
            )
        places = sites.select(towers=self.towers, blocks=("embedding",), stacks=self.stacks)
        if self.stacks is not None:
            return places
        return tuple(site for site in places if site.stack != "decoder") or places

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The table `(length, width)`, and the network's two layers."""
        hidden, draw = self.hidden_size, normal(0.02)
        specs = [TensorSpec("table", (self.length, site.width), draw, "prompt")]
        if hidden is not None:
            specs += affine_tensors("inner", site.width, hidden, draw, part="prompt")
            specs += affine_tensors("outer", hidden, site.width, draw, part="prompt")
        return tuple(specs)

    def build(self, site: Site) -> Prompt:
        """The computation at a place for prompts."""
        return StackPrompt(self, site) if site.wiring.whole else Prompt(self, site)

    @classmethod
    def example(cls) -> PromptConfig:
        """A short prompt with its network."""
        return cls(length=3, hidden_size=6)


class Prompt(ConfiguredUnit[PromptConfig]):
    """The prompt where a model asks for one: it becomes a part of the module's output."""

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """The prompt of every row, after what other units put there.

        Args:
            output: Shape `(rows, length of earlier prompts, width)`.
            inputs: The text's embeddings, shape `(rows, text, width)`.
            weights: The tensors.

        Returns:
            Shape `(rows, earlier + length, width)`; rows of task -1 get zeros, which count as no token.
        """
        import torch

        prompt = weights["table"].to(output.dtype)
        if self.config.hidden_size is not None:
            prompt = slot_affine(torch.tanh(slot_affine(prompt, weights, "inner")), weights, "outer")
        prompt = of_rows(prompt, weights.task_ids).expand(output.shape[0], -1, -1)
        prompt = weights.keep_identity(prompt, torch.zeros_like(prompt))
        return torch.cat([output, prompt], dim=1)


class StackPrompt(Prompt):
    """The prompt in front of a whole stack, whose call it changes.

    A stack reads `[prompt][tokens]`. The encoder of an encoder-decoder returns both, and the decoder's cross-attention
    sees both. Every other stack returns the tokens alone; a decoder's cache holds the prompt, so that generation reads
    it once. Prompts have no learned positions, and tokens keep theirs; positions that are relative to one another, as
    in rotary embeddings, count the prompt. Positions from outside are taken as those of the tokens: in a loop of one's
    own around Qwen-VL, whose model works them out from the cache, give `attention_mask` or `position_ids`.

    Source: VL-Adapter (Sung et al. 2022) puts a prompt in front of the decoder as the keys and values that the decoder
    makes of it, which is the same; its tokens then take positions after the prompt, ours keep their own.
    """

    wraps = ("path", "positions", "reader")

    @property
    def length(self) -> int:
        """Vectors of the prompt."""
        return self.config.length

    def call(self, name: str, forward: Callable[..., Any], arguments: Call, weights: WeightsOf) -> Any:
        """Call the stack, its positions or what reads it, with the prompt in front.

        Raises:
            RoutingError: If the stack's mask has other than two dimensions.
        """
        if name == "positions":
            return self._positions(forward, arguments)
        if name == "reader":
            return forward(**self._read(arguments, weights))
        return self._stack(forward, arguments, weights)

    def _stack(self, forward: Callable[..., Any], arguments: Call, weights: WeightsOf) -> Any:
        arguments = dict(arguments)
        name = "hidden_states" if "hidden_states" in arguments else "inputs_embeds"
        ids, embeds = arguments.pop("input_ids", None), arguments.pop(name, None)
        own = weights(ids if embeds is None else embeds)
        if embeds is None:
            stack: Any = own.module
            embeds = stack.get_input_embeddings()(ids)
        cache = arguments.get("past_key_values")
        seen = 0 if cache is None else cache.get_seq_length()
        mask = arguments.get("attention_mask")
        of_attentions = self.site.wiring.whole == "embeddings"
        if of_attentions:
            _check_encoder(own.module)
            mask = attention_mask_of(mask, embeds, self.length, own, causal=bool(arguments.get("is_causal")))
        elif mask is not None or own.task_ids is not None:
            plain = _ones(embeds, embeds.shape[1] + max(seen - self.length, 0)) if mask is None else mask
            mask = self._in_front(plain, own)
        if not of_attentions and arguments.get("position_ids") is not None:
            arguments["position_ids"] = self._counted(arguments["position_ids"], seen)
        if seen == 0:
            embeds = self.after(embeds, embeds, own)
            _widen_images(arguments, self.length)
        result = forward(**{**arguments, name: embeds, "attention_mask": mask})
        return result if self.site.wiring.reader is not None or seen else _without(result, self.length)

    def _counted(self, positions: Tensor, seen: int) -> Tensor:
        """Positions of the prompt and of the tokens after it, shape `(..., length + tokens)`."""
        import torch

        tokens = positions + self.length
        if seen:
            return tokens
        first = torch.arange(self.length, dtype=tokens.dtype, device=tokens.device)
        return torch.cat([first.expand(*tokens.shape[:-1], -1), tokens], dim=-1)

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """The prompt of every row and then its tokens.

        Args:
            output: The tokens' embeddings, shape `(rows, tokens, width)`.
            inputs: The same.
            weights: The tensors.

        Returns:
            Shape `(rows, length + tokens, width)`; rows of task -1 have zeros in front, which no token sees.
        """
        import torch

        return torch.cat([super().after(output[:, :0], inputs, weights), output], dim=1)

    def _in_front(self, mask: Tensor, weights: Weights) -> Tensor:
        import torch

        dimensions = 0 if isinstance(mask, dict) else mask.dim()
        if dimensions != 2:
            raise RoutingError(
                f"`attention_mask` must have two dimensions where a prompt goes in front, but has {dimensions}. "
                "Give 1 for every token that counts; do not generate with a static cache."
            )
        shown = mask.new_ones(mask.shape[0], self.length)
        if weights.task_ids is not None:
            shown = shown * (weights.task_ids >= 0).to(mask.dtype)[:, None]
        return torch.cat([shown, mask], dim=1)

    def _read(self, arguments: Call, weights: WeightsOf) -> Call:
        states, mask = arguments.get("encoder_hidden_states"), arguments.get("encoder_attention_mask")
        if states is None:
            return arguments
        own = weights(states)
        if mask is None:
            if own.task_ids is None:
                return arguments
            mask = _ones(states, states.shape[1] - self.length)
        return {**arguments, "encoder_attention_mask": self._in_front(mask, own)}

    def _positions(self, forward: Callable[..., Any], arguments: Call) -> Tensor:
        from torch.nn import functional

        arguments = dict(arguments)
        seen, ids = arguments.get("past_key_values_length", 0), arguments.get("position_ids")
        first = 0 if seen else self.length
        if ids is None:
            arguments["input_ids"] = arguments["input_ids"][:, first:]
        else:
            arguments["position_ids"] = ids[first:] - self.length
        if seen:
            arguments["past_key_values_length"] = seen - self.length
        return functional.pad(forward(**arguments), (0, 0, first, 0))


def attention_mask_of(
    mask: Tensor | None, embeds: Tensor, length: int, weights: Weights, *, causal: bool
) -> Tensor | None:
    """The mask of attentions that read a prompt and then tokens.

    Args:
        mask: Mask between the tokens, shape `(rows or 1, 1, tokens, tokens)`, True or 0 where one may look; None
            stands for no limit, or for the causal one if `causal`.
        embeds: The tokens' embeddings, shape `(rows, tokens, width)`.
        length: Vectors of the prompt.
        weights: The tensors, of which the rows of task -1 are read.
        causal: Whether tokens see what comes before them alone.

    Returns:
        Shape `(rows or 1, 1, length + tokens, length + tokens)`, or None where None will do.
    """
    import torch

    if mask is None and weights.task_ids is None:
        return None
    tokens = embeds.shape[1]
    shut = torch.finfo(embeds.dtype).min
    if mask is None:
        mask = embeds.new_zeros(1, 1, tokens, tokens)
        if causal:
            mask = mask.masked_fill(torch.ones_like(mask, dtype=torch.bool).triu(1), shut)
    truth = mask.dtype == torch.bool
    no, yes = (False, True) if truth else (shut, 0.0)
    shown = mask.new_full((1, 1, 1, length), yes)
    if weights.task_ids is not None:
        shown = torch.where((weights.task_ids >= 0)[:, None, None, None], shown, mask.new_full((), no))
    among = mask.new_full((length, length), yes)
    if causal:
        among = among.masked_fill(torch.ones_like(among, dtype=torch.bool).triu(1), no)
    # A prompt sees the tokens that the last token sees, or none of them if it comes before them all.
    seen = mask.new_full((1, 1, 1, tokens), no) if causal else mask[:, :, -1:]
    rows = max(mask.shape[0], shown.shape[0])
    top = torch.cat([among.expand(rows, 1, -1, -1), seen.expand(rows, 1, length, -1)], dim=-1)
    bottom = torch.cat([shown.expand(rows, 1, tokens, -1), mask.expand(rows, -1, -1, -1)], dim=-1)
    return torch.cat([top, bottom], dim=-2)


def _check_encoder(stack: Any) -> None:
    if getattr(getattr(stack, "config", None), "is_decoder", False):
        raise RoutingError(
            f"`is_decoder` must be False where a prompt goes in front of {type(stack).__name__}, but is True. Use the "
            "model as an encoder, or the method `prefix`."
        )


def _widen_images(arguments: Call, length: int) -> None:
    """Qwen3-VL adds states of its images to the tokens at these places in several layers; the prompt has none."""
    from torch.nn import functional

    if arguments.get("visual_pos_masks") is not None:
        arguments["visual_pos_masks"] = functional.pad(arguments["visual_pos_masks"], (length, 0))


def _ones(rows: Tensor, length: int) -> Tensor:
    import torch

    return torch.ones(rows.shape[0], length, dtype=torch.int64, device=rows.device)


def _without(result: Any, length: int) -> Any:
    """What a stack returns, without the prompt's rows in its states."""
    if isinstance(result, tuple):
        return (result[0][:, length:], *result[1:])
    result["last_hidden_state"] = result["last_hidden_state"][:, length:]
    if result.get("hidden_states") is not None:
        result["hidden_states"] = tuple(states[:, length:] for states in result["hidden_states"])
    return result
