"""Models that are asked by a chat template."""

from __future__ import annotations

from typing import Any

import transformers

from weft.core.testing.processed.stills import image_processor, video_processor
from weft.core.testing.processed.words import SIGLIP, SQUARE, VISION, Pair, decoder_sizes, tokenizer
from weft.core.testing.vision_language import QWEN_VISION

# Images first, then the words of a turn; the end of an answer is the only end.
IMAGES_FIRST = (
    "{% for message in messages %}{{ message.role | upper }}: "
    "{% for part in message.content if part.type == 'image' %}<image>\n{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{{ '</s>' if message.role == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
# Turns between marks, images where they are spoken of.
MARKED_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% elif part.type == 'video' %}VIDEO{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The beginning is written by the template; a space precedes what is said, but not before an image.
SPOKEN_TURNS = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}"
    "{{ ':' if message.content[0].type == 'image' else ': ' }}"
    "{% for part in message.content %}{{ part.text if part.type == 'text' else '<' + part.type + '>' }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# Begins by itself; the assistant is called a model, and a system text goes into the first turn of the user.
MODEL_TURNS = (
    "{{ bos_token }}{% for message in messages if message.role != 'system' %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{% if loop.first and messages[0].role == 'system' %}{{ messages[0].content[0].text }}\n\n{% endif %}"
    "{% for part in message.content %}"
    "{{ '<start_of_image>' if part.type == 'image' else part.text | trim }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MARKS = ["<|im_start|>", "<|im_end|>"]
SEEN = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def _marked(image: str, video: str) -> str:
    return MARKED_TURNS.replace("IMAGE", image).replace("VIDEO", video)


def llava() -> Pair:
    """LLaVA 1.5: CLIP and Llama, a fixed number of tokens an image; the tokenizer writes the beginning."""
    words = tokenizer(["<image>"], template="<s> $A", padding_side="left")
    config = transformers.LlavaConfig(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        text_config={**decoder_sizes(words), "model_type": "llama"},
        vision_config={**VISION, "model_type": "clip_vision_model", "projection_dim": 8},
    )
    images = image_processor("CLIPImageProcessor", size={"shortest_edge": 32}, crop_size=SQUARE)
    processor = transformers.LlavaProcessor(
        images,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=IMAGES_FIRST,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def llava_onevision() -> Pair:
    """LLaVA-OneVision: SigLIP and Qwen2; an image is seen whole and in tiles, several images whole only."""
    words = tokenizer(["<image>", "<video>", *MARKS], eos_token="<|im_end|>", padding_side="left")
    grids = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = transformers.LlavaOnevisionConfig(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=grids,
        text_config={**decoder_sizes(words), "model_type": "qwen2"},
        vision_config=SIGLIP,
    )
    processor = transformers.LlavaOnevisionProcessor(
        image_processor("LlavaOnevisionImageProcessor", size=SQUARE, image_grid_pinpoints=grids),
        words,
        video_processor("LlavaOnevisionVideoProcessor", size=SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_marked("<image>\n", "<video>\n"),
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def _qwen(kind: str, sections: list[int], vision: dict[str, Any]) -> Pair:
    words = tokenizer([*MARKS, *SEEN], eos_token="<|im_end|>", padding_side="left")
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    config = getattr(transformers, f"{kind}Config")(
        **{
            f"{name}_token_id": words.convert_tokens_to_ids(token)
            for name, token in zip(("vision_start", "vision_end", "image", "video"), SEEN, strict=True)
        },
        text_config=decoder_sizes(words, head_dim=8, rope_parameters=rope),
        vision_config={**QWEN_VISION, "patch_size": 14, **vision},
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    videos = "Qwen3VLVideoProcessor" if kind == "Qwen3VL" else "Qwen2VLVideoProcessor"
    processor = getattr(transformers, f"{kind}Processor")(
        image_processor("Qwen2VLImageProcessor", size=size, patch_size=14),
        words,
        video_processor(videos, size=size, patch_size=14, merge_size=2, temporal_patch_size=2),
        chat_template=_marked("<|vision_start|><|image_pad|><|vision_end|>", SEEN[0] + SEEN[3] + SEEN[1]),
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor


def qwen2_5_vl() -> Pair:
    """Qwen2.5-VL: images of any size, their patches packed into one row, attention in windows."""
    return _qwen("Qwen2_5_VL", [1, 1, 2], {"window_size": 56, "fullatt_block_indexes": [1]})


def qwen3_vl() -> Pair:
    """Qwen3-VL: images of any size, packed, with features of an early layer added to the text's layers."""
    return _qwen("Qwen3VL", [2, 1, 1], {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]})


def smolvlm() -> Pair:
    """SmolVLM: an image in tiles, each with marks of its place; the template writes the beginning."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>"]
    words = tokenizer(
        [*marks, *places],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        padding_side="left",
    )
    config = transformers.SmolVLMConfig(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
        text_config={**decoder_sizes(words), "model_type": "llama"},
        vision_config=VISION,
    )
    side = {"longest_edge": 32}
    processor = transformers.SmolVLMProcessor(
        image_processor("SmolVLMImageProcessor", size={"longest_edge": 64}, max_image_size=side),
        words,
        video_processor("SmolVLMVideoProcessor", size=side, max_image_size=side, num_frames=4, fps=1),
        image_seq_len=4,
        chat_template=SPOKEN_TURNS,
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def gemma3() -> Pair:
    """Gemma 3: SigLIP and Gemma 3; a picture's tokens attend to one another; the template writes the beginning."""
    marks = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    words = tokenizer(
        [*marks.values(), "<start_of_turn>", "<end_of_turn>"],
        template="<s> $A",
        padding_side="left",
        eos_token="<end_of_turn>",
        extra_special_tokens=marks,
    )
    number = words.convert_tokens_to_ids
    text = decoder_sizes(words, head_dim=8, query_pre_attn_scalar=8, sliding_window=64)
    config = transformers.Gemma3Config(
        image_token_index=number("<image_soft_token>"),
        boi_token_index=number("<start_of_image>"),
        eoi_token_index=number("<end_of_image>"),
        mm_tokens_per_image=4,
        text_config={**text, "model_type": "gemma3_text"},
        vision_config=SIGLIP,
    )
    processor = transformers.Gemma3Processor(
        image_processor("Gemma3ImageProcessor", size={"height": 32, "width": 32}),
        words,
        image_seq_length=4,
        chat_template=MODEL_TURNS,
    )
    return transformers.Gemma3ForConditionalGeneration(config), processor


def internvl() -> Pair:
    """InternVL: an image in tiles that follow one another, however many images there are."""
    seen = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(
        [*MARKS, *seen.values()], eos_token="<|im_end|>", padding_side="left", extra_special_tokens=seen
    )
    config = transformers.InternVLConfig(
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        text_config={**decoder_sizes(words), "model_type": "qwen2"},
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
    )
    images = image_processor(
        "GotOcr2ImageProcessor", size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=3
    )
    processor = transformers.InternVLProcessor(
        images,
        words,
        video_processor("InternVLVideoProcessor", size=SQUARE),
        image_seq_length=4,
        chat_template=_marked("<IMG_CONTEXT>\n", "<video>\n"),
    )
    return transformers.InternVLForConditionalGeneration(config), processor


def mllama() -> Pair:
    """Llama 3.2 Vision: layers of the text look at an image in tiles; which, is said for every token."""
    words = tokenizer(
        ["<|image|>", "<|python_tag|>", "<start_of_turn>", "<end_of_turn>"],
        template="<s> $A",
        padding_side="left",
        eos_token="<end_of_turn>",
    )
    config = transformers.MllamaConfig(
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
        text_config=decoder_sizes(
            words, cross_attention_layers=[1], rope_parameters={"rope_type": "default", "rope_theta": 1e4}
        ),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "vision_output_dim": 32,
            "image_size": 32,
            "patch_size": 8,
            "max_num_tiles": 2,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
    )
    images = image_processor("MllamaImageProcessor", size={"height": 32, "width": 32}, max_image_tiles=2)
    template = MODEL_TURNS.replace("<start_of_image>", "<|image|>")
    processor = transformers.MllamaProcessor(images, words, chat_template=template)
    return transformers.MllamaForConditionalGeneration(config), processor


BUILDERS = (mllama, gemma3, internvl, llava, llava_onevision, qwen2_5_vl, qwen3_vl, smolvlm)
