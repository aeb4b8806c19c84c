"""Training: one thin subclass of `transformers.Trainer` for batches of several tasks and whole checkpoints."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from weft.core import load_adapter
from weft.data.mixing import TaskMixture
from weft.eval.evaluate.inputs import Batches
from weft.train.checkpoints import rotate, seal
from weft.train.objectives import objective
from weft.train.recipe import TrainingSection

Row = tuple[str, int, int]
Validate = Callable[[], dict[str, float]]


class TaskRows(Dataset[Any]):
    """Records of several tasks, looked up by (task, row, epoch)."""

    def __init__(self, records: Mapping[str, Sequence[Any]]) -> None:
        self.records = records

    def __getitem__(self, key: Row) -> tuple[str, Any, int]:
        task, row, epoch = key
        return task, self.records[task][row], epoch


class EpochRows:
    """A batch sampler that hands on a mixture's rows together with the epoch they belong to."""

    def __init__(self, mixture: TaskMixture, batch_size: int) -> None:
        self.mixture = mixture
        self.batch_size = batch_size
        self.drop_last = False

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[list[Row]]:
        epoch = self.mixture.epoch
        for step in range(len(self.mixture)):
            yield [(task, row, epoch) for task, row in self.mixture.batch(step, epoch)]

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of this epoch from now on."""
        self.mixture.set_epoch(epoch)


class TaskLoader(DataLoader[Any]):
    """A loader whose sampler already knows this process's share of each batch."""

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of this epoch from now on."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class MultiTaskTrainer(Trainer):
    """Trains a routed model on batches of one or of several tasks.

    Args:
        model: A model that `weft.core.attach` adapted.
        args: Made by `training_arguments`.
        records: Task to its training records.
        mixture: Draws the batches.
        batches: Makes model inputs.
        validate: Gives scores with an `average`, called every `eval_steps`; the best weights are kept.
        callbacks: Further callbacks.
        keep: Number of checkpoints kept.
        decay_norms: Whether norms, biases and scalars are decayed as matrices are.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        records: Mapping[str, Sequence[Any]],
        mixture: TaskMixture,
        batches: Batches,
        validate: Validate | None = None,
        callbacks: list[TrainerCallback] | None = None,
        keep: int = 2,
        decay_norms: bool = False,
    ) -> None:
        self.decay_norms = decay_norms
        rows = TaskRows(records)
        # Validation is `validate`; the trainer only wants to see that there is something to evaluate.
        super().__init__(model=model, args=args, train_dataset=rows, eval_dataset=rows, callbacks=callbacks)
        # The loss is a mean over the batch, not a sum to be divided by a token count.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.mixture, self.batches, self.validate, self.keep = mixture, batches, validate, keep
        self.best = float("-inf")
        self._sums: dict[str, list[Tensor]] = defaultdict(list)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A loader over the mixture; it is not sharded again, because the mixture draws this rank's rows."""
        sampler = EpochRows(self.mixture, self.args.per_device_train_batch_size)
        return TaskLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self._collate,
            num_workers=self.args.dataloader_num_workers,
        )

    def _collate(self, rows: list[tuple[str, Any, int]]) -> dict[str, Any]:
        return self.batches.training([(task, record) for task, record, _ in rows], epoch=rows[0][2])

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices; norms, biases and scalars only if `decay_norms`."""
        return [name for name, value in model.named_parameters() if value.dim() > 1 or self.decay_norms]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor:
        """Mean loss of the batch, under the routing of its rows; per-task losses are kept for the log."""
        tasks: list[str] = inputs.pop("tasks")
        losses_of = objective(inputs.pop("objective"))
        with self.accelerator.unwrap_model(model).route(tasks=tasks):
            losses = losses_of(model, inputs)
        for task in dict.fromkeys(tasks):
            mine = torch.tensor([t == task for t in tasks], device=losses.device)
            self._sums[task].append(losses.detach()[mine].mean())
        return losses.mean()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Zero: the trainer's estimate walks over every parameter in every step, and nobody reads it."""
        return 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean loss of each task since the last log."""
        if "loss" in logs:
            logs |= {f"loss/{task}": float(torch.stack(sums).mean()) for task, sums in self._sums.items()}
            self._sums.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and log the scores."""
        if self.validate is None:
            return {}
        scores = {f"validation/{name}": value for name, value in self.validate().items()}
        if scores["validation/average"] > self.best:
            self.best = scores["validation/average"]
            partial = Path(self.args.output_dir) / ".saving-best"
            shutil.rmtree(partial, ignore_errors=True)
            self.save_model(str(partial))
            (partial / "score").write_text(repr(self.best), encoding="utf-8")
            seal(partial, Path(self.args.output_dir) / "best")
        self.log(dict(scores))
        return scores

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(self.args.output_dir) / f".saving-{self.state.global_step}")

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        name = f"checkpoint-{self.state.global_step}"
        partial = Path(self._get_output_dir(trial))
        seal(partial / name, Path(self.args.output_dir) / name)
        partial.rmdir()
        rotate(Path(self.args.output_dir), self.keep)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_adapter(self.model if model is None else model, resume_from_checkpoint)
        best = Path(self.args.output_dir) / "best" / "score"
        self.best = float(best.read_text(encoding="utf-8")) if best.is_file() else float("-inf")


def training_arguments(section: TrainingSection, folder: Path, *, seed: int, steps: int) -> TrainingArguments:
    """Arguments of the trainer for a recipe's `training`.

    Args:
        section: The section.
        folder: Folder of checkpoints.
        seed: The recipe's seed.
        steps: Optimiser steps in all.
    """
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=section.accumulation,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.schedule if section.schedule != "constant" else "constant_with_warmup",
        warmup_steps=int(section.warmup * steps),
        weight_decay=section.weight_decay,
        adam_beta1=section.adam_betas[0],
        adam_beta2=section.adam_betas[1],
        adam_epsilon=section.adam_epsilon,
        max_grad_norm=section.max_grad_norm,
        bf16=section.precision == "bf16",
        fp16=section.precision == "fp16",
        logging_steps=section.log_every,
        save_strategy="steps" if section.save_every else "no",
        save_steps=section.save_every or 500,
        eval_strategy="steps" if section.evaluate_every else "no",
        eval_steps=section.evaluate_every or None,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=0,
    )
