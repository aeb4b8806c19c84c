"""transformers' own trainer on an adapted model: its checkpoints hold the adapter, and it resumes from them."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from weft.core import attach, load_adapter
from weft.core.files.loading import AdapterCheckpoints
from weft.core.files.saving import CONFIG, WEIGHTS, adapter_state
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import HALF_SHARED

TASKS = ["vqa", "gqa"]


class AdapterTrainer(AdapterCheckpoints, Trainer):
    pass


def rows_of_tasks():
    """Rows of two tasks; the trainer hands `task_ids` to the model like any other input."""
    torch.manual_seed(3)
    ids = torch.randint(5, 90, (8, 6))
    return [{"input_ids": row, "labels": row, "task_ids": torch.tensor(k % 2)} for k, row in enumerate(ids)]


def trainer(folder, steps, **options):
    model, _ = tiny_backbone("bart")
    torch.manual_seed(0)
    attach(model, HALF_SHARED, TASKS)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=5,
        **options,
    )
    rows = rows_of_tasks()
    return AdapterTrainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)


def test_it_saves_the_adapter_alone_and_resumes_to_the_same_weights(tmp_path):
    whole = trainer(tmp_path / "whole", 4)
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    files = {path.name for path in checkpoint.iterdir()}
    assert {WEIGHTS, CONFIG, "optimizer.pt", "trainer_state.json"} <= files
    assert not {"model.safetensors", "pytorch_model.bin", "config.json"} & files
    plain, _ = tiny_backbone("bart")
    assert load_adapter(plain, checkpoint).weft.tasks == tuple(TASKS)

    resumed = trainer(tmp_path / "whole", 4)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    expected = adapter_state(whole.model)
    found = adapter_state(resumed.model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_it_goes_back_to_the_best_adapter(tmp_path):
    best = trainer(
        tmp_path, 4, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, greater_is_better=True
    )
    # The loss falls, so the highest one is that of the first evaluation.
    best.train()
    plain, _ = tiny_backbone("bart")
    load_adapter(plain, tmp_path / "checkpoint-2")
    expected = adapter_state(plain)
    assert best.state.best_model_checkpoint.endswith("checkpoint-2")
    assert all(torch.equal(value, expected[key]) for key, value in adapter_state(best.model).items())


@pytest.mark.parametrize("resume", ["nowhere"])
def test_a_folder_without_an_adapter_is_told(tmp_path, resume):
    from weft.core.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r"weft_config.json and adapter_model.safetensors is not in"):
        trainer(tmp_path, 2)._load_from_checkpoint(str(tmp_path / resume))
