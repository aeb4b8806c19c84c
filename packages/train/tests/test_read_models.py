"""What a recipe can say of a model that its own processor reads, and what other parts of weft do with such a run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from weft.core import load_adapter, plan
from weft.core.testing.processed import tiny
from weft.data import Conversation, MediaRef
from weft.data.errors import MalformedRecordError
from weft.train.backbones.loading import load_backbone, planned_model, reader_of
from weft.train.errors import RunError
from weft.train.output.progress import PlainProgress
from weft.train.preflight.learned import load_learnable
from weft.train.preflight.memory import estimate_memory, quantised_linears
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.dry_run import dry_run
from weft.train.runs.exporting.writing import export_run
from weft.train.runs.extract import extract_stores
from weft.train.runs.replay import nan_batch
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.runs.served import load_predictor, load_talker
from weft.train.testing.curves import adapter_weights
from weft.train.testing.own_data import own_task, short_run, write_own_data

Make = Callable[..., Recipe]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_own_data(tmp_path / "data")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in ("llava", "qwen2_5_vl", "blip2", "blip_vqa"):
        tiny(name).save(root / name)
    return root


@pytest.fixture
def make(data: Path, models: Path, tmp_path: Path) -> Make:
    """A recipe of seconds, with changes."""

    def recipe(*changes: str, name: str = "llava") -> Recipe:
        values = {
            "name": "own",
            "backbone": {"name": str(models / name)},
            "method": {"method": "lora", "rank": 2, "sharing": "multiple"},
            "tasks": {
                "vqa": own_task(data, "image_qa", ask="{question}", metric="exact", max_new_tokens=3),
                "caption": own_task(data, "caption", ask="Describe.", max_new_tokens=3),
            },
            **short_run(tmp_path / "runs", steps=2, log_every=1),
        }
        return load_recipe(values, list(changes))

    return recipe


def rewrite(data: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> None:
    rows = [json.loads(line) for line in (data / "vqa.jsonl").read_text().splitlines()]
    (data / "vqa.jsonl").write_text("\n".join(json.dumps(change(k, row)) for k, row in enumerate(rows)))


def test_records_without_an_answer_are_left_out_and_counted(make: Make, data: Path, tmp_path: Path) -> None:
    rewrite(data, lambda k, row: row | ({"answer": None} if k in (8, 12) else {}))
    recipe = make()
    tasks = load_learnable(recipe)
    assert len(tasks["vqa"]["train"]) == 14
    assert tasks["vqa"].left_out == {"no answer": 2}
    said = "vqa: 2 of 16 records to train on are left out, 2 with no answer"
    assert said in str(dry_run(recipe))
    lines: list[str] = []
    result = execute(recipe, progress=PlainProgress(lines.append))
    assert lines.count(said) == 1
    noted = json.loads((result.folder / "result.json").read_text())["data"]["data.vqa.train"]
    assert noted.startswith("14 records")
    assert noted.endswith("2 left out with no answer")


def test_long_answers_are_left_out_by_rule(make: Make) -> None:
    recipe = make("tasks.vqa.max_target_tokens=3", "training.too_long=drop", "training.batch_size=2")
    reader = load_backbone(recipe.backbone).reader
    assert reader is not None
    tasks = load_learnable(recipe)
    kept, left = tasks["vqa"]["train"], tasks["vqa"].left_out["too long an answer"]
    assert len(kept) + left == 16
    assert all(reader.answer_length(record.answers[0]) <= 3 for record in kept)


def test_rows_that_were_dropped_are_said_of_each_task_when_training_ends(make: Make, data: Path) -> None:
    rewrite(data, lambda k, row: row | ({"question": row["question"] * 5} if k % 4 == 0 else {}))
    lines: list[str] = []
    recipe = make(
        "training.max_tokens=70", "training.too_long=drop", "training.steps=8", "training.batch_size=8"
    )
    execute(recipe, progress=PlainProgress(lines.append))
    dropped = [line for line in lines if "were dropped" in line]
    assert len(dropped) == 1
    assert re.fullmatch(
        r"vqa: [1-9]\d* rows were dropped, longer than training.max_tokens or max_target_tokens", dropped[0]
    )


def test_rows_that_are_all_too_long_are_refused_before_training_though_they_may_be_dropped(
    make: Make,
) -> None:
    recipe = make("training.max_tokens=8", "training.too_long=drop")
    with pytest.raises(
        RunError, match="Task 'vqa' cannot be trained, for at least 16 of 16 rows are too long"
    ):
        execute(recipe)
    assert not recipe.folder.exists()


def test_the_lengths_that_a_dry_run_looked_at_are_said(make: Make, data: Path) -> None:
    rewrite(data, lambda k, row: row | ({"question": row["question"] * 5} if k % 4 == 0 else {}))
    recipe = make("training.max_tokens=70", "training.too_long=drop")
    notes = dry_run(recipe).notes
    assert (
        "vqa: at least 4 of 16 rows are longer than training.max_tokens (70) and are dropped where they are drawn: the "
        "words of all rows counted, 4 read with their pictures"
    ) in notes
    assert (
        "caption: no row is longer than training.max_tokens (70): the words of all rows counted, 4 read with their "
        "pictures"
    ) in notes


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
def test_a_command_loads_the_processor_once(make: Make, monkeypatch: pytest.MonkeyPatch, dry: bool) -> None:
    loaded: list[str] = []
    load = AutoProcessor.from_pretrained

    def counted(path: str, **options: Any) -> Any:
        loaded.append(path)
        return load(path, **options)

    monkeypatch.setattr(AutoProcessor, "from_pretrained", counted)
    monkeypatch.setattr("weft.train.backbones.pretrained._READERS", {})
    (dry_run if dry else execute)(make())
    assert len(loaded) == 1


def test_a_processor_that_was_saved_anew_is_loaded_anew(make: Make, models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "qwen2_5_vl", tmp_path / "own")
    recipe = make(f"backbone.name={folder}")
    sizes = [reader_of(recipe.backbone).processor.image_processor.size]
    tiny("qwen2_5_vl").processor.save_pretrained(folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"]["size"]["longest_edge"] //= 2
    (folder / "processor_config.json").write_text(json.dumps(settings))
    sizes.append(reader_of(recipe.backbone).processor.image_processor.size)
    assert sizes[0]["longest_edge"] == 2 * sizes[1]["longest_edge"]


@pytest.mark.parametrize(("bits", "share"), [("8bit", 0.35), ("nf4", 0.16)])
def test_quantised_linears_are_counted_as_they_are_kept(make: Make, bits: str, share: float) -> None:
    recipe = make()
    model = planned_model(recipe.backbone)
    planned = plan(model, recipe.method, list(recipe.tasks))
    whole = estimate_memory(recipe, planned, model).weights
    packed = estimate_memory(make(f"backbone.quantize={bits}"), planned, model).weights
    linears = quantised_linears(model)
    assert model.get_output_embeddings() not in linears
    size = sum(linear.weight.numel() for linear in linears)
    assert 4 * size * (1 - share) < whole - packed < 4 * size * (1 - {"8bit": 1 / 4, "nf4": 1 / 8}[bits])


def test_settings_of_the_processor_reach_it(make: Make) -> None:
    def pictures(*changes: str) -> list[str]:
        return [text.split("<|vision_end|>")[0] for text in dry_run(make(*changes, name="qwen2_5_vl")).texts]

    assert pictures() != pictures("backbone.processor.max_pixels=1600")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_half_of_the_memory_is_enough_for_what_is_frozen(make: Make, attention: str) -> None:
    recipe = make("backbone.dtype=bfloat16", f"backbone.attention={attention}")
    assert dry_run(recipe).memory.weights < 0.6 * dry_run(make()).memory.weights
    model = load_backbone(recipe.backbone).model
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == attention
    result = execute(recipe)
    assert {value.dtype for value in adapter_weights(result.folder).values()} == {torch.float32}
    assert rescore(result.folder).scores == result.scores


@pytest.mark.parametrize("name", ["llava", "blip_vqa"])
def test_precision_reaches_models_that_are_called_whole_and_in_parts(name: str, make: Make) -> None:
    plain, half = (execute(make(f"training.precision={p}", f"name={p}", name=name)) for p in ("fp32", "bf16"))
    one, two = adapter_weights(plain.folder), adapter_weights(half.folder)
    assert any(not torch.equal(one[key], two[key]) for key in one)
    assert all(torch.allclose(one[key], two[key], atol=0.05) for key in one)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "blip2"])
def test_recomputed_activations_give_the_same_weights(name: str, make: Make) -> None:
    kept = execute(make("name=kept", name=name))
    again = execute(make("name=again", "training.checkpointing=true", name=name))
    one, two = adapter_weights(kept.folder), adapter_weights(again.folder)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_activations_are_not_recomputed_where_embeddings_change_in_place(make: Make) -> None:
    with pytest.raises(
        RunError, match=r"`training.checkpointing` must be left out .* adds to its embeddings in place"
    ):
        execute(make("training.checkpointing=true", name="blip_vqa"))


def test_workers_change_nothing(make: Make) -> None:
    one, two = (execute(make(f"training.workers={count}", f"name=w{count}")) for count in (0, 1))
    first, second = adapter_weights(one.folder), adapter_weights(two.folder)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_model_trained_whole_is_a_backbone_again(make: Make) -> None:
    result = execute(make("method={method: full}", "save_model=true"))
    again = load_backbone(make(f"backbone.name={result.folder / 'model'}").backbone)
    assert again.reader is not None
    assert again.reader.name == "chat"
    before = load_backbone(make().backbone).model.state_dict()
    after = again.model.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_language_alone_is_measured_with_grey_pictures(make: Make) -> None:
    seen, blank = execute(make("name=seen")), execute(make("name=blank", "blank_images=true"))
    one, two = adapter_weights(seen.folder), adapter_weights(blank.folder)
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_the_likeliest_of_a_list_is_chosen(make: Make, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(["red", "green", "blue", "yellow"]))
    result = execute(make(f"tasks.vqa.choose_from={answers}"))
    said = json.loads((result.folder / "predictions" / "vqa.json").read_text())
    assert set(said.values()) <= {"red", "green", "blue", "yellow"}


def test_statements_are_judged_by_likelihood(make: Make, data: Path) -> None:
    rows = [json.loads(line) for line in (data / "vqa.jsonl").read_text().splitlines()]
    judged = [
        {"image": row["image"], "sentence": f"{row['answer']} is shown", "label": k % 2 == 0}
        for k, row in enumerate(rows)
    ]
    (data / "judged.jsonl").write_text("\n".join(map(json.dumps, judged)))
    options = "{record: pair_bool, columns: {images: [image]}, file: judged.jsonl}"
    result = execute(
        make(
            f"tasks.vqa.data.options={options}",
            "tasks.vqa.ask='{sentence}. True or false?'",
            "tasks.vqa.metric=nlvr",
        )
    )
    said = json.loads((result.folder / "predictions" / "vqa.json").read_text())
    assert set(said.values()) <= {"true", "false"}


def test_a_finished_run_answers_encoded_pictures(make: Make, data: Path) -> None:
    result = execute(make())
    answer = load_predictor(result.folder, {"vqa": "image_qa", "caption": "caption"})
    picture = (data / "images" / "0000.png").read_bytes()
    said = answer("vqa", ["What colour is the circle?"] * 2, [[picture], [picture]])
    assert said[0] == said[1]
    assert len(answer("caption", [""], [[picture]])) == 1


def test_a_finished_run_is_talked_to_in_messages_and_serves_them(make: Make, data: Path) -> None:
    recipe = make(
        "tasks.caption.data.name=conversations",
        "tasks.caption.data.options={file: talks.jsonl}",
        "tasks.caption.ask=null",
    )
    result = execute(recipe)
    picture = (data / "images" / "0000.png").read_bytes()
    answer = load_predictor(result.folder, {"caption": "conversation"})
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour?"}]},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image"}]},
    ]
    said = answer("caption", ["How many?", "What?", json.dumps(turns)], [[], [picture], [picture, picture]])
    assert len(said) == 3
    with pytest.raises(
        MalformedRecordError, match=r"question, row 1: must have one `<image>` for each image, but has 2"
    ):
        answer("caption", [json.dumps(turns)], [[picture]])
    with pytest.raises(RunError, match=r"`question` of row 0 must be a text, or a list of messages in JSON"):
        answer("caption", ["[not json"], [[]])
    refs = (MediaRef.from_bytes(picture), MediaRef.from_bytes(picture))
    roles, parts = ("user", "assistant", "user"), ((None, "What colour?"), ("red",), ("And ", None))
    talk = load_talker(result.folder, "caption")
    assert talk([Conversation(id="x", roles=roles, parts=parts, images=refs)]) == said[2:]
    # A task of questions is talked to without its own words.
    assert (
        len(load_talker(result.folder, "vqa")([Conversation(id="x", roles=roles, parts=parts, images=refs)]))
        == 1
    )


def test_a_model_of_wefts_own_is_not_talked_to(values: dict[str, Any]) -> None:
    result = execute(load_recipe(values))
    with pytest.raises(RunError, match=r"read by its own processor to be talked to, .* --force_simple"):
        load_talker(result.folder, next(iter(values["tasks"])))


def test_a_run_is_exported_to_peft(make: Make, tmp_path: Path) -> None:
    result = execute(make("method.sharing=single"))
    export_run(result.folder, tmp_path / "peft")
    assert (tmp_path / "peft" / "adapter_config.json").is_file()


def test_the_batch_of_a_loss_that_is_no_number_is_made_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weft.train.objectives.by_reader import ByReader

    whole = ByReader.__call__
    monkeypatch.setattr(ByReader, "__call__", lambda *given: whole(*given) * float("nan"))
    recipe = make()
    with pytest.raises(RunError, match="Every loss must be finite"):
        execute(recipe)
    batch = nan_batch(recipe.folder)
    assert len(batch.tasks) == 4
    assert batch.inputs["input_ids"].shape == batch.inputs["labels"].shape


def test_features_are_not_extracted_where_none_are_read(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="read by its own processor"):
        extract_stores(make(), tmp_path / "stores")


def test_an_adapter_fits_the_backbone_that_it_was_trained_on(make: Make) -> None:
    result = execute(make(name="blip2"))
    model = load_adapter(load_backbone(make(name="blip2").backbone).model, result.folder / "adapter")
    assert set(model.weft.plan.tasks) == {"vqa", "caption"}


def test_rows_without_padding_learn_what_padded_rows_learn(make: Make) -> None:
    padded = execute(make("training.steps=4"))
    packed = execute(make("training.steps=4", "training.packing=true", "name=packed"))
    found, expected = adapter_weights(packed.folder), adapter_weights(padded.folder)
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ([], "blip2", "it takes no positions"),
        ([], "blip_vqa", "it reads no prompt and answer in one sequence"),
        (["training.compile=aot_eager"], "llava", "`compile` needs batches of few shapes"),
        (["method={method: prefix, length: 2}"], "llava", "for the method 'prefix'"),
    ],
    ids=["no positions", "no sequence", "compile", "prefix"],
)
def test_rows_that_cannot_be_packed_are_refused_before_training(
    changes: list[str], name: str, message: str, make: Make
) -> None:
    with pytest.raises(RunError, match=message):
        dry_run(make("training.packing=true", *changes, name=name))


def test_rows_that_are_not_kept_apart_end_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "weft.eval.readers.packing._positions",
        lambda model, inputs, kept: torch.arange(int(kept.sum()))[None],
    )
    with pytest.raises(RunError, match="its rows are not kept apart"):
        execute(make("training.packing=true"))
