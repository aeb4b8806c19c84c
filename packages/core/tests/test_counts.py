"""Parameter counts of the VL-Adapter paper's models, from the plan alone, on the meta device."""

import pytest
import torch
import transformers

from weft.core import plan
from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig

TASKS = ("vqa", "gqa", "nlvr", "caption")
VISUAL = ["visual_embedding"]
VISUAL_NORMS = ["visual_embedding", "norms"]


def bart_base():
    return transformers.BartConfig(
        vocab_size=50465,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=1024,
    )


def t5_base():
    return transformers.T5Config(
        vocab_size=32200,
        d_model=768,
        d_kv=64,
        d_ff=3072,
        num_layers=12,
        num_decoder_layers=12,
        num_heads=12,
        decoder_start_token_id=0,
    )


@pytest.fixture(scope="module")
def models():
    with torch.device("meta"):
        return {
            (name, visual): VisualSeq2Seq(VisualSeq2SeqConfig(config, feature_size=size))
            for name, config in (("bart", bart_base()), ("t5", t5_base()))
            for visual, size in (("image", 2048), ("video", 512))
        }


def adapter(**changes):
    return {"method": "bottleneck", "reduction_factor": 8, "train_full": VISUAL_NORMS, **changes}


def compacter(**changes):
    return {"method": "compacter", "reduction_factor": 8, "train_full": VISUAL_NORMS, **changes}


def lora(**changes):
    return {"method": "lora", "rank": 128, "alpha": 32, "train_full": [*VISUAL, "biases"], **changes}


def prompt(**changes):
    return {"method": "prompt", "length": 40, "hidden_size": 800, "train_full": VISUAL, **changes}


HYPER = {"method": "hyperformer", "reduction_factor": 8, "train_full": VISUAL_NORMS}

BART_IMAGE = [
    ("full", {"method": "full"}, 141_156_864, 141_156_864),
    ("single adapter", adapter(), 6_081_600, 145_606_464),
    ("multiple adapters", adapter(sharing="multiple"), 19_430_400, 158_955_264),
    ("half-shared adapters", adapter(sharing="half"), 12_725_760, 152_250_624),
    ("hyperformer", HYPER, 8_579_088, 148_103_952),
    ("single compacter", compacter(), 3_870_240, 143_395_104),
    ("multiple compacters", compacter(sharing="multiple"), 10_584_960, 150_109_824),
    (
        "multiple compacters, norms frozen",
        compacter(sharing="multiple", train_full=VISUAL),
        10_535_808,
        150_109_824,
    ),
    ("single lora", lora(), 8_786_688, 148_234_752),
    ("multiple lora", lora(sharing="multiple"), 30_020_352, 169_468_416),
    ("single prompt", prompt(), 2_843_936, 142_417_952),
    ("multiple prompts", prompt(sharing="multiple"), 6_627_200, 146_201_216),
    ("bitfit", {"method": "bitfit", "train_full": VISUAL}, 1_708_800, 141_156_864),
    ("visual embedding", {"method": "frozen", "train_full": VISUAL}, 1_582_848, 141_156_864),
    ("visual embedding and norms", {"method": "norms", "train_full": VISUAL}, 1_632_000, 141_156_864),
]


@pytest.mark.parametrize(
    ("method", "trainable", "total"), [row[1:] for row in BART_IMAGE], ids=[row[0] for row in BART_IMAGE]
)
def test_vl_bart_on_images(models, method, trainable, total):
    planned = plan(models["bart", "image"], method, TASKS)
    assert (planned.trainable_parameters, planned.total_parameters) == (trainable, total)


def test_vl_bart_on_videos(models):
    planned = plan(models["bart", "video"], adapter(), TASKS)
    assert (planned.trainable_parameters, planned.total_parameters) == (4_901_952, 144_426_816)
    frozen_norms = plan(models["bart", "video"], adapter(train_full=VISUAL), TASKS)
    assert round(frozen_norms.percent, 4) == 3.3600


def test_vl_t5_on_images(models):
    method = adapter(reduction_factor=4, train_full=VISUAL, init="torch")
    planned = plan(models["t5", "image"], method, TASKS)
    assert (planned.trainable_parameters, planned.total_parameters) == (19_333_632, 242_292_480)
    prompts = plan(models["t5", "image"], prompt(), TASKS)
    assert (prompts.trainable_parameters, prompts.total_parameters) == (2_842_400, 225_801_248)


@pytest.mark.parametrize(
    ("backbone", "visual", "total"),
    [("bart", "video", 139_977_216), ("t5", "image", 224_540_160), ("t5", "video", 223_360_512)],
)
def test_full_fine_tuning_trains_all_there_is(models, backbone, visual, total):
    planned = plan(models[backbone, visual], {"method": "full"}, TASKS)
    assert planned.trainable_parameters == planned.total_parameters == total
    assert planned.percent == 100


def test_t5_has_norms_without_biases(models):
    assert plan(models["t5", "image"], {"method": "norms"}, TASKS).trainable_parameters == 47_616


@pytest.mark.parametrize(
    ("sharing", "parameters"),
    [("multiple", 593_280), ("half", 369_792), ({"preset": "half", "shared": "down"}, 371_808)],
    ids=["multiple", "half up", "half down"],
)
def test_four_tasks_at_one_site(models, sharing, parameters):
    one = adapter(sharing=sharing, train_full=[], layers=[0], stacks=["encoder"], blocks=["ffn"])
    assert plan(models["bart", "image"], one, TASKS).components == {"bottleneck": parameters}


def test_hyper_networks_by_stack(models):
    planned = plan(models["bart", "image"], HYPER, TASKS)
    sizes = {"encoder": 0, "decoder": 0, "shared": 0}
    for bank in planned.banks.values():
        words = bank.key.split(".")
        sizes["shared" if words[1] == "shared" else words[2]] += bank.parameters
    assert sizes == {"encoder": 2_805_080, "decoder": 4_139_960, "shared": 2_048}
