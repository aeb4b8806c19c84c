"""The momentum encoder: a copy of what is trained, and of nothing else; the frozen backbone serves both models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from weft.train.errors import RunError


class Momentum(nn.Module):
    """An exponential moving average of some parameters of a model.

    `copy <- decay copy + (1 - decay) parameter`, once per `update`, however many places of the model use it.

    Args:
        model: The model; it is not held.
        leave_out: Fronts of names of parameters that the slow model does not need, such as a matching head.
        decay: Share of the copy that stays.

    Source: MoCo (He et al. 2020), section 3.2; ALBEF and BLIP copy both whole towers instead.
    """

    def __init__(self, model: nn.Module, *, leave_out: Sequence[str] = (), decay: float = 0.995) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise RunError(f"`decay` must lie in [0, 1), but is {decay}. BLIP takes 0.995.")
        self.decay = decay
        self.names = tuple(
            name
            for name, value in model.named_parameters()
            if value.requires_grad and not name.startswith(tuple(leave_out))
        )
        named = dict(model.named_parameters())
        for index, name in enumerate(self.names):
            self.register_buffer(f"copy_{index}", named[name].detach().clone())

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the model by one step."""
        named = dict(model.named_parameters())
        for index, name in enumerate(self.names):
            self.get_buffer(f"copy_{index}").lerp_(named[name].detach(), 1 - self.decay)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Let the model compute with the copies; nothing computed within may be differentiated.

        The parameters stay the same objects. Do not enter between a forward pass and its backward pass.
        """
        named = dict(model.named_parameters())
        own = {name: named[name].data for name in self.names}
        try:
            for index, name in enumerate(self.names):
                named[name].data = self.get_buffer(f"copy_{index}")
            with torch.no_grad():
                yield
        finally:
            for name, value in own.items():
                named[name].data = value
