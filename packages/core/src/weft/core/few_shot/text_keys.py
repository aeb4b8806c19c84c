"""The text side of XMAdapter: what makes keys of class features (MetaNet) and queries of images (Img2TxtNet)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

_META_REDUCTION, _QUERY_REDUCTION = 16, 4


class TextKeys(nn.Module):
    """Keys and queries of a text cache, both of unit length."""

    @abstractmethod
    def queries(self, features: Tensor) -> Tensor:
        """Image features (rows, width) in the space of the keys, shape (rows, text width)."""

    @abstractmethod
    def keys(self, class_features: Tensor, image_keys: Tensor, labels: Tensor) -> Tensor:
        """Text keys, one per class or one per image key, shape (…, text width).

        Args:
            class_features: Shape (classes, width).
            image_keys: Shape (keys, width).
            labels: Class of every image key, int64, shape (keys,).
        """


class ClassTextKeys(TextKeys):
    """`T_c = norm(MetaNet(W_c))`, `q = norm(Img2TxtNet(f))`: two networks into one narrow space.

    Both start as the same orthogonal projection, so that the first text affinities are those of the class features
    themselves, seen in fewer dimensions; the sources leave the start open. With two layers there is a ReLU between.
    """

    def __init__(self, width: int, text_width: int, layers: int, device: torch.device | None) -> None:
        super().__init__()
        self.meta = _network(width, text_width, layers, device)
        self.image_to_text = _network(width, text_width, layers, device)
        if device is None or device.type != "meta":
            self.image_to_text.load_state_dict(self.meta.state_dict())

    def queries(self, features: Tensor) -> Tensor:
        """See `TextKeys`."""
        return functional.normalize(self.image_to_text(features), dim=-1)

    def keys(self, class_features: Tensor, image_keys: Tensor, labels: Tensor) -> Tensor:
        """One key per class."""
        return functional.normalize(self.meta(class_features), dim=-1)


class ResidualTextKeys(TextKeys):
    """`T_j = norm(W_y + MetaNet(F_j))`, `q = norm(f + Img2TxtNet(f))`; both networks start as zero."""

    def __init__(self, width: int, device: torch.device | None) -> None:
        super().__init__()
        narrow, wide = max(1, width // _META_REDUCTION), max(1, width // _QUERY_REDUCTION)
        self.meta = _residual(width, narrow, True, device)
        self.image_to_text = _residual(width, wide, False, device)

    def queries(self, features: Tensor) -> Tensor:
        """See `TextKeys`."""
        return functional.normalize(features + self.image_to_text(features), dim=-1)

    def keys(self, class_features: Tensor, image_keys: Tensor, labels: Tensor) -> Tensor:
        """One key per image key."""
        return functional.normalize(class_features[labels] + self.meta(image_keys), dim=-1)


class MixedTextKeys(TextKeys):
    """`T_j = norm((1 - r) W_y + r F_j)` and `q = f`, with `r` the share: no network, nothing trained."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def queries(self, features: Tensor) -> Tensor:
        """The features themselves."""
        return features

    def keys(self, class_features: Tensor, image_keys: Tensor, labels: Tensor) -> Tensor:
        """One key per image key."""
        return functional.normalize(torch.lerp(class_features[labels], image_keys, self.share), dim=-1)


def _residual(width: int, hidden: int, bias: bool, device: torch.device | None) -> nn.Sequential:
    first = nn.Linear(width, hidden, bias, device)
    last = nn.Linear(hidden, width, bias, device)
    for value in last.parameters():
        nn.init.zeros_(value)
    return nn.Sequential(first, nn.ReLU(), last)


def _network(width: int, text_width: int, layers: int, device: torch.device | None) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Linear(width, text_width, bias=False, device=device)]
    if layers > 1:
        modules += [nn.ReLU(), nn.Linear(text_width, text_width, bias=False, device=device)]
    for module in modules:
        if isinstance(module, nn.Linear) and not module.weight.is_meta:
            nn.init.orthogonal_(module.weight)
    return nn.Sequential(*modules)
