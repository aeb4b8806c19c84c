"""Small models as others save them, whole folders and single files of weights, of which fuzzing replaces parts."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from typing import Any

from tests.fuzz.trees import Tree, files_of, new_place


@cache
def encoders() -> dict[str, Tree]:
    """Folders of encoders: one of weft's own, as `weft encoder build` writes it, and a CLIP of transformers."""
    import torch
    from transformers import BertConfig, CLIPVisionConfig

    from weft.core.composites import DualEncoder, DualEncoderConfig
    from weft.core.testing.processed import tiny
    from weft.eval.readers.image_processor import square_transform

    clip = tiny("clip").save(new_place("clip"))
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = tiny("clip").processor.tokenizer
    config = DualEncoderConfig(
        BertConfig(**size, vocab_size=len(words), max_position_embeddings=16),
        CLIPVisionConfig(**size, image_size=16, patch_size=8),
        projection_size=8,
    )
    torch.manual_seed(0)
    own = new_place("weft-encoder")
    DualEncoder(config).save_pretrained(own)
    words.save_pretrained(own)
    square_transform(16, (0.5,) * 3, (0.5,) * 3).processor.save_pretrained(own)
    return {
        "weft": Tree(files_of(own), {"library": "weft"}),
        "clip": Tree(files_of(clip), {"library": "transformers"}),
    }


@cache
def backbones() -> dict[str, Tree]:
    """Folders of models that a recipe's `backbone.name` can be."""
    from weft.core.testing.processed import tiny

    chat = tiny("llava").save(new_place("llava"))
    return {"chat": Tree(files_of(chat)), "own": encoders()["weft"]}


@cache
def weights() -> dict[str, Tree]:
    """Members of the archives that `torch.save` and `torch.jit.save` write: a BLIP's, and such as are none of one."""
    import torch

    from weft.core.testing.original_names import original_blip

    blip = io.BytesIO()
    torch.save({"model": original_blip(blip_model())}, blip)
    script = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # others still publish such files
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    return {
        "blip": Tree(_members(blip.getvalue())),
        "script": Tree(_members(script.getvalue())),
    }


def packed(members: Mapping[str, bytes]) -> bytes:
    """An archive, whose sums are right, so that what is in it is read."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def blip_config() -> Any:
    """Config of the BLIP of `weights`."""
    from weft.core.composites import BlipRetrievalConfig

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BlipRetrievalConfig(
        text_config={**size, "vocab_size": 8, "max_position_embeddings": 8, "encoder_hidden_size": 8},
        vision_config={**size, "image_size": 16, "patch_size": 8, "initializer_range": 0.02},
        image_text_hidden_size=4,
        encode_token_id=3,
    )


@cache
def blip_model() -> Any:
    """That BLIP."""
    import torch

    from weft.core.composites import BlipRetrieval

    torch.manual_seed(0)
    return BlipRetrieval(blip_config())


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
