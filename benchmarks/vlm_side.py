"""One side of `vlm_step`: a trainer over one model and one table of pictures with questions.

`python -m benchmarks.vlm_side weft FOLDER`, `… trl FOLDER` or `… peft FOLDER`; FOLDER is what `vlm_step.write_case`
wrote. All train LoRA of the same size on the same linear maps, with AdamW, without recomputing activations, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.measure.results import versions
from benchmarks.measure.turns import Turns
from weft.core.testing.processed.stills import without_torchvision

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MANY = 10**6


class EachStep(TrainerCallback):
    """Ends a step where the trainer ends it, so that reading the next batch counts with the step that needs it."""

    def __init__(self, turns: Turns, facts: dict[str, Any]) -> None:
        self.turns, self.facts = turns, facts

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the first turn."""
        self.turns.begin(**self.facts)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """A step is done."""
        self.turns.step_done()


def trained(model: Any) -> int:
    """Number of trained parameters."""
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


def weft_side(folder: Path, case: dict[str, Any], turns: Turns) -> None:
    """What `weft train` does in its steps."""
    from weft.train.engine.schedule import make_mixture
    from weft.train.engine.trainer import MultiTaskTrainer, training_arguments
    from weft.train.objectives import objectives_of
    from weft.train.preflight.tasks import load_tasks, sizes_of
    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.open_session import open_session

    recipe = load_recipe(str(folder / "recipe.yaml"), case.get("overrides", []))
    tasks = load_tasks(recipe, ("train",))
    session = open_session(recipe, tasks, folder=folder / "run")
    section = recipe.training
    rows = [("vqa", record) for record in tasks["vqa"]["train"][: section.batch_size]]
    facts = {
        "trained": trained(session.model),
        "versions": versions("torch", "transformers", "weft-train"),
        "tokens_of_a_row": session.batches.training(rows)["batch"].inputs["input_ids"].shape[1],
    }
    MultiTaskTrainer(
        session.model,
        training_arguments(section, folder / "run", seed=0, steps=MANY),
        records={name: data["train"] for name, data in tasks.items()},
        mixture=make_mixture(recipe, sizes_of(tasks)),
        batches=session.batches,
        section=section,
        objectives=objectives_of(
            session.model, section, section.batch_size, getattr(session.batches, "reader", None)
        ),
        callbacks=[EachStep(turns, facts)],
    ).train()


def rows_of(folder: Path) -> Any:
    """The table as TRL reads it."""
    from datasets import Dataset, Image

    lines = (folder / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": row["question"]}] for row in rows],
            "completion": [[{"role": "assistant", "content": row["answer"]}] for row in rows],
            "images": [[str(folder / "data" / row["image"])] for row in rows],
        }
    ).cast_column("images", [Image()])


def options_of(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a trainer that are those of the recipe."""
    return {
        "output_dir": str(folder / "trl"),
        "max_steps": MANY,
        "per_device_train_batch_size": case["batch_size"],
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.01,
        "logging_steps": case["log_every"],
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def served(trainer: Any, turns: Turns, *libraries: str) -> None:
    """Train for as long as there are turns."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    facts = {"trained": trained(trainer.model), "versions": versions("torch", "transformers", *libraries)}
    trainer.add_callback(EachStep(turns, facts))
    trainer.train()


def trl_side(folder: Path, case: dict[str, Any], turns: Turns) -> None:
    """`SFTTrainer` with peft, on the same rows."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import SFTConfig, SFTTrainer

    own = {"gradient_checkpointing": False, "bf16": False, "max_length": None}
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32),
        args=SFTConfig(**options_of(folder, case), **own),
        train_dataset=rows_of(folder),
        processing_class=AutoProcessor.from_pretrained(folder / "model"),
        peft_config=lora_of(case),
    )
    served(trainer, turns, "trl", "peft")


def peft_side(folder: Path, case: dict[str, Any], turns: Turns) -> None:
    """The `Trainer` of transformers with peft: TRL's batches, the model's own loss."""
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    model = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder / "model")
    trainer = Trainer(
        model=get_peft_model(model, lora_of(case)),
        args=TrainingArguments(**options_of(folder, case)),
        train_dataset=rows_of(folder),
        data_collator=DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True),
    )
    served(trainer, turns, "trl", "peft")


def lora_of(case: dict[str, Any]) -> Any:
    """LoRA of peft on the language model's attention."""
    from peft import LoraConfig

    named = rf".*language_model.*\.({'|'.join(PROJECTIONS)})"
    return LoraConfig(r=case["rank"], lora_alpha=case["rank"], target_modules=named, lora_dropout=0.0)


SIDES = {"weft": weft_side, "trl": trl_side, "peft": peft_side}


def main() -> None:
    """Build a side and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=sorted(SIDES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the recipe, for weft")
    arguments = parser.parse_args()
    turns = Turns()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    without_torchvision()
    case = json.loads((arguments.folder / "case.json").read_text(encoding="utf-8"))
    SIDES[arguments.side](arguments.folder, {**case, "overrides": arguments.overrides}, turns)


if __name__ == "__main__":
    main()
