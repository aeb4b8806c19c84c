"""Prompts in front of decoder-only language models, alone and within vision-and-language models, and of BERT."""

import pytest
import torch
import transformers

from weft.core import attach, detach, load_adapter, plan
from weft.core.errors import AddressError, RoutingError
from weft.core.testing.backbones import SIZES, model_of
from weft.core.testing.unit_contract import move_slots
from weft.core.testing.vision_language import CASES

LENGTH = 3
PROMPT = {"method": "prompt", "length": LENGTH}
NETWORK = {**PROMPT, "hidden_size": 5, "sharing": "multiple"}
TASKS = ["vqa", "gqa"]
DECODERS = ["llama", "llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm"]
CLOSE = {"atol": 1e-6, "rtol": 1e-6}


def llama():
    model = model_of("Llama", "ForCausalLM", **SIZES, vocab_size=100, num_key_value_heads=1, pad_token_id=0)
    ids = torch.randint(5, 90, (2, 7))
    mask = torch.ones_like(ids)
    ids[0, :2], mask[0, :2] = 0, 0
    return model, {"input_ids": ids, "attention_mask": mask}


def case(name):
    torch.manual_seed(0)
    model, batch = llama() if name == "llama" else CASES[name]()
    with torch.no_grad():  # drawn wide, so that what is read matters
        for path, value in model.named_parameters():
            if ("layer" in path or "lm_head" in path) and value.dim() == 2:
                value.mul_(10)
    return model.eval().requires_grad_(False), batch


def adapted(name, method=NETWORK):
    model, batch = case(name)
    attach(model, method, TASKS)
    torch.manual_seed(1)
    move_slots(model, 0.5)
    return model, batch


def language_model(model):
    return model.model if isinstance(model, transformers.LlamaForCausalLM) else model.get_decoder()


@pytest.mark.parametrize("name", DECODERS)
def test_the_decoder_reads_the_prompt_before_what_it_reads_anyway(name):
    """Here the backbone alone is given both, with the positions that its model counts out."""
    model, batch = adapted(name, PROMPT)
    prompt = model.weft.banks_by_key["prompt.text.embedding.table"].slot_of("vqa")
    with torch.no_grad():
        found = model(**batch).logits
        plain = detach(model)
        before = plain(**batch).logits

        def in_front(module, arguments, named):
            embeds, mask = named.pop("inputs_embeds"), named["attention_mask"]
            ids = named.pop("input_ids", None)
            embeds = module.get_input_embeddings()(ids) if embeds is None else embeds
            named["inputs_embeds"] = torch.cat([prompt.expand(len(embeds), -1, -1), embeds], dim=1)
            named["attention_mask"] = torch.cat([mask.new_ones(len(mask), LENGTH), mask], dim=1)
            if named.get("position_ids") is not None:
                count = torch.arange(LENGTH).expand(*named["position_ids"].shape[:-1], -1)
                named["position_ids"] = torch.cat([count, named["position_ids"] + LENGTH], dim=-1)
            if named.get("visual_pos_masks") is not None:
                nowhere = torch.zeros(len(mask), LENGTH, dtype=torch.bool)
                named["visual_pos_masks"] = torch.cat([nowhere, named["visual_pos_masks"]], dim=1)
            return arguments, named

        language_model(plain).register_forward_pre_hook(in_front, with_kwargs=True)
        if name == "llama":
            batch = {**batch, "inputs_embeds": None}
        expected = plain(**batch).logits
    seen = batch["attention_mask"].bool()
    torch.testing.assert_close(found[seen], expected[:, LENGTH:][seen], **CLOSE)
    assert (found - before)[seen].abs().max() > 1e-4


@pytest.mark.parametrize("name", [*DECODERS, "bert"])
def test_mixed_rows_get_their_own_prompts_and_gradients(name, tmp_path):
    model, batch = adapted(name)
    seen = batch.get("attention_mask", torch.ones(2, 7)).bool()
    slope = torch.linspace(-1, 1, 16 if name == "bert" else model.get_output_embeddings().out_features)

    def losses():
        states = model(**batch)[0]
        return torch.stack([(row * slope)[which].sum() for row, which in zip(states, seen, strict=True)])

    plain, _ = case(name)
    with torch.no_grad():
        expected = plain(**batch)[0]
        for tasks, row in (([None, "gqa"], 0), (["vqa", None], 1)):
            with model.route(tasks=tasks):
                kept = model(**batch)[0]
            torch.testing.assert_close(kept[row][seen[row]], expected[row][seen[row]], atol=1e-5, rtol=1e-5)
            assert (kept - expected)[1 - row][seen[1 - row]].abs().max() > 1e-4
    found = {}
    for kind, routes in (("mixed", [TASKS]), ("alone", ["vqa", "gqa"])):
        model.zero_grad()
        for row, tasks in enumerate(routes):
            with model.route(tasks=tasks) if kind == "mixed" else model.route(task=tasks):
                values = losses()
            (values.sum() if kind == "mixed" else values[row]).backward()
        found[kind] = {(key, slot): value.grad.clone() for key, slot, value in model.weft.slots()}
    for key, value in found["mixed"].items():
        torch.testing.assert_close(value, found["alone"][key], atol=1e-5, rtol=1e-4)
        assert value.any()
    model.save_pretrained(tmp_path)
    other, _ = case(name)
    load_adapter(other, tmp_path)
    with torch.no_grad(), model.route(tasks=TASKS), other.route(tasks=TASKS):
        assert torch.equal(other(**batch)[0], model(**batch)[0])


@pytest.mark.parametrize("name", DECODERS)
def test_generation_with_a_cache_is_generation_without(name):
    model, batch = adapted(name)
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False, "early_stopping": False}
    options |= {"return_dict_in_generate": True, "output_scores": True, "pad_token_id": 0}
    with model.route(tasks=["gqa", None]):
        cached = model.generate(**batch, **options)
        whole = model.generate(**batch, **options, use_cache=False)
    assert torch.equal(cached.sequences, whole.sequences)
    torch.testing.assert_close(cached.sequences_scores, whole.sequences_scores, atol=1e-4, rtol=1e-4)
    with model.disable_adapter():
        plain = model.generate(**batch, **options)
    torch.testing.assert_close(cached.sequences_scores[1], plain.sequences_scores[1], atol=1e-4, rtol=1e-4)
    assert (cached.sequences_scores[0] - plain.sequences_scores[0]).abs() > 1e-3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bert_reads_the_prompt_without_positions_and_returns_its_tokens(implementation):
    model, batch = adapted("bert", PROMPT)
    model.set_attn_implementation(implementation)
    ids = batch["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    prompt = model.weft.banks_by_key["prompt.text.embedding.table"].slot_of("vqa")
    with torch.no_grad():
        found = model(ids, attention_mask=mask)
        shorter = model(ids[:1, :4])
        plain = detach(model)
        states = torch.cat([prompt.expand(2, -1, -1), plain.embeddings(ids)], dim=1)
        shut = torch.cat([mask.new_ones(2, LENGTH), mask], dim=1)[:, None, None]
        for layer in plain.encoder.layer:
            states = layer(states, (1.0 - shut) * torch.finfo(torch.float32).min)
    expected = states[:, LENGTH:]
    assert found.last_hidden_state.shape == expected.shape
    torch.testing.assert_close(found.last_hidden_state[mask.bool()], expected[mask.bool()], **CLOSE)
    torch.testing.assert_close(found.pooler_output, plain.pooler(expected), **CLOSE)
    torch.testing.assert_close(shorter.last_hidden_state[0], expected[0, :4], **CLOSE)


def test_a_decoder_of_berts_kind_is_refused():
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    config.is_decoder = True
    model = attach(transformers.BertModel(config), PROMPT)
    with pytest.raises(
        RoutingError, match="`is_decoder` must be False where a prompt goes in front of BertEncoder"
    ):
        model(torch.ones(1, 3, dtype=torch.long))


@pytest.mark.parametrize("name", ["paligemma", "gemma3", "blip2"])
def test_models_without_a_place_say_so(name):
    model, _ = case(name)
    with pytest.raises(
        AddressError, match=r"must have a place .* method prompt, but text of family .* `prefix`"
    ):
        plan(model, PROMPT)


def test_a_bare_decoder_is_no_place():
    model, _ = case("llama")
    with pytest.raises(AddressError, match="must have a place in front of a stack"):
        plan(model.model, PROMPT)


def test_generation_with_a_cache_of_one_size_is_refused():
    model, batch = adapted("llama")
    with pytest.raises(RoutingError, match="must have two dimensions"), model.route(tasks=TASKS):
        model.generate(**batch, max_new_tokens=3, cache_implementation="static")
