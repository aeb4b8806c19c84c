"""Frozen encoders of images and texts: CLIP and its like of transformers, open_clip, and weft's dual encoder.

transformers 5 returns objects from `get_image_features` and `get_text_features`, 4 returned tensors, open_clip has
`encode_image` and `encode_text`: all three give the same here, unit features.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.core.backbone.text_length import fixed_text_length, tokenised
from weft.core.errors import BackboneError, FewShotError, unknown


class ImageTextEncoder:
    """A frozen model that puts images and texts into one space.

    Args:
        model: A model of transformers with `get_image_features` and `get_text_features` (CLIP, SigLIP, …), of
            open_clip, or weft's `DualEncoder`.
        tokenizer: Its tokenizer: of transformers, or open_clip's function from texts to token ids.
        max_text_tokens: Texts are cut there; by default what the tokenizer or the model says, else 77.

    Raises:
        BackboneError: The model has no such methods.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Callable[..., Any], *, max_text_tokens: int | None = None
    ) -> None:
        self._names = self.check(model)
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.max_text_tokens = max_text_tokens or _longest_text(model)
        self._fingerprint: str | None = None

    @staticmethod
    def check(model: nn.Module) -> tuple[str, str]:
        """The names of a model's two methods, for images and for texts.

        Raises:
            BackboneError: It has no such methods.
        """
        for pair in (("get_image_features", "get_text_features"), ("encode_image", "encode_text")):
            if all(callable(getattr(model, name, None)) for name in pair):
                return pair
        raise BackboneError(
            "`model` must have get_image_features and get_text_features (transformers) or encode_image and "
            f"encode_text (open_clip), but {type(model).__name__} has neither. Load a CLIP-like model."
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by: `exp` of its learned scale, or one by its temperature (BLIP, ALIGN).

        Raises:
            BackboneError: It has neither.
        """
        for name in ("temp", "temperature"):
            if (temperature := getattr(self.model, name, None)) is not None:
                return 1 / float(torch.as_tensor(temperature).detach())
        scale = getattr(self.model, "logit_scale", None)
        if scale is None:
            raise BackboneError(
                f"`model` must have a `logit_scale`, the factor of its cosines, but {type(self.model).__name__} has "
                "none. Give the factor yourself: `logit_scale` of a head, `encoder.logit_scale` of a recipe."
            )
        return float(torch.as_tensor(scale).detach().float().exp())

    def encode_images(self, pixels: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Unit features of images, shape (images, width), float32.

        Args:
            pixels: As the model's own preprocessing makes them, shape (images, channels, height, width); or what its
                image side reads, by argument, as patches of SigLIP 2 with their mask and shapes.
        """
        with torch.no_grad():
            return self.image_features(pixels)

    def image_features(self, pixels: Tensor | Mapping[str, Tensor]) -> Tensor:
        """As `encode_images`; gradients reach what within the model is trained."""
        inputs = {"pixel_values": pixels} if isinstance(pixels, Tensor) else pixels
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        # By its place: open_clip has another name for it.
        first = moved.pop("pixel_values")
        return unit(getattr(self.model, self._names[0])(first, **moved))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit features of texts, shape (texts, width), float32."""
        with torch.no_grad():
            return self.text_features(self.tokens(texts))

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        """Unit features of tokens as `tokens` gives them; gradients reach what was swapped in for their vectors."""
        return unit(getattr(self.model, self._names[1])(**tokens))

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the model's text side reads, by argument; padded as the model was trained to read."""
        if hasattr(self.tokenizer, "pad_token_id"):
            batch = tokenised(self.tokenizer, texts, self.max_text_tokens, fixed_text_length(self.model))
            names = [name for name in ("input_ids", "attention_mask") if name in batch]
            return {name: torch.tensor(batch[name], device=self.device) for name in names}
        return {"text": self.tokenizer(list(texts)).to(self.device)}

    def pieces(self, text: str) -> list[int]:
        """Token ids of a text without those that begin, end and fill it."""
        if hasattr(self.tokenizer, "pad_token_id"):
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        encode = getattr(self.tokenizer, "encode", None)
        if encode is None:
            raise BackboneError(
                "`tokenizer` must have `encode`, as open_clip's has, to learn prompts, but is a "
                f"{type(self.tokenizer).__name__}. Choose a head without prompts."
            )
        return [int(token) for token in encode(text)]

    def class_weights(
        self,
        class_names: Sequence[str],
        templates: Sequence[str] = ("a photo of a {}.",),
        *,
        texts: Mapping[str, Sequence[str]] | None = None,
        allow_duplicates: bool = False,
    ) -> Tensor:
        """Unit text features of classes, shape (classes, width): the mean over all templates and texts of each.

        Args:
            class_names: Names by class; underscores are read as spaces.
            templates: Each with one `{}` for the name; none are needed where there are `texts`.
            texts: Name of every class to texts about it, which are read as they are.
            allow_duplicates: Accept that two classes have one name, as ImageNet's do; their weights are equal.

        Raises:
            FewShotError: A template has no `{}`, there is no class or no template, names repeat, or `texts` speak of
                other classes.

        Source: CLIP (Radford et al. 2021), section 3.1.4; texts about classes as in CuPL (Pratt et al. 2023).
        """
        every = texts_of(class_names, templates, texts, allow_duplicates=allow_duplicates)
        return torch.stack(
            [functional.normalize(self.encode_texts(about).mean(0), dim=-1) for about in every]
        )

    def fingerprint(self) -> str:
        """Changes with the model's class, shapes and any of its weights; the same in every process.

        All weights are read at the first call and not again, since the model is frozen.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256(type(self.model).__name__.encode())
            for name, value in sorted(self.model.state_dict().items()):
                digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint


def unit(output: Any) -> Tensor:
    """Unit features of what an encoder returns, which must be a tensor or an object with `pooler_output`."""
    value = output if isinstance(output, Tensor) else getattr(output, "pooler_output", None)
    if not isinstance(value, Tensor):
        raise BackboneError(
            f"the encoder must return a tensor or an object with `pooler_output`, but returns a "
            f"{type(output).__name__}. Use a model that projects images and texts into one space."
        )
    return functional.normalize(value.float(), dim=-1)


def texts_of(
    class_names: Sequence[str],
    templates: Sequence[str],
    texts: Mapping[str, Sequence[str]] | None = None,
    *,
    allow_duplicates: bool = False,
) -> list[list[str]]:
    """The texts of every class; arguments and errors are those of `ImageTextEncoder.class_weights`."""
    check_names(class_names, allow_duplicates=allow_duplicates)
    if templates or texts is None:
        _check_templates(templates)
    if texts is not None:
        _check_class_texts(texts, class_names)
    return [
        [
            *(template.replace("{}", name.replace("_", " ")) for template in templates),
            *([] if texts is None else texts[name]),
        ]
        for name in class_names
    ]


def check_names(class_names: Sequence[str], *, allow_duplicates: bool = False) -> None:
    """Require names, none of them empty, and different ones unless told otherwise."""
    if not class_names or not all(name.strip() for name in class_names):
        raise FewShotError("`class_names` must hold at least one name and no empty one. Name every class.")
    twice = sorted(name for name, count in Counter(class_names).items() if count > 1)
    if twice and not allow_duplicates:
        raise FewShotError(
            f"`class_names` must differ, but {len(twice)} are repeated: {', '.join(twice[:5])}. No "
            "text tells such classes apart; rename them, or pass `allow_duplicates=True`."
        )


def _check_templates(templates: Sequence[str]) -> None:
    """Require templates, each with one place for the name."""
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise FewShotError(
            f"`templates` must be texts with one {{}} for the class name, but are {wrong or 'none'}. Write for "
            "instance 'a photo of a {}.'."
        )


def _check_class_texts(texts: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> None:
    """Require texts about every class, none of them empty, and about no other."""
    odd = [name for name in texts if name not in class_names]
    if odd:
        raise FewShotError(unknown("a class of `class_texts`", odd[0], class_names))
    bare = [name for name in class_names if not all(map(str.strip, texts.get(name) or [""]))]
    if bare:
        raise FewShotError(
            f"`class_texts` must hold at least one text about every class and no empty one, but lacks one about "
            f"{len(bare)}: {', '.join(bare[:5])}. Write some, or leave `class_texts` out."
        )


def _longest_text(model: nn.Module) -> int:
    config = getattr(model, "config", None)
    text = getattr(config, "text_config", config)
    longest = getattr(text, "max_position_embeddings", None)
    return int(longest) if longest is not None and math.isfinite(longest) else 77
