"""A run as a model of lmms-eval itself, where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from weft.core.testing.processed import tiny
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.own_data import own_task, write_own_data

models: Any = pytest.importorskip("lmms_eval.models", reason="lmms-eval has an environment of its own")


def test_a_run_answers_the_messages_that_lmms_eval_makes_of_a_chat_model(tmp_path: Path) -> None:
    from lmms_eval.api.instance import Instance
    from lmms_eval.protocol import ChatMessages

    from weft.train.runs.harness import RunChatModel, RunModel, manifest

    data = write_own_data(tmp_path / "data")
    values = {
        "name": "own",
        "backbone": {"name": str(tiny("llava").save(tmp_path / "model"))},
        "method": {"method": "lora", "rank": 2, "sharing": "single"},
        "tasks": {
            "vqa": own_task(data, "image_qa", ask="{question} Word.", metric="exact", max_new_tokens=3)
        },
        "training": {"steps": 1, "batch_size": 4, "learning_rate": 1e-2},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
    }
    run = execute(load_recipe(values)).folder
    models.MODEL_REGISTRY_V2.register_manifest(manifest(), overwrite=True)
    assert (models.get_model("weft"), models.get_model("weft", True)) == (RunChatModel, RunModel)
    model = models.get_model("weft").create_from_arg_string(f"run={run},task=vqa", {"batch_size": 2})
    shown = Image.new("RGB", (40, 60))

    def messages(document: dict[str, Any]) -> list[dict[str, Any]]:
        text = {"type": "text", "text": f"what is {document['number']}?"}
        return [{"role": "user", "content": [{"type": "image", "url": shown}, text]}]

    assert ChatMessages(messages=messages({"number": 1})).extract_media()[0] == [shown]
    model.task_dict = {"t": {"test": [{"number": number} for number in range(3)]}}
    requests = [
        Instance(
            request_type="generate_until",
            arguments=("asked", messages, {"until": ["\n"]}, number, "t", "test"),
            idx=number,
            metadata={"task": "t", "doc_id": number, "repeats": 1},
        )
        for number in range(3)
    ]
    together = model.generate_until(requests)
    assert len(together) == 3
    assert [model.generate_until([request])[0] for request in requests] == together
