"""What is trained here computes the same in PEFT and in plain transformers, on models with their own processors."""

import copy
import json

import pytest
import torch
from PIL import Image

from weft.core import attach
from weft.core.adapted.merging import save_merged
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft import CONFIG, export_peft, export_vllm, import_peft
from weft.core.files.interop.vllm import served_rank
from weft.core.files.plain import save_plain
from weft.core.testing import tiny_backbone
from weft.core.testing.processed import tiny
from weft.core.testing.unit_contract import adapted, move_trained, outputs

TASKS = ["vqa", "caption", "count"]
MIXED = ["count", "vqa", "caption", "vqa"]
MODELS = ["llava", "qwen2_5_vl", "smolvlm", "florence2"]
RANKS = [
    {"method": "lora", "rank": 2, "alpha": 3, "linears": ["query", "value"], "sharing": "multiple"},
    {"method": "lora", "name": "more", "rank": 5, "alpha": 2, "linears": ["down"], "sharing": "multiple"},
]
FULL = {"method": "frozen", "train_full": ["projector"]}
SIZES = [(60, 40), (40, 60), (64, 64), (96, 48)]
TEXTS = ["what colour is the circle?", "how many?", "describe the picture", "is it red?"]


def model_of(name, method):
    torch.manual_seed(1)
    model = attach(copy.deepcopy(tiny(name).model), method, TASKS).eval()
    move_trained(model, 0.1)
    return model


def asked(name):
    """Questions about pictures of several shapes, in the model's own words."""
    processor = tiny(name).processor
    pictures = [Image.new("RGB", size, (place * 60, 80, 200)) for place, size in enumerate(SIZES)]
    texts = TEXTS
    if getattr(processor, "chat_template", None):
        texts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
                add_generation_prompt=True,
            )
            for text in TEXTS
        ]
    return processor(images=[[each] for each in pictures], text=texts, padding=True, return_tensors="pt")


def answers(model, inputs, **options):
    with torch.inference_mode():
        return model.generate(**inputs, max_new_tokens=6, do_sample=False, **options)


def logits(model, inputs, **options):
    more = {"decoder_input_ids": torch.tensor([[2, 5, 6]] * 4)} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model(**inputs, **more, **options).logits


def plain_of(name, folder):
    return type(tiny(name).model).from_pretrained(folder).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_a_mixed_batch_of_peft_is_the_routed_batch(tmp_path, name):
    peft = pytest.importorskip("peft")
    model, inputs = model_of(name, RANKS), asked(name)
    theirs = None
    for task in TASKS:
        export_peft(model, tmp_path / task, task=task)
        if theirs is None:
            base = copy.deepcopy(tiny(name).model)
            theirs = peft.PeftModel.from_pretrained(base, tmp_path / task, adapter_name=task).eval()
        else:
            theirs.load_adapter(tmp_path / task, adapter_name=task)
    with model.route(tasks=MIXED):
        own, said = logits(model, inputs), answers(model, inputs)
    torch.testing.assert_close(logits(theirs, inputs, adapter_names=MIXED), own, atol=1e-5, rtol=1e-5)
    assert torch.equal(answers(theirs, inputs, adapter_names=MIXED), said)


@pytest.mark.parametrize("name", MODELS)
def test_ranks_that_are_filled_up_compute_the_same(tmp_path, name):
    model, inputs = model_of(name, RANKS), asked(name)
    assert export_vllm(model, tmp_path, task="caption") == 5
    words = json.loads((tmp_path / CONFIG).read_text())
    assert (words["r"], words["rank_pattern"], words["alpha_pattern"], words["use_rslora"]) == (
        5,
        {},
        {},
        False,
    )
    other = import_peft(copy.deepcopy(tiny(name).model), tmp_path, task="mine").eval()
    assert {config.rank for config in other.weft.plan.configs} == {5}
    with model.route(task="caption"):
        torch.testing.assert_close(logits(other, inputs), logits(model, inputs), atol=1e-5, rtol=1e-5)
        assert torch.equal(answers(other, inputs), answers(model, inputs))


def test_ranks_of_one_scale_are_filled_up_with_nothing_but_zeros(tmp_path):
    method = [{**RANKS[0], "rank": 2, "alpha": 3}, {**RANKS[1], "rank": 4, "alpha": 6}]
    model, batch = adapted(method, "bart", TASKS)
    export_vllm(model, tmp_path, task="vqa")
    words = json.loads((tmp_path / CONFIG).read_text())
    assert (words["r"], words["lora_alpha"]) == (4, 6)
    other = import_peft(tiny_backbone("bart")[0], tmp_path)
    with model.route(task="vqa"):
        torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_base_of_its_own_with_its_units_is_the_whole_adapter(tmp_path, name):
    model, inputs = model_of(name, [*RANKS, FULL]), asked(name)
    save_plain(model, tmp_path / "base")
    export_vllm(model, tmp_path / "units", task="vqa", with_full=False)
    other = import_peft(plain_of(name, tmp_path / "base"), tmp_path / "units", task="mine").eval()
    with model.route(task="vqa"):
        torch.testing.assert_close(logits(other, inputs), logits(model, inputs), atol=1e-5, rtol=1e-5)
        assert torch.equal(answers(other, inputs), answers(model, inputs))
    with model.disable_adapter():
        assert torch.equal(logits(plain_of(name, tmp_path / "base"), inputs), logits(model, inputs))


@pytest.mark.parametrize("name", MODELS)
def test_a_merged_folder_generates_what_the_routed_model_does(tmp_path, name):
    model, inputs = model_of(name, [*RANKS, FULL]), asked(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = save_merged(model, tmp_path, task="count")
    assert report.maps > 0
    assert report.error < 1e-5
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with model.route(task="count"):
        assert torch.equal(answers(plain_of(name, tmp_path), inputs), answers(model, inputs))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            {"method": "bottleneck", "bottleneck_size": 4},
            r"must be lora .* but is bottleneck\. Train `method: lora`",
        ),
        ({"method": "ia3"}, r"must be lora .* but is ia3\. .*merged folders \(--for merged\)"),
        ({**RANKS[0], "magnitude": True}, "has no DoRA, but is true. Export merged folders"),
        ({**RANKS[0], "train_full": ["projector"]}, r"loads LoRA alone, .*base folder \(--split\)"),
        (
            {**RANKS[0], "towers": ["text", "vision"]},
            r"vision\.0\.attention\.query .*Train with towers: \[text\]",
        ),
    ],
    ids=["bottleneck", "factors", "magnitude", "trained in full", "vision tower"],
)
def test_what_vllm_does_not_load_is_refused_with_the_nearest_way(tmp_path, method, message):
    model = model_of("llava", method)
    with pytest.raises(CheckpointError, match=message):
        export_vllm(model, tmp_path / "out", task="vqa")
    assert not (tmp_path / "out").exists()


def test_a_server_needs_the_next_rank_that_it_knows():
    assert [served_rank(rank) for rank in (1, 8, 9, 257)] == [8, 8, 16, 320]
    with pytest.raises(CheckpointError, match="at most 512 to be served by vLLM, but is 513"):
        served_rank(513)
