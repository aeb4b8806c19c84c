"""Models of the shapes that are compared, of random weights, and their batches; of transformers alone."""

from __future__ import annotations

from typing import Any

import torch
import transformers

ROWS = {"bart": 4, "clip": 1, "qwen": 4}


def bart(rows: int, length: int = 32) -> tuple[Any, dict[str, Any]]:
    """BART-base's width, two layers of each kind."""
    config = transformers.BartConfig(
        vocab_size=5000,
        encoder_layers=2,
        decoder_layers=2,
        d_model=768,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=256,
        dropout=0.0,
    )
    ids = torch.randint(5, 5000, (rows, length))
    return transformers.BartForConditionalGeneration(config), {"input_ids": ids, "labels": ids}


def clip(rows: int) -> tuple[Any, dict[str, Any]]:
    """The tower of CLIP ViT-B/16: four of its twelve layers, pictures of 224 pixels."""
    config = transformers.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=4,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    return transformers.CLIPVisionModelWithProjection(config), {
        "pixel_values": torch.randn(rows, 3, 224, 224)
    }


def qwen(rows: int) -> tuple[Any, dict[str, Any]]:
    """A Qwen2.5-VL of width 512, four layers of text and four of its tower; rows of an image and 30 tokens."""
    text = {
        "vocab_size": 5000,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
    }
    tower = {
        "depth": 4,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_heads": 4,
        "patch_size": 14,
        "out_hidden_size": 512,
        "window_size": 56,
        "fullatt_block_indexes": [3],
    }
    marks = {"vision_start_token_id": 4996, "vision_end_token_id": 4997}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=tower,
        image_token_id=4998,
        video_token_id=4999,
        **marks,
    )
    words = torch.randint(5, 4900, (rows, 30))
    seen = torch.tensor([4996, *[4998] * 16, 4997]).expand(rows, -1)
    ids = torch.cat([words[:, :4], seen, words[:, 4:]], 1)
    batch = {
        "input_ids": ids,
        "labels": torch.where(ids < 4900, ids, -100),
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": ids.eq(4998).int(),
        "pixel_values": torch.randn(rows * 64, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, 8, 8]] * rows),
    }
    return transformers.Qwen2_5_VLForConditionalGeneration(config), batch


SHAPES: dict[str, Any] = {"bart": bart, "clip": clip, "qwen": qwen}


def loss_of(output: Any) -> torch.Tensor:
    """A loss of what a model returns: its own, or the mean of its features."""
    loss = getattr(output, "loss", None)
    return output[0].float().pow(2).mean() if loss is None else loss
