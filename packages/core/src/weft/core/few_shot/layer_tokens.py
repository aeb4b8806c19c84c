"""Tokens that stand behind the first one while a layer of CLIP's towers is called, and are taken out behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.backbone.resolving import resolve
from weft.core.errors import BackboneError


class LayerTokens:
    """The `last` layers, or all that there are, of both towers of a CLIP of transformers.

    Attributes:
        layers: Tower to its layers, the lower first.
        widths: Tower to its width.
        size: Width of the common space.

    Raises:
        BackboneError: The model is no CLIP of transformers.
    """

    def __init__(self, model: nn.Module, last: int) -> None:
        norm = getattr(getattr(model, "vision_model", None), "post_layernorm", None)
        projection = getattr(model, "visual_projection", None)
        if norm is None or not isinstance(projection, nn.Linear):
            raise BackboneError(
                f"`encoder` must be a CLIP of transformers, whose towers pool a token of the text and the first one of "
                f"the image, but is a {type(model).__name__}. Choose another head, such as clip_lora."
            )
        sites = resolve(model)
        self.layers: dict[str, list[nn.Module]] = {}
        self.widths: dict[str, int] = {}
        for tower in ("text", "vision"):
            paths = [path for path, front in sites.layers.items() if front.startswith(f"{tower}.")]
            self.layers[tower] = [model.get_submodule(path) for path in paths[-last:]]
            self.widths[tower] = next(site.width for site in sites.sites if site.tower == tower)
        self.size = projection.out_features
        self._norm = norm

    @contextmanager
    def inserted(self, tower: str, tokens: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Within it each of the layers reads tokens of its own, shape (tokens, width), all of one number.

        Yields:
            An empty list, into which each call of the tower puts what the last layer makes of its tokens, shape (rows,
            tokens, width).
        """
        made: list[Tensor] = []
        with ExitStack() as after:
            for place, (layer, own) in enumerate(zip(self.layers[tower], tokens, strict=True), 1):
                for handle in _around(layer, own, made if place == len(tokens) else None):
                    after.callback(handle.remove)
            yield made

    def normed(self, made: Tensor) -> Tensor:
        """What the vision tower's last norm makes of tokens."""
        return self._norm(made)


def _around(layer: nn.Module, tokens: Tensor, made: list[Tensor] | None) -> tuple[Any, Any]:
    count = len(tokens)

    def put_in(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = {**dict(zip(("hidden_states", "attention_mask"), args, strict=False)), **kwargs}
        states: Tensor = named["hidden_states"]
        own = tokens.to(states).expand(states.shape[0], -1, -1)
        named["hidden_states"] = torch.cat([states[:, :1], own, states[:, 1:]], dim=1)
        if isinstance(named.get("attention_mask"), Tensor):
            named["attention_mask"] = _longer(named["attention_mask"], count)
        return (), named

    def take_out(module: nn.Module, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        if made is not None:
            made.append(states[:, 1 : 1 + count])
        states = torch.cat([states[:, :1], states[:, 1 + count :]], dim=1)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return layer.register_forward_pre_hook(put_in, with_kwargs=True), layer.register_forward_hook(take_out)


def _longer(mask: Tensor, count: int) -> Tensor:
    """A causal mask, shape (..., length, length), in which tokens follow the first one and are seen from there on.

    What sees the first token sees them too, and they see what it sees, and those of their own before them.
    """
    places = (torch.arange(mask.shape[-1] + count, device=mask.device) - count).clamp(min=0)
    found = mask[..., places, :][..., places]
    later = torch.ones(count + 1, count + 1, dtype=torch.bool, device=mask.device).triu(1)
    blocked = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    found[..., : count + 1, : count + 1].masked_fill_(later, blocked)
    return found
