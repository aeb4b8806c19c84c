import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BartConfig

from weft.core.composites import DualEncoder, VisualSeq2Seq
from weft.data import Caption, MediaRef
from weft.data.testing import image_bytes
from weft.eval.readers.image_processor import load_transform, square_transform
from weft.train.backbones.from_scratch import config_from, save_backbone, texts_of, train_tokenizer
from weft.train.backbones.loading import load_backbone, planned_model
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.sections import BackboneSection
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights
from weft.train.testing.power_cut import DiesAt, Killed

COLORS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255), "grey": (120, 120, 120)}
WORDS = {"red": "rot", "green": "grün", "blue": "blau", "grey": "grau", "dark": "dunkel"}
VISION = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 4,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
}
DUAL = {
    "model_type": "weft_dual_encoder",
    "projection_size": 8,
    "text_config": {
        "model_type": "clip_text_model",
        "vocab_size": 300,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 40,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "vision_config": VISION,
}
WRITER = {
    "model_type": "weft_visual_seq2seq",
    "feature_size": 8,
    "num_visual_tokens": 4,
    "num_images": 1,
    "language_config": {
        "model_type": "bart",
        "vocab_size": 304,
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 40,
        "forced_eos_token_id": None,
    },
    "vision_config": VISION,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as noto-emoji, of squares in four colours and twelve shades."""
    folder = tmp_path_factory.mktemp("noto-emoji")
    (folder / "png72").mkdir()
    lines = []
    for number, (color, values) in enumerate((c, v) for shade in range(12) for c, v in COLORS.items()):
        shade = number // 4
        name = f"{'dark ' if shade % 2 else ''}{color} {shade}"
        german = f"{WORDS['dark'] + ' ' if shade % 2 else ''}{WORDS[color]} {shade}"
        level = (0.5 if shade % 2 else 1.0) - 0.02 * shade
        pixels = image_bytes(tuple(int(level * value) for value in values), size=(16, 16))
        (folder / "png72" / f"{number}.png").write_bytes(pixels)
        lines.append(
            json.dumps(
                {
                    "id": str(number),
                    "file": f"{number}.png",
                    "char": color,
                    "names": {"en": name, "de": german},
                    "tones": ["dark"] if shade % 2 else [],
                    "base": color,
                    "aliases": [],
                    "keywords": [],
                    "split": "train" if shade < 8 else "val" if shade < 9 else "test",
                }
            )
        )
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def task(root: Path, kind: str, language: str) -> dict[str, Any]:
    options = {"task": kind, "languages": language}
    return {"data": {"name": "noto_emoji", "root": str(root), "validation": "val", "options": options}}


@pytest.fixture
def own(root: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe that trains a dual encoder of a thousand parameters for seconds."""
    return {
        "name": "own",
        "backbone": {"config": DUAL, "tokenizer": {"vocabulary_size": 300}, "image_size": 8},
        "method": {"method": "full"},
        "save_model": True,
        "tasks": {"en": task(root, "retrieval", "en")},
        "training": {
            "steps": 4,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "vision": "trained",
            "shift": 1,
            "threads": 1,
        },
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
    }


def test_a_new_architecture_is_trained_scored_and_saved_whole(own):
    result = execute(load_recipe(own, ["tasks.en.headline=t2i_R@5"]))
    assert result.trainable == result.total
    report = result.reports["en"]
    assert result.scores["en"] == report["scores"]["t2i_R@5"]
    assert set(report["groups"]) == {"skin_tone: t2i_R@1", "skin_tone: i2t_R@1"}
    ranked = json.loads((result.folder / "predictions" / "en.json").read_text())
    assert {len(ranked["text_to_image"]), len(ranked["image_to_text"])} == {12}
    files = {path.name for path in (result.folder / "model").iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"}
    assert rescore(result.folder).scores == result.scores


def test_the_saved_model_is_a_backbone_that_stays_frozen_under_adapters(own, root):
    first = execute(load_recipe(own))
    saved = load_file(first.folder / "model" / "model.safetensors")
    own |= {
        "name": "languages",
        "backbone": {"name": str(first.folder / "model")},
        "method": {
            "method": "bottleneck",
            "init": "bert",
            "bottleneck_size": 2,
            "sharing": "multiple",
            "towers": "text",
        },
        "save_model": False,
        "tasks": {language: task(root, "retrieval", language) for language in ("en", "de")},
        "training": {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "threads": 1},
    }
    result = execute(load_recipe(own))
    assert set(result.scores) == {"en", "de", "average"}
    assert {key.rpartition(".")[2] for key in adapter_weights(result.folder)} == {"en", "de"}
    assert list((Path(own["output"]) / "features").glob("*/index.json"))
    again = load_file(first.folder / "model" / "model.safetensors")
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    assert rescore(result.folder).scores == result.scores


def test_a_killed_run_resumes_to_the_same_weights_and_statistics(own):
    changes = ["training.save_every=2"]
    whole = execute(load_recipe(own, [*changes, "name=whole"]))
    broken = load_recipe(own, [*changes, "name=broken"])
    with pytest.raises(Killed):
        execute(broken, progress=DiesAt(3))
    resumed = execute(broken, resume=True)
    one, two = adapter_weights(whole.folder), adapter_weights(resumed.folder)
    assert any(key.endswith("running_mean") for key in one)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_captions_are_written_by_a_model_of_ones_own(own, root):
    own["backbone"] |= {"config": WRITER}
    own["tasks"] = {"en": task(root, "caption", "en") | {"headline": "exact", "max_new_tokens": 6}}
    result = execute(load_recipe(own, ["method.towers=[text, vision]"]))
    assert "skin_tone: exact" in result.reports["en"]["groups"]
    assert isinstance(load_backbone(BackboneSection(name=str(result.folder / "model"))).model, VisualSeq2Seq)


def test_units_cannot_be_saved_in_the_model(own):
    own["method"] = {"method": "bottleneck", "init": "bert", "bottleneck_size": 2}
    with pytest.raises(
        RunError, match=r"`save_model` must be false where the method has units, but this one has \d+"
    ):
        execute(load_recipe(own))
    assert not Path(own["output"]).exists()


@pytest.mark.parametrize(
    ("kind", "config"), [("retrieval", WRITER), ("caption", DUAL)], ids=["retrieval", "caption"]
)
def test_a_backbone_that_cannot_do_a_task_is_refused_before_anything_is_written(own, root, kind, config):
    own["backbone"] |= {"config": config}
    own["tasks"] = {"en": task(root, kind, "en")}
    with pytest.raises(RunError, match="`backbone` must be able to do task 'en'"):
        execute(load_recipe(own))
    assert not Path(own["output"]).exists()


def test_units_in_a_frozen_tower_are_refused(own):
    own["backbone"]["config"] = DUAL | {
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        }
    }
    own |= {"method": {"method": "bottleneck", "init": "bert", "bottleneck_size": 2}, "save_model": False}
    own["training"] |= {"vision": "frozen", "shift": 0}
    with pytest.raises(RunError, match="of its parameters or sites are trained"):
        execute(load_recipe(own))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"model_type": "weft_dual_encodr"}}, "Did you mean 'weft_dual_encoder'"),
        ({"config": {}}, "`backbone.config.model_type` must be one that"),
        (
            {"config": {"model_type": "weft_dual_encoder", "text_config": {"model_type": "x"}}},
            "but is refused: ",
        ),
    ],
    ids=["misspelt", "missing", "refused"],
)
def test_architectures_that_do_not_exist(own, change, message):
    own["backbone"] |= change
    with pytest.raises(RunError, match=message):
        execute(load_recipe(own))


def test_a_vocabulary_larger_than_the_embeddings_is_refused(own):
    own["backbone"]["config"] = WRITER | {"num_visual_tokens": 25}
    own["tasks"]["en"]["data"]["options"]["task"] = "caption"
    with pytest.raises(
        RunError, match=r"`vocab_size` in `backbone.config` must be at least \d+ .* but is 304"
    ):
        execute(load_recipe(own, ["method.towers=[text, vision]"]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("backbone.tokenizer=null", "`config` and `tokenizer` belong together"),
        ("backbone.name=miniature", "only one of them"),
        ("backbone.tokenizer.vocabulary_size=100", "greater than or equal to 260"),
        ("training.vision=frozen", "`shift` needs `vision: trained`"),
    ],
)
def test_keys_of_new_architectures_that_do_not_fit_together(own, entry, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(own, [entry])


def test_a_tokenizer_without_texts_is_an_error():
    section = BackboneSection(config=DUAL, tokenizer={"vocabulary_size": 300}, image_size=8)
    with pytest.raises(RunError, match=r"`backbone.tokenizer` must be one that exists"):
        load_backbone(section)
    assert isinstance(planned_model(section), DualEncoder)


def test_the_tokenizer_of_another_model_can_be_taken():
    big = DUAL | {"text_config": DUAL["text_config"] | {"vocab_size": 600}}
    backbone = load_backbone(BackboneSection(config=big, tokenizer="miniature", image_size=8))
    assert backbone.words("a red circle").input_ids[0] == backbone.words.bos_token_id
    assert backbone.transform is not None
    assert backbone.transform.view_size(Image.new("RGB", (20, 10))) == (8, 8)


def test_a_saved_model_of_another_type_is_refused(tmp_path):
    BartConfig(vocab_size=10, d_model=8).save_pretrained(tmp_path)
    with pytest.raises(RunError, match=r"must be a vision-language model .* is a model of type bart"):
        planned_model(BackboneSection(name=str(tmp_path)))


def test_a_trained_tokenizer_knows_every_text_and_depends_on_texts_alone():
    texts = ["red circle", "green circle", "grün"]
    one, two = train_tokenizer(texts, 300), train_tokenizer(list(reversed(texts)), 300)
    assert one.get_vocab() == two.get_vocab()
    for text in [*texts, "日本 ünknown"]:
        ids = one(text).input_ids
        assert (ids[0], ids[-1]) == (one.bos_token_id, one.eos_token_id)
        assert one.decode(ids, skip_special_tokens=True).strip() == text


def test_texts_are_what_is_read_and_written():
    media = MediaRef.from_bytes(b"")
    caption = Caption(id="1", media=media, media_id="1", captions=("a cat",))
    assert list(texts_of("caption: ", [caption])) == ["caption: ", "a cat"]


def test_a_saved_image_processor_is_read_back(tmp_path):
    model = DualEncoder(config_from(DUAL))
    transform = square_transform(8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "bilinear")
    for _ in range(2):
        save_backbone(model, train_tokenizer(["a"], 300), transform, tmp_path / "model")
    found = load_transform(str(tmp_path / "model"))
    assert found is not None
    assert found.fingerprint() == transform.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
