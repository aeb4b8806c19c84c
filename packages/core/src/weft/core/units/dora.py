"""The computation of DoRA: LoRA on the direction of a weight, and a trained magnitude for each of its outputs.

Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5; as in section 4.3, no
gradient goes through the norm. Neither a matrix of ones and zeros nor the update itself is ever formed: the
norm of each output is worked out from the factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.errors import AttachError
from weft.core.units.lora import LoRA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from weft.core.unit.protocol import Weights


class DoRA(LoRA):
    """`y = b + m ⊙ (x W + s x A B) / ‖W + s A B‖`, the norm taken over the inputs of each output."""

    def start(self, module: nn.Module, slots: Mapping[str, Tensor]) -> None:
        """Set the magnitude to the norm of the module's weight, so that the model starts as the backbone."""
        if "magnitude" in slots:
            slots["magnitude"].copy_(norms(self._weight(module)))

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """The output with direction and magnitude changed, shape `(rows, ..., out)`."""
        module = weights.module
        first, last = self.rows or (0, output.shape[-1])
        moved = super().after(output, inputs, weights)[..., first:last]
        bias = getattr(module, "bias", None)
        plain = moved if bias is None else moved - bias[first:last].to(moved.dtype)
        factor = self.factors(weights) - 1
        if factor.shape[0] > 1 and weights.task_ids is not None:
            factor = factor.index_select(0, weights.task_ids.clamp_min(0))
        else:
            factor = factor[:1]
        factor = factor.reshape(-1, *[1] * (moved.dim() - 2), factor.shape[-1])
        changed = moved + plain * factor.to(moved.dtype)
        part = weights.keep_identity(changed, output[..., first:last])
        return part if self.rows is None else output.slice_scatter(part, -1, first, last)

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """`m ⊙ (W + s A B) / ‖W + s A B‖`, worked out in float32."""
        import torch

        factor = self.factors(weights)
        slot = 0 if weights.task_ids is None or factor.shape[0] == 1 else weights.task_ids[0]
        super().merge(module, weights)
        first, last = self.rows or (0, self.out_width)
        weight: Tensor = module.weight[first:last]  # type: ignore[index]
        weight.copy_(weight.float() * factor[slot][:, None])
        own = weights.module.bias
        if isinstance(own, torch.Tensor) and weights.module is not module:
            # A unit before this one may have changed the bias, and what it added has a direction as well.
            bias: Tensor = module.bias[first:last]  # type: ignore[index]
            added = bias.float() - own[first:last].float()
            bias.copy_(own[first:last].float() + added * factor[slot])

    def factors(self, weights: Weights) -> Tensor:
        """`m / ‖W + s A B‖` for each slot of the part that has the most, shape `(slots, out)`."""
        import torch

        down, up = weights["down.weight"].detach(), weights["up.weight"].detach()
        with torch.no_grad():
            weight = self._weight(weights.module).to(down.dtype)
            norm = norms(weight)
            # ‖W + s A B‖² = ‖W‖² + 2 s <W, A B> + s² ‖A B‖², each per output.
            cross = ((weight @ down).mT * up).sum(dim=1)
            square = ((down.mT @ down @ up) * up).sum(dim=1)
            relative = (2 * self.scale * cross + self.scale**2 * square) / norm.square()
            length = norm * (1 + relative).clamp_min(0).sqrt()
        return weights["magnitude"] / length

    def _weight(self, module: nn.Module) -> Tensor:
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2 or not weight.is_floating_point():
            raise AttachError(
                f"`magnitude` needs a weight of floating-point numbers to take norms of, but "
                f"{type(module).__name__} has none. Set `magnitude: false` for quantised maps."
            )
        first, last = self.rows or (0, self.out_width)
        part: Tensor = weight.detach()[first:last]
        return part


def norms(weight: Tensor) -> Tensor:
    """Norm of every output's weights in float32, shape `(out,)`.

    Args:
        weight: Shape `(out, in)`.
    """
    import torch

    return torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32)
