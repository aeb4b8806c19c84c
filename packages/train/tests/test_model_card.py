"""The card of an export: valid on the hub, true of its run, and without a word of where it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.output.result import Result
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.exporting import card as cards
from weft.train.runs.exporting.manifest import read_manifest
from weft.train.runs.exporting.push import check_public, check_repository, push
from weft.train.runs.exporting.writing import export_run


@pytest.fixture
def run(values: dict[str, Any], finished: Callable[[Recipe], Result]) -> Result:
    values["method"] = {"method": "lora", "rank": 2, "sharing": "multiple"}
    return finished(load_recipe(values))


class Hub:
    """Stands at the border to the hub, and keeps what goes there."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {}
        self.private: bool | None = None

    def create_repo(self, repository: str, **options: Any) -> None:
        self.asked.append(repository)
        self.private = options["private"]

    def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str) -> Any:
        places = (path for path in Path(folder_path).rglob("*") if path.is_file())
        self.files = {str(path.relative_to(folder_path)): path.read_bytes() for path in places}
        return type("Done", (), {"commit_url": f"https://huggingface.co/{repo_id}/commit/1"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr("weft.train.runs.exporting.push.HfApi", lambda: made)
    monkeypatch.setattr(ModelCard, "validate", lambda card, **options: made.asked.append("validated"))
    return made


def weft(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_a_card_tells_method_sharing_scores_words_and_how_to_load(run: Result, tmp_path: Path) -> None:
    export_run(run.folder, tmp_path / "out", repository="me/things", licence="mit")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.to_dict().items() >= {"library_name": "peft", "license": "mit"}.items()
    assert {"weft", "lora", "vqa", "nlvr"} <= set(card.data.tags)
    told = {result.dataset_name: result.metric_value for result in card.data.eval_results}
    assert told == {task: round(run.scores[task], 2) for task in ("vqa", "nlvr")}
    text = card.text
    assert "lora on miniature, for vqa, nlvr" in text
    assert "- lora shares: down across nothing; up across nothing" in text
    assert re.search(r"\| vqa \| \w+ \| [\w-]+ \| [\d.]+ \| 12 \|", text)
    assert "PeftModel.from_pretrained(base, 'me/things', subfolder='vqa')" in text
    assert "| vqa | `vqa: {text}` |" in text
    trained = yaml.safe_load(text.partition("```yaml")[2].partition("```")[0])
    assert trained["method"]["rank"] == 2
    assert trained["training"]["steps"] == 6
    assert "## Limits" in text
    assert str(tmp_path) not in text + card.content
    assert str(Path.cwd()) not in card.content


def test_a_card_of_merged_folders_tells_the_error_of_merging(run: Result, tmp_path: Path) -> None:
    export_run(run.folder, tmp_path / "out", target="merged")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Merging changed what the adapted maps return by at most" in text
    assert "from_pretrained('out', subfolder='vqa')" in text


def test_an_export_for_vllm_says_how_it_is_served(run: Result, tmp_path: Path) -> None:
    export_run(run.folder, tmp_path / "out", target="vllm", split=True, repository="me/things")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "hf download me/things --local-dir things" in text
    assert "vllm serve things/base --enable-lora" in text


def test_a_base_of_the_hub_is_named_as_such(
    run: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "is_on_hub", lambda name: True)
    export_run(run.folder, tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.base_model, data.base_model_relation) == ("miniature", "adapter")


def test_an_export_is_pushed_with_its_card(
    run: Result, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        weft("export", run.folder, tmp_path / "out", "--split", "--push", "me/things", "--license", "mit")
        == 0
    )
    assert hub.asked == ["validated", "me/things"]
    assert hub.private is True
    assert {
        "README.md",
        "weft_export.json",
        "vqa/adapter_model.safetensors",
        "base/config.json",
    } <= hub.files.keys()
    assert "https://huggingface.co/me/things/commit/1" in capsys.readouterr().out
    assert json.loads(hub.files["weft_export.json"])["base"] == "base"
    assert not any(str(tmp_path).encode() in content for content in hub.files.values())


def test_what_others_could_not_load_is_not_pushed(
    run: Result, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weft("export", run.folder, tmp_path / "out", "--push", "me/things") == 2
    assert "`--push` needs a base model that others can load" in capsys.readouterr().err.replace("\n", " ")
    assert hub.files == {}
    with pytest.raises(RunError, match="must be the id of a repository"):
        check_repository("me/my/things")
    assert weft("export", run.folder / "adapter", tmp_path / "other", "--push", "me/things") == 2
    assert "`--push` needs the folder of a finished run" in capsys.readouterr().err


def test_what_the_hub_says_is_told(
    run: Result, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(run.folder, tmp_path / "out", target="merged")
    check_public(read_manifest(tmp_path / "out"))

    def refuse(*words: Any, **options: Any) -> None:
        raise ValueError("you may not")

    monkeypatch.setattr(hub, "create_repo", refuse, raising=False)
    with pytest.raises(RunError, match=r"the hub says of 'me/things': you may not Log in with"):
        push(tmp_path / "out", "me/things")


def test_a_damaged_result_is_named_and_nothing_is_written(run: Result, tmp_path: Path) -> None:
    file = run.folder / "result.json"
    values = json.loads(file.read_text())
    values["scores"].pop(next(iter(values["reports"])))
    file.write_text(json.dumps(values))
    with pytest.raises(
        RunError, match=r"result\.json must be as weft wrote it, but cannot be read: KeyError"
    ):
        export_run(run.folder, tmp_path / "out", target="peft")
    assert not (tmp_path / "out").exists()
