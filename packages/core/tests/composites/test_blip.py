"""BLIP's original files, and its own passes for retrieval and question answering."""

import pytest
import torch
import transformers
from torch.nn import functional

from weft.core import attach
from weft.core.composites import (
    BlipAnswering,
    BlipAnsweringConfig,
    BlipCaptioning,
    BlipCaptioningConfig,
    BlipRetrieval,
    BlipRetrievalConfig,
    load_blip,
)
from weft.core.composites.blip_checkpoint import resized_positions
from weft.core.errors import CheckpointError, ConfigError, RoutingError
from weft.core.testing.vision_language import blip_fields
from weft.core.units.frame_attention import frame_weights

ENCODE = 99


def config(kind, **text):
    return kind(**blip_fields(text=text), encode_token_id=ENCODE)


def retrieval(**text):
    torch.manual_seed(0)
    return BlipRetrieval(config(BlipRetrievalConfig, **text)).eval()


def answering(**text):
    torch.manual_seed(0)
    return BlipAnswering(config(BlipAnsweringConfig, **text)).eval()


def texts(rows=2, length=7):
    ids = torch.randint(5, 90, (rows, length))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask


# --- the original files, whose names are written out here as BLIP's code makes them


def original(width=16, depth=2, vocabulary=100, patches=4, hidden=32, positions=32):
    """A state with the names and shapes of a pretrained-only file: both towers, both text stacks, copies and queues."""
    shapes = {
        "visual_encoder.cls_token": (1, 1, width),
        "visual_encoder.pos_embed": (1, patches + 1, width),
        "visual_encoder.patch_embed.proj.weight": (width, 3, 8, 8),
        "visual_encoder.patch_embed.proj.bias": (width,),
        "visual_encoder.norm.weight": (width,),
        "visual_encoder.norm.bias": (width,),
    }

    def linear(name, rows, columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    for layer in range(depth):
        block = f"visual_encoder.blocks.{layer}"
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", hidden, width)
        linear(f"{block}.mlp.fc2", width, hidden)
    for stack in ("text_encoder", "text_decoder.bert"):
        shapes[f"{stack}.embeddings.word_embeddings.weight"] = (vocabulary, width)
        shapes[f"{stack}.embeddings.position_embeddings.weight"] = (positions, width)
        shapes[f"{stack}.embeddings.position_ids"] = (1, positions)
        norm(f"{stack}.embeddings.LayerNorm")
        for layer in range(depth):
            block = f"{stack}.encoder.layer.{layer}"
            for attention in ("attention", "crossattention"):
                for part in ("query", "key", "value"):
                    linear(f"{block}.{attention}.self.{part}", width, width)
                linear(f"{block}.{attention}.output.dense", width, width)
                norm(f"{block}.{attention}.output.LayerNorm")
            linear(f"{block}.intermediate.dense", hidden, width)
            linear(f"{block}.output.dense", width, hidden)
            norm(f"{block}.output.LayerNorm")
    head = "text_decoder.cls.predictions"
    linear(f"{head}.transform.dense", width, width)
    norm(f"{head}.transform.LayerNorm")
    linear(f"{head}.decoder", vocabulary, width)
    shapes[f"{head}.bias"] = (vocabulary,)
    linear("vision_proj", 8, width)
    linear("text_proj", 8, width)
    linear("itm_head", 2, width)
    shapes |= {"temp": (), "image_queue": (8, 40), "text_queue": (8, 40), "ptr_queue": (1,)}
    shapes |= {"visual_encoder_m.pos_embed": (1, patches + 1, width), "text_proj_m.weight": (8, width)}
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    state[f"{head}.decoder.weight"] = state["text_decoder.bert.embeddings.word_embeddings.weight"]
    state[f"{head}.decoder.bias"] = state[f"{head}.bias"]
    return state


@pytest.mark.parametrize(
    "build",
    [
        retrieval,
        answering,
        lambda: transformers.BlipForImageTextRetrieval(retrieval().config),
        lambda: transformers.BlipForQuestionAnswering(retrieval().config),
        lambda: transformers.BlipForConditionalGeneration(retrieval().config),
    ],
    ids=["retrieval", "answering", "plain retrieval", "plain answering", "plain captions"],
)
def test_every_class_takes_its_part_of_an_original_file(build, tmp_path):
    state, model = original(), build()
    torch.save({"model": state, "epoch": 3}, tmp_path / "model_base.pth")
    unused = load_blip(model, tmp_path / "model_base.pth")
    own = dict(model.named_parameters())
    fused = own["vision_model.encoder.layers.1.self_attn.qkv.weight"]
    assert torch.equal(fused, state["visual_encoder.blocks.1.attn.qkv.weight"])
    assert torch.equal(own["vision_model.post_layernorm.bias"], state["visual_encoder.norm.bias"])
    # Every weight came from the file: renaming the file's tensors to themselves leaves none of the random ones.
    loaded = {value.data_ptr() for value in state.values()}
    assert not loaded & {value.data_ptr() for value in own.values()}
    theirs = {tuple(value.flatten()[:4].tolist()) for value in state.values() if value.dim()}
    assert all(tuple(value.flatten()[:4].tolist()) in theirs for value in own.values() if value.dim())
    assert not any(name.endswith("_queue") or "_m." in name for name in unused)
    assert ("itm_head.weight" in unused) != hasattr(model, "itm_head")


def vit(state, pixels, heads=2):
    """The original vision tower in plain torch, from its own names."""
    x = functional.conv2d(
        pixels,
        state["visual_encoder.patch_embed.proj.weight"],
        state["visual_encoder.patch_embed.proj.bias"],
        stride=8,
    )
    x = torch.cat([state["visual_encoder.cls_token"].expand(len(pixels), -1, -1), x.flatten(2).mT], dim=1)
    x = x + state["visual_encoder.pos_embed"]

    def linear(name, value):
        return functional.linear(value, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, value):
        return functional.layer_norm(value, (16,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    for layer in range(2):
        block = f"visual_encoder.blocks.{layer}"
        qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x))
        query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + linear(f"{block}.attn.proj", mixed)
        inner = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + linear(f"{block}.mlp.fc2", inner)
    return norm("visual_encoder.norm", x)


@torch.no_grad()
def test_the_vision_tower_computes_what_the_original_one_does():
    model_config = config(BlipRetrievalConfig)
    model_config.vision_config.layer_norm_eps = 1e-6
    model = BlipRetrieval(model_config).eval()
    state = original()
    load_blip(model, state)
    assert model.temp == state["temp"]
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model.encode_video(pixels).tokens, vit(state, pixels), atol=1e-5, rtol=1e-5)


def test_positions_are_resized_as_the_class_token_stays():
    positions = torch.randn(1, 5, 3)
    found = resized_positions(positions, 17)
    assert torch.equal(found[:, 0], positions[:, 0])
    grid = positions[:, 1:].reshape(1, 2, 2, 3).permute(0, 3, 1, 2)
    expected = functional.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False)
    assert torch.equal(found[0, 1 + 4 * 1 + 2], expected[0, :, 1, 2])
    model = retrieval()
    load_blip(model, original(patches=16))
    assert model.vision_model.embeddings.position_embedding.shape == (1, 5, 16)


def test_files_that_do_not_fit_are_refused(tmp_path):
    model = retrieval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = original()
    del state["itm_head.weight"]
    with pytest.raises(CheckpointError, match=r"fits BlipRetrieval, but lacks itm_head\.weight"):
        load_blip(model, state)
    with pytest.raises(
        CheckpointError, match=r"word_embeddings\.weight is \(90, 16\) and should be \(100, 16\)"
    ):
        load_blip(model, original(vocabulary=90))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="must hold BLIP's `visual_encoder`"):
        load_blip(model, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="must be a BLIP checkpoint of tensors alone"):
        load_blip(model, tmp_path / "broken.pth")


# --- the passes


@torch.no_grad()
def test_a_match_reads_the_encode_token_and_a_lone_text_does_not():
    model = retrieval()
    ids, mask = texts()
    video = model.encode_video(torch.randn(2, 3, 16, 16))
    asked = ids.clone()
    asked[:, 0] = ENCODE
    assert torch.equal(model.match(ids, mask, video.tokens), model.match(asked, mask, video.tokens))
    assert not torch.allclose(model.encode_text(ids, mask), model.encode_text(asked, mask))
    hidden = model.text_encoder(
        input_ids=asked, attention_mask=mask, encoder_hidden_states=video.tokens
    ).last_hidden_state
    torch.testing.assert_close(
        model.match(ids, mask, video.tokens), model.itm_head(hidden[:, 0]), atol=1e-6, rtol=1e-6
    )


@torch.no_grad()
def test_a_video_is_the_mean_of_its_frames_and_the_row_of_their_tokens():
    model = retrieval()
    pixels = torch.randn(2, 3, 3, 16, 16)
    video = model.encode_video(pixels)
    each = [model.vision_model(pixel_values=pixels[:, frame]).last_hidden_state for frame in range(3)]
    torch.testing.assert_close(video.tokens, torch.cat(each, dim=1), atol=1e-6, rtol=1e-6)
    mean = torch.stack([model.vision_proj(tokens[:, 0]) for tokens in each]).mean(dim=0)
    torch.testing.assert_close(video.feature, functional.normalize(mean, dim=-1), atol=1e-6, rtol=1e-6)
    one = model.encode_image(pixels[:, 1])
    torch.testing.assert_close(one, video.frames[:, 1], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_frame_weights_scale_the_keys_of_patches_and_of_nothing_else():
    # Wide weights, so that attention is far from even and keys matter.
    model = attach(retrieval(initializer_range=0.5), [{"method": "frame_attention"}])
    ids, mask = texts()
    video = model.encode_video(torch.randn(2, 3, 3, 16, 16))
    plain = model.match(ids, mask, video.tokens)
    even = frame_weights(video.feature, video.frames[:, :1].expand(-1, 3, -1))
    torch.testing.assert_close(even, torch.ones(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.match(ids, mask, video.tokens, even), plain, atol=1e-6, rtol=1e-6)
    weights = torch.tensor([[0.2, 1.3, 1.5], [2.0, 0.5, 0.5]])
    found = model.match(ids, mask, video.tokens, weights)
    handles = []
    scaled = weights[:, :, None].expand(-1, -1, 5).clone()
    scaled[:, :, 0] = 1
    for layer in model.text_encoder.encoder.layer:
        key = layer.crossattention.self.key
        handles.append(key.register_forward_hook(lambda _, __, out: out * scaled.flatten(1)[:, :, None]))
    torch.testing.assert_close(model.match(ids, mask, video.tokens), found, atol=1e-6, rtol=1e-6)
    assert (found - plain).abs().max() > 1e-3
    assert len(handles) == 2


def test_frame_weights_that_cannot_be_used_are_refused():
    ids, mask = texts()
    plain = retrieval()
    tokens = plain.encode_video(torch.randn(2, 3, 3, 16, 16)).tokens
    with pytest.raises(ConfigError, match="only to a model with the unit 'frame_attention'"):
        plain.match(ids, mask, tokens, torch.ones(2, 3))
    model = attach(plain, [{"method": "frame_attention"}])
    with pytest.raises(RoutingError, match="of 2 rows and 15 tokens, but has shape"):
        model.match(ids, mask, tokens, torch.ones(2, 4))
    with pytest.raises(ConfigError, match="must be of 16 by 16 pixels, a multiple of the patch"):
        model.encode_video(torch.randn(2, 3, 24, 24))
    with pytest.raises(ConfigError, match="must be of 16 by 16 pixels"):
        answering().encode_question(ids, mask, torch.randn(2, 3, 16, 24))
    odd = retrieval()
    odd.config.vision_config.patch_size = 7
    with pytest.raises(ConfigError, match=r"a multiple of the patch \(7\)"):
        odd.encode_video(torch.randn(2, 3, 16, 16))
    with pytest.raises(ConfigError, match=r"`encode_token_id` must be a token of the vocabulary \(100\)"):
        BlipRetrieval(BlipRetrievalConfig(**blip_fields()))


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_answers_are_sums_over_their_tokens(smoothing):
    model = answering(label_smoothing=smoothing)
    ids, mask = texts()
    states = model.encode_question(ids, mask, torch.randn(2, 3, 16, 16))
    answers = torch.tensor([[7, 20, 98, 0, 0], [7, 30, 31, 32, 98]])
    answer_mask = (answers != 0).long()
    found = model.answer_losses(answers, answer_mask, states, mask)
    for row, length in ((0, 3), (1, 5)):
        inputs = answers[row : row + 1, :length].clone()
        inputs[:, 0] = 97
        logits = model.text_decoder(
            input_ids=inputs,
            encoder_hidden_states=states[row : row + 1],
            encoder_attention_mask=mask[row : row + 1],
        ).logits[0, :-1]
        logp = logits.log_softmax(dim=-1)
        own = logp.gather(1, inputs[0, 1:, None]).sum()
        expected = -(1 - smoothing) * own - smoothing * logp.mean(dim=-1).sum()
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_answers_are_written_from_the_decode_token_on():
    model = answering()
    ids, mask = texts()
    tokens = model.generate(ids, torch.randn(2, 3, 16, 16), mask, max_new_tokens=4, do_sample=False)
    assert tokens.shape[0] == 2
    assert (tokens[:, 0] == 97).all()


def captioning(**text):
    torch.manual_seed(0)
    values = config(BlipRetrievalConfig, **text).to_dict()
    model = BlipCaptioningConfig(text_config=values["text_config"], vision_config=values["vision_config"])
    return BlipCaptioning(model).eval()


PROMPT = torch.tensor([[95, 11, 12, 98]])


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_caption_is_scored_behind_its_prompt_alone(smoothing):
    model = captioning(label_smoothing=smoothing)
    pixels = torch.randn(2, 3, 16, 16)
    captions = torch.tensor([[95, 20, 98, 0, 0], [95, 30, 31, 32, 98]])
    mask = (captions != 0).long()
    prompts = PROMPT.expand(2, -1)
    sums, counts = model.caption_losses(prompts, torch.ones_like(prompts), pixels, captions, mask)
    assert counts.tolist() == [2, 4]
    for row, length in ((0, 3), (1, 5)):
        ids = torch.cat([torch.tensor([97, 11, 12]), captions[row, 1:length]])[None]
        image = model.vision_model(pixel_values=pixels[row : row + 1]).last_hidden_state
        logits = model.text_decoder(input_ids=ids, encoder_hidden_states=image).logits[0, 2:-1]
        labels = captions[row, 1:length]
        expected = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(sums[row], expected, atol=1e-5, rtol=1e-5)
    padded = torch.ones_like(prompts)
    padded[1, 3] = 0
    with pytest.raises(ConfigError, match="`prompts` of one batch must be of one length"):
        model.caption_losses(prompts, padded, pixels, captions, mask)


@torch.no_grad()
def test_captions_are_written_without_their_prompt():
    model = captioning(initializer_range=0.5)
    pixels = torch.randn(2, 2, 3, 16, 16)
    prompts = PROMPT.expand(2, -1)
    found = model.generate(prompts, pixels, max_new_tokens=4, do_sample=False)
    assert found.shape[0] == 2
    assert found.shape[1] <= 4
    image = torch.cat(
        [model.vision_model(pixel_values=pixels[:, k]).last_hidden_state for k in (0, 1)], dim=1
    )
    start = torch.tensor([[97, 11, 12]]).expand(2, -1)
    logits = model.text_decoder(input_ids=start, encoder_hidden_states=image).logits[:, -1]
    assert torch.equal(found[:, 0], logits.argmax(dim=1))
