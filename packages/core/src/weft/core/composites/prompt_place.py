"""Where a prompt goes: a module that returns no tokens until a unit adds some."""

from __future__ import annotations

from torch import Tensor, nn


class PromptPlace(nn.Module):
    """Gives an empty prompt for a text; the site of prompt tuning.

    Args:
        width: Width of the embeddings.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_features = self.out_features = width

    def forward(self, embeddings: Tensor) -> Tensor:
        """An empty prompt.

        Args:
            embeddings: The text's embeddings, shape `(rows, text, width)`.

        Returns:
            Shape `(rows, 0, width)`; with units `(rows, length, width)`, where a vector of zeros is no token.
        """
        return embeddings[:, :0]
