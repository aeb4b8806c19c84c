"""Training: one thin subclass of `transformers.Trainer` for batches of several tasks and complete checkpoints."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from weft.core import auxiliary_losses, load_adapter
from weft.data.sampling.mixing import TaskMixture
from weft.eval.evaluate.read import ReaderBatches
from weft.train.engine.averaging import AVERAGE, WeightAverage
from weft.train.engine.balance import BalancedSteps, balance_of
from weft.train.engine.checkpoints import (
    BEFORE,
    is_complete,
    load_states,
    rotate,
    save_states,
    seal,
    state_of,
)
from weft.train.engine.clock import Clock
from weft.train.engine.loading import Collate, EpochRows, TaskLoader, TaskRows
from weft.train.engine.sharding import check_shardable, resting, shard, shard_states, whole, whole_adapter
from weft.train.engine.task_losses import TaskLosses
from weft.train.objectives import Objective
from weft.train.output.run_files import as_written
from weft.train.processes import ONE, Processes
from weft.train.recipe.training import TrainingSection

Validate = Callable[[], dict[str, float]]
VALIDATED = "validated.json"


class MultiTaskTrainer(BalancedSteps, Trainer):
    """Trains a routed model on batches of one or of several tasks.

    Args:
        model: A model that `weft.core.attach` adapted.
        args: Made by `training_arguments`.
        records: Task to its training records.
        mixture: Draws the batches.
        batches: Makes model inputs.
        section: The recipe's `training`.
        validate: Gives scores with an `average`, called every `eval_steps`; the best weights are kept.
        callbacks: Further callbacks.
        processes: The processes of the run.
        objectives: What the batches are trained by, by its name; its state is part of checkpoints.
        clock: Measures the run; what it shows is part of checkpoints.
    """

    optimizer: Any
    control: TrainerControl

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        records: Mapping[str, Sequence[Any]],
        mixture: TaskMixture,
        batches: ReaderBatches,
        section: TrainingSection,
        validate: Validate | None = None,
        callbacks: list[TrainerCallback] | None = None,
        processes: Processes = ONE,
        objectives: Mapping[str, Objective],
        clock: Clock | None = None,
    ) -> None:
        self.section, self.processes, self.clock = section, processes, clock or Clock()
        self.objectives = dict(objectives)
        self.balance = balance_of(section, model, mixture.tasks, processes)
        if section.checkpointing:
            # The older name, where there is only that one; the newer library warns of it.
            name = "activation_checkpointing_enable"
            enable = getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")
            enable({"use_reentrant": False})
        self.rows = TaskRows(records)
        # Validation is `validate`; the trainer only wants to see that there is something to evaluate.
        with _known_as_adapted(model):
            super().__init__(
                model=model, args=args, train_dataset=self.rows, eval_dataset=self.rows, callbacks=callbacks
            )
        self.sharded = section.sharded and processes.size > 1
        if self.sharded:
            check_shardable(model, self.objectives)
            shard(model, processes)
            # The trainer's own word for a model that it neither moves nor wraps; it is only true from here on.
            self.is_distributed_loading_by_transformers = True
        self.average = WeightAverage(model, section.average) if section.average else None
        if self.average:
            self.add_callback(self.average)
        # The loss is a mean over the batch, not a sum to be divided by a token count.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.mixture, self.batches, self.validate = mixture, batches, validate
        self.best, self.stale = float("-inf"), 0
        self._logged_at, self.left_out, self.dropped = time.perf_counter(), 0, Counter[str]()
        self.task_losses = TaskLosses(mixture.tasks, processes, Path(args.output_dir).parent)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A loader over the mixture; it is not sharded again, because the mixture draws this rank's rows."""
        sampler = EpochRows(self.mixture, self.args.per_device_train_batch_size)
        return TaskLoader(self.rows, sampler, Collate(self.batches), self.section.workers)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that decay; see `decays`."""
        return [name for name, value in model.named_parameters() if decays(name, value, self.section)]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser, with a group for every component that has its own rate."""
        if self.optimizer is not None or not self.section.learning_rates:
            return super().create_optimizer(model)
        trained = self.model if model is None else model
        decayed, rates = set(self.get_decay_parameter_names(trained)), self.section.learning_rates
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        components = trained_components(self.model)
        for name, value in trained.named_parameters():
            if value.requires_grad:
                rate = rates.get(components[name], self.args.learning_rate)
                groups[rate, self.args.weight_decay if name in decayed else 0.0].append(value)
        optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
        parts = [
            {"params": values, "lr": rate, "weight_decay": decay} for (rate, decay), values in groups.items()
        ]
        self.optimizer = optimizer(parts, **options)
        return self.optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor:
        """Mean loss of the batch, under the routing of its rows; per-task losses are kept for the log."""
        if "failed" in inputs:
            raise inputs["failed"]
        tasks, records, rows = inputs.pop("tasks"), inputs.pop("records"), inputs.pop("rows")
        epoch, name = inputs.pop("epoch"), inputs.pop("objective")
        left_out = inputs.pop("left_out")
        self.left_out += len(left_out)
        self.dropped.update(left_out)
        losses_of = self.objectives[name]
        with auxiliary_losses(self.model) as added, self.model.route(tasks=inputs["batch"].routes):
            losses = losses_of(model, inputs)
        self.task_losses.note(tasks, records, losses, self.state.global_step, epoch)
        if self.processes.size == 1:
            rows = len(losses)
        elif self.batches.may_drop:
            rows = int(self.processes.sum(torch.tensor(len(losses), device=losses.device)))
        losses = self.balanced(losses, tasks, rows)
        if self.processes.size == 1:
            return losses.mean() + added.total()
        # Gradients are averaged over processes, which may hold one row more or less of the batch.
        return losses.sum() * (self.processes.size / rows) + added.total()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Zero: the trainer's estimate walks over every parameter in every step, and nobody reads it."""
        return 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean loss of each task, samples per second since the last log, and the peak memory of a GPU."""
        if "loss" in logs:
            losses, rows = self.task_losses.drain()
            now = time.perf_counter()
            logs |= {f"loss/{task}": loss for task, loss in losses.items()}
            logs["samples_per_second"] = rows / (now - self._logged_at)
            self._logged_at = now
            if self.batches.may_drop:
                logs["rows_left_out"] = int(
                    self.processes.sum(torch.tensor(self.left_out, device=self.args.device))
                )
                self.left_out = 0
            if self.processes.device.type == "cuda":
                logs["gpu_memory_mb"] = torch.cuda.max_memory_allocated(self.processes.device) / 2**20
        super().log(logs, *args, **kwargs)

    def dropped_lines(self) -> list[str]:
        """How many rows of each task were dropped as too long, one line for each that lacks some; asked by all."""
        if not self.batches.may_drop:
            return []
        counts = torch.tensor([self.dropped[task] for task in self.mixture.tasks], device=self.args.device)
        return [
            f"{task}: {count:,} rows were dropped, longer than training.max_tokens or max_target_tokens"
            for task, count in zip(self.mixture.tasks, self.processes.sum(counts).tolist(), strict=True)
            if count
        ]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and log the scores."""
        if self.validate is None:
            return {}
        with self.average.applied() if self.average else nullcontext(), resting(self.model):
            scores = {f"validation/{name}": value for name, value in self.validate().items()}
            self.stale += 1
            if scores["validation/average"] > self.best:
                self.best, self.stale = scores["validation/average"], 0
                self._save_best()
        if self._is_exhausted():
            self.control.should_training_stop = True
        self.log(dict(scores))
        # Tells the trainer that it is done; at the end of an epoch it would validate the same weights again.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def resume(self, checkpoint: Path) -> None:
        """Resume from a checkpoint; one that ends the training is only loaded, so that no step follows it."""
        self._load_from_checkpoint(str(checkpoint))
        state = state_of(checkpoint)
        if state.global_step < self.args.max_steps and not self._is_exhausted():
            self.train(resume_from_checkpoint=str(checkpoint))

    def _is_exhausted(self) -> bool:
        return bool(self.section.patience) and self.stale >= self.section.patience

    def _save_best(self) -> None:
        partial = Path(self.args.output_dir) / ".saving-best"
        if self.processes.first:
            shutil.rmtree(partial, ignore_errors=True)
        self.save_model(str(partial))
        if self.processes.first:
            (partial / "score").write_text(repr(self.best), encoding="utf-8")
            seal(partial, Path(self.args.output_dir) / "best")
        self.processes.wait()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        state = whole_adapter(self.model) if self.sharded else state_dict
        if self.processes.first:
            super()._save(output_dir, state)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole(self.optimizer.state_dict())
        if self.processes.first:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with as_written(Path(checkpoint or ""), BEFORE):
            super()._load_optimizer_and_scheduler(checkpoint)
        if self.sharded and checkpoint is not None:
            shard_states(self.optimizer)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with as_written(Path(checkpoint or ""), BEFORE):
            super()._load_rng_state(checkpoint)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return whole(super()._get_grad_norm(model, grad_norm))

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(self.args.output_dir) / f".saving-{self.state.global_step}")

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.task_losses.check()
        super()._save_checkpoint(model, trial)
        self.processes.wait()
        name, partial = f"checkpoint-{self.state.global_step}", Path(self._get_output_dir(trial))
        average = self.average.state() if self.average else {}
        if self.processes.first:
            if average:
                save_file(average, partial / name / AVERAGE)
            save_states({**self.objectives, "balance": self.balance}, partial / name)
            self.clock.save(partial / name)
            (partial / name / VALIDATED).write_text(json.dumps([self.best, self.stale]), encoding="utf-8")
            seal(partial / name, Path(self.args.output_dir) / name)
            partial.rmdir()
            rotate(Path(self.args.output_dir), self.section.keep)
        self.processes.wait()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        load_adapter(self.model if model is None else model, checkpoint)
        with as_written(checkpoint, BEFORE):
            if self.average:
                self.average.load(checkpoint)
            load_states({**self.objectives, "balance": self.balance}, checkpoint)
            self.clock.load(checkpoint)
            best_score, stale = json.loads((checkpoint / VALIDATED).read_text(encoding="utf-8"))
            self.best, self.stale = float(best_score), int(stale)
        best, partial = (Path(self.args.output_dir) / name for name in ("best", ".saving-best"))
        if self.processes.first and not best.exists() and is_complete(partial):
            partial.rename(best)
        self.processes.wait()


@contextmanager
def _known_as_adapted(model: Any) -> Iterator[None]:
    """Tell transformers that a quantised model has units to train; it asks for an adapter of PEFT."""
    told = bool(getattr(model, "is_quantized", False) and model.weft.plan.units)
    if told:
        model._hf_peft_config_loaded = True
    try:
        yield
    finally:
        if told:
            del model._hf_peft_config_loaded


def decays(name: str, value: Tensor, section: TrainingSection) -> bool:
    """Whether a parameter decays: matrices do, scales of norms if `decay_norms`, biases if `decay_biases`."""
    if value.dim() > 1:
        return True
    words = name.split(".")
    # A unit's parameter ends with the name of its slot; the generators of a Hyperformer call their bias offset.
    word = words[-2] if words[0] == "weft" else words[-1]
    return section.decay_biases if "bias" in word or word == "offset" else section.decay_norms


def trained_components(model: Any) -> dict[str, str]:
    """Name of every trained parameter to its component: a word of the backbone, or the label of a unit."""
    plan = model.weft.plan
    components = {full.path: full.component for full in plan.full}
    labels = {key: plan.configs[unit.config].label for unit in plan.units for key in unit.banks.values()}
    for key, slot, _ in model.weft.slots():
        components[f"weft.{key}.{slot}"] = labels[key]
    return components


def training_arguments(
    section: TrainingSection, folder: Path, *, seed: int, steps: int, processes: Processes = ONE
) -> TrainingArguments:
    """Arguments of the trainer for a recipe's `training`, with the folder of checkpoints and the steps in all."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=max(1, section.batch_size // processes.size),
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
        logging_nan_inf_filter=False,
        save_strategy="steps" if section.save_every else "no",
        save_steps=section.save_every or 500,
        eval_strategy="steps" if section.evaluate_every else "no",
        eval_steps=section.evaluate_every or None,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        torch_compile_backend=section.compile,
        # One graph serves every routing, so that each parameter gets a gradient on every process; buffers are the
        # same by construction, and that of the tasks seen must stay each process's own.
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )
