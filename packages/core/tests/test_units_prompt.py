"""Prompts in front of encoders and decoders: what the stack itself computes of them, in passes and in generation."""

from typing import ClassVar

import pytest
import torch

from weft.core import attach, detach, plan
from weft.core.errors import AddressError, ConfigError, RoutingError
from weft.core.testing import BACKBONES, tiny_backbone
from weft.core.testing.unit_contract import UnitContract, adapted, checkpoint_activations, outputs, rows_of
from weft.core.testing.vision_language import CASES
from weft.core.unit.method import parse_method

DECODER = {"method": "prompt", "length": 3, "stacks": ["decoder"]}
BOTH = {**DECODER, "stacks": ["encoder", "decoder"], "hidden_size": 5}
TASKS = ["vqa", "gqa"]


class TestPromptsOfBothStacks(UnitContract):
    configs: ClassVar = list(parse_method(BOTH))
    backbones: ClassVar = ["bart", "t5"]
    own_backbones: ClassVar = {}


def stacks(model):
    return model.get_encoder(), model.get_decoder()


def prompts(model, stack, task="default"):
    key = f"prompt.text.{stack}.embedding.table"
    return model.weft.banks_by_key[key].slot_of(task).detach()


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_decoder_prompt_is_what_the_decoder_keeps_of_it(name):
    """The backbone alone reads the vectors into its cache, then the tokens; BART's positions are taken out."""
    model, batch = tiny_backbone(name)
    plain, _ = tiny_backbone(name)
    if name == "bart":
        with torch.no_grad():
            for each in (model, plain):
                each.model.decoder.embed_positions.weight.zero_()
    attach(model, DECODER)
    encoder, decoder = stacks(plain)
    ids = batch["labels"]
    with torch.no_grad():
        encoded = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        seen = {
            "encoder_hidden_states": encoded.last_hidden_state,
            "encoder_attention_mask": batch["attention_mask"],
        }
        vectors = prompts(model, "decoder").expand(len(ids), -1, -1)
        cache = decoder(inputs_embeds=vectors, use_cache=True, **seen).past_key_values
        expected = decoder(input_ids=ids, past_key_values=cache, **seen).last_hidden_state
        found = model.get_decoder()(input_ids=ids, **seen, output_hidden_states=True)
    torch.testing.assert_close(found.last_hidden_state, expected, atol=1e-6, rtol=1e-6)
    assert {states.shape[1] for states in found.hidden_states} == {ids.shape[1]}


def test_an_encoder_prompt_has_no_positions_and_the_text_keeps_its_own():
    model, batch = tiny_backbone("bart")
    plain, _ = tiny_backbone("bart")
    attach(model, {**DECODER, "stacks": ["encoder"]})
    ids, mask = batch["input_ids"], batch["attention_mask"]
    encoder = plain.get_encoder()
    with torch.no_grad():
        tokens = encoder.embed_tokens(ids) + encoder.embed_positions(ids)
        vectors = prompts(model, "encoder").expand(len(ids), -1, -1)
        encoder.embed_positions.weight.zero_()
        whole = torch.cat([mask.new_ones(len(ids), 3), mask], dim=1)
        states = encoder(inputs_embeds=torch.cat([vectors, tokens], dim=1), attention_mask=whole)
        expected = plain(
            encoder_outputs=states, attention_mask=whole, labels=batch["labels"], decoder_attention_mask=None
        ).logits
    torch.testing.assert_close(outputs(model, batch), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_layers_of_a_dual_encoder_read_the_prompt_first_and_its_rows_are_left_out(name, implementation):
    """The layers are called one by one here, with the mask written out; CLIP's text is causal."""
    found = []
    for by_hand in (True, False):
        torch.manual_seed(0)
        model, batch = BACKBONES["clip"]() if name == "clip" else CASES["siglip"]()
        model.eval().set_attn_implementation(implementation)
        torch.manual_seed(1)
        attach(model, {"method": "prompt", "length": 3})
        if by_hand:
            for tower in ("text", "vision"):
                read_first(getattr(model, f"{tower}_model").encoder, prompt_of(model, tower), name, tower)
            model = detach(model)
        with torch.no_grad():
            result = model(**{**batch, "return_loss": False})
        found.append(torch.cat([result.text_embeds, result.image_embeds], dim=-1))
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)
    torch.manual_seed(0)
    plain, _ = BACKBONES["clip"]() if name == "clip" else CASES["siglip"]()
    with torch.no_grad():
        result = plain.eval()(**{**batch, "return_loss": False})
    before = torch.cat([result.text_embeds, result.image_embeds], dim=-1)
    assert (found[0] - before).abs().amax(dim=1).min() > 1e-5


def prompt_of(model, tower):
    return model.weft.banks_by_key[f"prompt.{tower}.embedding.table"].slot_of("default").detach()


def read_first(encoder, prompt, name, tower):
    """Put a prompt in front of the first layer and take it away behind the last, by hooks."""
    layers = list(encoder.layers)

    def masked(module, args, kwargs):
        hidden = args[0]
        if module is layers[0]:
            hidden = torch.cat([prompt.expand(len(hidden), -1, -1), hidden], dim=1)
        length = hidden.shape[1]
        mask = None
        if (name, tower) == ("clip", "text"):
            mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
        return (hidden, mask), {**kwargs, "is_causal": False}

    for layer in layers:
        layer.register_forward_pre_hook(masked, with_kwargs=True)
    layers[-1].register_forward_hook(lambda module, args, out: out[:, len(prompt) :])


def test_a_tower_inside_another_model_takes_no_prompt():
    model, _ = CASES["llava"]()
    with pytest.raises(AddressError, match=r"must have a place in front of a stack .* but vision of family"):
        plan(model, {"method": "prompt", "towers": ["vision"]})


@pytest.mark.parametrize("name", ["bart", "t5", "visual_seq2seq"])
@pytest.mark.parametrize("method", [DECODER, BOTH], ids=["decoder", "both"])
def test_generation_with_a_cache_is_generation_without(name, method):
    """Scores are compared beside tokens, and the maps are drawn wide, so that they depend on what is read."""
    model, batch = adapted({**method, "sharing": "multiple"}, name, TASKS, noise=0.5)
    batch.pop("labels")
    with torch.no_grad():
        for path, value in model.named_parameters():
            if "layers." in path and value.dim() == 2:
                value.mul_(10)
    options = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False, "early_stopping": False}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    close = {"atol": 1e-5, "rtol": 1e-5}
    with model.route(tasks=["vqa", "gqa", None, "vqa"]):
        cached = model.generate(**batch, **options)
        whole = model.generate(**batch, **options, use_cache=False)
    assert torch.equal(whole.sequences, cached.sequences)
    torch.testing.assert_close(whole.sequences_scores, cached.sequences_scores, **close)
    with model.route(task="gqa"):
        alone = model.generate(**rows_of(batch, [1]), **options)
    torch.testing.assert_close(alone.sequences_scores[0], cached.sequences_scores[1], **close)
    with model.disable_adapter():
        plain = model.generate(**batch, **options)
    torch.testing.assert_close(plain.sequences_scores[2], cached.sequences_scores[2], **close)
    assert (plain.sequences_scores - cached.sequences_scores)[[0, 1, 3]].abs().min() > 1e-3


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_tokens_that_are_padded_on_the_left_count_the_same(name):
    model, batch = adapted({**DECODER, "sharing": "multiple"}, name, TASKS, noise=0.5)
    ids = batch.pop("labels")
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    with torch.no_grad(), model.route(tasks=["vqa", None, "gqa", "gqa"]):
        masked = model(**batch, decoder_input_ids=ids, decoder_attention_mask=mask).logits
        shorter = model(**batch, decoder_input_ids=ids[:, :-1]).logits
    torch.testing.assert_close(masked[:, :-1], shorter, atol=1e-6, rtol=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients():
    found = []
    for checkpointing in (False, True):
        model, batch = adapted(BOTH, "bart", None)
        model.train()
        if checkpointing:
            checkpoint_activations(model)
        outputs(model, {**batch, "use_cache": False}).square().sum().backward()
        found.append([value.grad for _, _, value in model.weft.slots()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-6, rtol=1e-5)


def test_a_prompt_goes_in_front_of_the_encoder_unless_told_otherwise():
    for name in ("bart", "t5", "visual_seq2seq"):
        model, _ = tiny_backbone(name)
        addresses = [site.address for site in plan(model, {"method": "prompt"}).sites]
        assert addresses == ["text.encoder.embedding"]
        addresses = [site.address for site in plan(model, DECODER).sites]
        assert addresses == ["text.decoder.embedding"]


def test_a_mask_of_four_dimensions_is_refused():
    model, batch = adapted(DECODER, "bart", None)
    ids = batch.pop("labels")
    mask = torch.zeros(len(ids), 1, ids.shape[1], ids.shape[1])
    with pytest.raises(RoutingError, match=r"`attention_mask` must have two dimensions .* but has 4"):
        model(**batch, decoder_input_ids=ids, decoder_attention_mask=mask)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ({**DECODER, "stacks": ["decodr"]}, AddressError, r"`stacks` must be .* Did you mean 'decoder'"),
        (
            {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "blocks": ["embedding"]},
            ConfigError,
            "`method` 'bottleneck' must have the output of a sub-layer",
        ),
        ({**DECODER, "length": 0}, ConfigError, "greater than or equal to 1"),
    ],
    ids=["stack", "another unit", "length"],
)
def test_wrong_choices_are_told(method, error, message):
    model, _ = tiny_backbone("bart")
    with pytest.raises(error, match=message):
        plan(model, method)
