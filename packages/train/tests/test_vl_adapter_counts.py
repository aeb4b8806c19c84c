"""The parameter counts of VL-Adapter, as `weft plan vl_adapter/... --json` prints them.

Every recipe is held against sums of the sizes of its parts, worked out here by hand; those that the authors' own
code was counted for are held against these integers too.
"""

import functools
import importlib
import json
import re
from pathlib import Path

import pytest

from weft.train.backbones import loading as backbones
from weft.train.cli import runs
from weft.train.recipe.sections import BackboneSection

WIDTH, TASKS = 768, 4
SITES = {"bart": 6 * 2 + 6 * 3, "t5": 12 * 2 + 12 * 3}
ATTENTIONS = {"bart": 6 + 6 * 2, "t5": 12 + 12 * 2}
FEATURES = {"image": 2048, "video": 512}
LANGUAGE = {"bart": 139_420_416 + 200 * WIDTH, "t5": 222_903_552 + (32_200 - 32_128) * WIDTH}
NORMS = {"bart": 32 * 2 * WIDTH, "t5": 0}  # the recipes freeze those of T5, as the reported runs did
# Four maps of every attention, two of every feed-forward block, and every norm have a bias.
BIASES = {"bart": 18 * 4 * WIDTH + 12 * (3072 + WIDTH) + 32 * WIDTH, "t5": 0}
RANK = {"bart": 128, "t5": 150}
SINGLE_REDUCTION = {"bart": 8, "t5": 4}


def visual(model, media):
    """Two linear maps, the norms behind them, which in T5 have no bias, and the order of two images."""
    norm = {"bart": 2, "t5": 1}[model] * WIDTH
    return FEATURES[media] * WIDTH + WIDTH + norm + 5 * WIDTH + WIDTH + norm + 2 * WIDTH


def adapter(reduction):
    down, up = halves(reduction)
    return down + up


def halves(reduction):
    size = WIDTH // reduction
    return WIDTH * size + size, size * WIDTH + WIDTH


def compacter():
    """Two terms: a 2x2 rule and a quarter of the matrix each."""
    size = WIDTH // 8
    quarter = (WIDTH // 2) * (size // 2)
    return 2 * (2 * 2 * 2 + 2 * quarter) + size + WIDTH


def hyperformer(model):
    """Task vectors, and for each stack layer vectors, a projection to 8 and generators of every sub-layer."""
    vector, hidden, projected = 512, 128, 8
    projection = 2 * vector * hidden + hidden + hidden * projected + projected + 2 * projected
    layers = {"bart": 6, "t5": 12}[model]

    def stack(kinds):
        return layers * vector + projection + kinds * (projected + 1) * adapter(8)

    return TASKS * vector + stack(2) + stack(3)


def prompt():
    return 40 * WIDTH + WIDTH * 800 + 800 + 800 * WIDTH + WIDTH


def added(model, method):
    """Parameters that a method adds, and the backbone's own that it trains beside the visual embedding."""
    sites, pairs = SITES[model], 2 * ATTENTIONS[model] * 2 * WIDTH * RANK[model]
    own_down, shared_up = halves(8)
    return {
        "single_adapter": (sites * adapter(SINGLE_REDUCTION[model]), NORMS[model]),
        "multiple_adapters": (TASKS * sites * adapter(8), NORMS[model]),
        "half_shared_adapters": (sites * (TASKS * own_down + shared_up), NORMS[model]),
        "hyperformer": (hyperformer(model), NORMS[model]),
        "single_compacter": (sites * compacter(), NORMS[model]),
        "multiple_compacters": (TASKS * sites * compacter(), NORMS[model]),
        "single_lora": (pairs, BIASES[model]),
        "multiple_lora": (TASKS * pairs, BIASES[model]),
        "single_prompt": (prompt(), 0),
        "multiple_prompts": (TASKS * prompt(), 0),
        "bitfit": (0, BIASES[model]),
    }[method]


METHODS = (
    "full_finetuning",
    "single_adapter",
    "multiple_adapters",
    "half_shared_adapters",
    "hyperformer",
    "single_compacter",
    "multiple_compacters",
    "single_lora",
    "multiple_lora",
    "single_prompt",
    "multiple_prompts",
    "bitfit",
)

COUNTED = {
    "image/bart/full_finetuning": (141_156_864, 141_156_864),
    "image/bart/single_adapter": (6_081_600, 145_606_464),
    "image/bart/multiple_adapters": (19_430_400, 158_955_264),
    "image/bart/half_shared_adapters": (12_725_760, 152_250_624),
    "image/bart/hyperformer": (8_579_088, 148_103_952),
    "image/bart/single_compacter": (3_870_240, 143_395_104),
    "image/bart/multiple_compacters": (10_584_960, 150_109_824),
    "image/bart/single_lora": (8_786_688, 148_234_752),
    "image/bart/multiple_lora": (30_020_352, 169_468_416),
    "image/bart/single_prompt": (2_843_936, 142_417_952),
    "image/bart/multiple_prompts": (6_627_200, 146_201_216),
    "image/bart/bitfit": (1_708_800, 141_156_864),
    "video/bart/full_finetuning": (139_977_216, 139_977_216),
    "video/bart/single_adapter": (4_901_952, 144_426_816),
    "image/t5/full_finetuning": (224_540_160, 224_540_160),
    "image/t5/single_adapter": (19_333_632, 242_292_480),
    "image/t5/single_prompt": (2_842_400, 225_801_248),
    "video/t5/full_finetuning": (223_360_512, 223_360_512),
}


@pytest.fixture(scope="module")
def planned_once():
    """Builds each of the four models once, instead of once per method."""
    build = backbones.planned_model
    built = functools.cache(lambda words: build(BackboneSection.model_validate_json(words)))
    return lambda section: built(section.model_dump_json())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["bart", "t5"])
@pytest.mark.parametrize("media", ["image", "video"])
def test_recipes_count_what_their_parts_add_up_to(media, model, method, planned_once, monkeypatch, capsys):
    monkeypatch.setattr(backbones, "planned_model", planned_once)
    runs.plan(f"vl_adapter/{media}/{model}/{method}", None, True)
    plan = json.loads(capsys.readouterr().out)
    found = plan["trainable_parameters"], plan["total_parameters"]
    backbone = LANGUAGE[model] + visual(model, media)
    if method == "full_finetuning":
        expected = backbone, backbone
    else:
        more, own = added(model, method)
        expected = visual(model, media) + own + more, backbone + more
    assert found == expected
    assert found == COUNTED.get(f"{media}/{model}/{method}", found)
    assert plan["percent"] == 100 * found[0] / found[1]
    assert sum(plan["components"].values()) == found[0]


def test_no_source_holds_a_count():
    numbers = {number for pair in COUNTED.values() for number in pair}
    seen = []
    for part in ("kernels", "core", "data", "eval", "train"):
        folder = Path(importlib.import_module(f"weft.{part}").__path__[0])
        for path in folder.rglob("*"):
            if path.suffix in (".py", ".yaml", ".json", ".md"):
                text = path.read_text("utf-8")
                digits = {int(re.sub("[_,]", "", word)) for word in re.findall(r"\b\d[\d_,]{6,}\b", text)}
                seen += [f"{path}: {number}" for number in digits & numbers]
    assert not seen
