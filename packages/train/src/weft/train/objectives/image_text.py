"""The loss of BLIP's retrieval: image-text contrast and image-text matching, one to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from weft.train.objectives.itc import FeatureQueue, itc_losses
from weft.train.objectives.itm import itm_losses
from weft.train.objectives.momentum import Momentum
from weft.train.recipe.training import ContrastSection


class ImageText(nn.Module):
    """`ITC + ITM`, with what the contrast keeps between steps: the momentum encoders and the queue.

    Args:
        model: A `weft.core.composites.BlipRetrieval`, adapted.
        section: The recipe's `training.contrast`.
        rows: Rows of a batch of one process.

    Source: UniAdapter (Lu et al., ICLR 2024) trains so; its code keeps whole slow towers, and moves them twice a step.
    """

    temperature_range = (0.001, 0.5)
    steps: Tensor

    def __init__(self, model: Any, section: ContrastSection, rows: int) -> None:
        super().__init__()
        self.section = section
        self.momentum = Momentum(model, leave_out=("itm_head", "temp"), decay=section.momentum)
        self.queue = FeatureQueue(section.queue_size, model.config.image_text_hidden_size, rows)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.frame_aware = any(config.method == "frame_attention" for config in model.weft.plan.configs)

    def forward(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """One loss per row, shape `(batch,)`; see `losses`."""
        made = batch["batch"].beside(model)
        return self.losses(model, made.inputs, made.identities["image"])

    def losses(self, model: Any, inputs: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """One loss per row, shape `(batch,)`.

        Args:
            model: The model, which a wrapper such as data parallelism may hold.
            inputs: `input_ids`, `attention_mask` and `pixel_values`.
            images: Numbers that are equal where rows show the same image, of any batch.
        """
        return model(compute=lambda inner: self._losses(inner, inputs, images))

    def _losses(self, model: Any, batch: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            model.temp.clamp_(*self.temperature_range)
        # The slow model comes first: nothing may move the weights between a forward pass and its backward pass.
        self.momentum.update(model)
        with self.momentum.swapped(model):
            slow_image = model.encode_video(batch["pixel_values"]).feature
            slow_text = model.encode_text(**texts)
        video, text = model.encode_video(batch["pixel_values"]), model.encode_text(**texts)
        features = (video.feature, text, slow_image, slow_text)
        contrast = itc_losses(*features, ids, self.queue, temperature=model.temp, alpha=self._alpha())
        match = itm_losses(
            model,
            texts,
            video,
            text,
            ids,
            temperature=model.temp,
            negatives=self.section.negatives,
            frame_aware=self.frame_aware,
        )
        self.queue.push(slow_image, slow_text, ids)
        self.steps.add_(1)
        return contrast + match

    def _alpha(self) -> float:
        ramp = self.section.alpha_steps
        return self.section.alpha * (min(1.0, int(self.steps) / ramp) if ramp else 1.0)
