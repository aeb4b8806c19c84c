"""Finding readers: by name, by what a model says of itself, and from outside."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version
from transformers.utils import is_torchvision_available

import weft.core.registry as core_registry
from weft.core.testing.processed import tiny
from weft.core.testing.processed.stills import real_videos
from weft.eval.errors import ImageProcessorError
from weft.eval.readers import (
    MissingProcessorError,
    Reader,
    ReaderError,
    load_processor,
    missing_library,
    reader,
    reader_for,
    readers,
    register_reader,
    registry,
)
from weft.eval.readers.image_processor import load_transform
from weft.eval.readers.ways.chat import ChatReader


def test_readers_are_listed_by_name_without_loading_them(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load = [], importlib.import_module
    monkeypatch.setattr(
        core_registry.importlib, "import_module", lambda name: loaded.append(name) or load(name)
    )
    assert list(readers()) == sorted(readers())
    assert {"blip", "chat", "dual_encoder", "prefix", "seq2seq"} <= set(readers())
    assert set(loaded) <= {"weft.eval.readers.ways"}


def test_a_misspelt_reader_is_refused_with_near_matches() -> None:
    with pytest.raises(ReaderError, match=r"`reader` must be .* 'chatt'. Did you mean 'chat'"):
        reader("chatt")


class Outside(ChatReader):
    name = "outside"


def test_a_reader_from_outside_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("outside", f"{__name__}:Outside", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Outside)
    monkeypatch.setattr(core_registry, "entry_points", lambda group: [entry])
    assert reader("outside") is Outside
    made = tiny("llava")
    assert type(reader_for(made.model.config, made.processor, "outside")) is Outside
    with pytest.raises(ReaderError, match=r"must be named where several fit, .* chat and outside"):
        reader_for(made.model.config, made.processor)


def test_a_name_is_taken_once() -> None:
    assert register_reader(Outside) is register_reader(Outside)

    class Again(ChatReader):
        name = "outside"

    try:
        with pytest.raises(
            ReaderError, match=r"`name` of a reader must be new, but 'outside' is taken by .*Outside"
        ):
            register_reader(Again)
        assert readers()["outside"] is Outside
        register_reader(Again, replace=True)
        assert readers()["outside"] is Again
    finally:
        readers().forget("outside")


def test_the_name_of_a_way_of_reading_is_taken_before_it_is_loaded() -> None:
    class Chat(ChatReader):
        name = "chat"

    with pytest.raises(ReaderError, match=r"'chat' is taken by weft\.eval\.readers\.ways\.chat\.ChatReader"):
        register_reader(Chat)
    assert reader("chat") is ChatReader


def test_the_reader_follows_from_config_and_processor() -> None:
    expected = {
        "llava": "chat",
        "paligemma": "prefix",
        "florence2": "seq2seq",
        "siglip2": "dual_encoder",
        "blip_itr": "blip",
    }
    found = {name: reader_for(tiny(name).model.config, tiny(name).processor).name for name in expected}
    assert found == expected


def test_a_model_that_no_reader_fits_is_refused_with_the_fault_of_each() -> None:
    with pytest.raises(
        ReaderError, match=r"none does for a model of type bert .*chat: AutoModelForImage.*; dual_enc"
    ):
        reader_for(transformers.BertConfig(), tiny("clip").processor)
    with pytest.raises(ReaderError, match="'blip' does not fit a model of type clip: it is no BLIP"):
        reader_for(tiny("clip").model.config, tiny("clip").processor, "blip")


def test_a_chat_model_without_a_template_is_not_asked_as_one() -> None:
    made = tiny("llava")
    with pytest.raises(ReaderError, match="its processor has no chat template"):
        reader_for(made.model.config, tiny("clip").processor, "chat")


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm", "paligemma", "instructblip", "siglip2"])
def test_a_saved_model_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    made = tiny(name)
    folder = made.save(tmp_path / name)
    processor = load_processor(str(folder))
    config = transformers.AutoConfig.from_pretrained(folder)
    read, before = reader_for(config, processor), reader_for(made.model.config, made.processor)
    assert isinstance(read, Reader)
    assert read.name == before.name
    model = read.model_class(config).from_pretrained(folder)
    assert type(model) is type(made.model)


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    tiny("llava").model.save_pretrained(tmp_path)
    with pytest.raises(MissingProcessorError, match="must have a processor beside the model"):
        load_processor(str(tmp_path))


@pytest.mark.parametrize(
    ("error", "library"),
    [
        (
            ValueError("x requires `torchvision` to be installed. Please install `torchvision`."),
            "torchvision",
        ),
        (
            ImportError("\nAutoVideoProcessor requires the Torchvision library but it was not found"),
            "torchvision",
        ),
        (
            ImportError("Package `num2words` is required. Install it with `pip install num2words`."),
            "num2words",
        ),
        (ModuleNotFoundError("No module named 'rjieba'", name="rjieba"), "rjieba"),
    ],
)
def test_a_library_that_a_processor_needs_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, error: Exception, library: str
) -> None:
    def absent(*names: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", absent)
    monkeypatch.setattr(missing_library, "find_spec", lambda module: None)
    message = rf"'folder' needs {library}, which is not installed. Run `pip install {library}`"
    with pytest.raises(MissingProcessorError, match=message) as caught:
        load_processor("folder")
    assert ("build of your torch" in str(caught.value)) == (library == "torchvision")


def test_a_folder_named_like_a_library_is_no_library_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(missing_library, "find_spec", lambda module: None)
    for name in ("torchvision-models", "torchvision"):
        folder = tmp_path / name
        tiny("llava").model.save_pretrained(folder)
        with pytest.raises(MissingProcessorError, match="must have a processor beside the model"):
            load_processor(str(folder))
        (folder / "preprocessor_config.json").write_text("{")
        if Version(transformers.__version__) < Version("5.23"):
            continue  # older releases read a damaged file like an absent one
        with pytest.raises(ImageProcessorError, match=r"Fix preprocessor_config\.json"):
            load_transform(str(folder))


@pytest.mark.skipif(is_torchvision_available(), reason="what happens without torchvision, which is installed")
def test_a_processor_of_videos_is_refused_by_name_where_torchvision_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tiny("qwen2_5_vl").save(tmp_path / "qwen")
    auto = importlib.import_module("transformers.models.auto.video_processing_auto")
    monkeypatch.setattr(auto, "AutoVideoProcessor", real_videos())
    with pytest.raises(MissingProcessorError, match=r"needs torchvision, which is not installed"):
        load_processor(str(folder))
