"""Rows of several tasks through other trainers: TRL's, where it is installed (`nox -s trl`), and transformers' own."""

import copy

import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

from weft.core import attach, load_adapter
from weft.core.errors import AttachError, RoutingError
from weft.core.files.interop.trl import RoutesTasks, WithTasks
from weft.core.files.loading import AdapterCheckpoints
from weft.core.files.saving import CONFIG, WEIGHTS, adapter_state
from weft.core.testing import tiny_backbone
from weft.core.testing.processed import tiny

TASKS = ["vqa", "caption"]
METHOD = {"method": "lora", "rank": 2, "sharing": "multiple"}
SETTINGS = {
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "save_steps": 2,
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "remove_unused_columns": False,
}


class Rows(torch.utils.data.Dataset):
    """Texts of two tasks, in turns."""

    def __init__(self):
        torch.manual_seed(3)
        self.ids = torch.randint(5, 90, (8, 6))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, place):
        return {"input_ids": self.ids[place], "labels": self.ids[place], "task": TASKS[place % 2]}


def stacked(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class AdapterTrainer(AdapterCheckpoints, Trainer):
    pass


def adapted():
    torch.manual_seed(0)
    return attach(tiny_backbone("bart")[0], METHOD, TASKS)


def plain_trainer(folder, steps, rows):
    model = adapted()
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        **SETTINGS,
    )
    return AdapterTrainer(model, arguments, WithTasks(stacked, model), train_dataset=rows)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_a_column_of_tasks_routes_the_rows_of_a_plain_trainer(tmp_path):
    rows = Rows()
    alone = torch.utils.data.Subset(rows, [place for place in range(len(rows)) if place % 2])
    before = adapter_state(adapted())
    trainer = plain_trainer(tmp_path / "a", 2, alone)
    trainer.train()
    after = adapter_state(trainer.model)
    moved = {name.rpartition(".")[2] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"caption"}
    saved = {path.name for path in (tmp_path / "a" / "checkpoint-2").iterdir()}
    assert {WEIGHTS, CONFIG} <= saved
    assert not any(name.startswith(("model", "pytorch_model")) for name in saved)


def test_rows_without_a_task_or_with_a_strange_one_are_told():
    collator = WithTasks(dict, adapted())
    with pytest.raises(RoutingError, match=r"'task' is not among text\. .*remove_unused_columns=False"):
        collator([{"text": "a"}])
    with pytest.raises(RoutingError, match="Did you mean 'caption'"):
        collator([{"task": "captions"}])
    with pytest.raises(AttachError, match="must have units"):
        WithTasks(dict, tiny_backbone("bart")[0])


def conversations():
    from datasets import Dataset

    shown = [
        Image.new("RGB", size, (place * 30, 90, 200)) for place, size in enumerate([(60, 40), (40, 60)] * 4)
    ]
    said = [
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": f"what is number {place}?"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": ("red", "a blue square")[place % 2]}]},
        ]
        for place in range(8)
    ]
    tasks = [TASKS[place % 2] for place in range(8)]
    return Dataset.from_dict({"messages": said, "images": [[each] for each in shown], "task": tasks})


def trl_trainer(folder, steps, rows):
    trl = pytest.importorskip("trl")
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    class TaskTrainer(RoutesTasks, AdapterCheckpoints, trl.SFTTrainer):
        pass

    torch.manual_seed(0)
    model = attach(copy.deepcopy(tiny("qwen2_5_vl").model), METHOD, TASKS)
    processor = tiny("qwen2_5_vl").processor
    arguments = trl.SFTConfig(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        **SETTINGS,
        bf16=False,
        seed=5,
        gradient_checkpointing=False,
        max_length=None,
    )
    collator = WithTasks(DataCollatorForVisionLanguageModeling(processor, max_length=None), model)
    return TaskTrainer(
        model, arguments, data_collator=collator, train_dataset=rows, processing_class=processor
    )


@pytest.mark.filterwarnings("ignore")
def test_trl_trains_each_task_by_its_own_rows_and_resumes_from_adapters(tmp_path):
    pytest.importorskip("trl")
    rows = conversations()
    whole = trl_trainer(tmp_path / "whole", 4, rows)
    before = {name: value.clone() for name, value in adapter_state(whole.model).items()}
    whole.train()
    trained = adapter_state(whole.model)
    assert all(not torch.equal(value, before[name]) for name, value in trained.items() if ".up" in name)
    saved = {path.name for path in (tmp_path / "whole" / "checkpoint-2").iterdir()}
    assert {WEIGHTS, CONFIG} <= saved
    assert not any(name.startswith(("model", "pytorch_model")) for name in saved)

    halved = trl_trainer(tmp_path / "halved", 4, rows)
    halved.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, value in adapter_state(halved.model).items():
        torch.testing.assert_close(value, trained[name], atol=0, rtol=0)

    loaded = load_adapter(copy.deepcopy(tiny("qwen2_5_vl").model), tmp_path / "whole" / "checkpoint-4")
    assert loaded.weft.tasks == tuple(TASKS)

    one = trl_trainer(tmp_path / "one", 2, rows.filter(lambda row: row["task"] == "vqa"))
    one.train()
    moved = {
        name.rpartition(".")[2]
        for name, value in adapter_state(one.model).items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"vqa"}
