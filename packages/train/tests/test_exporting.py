"""`weft export`: runs go to PEFT, to vLLM's format and to plain folders, and `--verify` finds what does not cross."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from weft.core.testing.processed import tiny
from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.exporting import writing
from weft.train.runs.exporting.launch import launch_lines
from weft.train.runs.exporting.manifest import ExportedTask, Manifest, read_manifest
from weft.train.runs.exporting.targets import target_of
from weft.train.runs.exporting.verify import CrossingError, verify_export
from weft.train.runs.exporting.writing import export_run
from weft.train.runs.run import execute
from weft.train.testing.own_data import own_task, short_run, write_own_data

pytestmark = [
    # PEFT's, and transformers' of PEFT.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Found missing adapter keys"),
]
LORA = {"method": "lora", "rank": 2}
MORE = {"method": "lora", "name": "more", "rank": 3, "alpha": 2, "linears": ["down"]}
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("smolvlm", "florence2", "paligemma")]


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a finished run of two tasks, trained once in a session."""
    root, made = tmp_path_factory.mktemp("exported"), dict[str, Path]()

    def run(name: str = "llava", sharing: str = "multiple", full: str = "projector") -> Path:
        key = f"{name}-{sharing}-{full}"
        if key not in made:
            data = write_own_data(root / "data")
            folder = tiny(name).save(root / "models" / name)
            methods = [
                {**LORA, "sharing": sharing, "train_full": [full] * bool(full)},
                {**MORE, "sharing": sharing},
            ]
            values = {
                "name": key,
                "backbone": {"name": str(folder)},
                "method": methods,
                "tasks": {
                    "vqa": own_task(
                        data, "image_qa", ask="{question} One word.", metric="exact", max_new_tokens=4
                    ),
                    "caption": own_task(data, "caption", ask="Describe.", max_new_tokens=6, num_beams=2),
                },
                **short_run(root / "runs", learning_rate=5e-2),
            }
            made[key] = execute(load_recipe(values)).folder
        return made[key]

    return run


def weft(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("target", ["peft", "vllm", "merged"])
@pytest.mark.parametrize("name", ["llava", *OTHERS])
def test_what_is_exported_computes_in_its_own_library_what_the_run_does(
    run_of: Callable[..., Path], tmp_path: Path, name: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    run = run_of(name)
    words = ["--split"] if target == "vllm" else []
    assert weft("export", run, tmp_path / "out", "--for", target, "--verify", 3, *words) == 0
    report = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert report["tasks"].keys() == {"vqa", "caption"}
    for own in report["tasks"].values():
        assert own["records"] == 3
        assert own["equal"] == dict.fromkeys(("prompt_ids", "pixel_tensors", "logits", "answers"), 3)
        assert own["modules"]["took_effect"] == own["modules"]["in_run"] > 0
        assert own["faults"] == {}
    assert "validation records the same" in capsys.readouterr().out


@pytest.mark.slow
def test_pictures_of_any_size_cross_with_the_budget_of_the_recipe(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    run = run_of("qwen2_5_vl")
    export_run(run, tmp_path / "out")
    assert verify_export(run, tmp_path / "out", 4)["tasks"]["vqa"]["records"] == 4


def test_a_merged_folder_answers_by_its_own_settings(run_of: Callable[..., Path], tmp_path: Path) -> None:
    from weft.train.runs.served import load_predictor

    run = run_of()
    export_run(run, tmp_path / "out", target="merged")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (60, 40), (200, 30, 30)).save(picture)
    said = load_predictor(run, {"vqa": "image_qa", "caption": "caption"})
    for task, words in {"vqa": "How many? One word.", "caption": "Describe."}.items():
        processor = AutoProcessor.from_pretrained(tmp_path / "out" / task)
        model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / task).eval()
        parts = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": words}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            tokens = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        answer = processor.decode(tokens, skip_special_tokens=True).strip()
        assert said(task, ["How many?"], [[picture.read_bytes()]]) == [answer]


def test_what_all_tasks_share_is_one_folder(run_of: Callable[..., Path], tmp_path: Path) -> None:
    manifest = export_run(run_of(sharing="single"), tmp_path / "out")
    assert {task.folder for task in manifest.tasks.values()} == {"."}
    assert {
        "adapter_config.json",
        "processor_config.json",
        "chat_template.jinja",
        "generation_config.json",
    } <= {path.name for path in (tmp_path / "out").iterdir()}
    assert read_manifest(tmp_path / "out") == manifest


@pytest.mark.slow
def test_a_model_that_answers_in_a_way_of_its_own_is_exported_and_not_compared(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_of("blip_vqa", full="")
    export_run(run, tmp_path / "out", target="merged")
    with pytest.raises(RunError, match=r"answers come without them\. Leave it out"):
        verify_export(run, tmp_path / "out", 1)


def test_a_model_that_writes_nothing_is_not_compared(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(run_of(), tmp_path / "out", target="merged")
    monkeypatch.setattr("weft.eval.readers.ways.chat.ChatReader.abilities", frozenset({"embed"}))
    with pytest.raises(RunError, match=r"compares written answers, but .* writes none"):
        verify_export(run_of(), tmp_path / "out", 1)


def plant_template(out: Path) -> None:
    file = out / "vqa" / "chat_template.jinja"
    file.write_text(file.read_text().replace("ASSISTANT: ", "ASSISTANT:"))


def plant_pixels(out: Path) -> None:
    file = out / "vqa" / "processor_config.json"
    words = json.loads(file.read_text())
    words["image_processor"]["size"]["longest_edge"] = 28 * 28 * 2
    file.write_text(json.dumps(words))


def plant_mean(out: Path) -> None:
    file = out / "vqa" / "processor_config.json"
    words = json.loads(file.read_text())
    words["image_processor"]["image_mean"] = [0.5, 0.5, 0.5]
    file.write_text(json.dumps(words))


def plant_name(out: Path) -> None:
    file = next(path for path in (out / "vqa").glob("*model.safetensors"))
    tensors = load_file(file)
    old = next(
        name for name in tensors if "language_model" in name and "layers.1" in name and "q_proj" in name
    )
    for name in [name for name in tensors if name.rpartition("q_proj")[0] == old.rpartition("q_proj")[0]]:
        if "q_proj" in name:
            tensors[name.replace("q_proj", "query")] = tensors.pop(name)
    save_file(tensors, file, {"format": "pt"})


def plant_task(out: Path) -> None:
    (out / "vqa").rename(out / "kept")
    (out / "caption").rename(out / "vqa")
    (out / "kept").rename(out / "caption")


@pytest.mark.parametrize(
    ("name", "target", "plant", "message"),
    [
        (
            "llava",
            "peft",
            plant_template,
            r"vqa: prompt ids differ from place \d+ on, as with another chat template",
        ),
        ("llava", "peft", plant_mean, r"vqa: pixel tensors differ: `pixel_values` by up to"),
        (
            "llava",
            "peft",
            plant_name,
            r"5 of 6 modules took effect; nothing acts at .*layers\.1\.self_attn\.q_proj",
        ),
        (
            "llava",
            "merged",
            plant_name,
            r"of \d modules took effect; nothing acts at .*layers\.1\.self_attn\.q_proj",
        ),
        ("llava", "peft", plant_task, "vqa: it computes what the run does for task 'caption'"),
        ("llava", "merged", plant_task, "caption: it computes what the run does for task 'vqa'"),
        pytest.param(
            "qwen2_5_vl",
            "merged",
            plant_pixels,
            r"vqa: prompt ids differ in how often .*pixel budget(.|\n)*pixel tensors differ: `pixel_values` is",
        ),
    ],
    ids=["template", "normalisation", "module", "merged module", "task", "merged task", "pixels"],
)
def test_a_planted_fault_is_found_and_named(
    run_of: Callable[..., Path],
    tmp_path: Path,
    name: str,
    target: Any,
    plant: Callable[[Path], None],
    message: str,
) -> None:
    pytest.importorskip("peft")
    run = run_of(name, full="")
    export_run(run, tmp_path / "out", target=target)
    plant(tmp_path / "out")
    with pytest.raises(CrossingError, match=message):
        verify_export(run, tmp_path / "out", 2)
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["tasks"]["vqa"]["faults"]


def test_a_difference_ends_the_command_with_code_2(
    run_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def changed(backbone: Any, folder: Path, options: Any) -> None:
        original(backbone, folder, options)
        if folder.name == "vqa":
            plant_template(folder.parent)

    original = writing.save_reading
    monkeypatch.setattr(writing, "save_reading", changed)
    assert weft("export", run_of(), tmp_path / "out", "--for", "merged", "--verify", 1) == 2
    told = capsys.readouterr().err
    assert "the export must compute what the run does" in told
    assert "- vqa: prompt ids differ" in told
    assert (tmp_path / "out" / "verify.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "vqa,captions"], "Did you mean 'caption'"),
        (["--task", "vqa", "--tasks", "vqa"], "`--task` must be left out with `--tasks`"),
        (["--for", "merged", "--split"], "`--split` must be left out with `--for merged`"),
        (["--for", "vllm"], "loads LoRA alone, but trains model.multi_modal_projector"),
    ],
    ids=["unknown task", "task twice", "split of merged", "vllm without split"],
)
def test_wrong_words_are_told_and_nothing_is_written(
    run_of: Callable[..., Path],
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert weft("export", run_of(), tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(run_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="`OUTPUT` must be new or an empty folder, but"):
        export_run(run_of(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_tasks_whose_names_are_no_folders_are_exported_alone(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_FOLDER", writing.re.compile("vqa"))
    with pytest.raises(RunError, match=r"must be names for folders: .* but one is 'caption'"):
        export_run(run_of(), tmp_path / "out")


def test_the_line_that_serves_an_export_names_base_rank_adapters_template_and_budget(tmp_path: Path) -> None:
    task = ExportedTask("vqa", {}, {})
    manifest = Manifest("vllm", "org/model", "abc", "AutoModelForImageTextToText", {"vqa": task}, 9)
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa" / "chat_template.jinja").touch()
    assert launch_lines(manifest, tmp_path, {"max_pixels": 784}) == [
        "vllm serve org/model --revision abc --enable-lora --max-lora-rank 16 --lora-modules "
        f"vqa={tmp_path}/vqa --chat-template {tmp_path}/vqa/chat_template.jinja "
        "--mm-processor-kwargs '{\"max_pixels\": 784}'"
    ]


def test_the_run_without_records_to_ask_is_told(run_of: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_of(), run)
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(
        text.replace("validation: validation", "validation: null").replace("test: test", "test: null")
    )
    export_run(run, tmp_path / "out", target="merged")
    with pytest.raises(
        RunError, match="`--verify` needs records of task 'vqa', but its recipe names neither"
    ):
        verify_export(run, tmp_path / "out", 1)


@pytest.mark.parametrize("target", ["peft", "merged"])
def test_models_of_weft_cross_with_their_tokenizer_and_pictures(
    values: dict[str, Any], tmp_path: Path, target: Any
) -> None:
    pytest.importorskip("peft")
    values["method"] = {**LORA, "sharing": "multiple", "train_full": ["visual_embedding"]}
    run = execute(load_recipe(values)).folder
    export_run(run, tmp_path / "out", target=target)
    report = verify_export(run, tmp_path / "out", 4)
    assert report["tasks"]["nlvr"]["equal"]["answers"] == 4
    assert report["tasks"]["vqa"]["modules"]["took_effect"] > 0


def test_a_base_that_the_recipe_puts_together_is_split_off_to_be_compared(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    task = {"vqa": ExportedTask(".", {}, {})}
    manifest = Manifest("peft", "facebook/bart-base", None, "VisualSeq2Seq", task)
    section = SimpleNamespace(name=None, title="facebook/bart-base")
    run: Any = SimpleNamespace(recipe=SimpleNamespace(backbone=section))
    with pytest.raises(RunError, match=r"was put together by the recipe\. Export it with --split"):
        assert target_of(tmp_path, manifest, "vqa", run).model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["vera", "ia3"])
def test_other_units_of_peft_cross_with_every_module_in_effect(
    values: dict[str, Any], tmp_path: Path, method: str
) -> None:
    pytest.importorskip("peft")
    values["method"] = {"method": method, "sharing": "multiple"}
    run = execute(load_recipe(values)).folder
    export_run(run, tmp_path / "out")
    for own in verify_export(run, tmp_path / "out", 2)["tasks"].values():
        assert own["modules"]["took_effect"] == own["modules"]["in_run"] > 0
