"""Where a prompt goes: a module that returns no tokens until a unit adds some."""

from __future__ import annotations

from torch import Tensor, nn


class PromptPlace(nn.Module):
    """Gives an empty prompt for a text whose embeddings have some width; the site of prompt tuning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_features = self.out_features = width

    def forward(self, embeddings: Tensor) -> Tensor:
        """An empty prompt for embeddings `(rows, text, width)`, shape `(rows, 0, width)`.

        With units it has the shape `(rows, length, width)`, where a vector of zeros is no token.
        """
        return embeddings[:, :0]
