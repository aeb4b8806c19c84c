"""A recipe: one YAML file is one run. Unknown keys are errors, and all faults are reported at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from weft.train.recipe.sections import (
    BackboneSection,
    EvaluationSection,
    Local,
    RunRecipe,
    Section,
    TaskSection,
    TrackingSection,
)

Beta = Annotated[float, Field(ge=0, lt=1)]


class MixingSection(Section):
    """How batches are drawn from the tasks; see `weft.data.sampling.mixing.TaskMixture`.

    Attributes:
        strategy: How often a task is drawn: in proportion to its size, to a root of it, in turn, or by `weights`.
        temperature: The root of `strategy: temperature`; 1 is in proportion, greater ones are more even.
        weights: Task to weight (with `strategy: weights`).
        caps: Greatest size that counts, of each task or of those named.
        unit: Whether a batch holds rows of one task (`homogeneous`) or of any (`mixed`).
    """

    strategy: Literal["proportional", "temperature", "round_robin", "weights"] = "proportional"
    temperature: float = Field(default=1.0, gt=0)
    weights: dict[str, float] | None = None
    caps: dict[str, int] | int | None = None
    unit: Literal["homogeneous", "mixed"] = "homogeneous"


class ContrastSection(Section):
    """What a backbone that is trained by image-text contrast and matching keeps, such as BLIP.

    Attributes:
        queue_size: Earlier features that each row is compared with; a multiple of the batch over all devices.
        momentum: Share of the momentum encoder's weights that stays in a step.
        alpha: Share of the momentum encoder's opinion in the targets.
        alpha_steps: Steps over which that share rises from 0.
        negatives: Whether hard negatives come from the batch of a device (`local`) or of all (`gathered`).
    """

    queue_size: int = Field(default=57600, gt=0)
    momentum: float = Field(default=0.995, ge=0, lt=1)
    alpha: float = Field(default=0.4, ge=0, le=1)
    alpha_steps: int = Field(default=0, ge=0)
    negatives: Literal["local", "gathered"] = "local"


class AugmentSection(Section):
    """How training images are changed at random, newly in every epoch.

    Attributes:
        smallest_crop: Least share of the area in a random crop, which is resized to the model's input.
        mirror: Mirror every second image, unless its text names a side.
        operations: Operations of RandAugment in a row, each applied in every second case.
        magnitude: Their strength.
    """

    smallest_crop: float = Field(default=0.5, gt=0, le=1)
    mirror: bool = True
    operations: int = Field(default=2, ge=0)
    magnitude: int = Field(default=5, ge=0, le=10)


class TrainingSection(Section):
    """How the weights are trained.

    Attributes:
        steps: Optimiser steps. Exclusive with `epochs`.
        epochs: Passes over the mixture.
        batch_size: Rows of one batch, over all devices.
        accumulation: Batches per step.
        learning_rate: Peak of the schedule.
        schedule: Shape after the warm-up.
        warmup: Share of the steps in which the rate rises.
        learning_rates: Component to its own peak: a word of `train_full`, or the label of a unit, as `weft plan`
            lists them.
        weight_decay: Decoupled decay of matrices; the scales of norms have none unless `decay_norms`, biases none
            unless `decay_biases`.
        decay_norms: Also decay the scales of norms.
        decay_biases: Also decay biases, those of norms too.
        adam_betas: Betas of AdamW.
        adam_epsilon: Epsilon of AdamW.
        max_tokens: Longest row that a model is trained on which its own processor reads, prompt and answer together;
            by default without limit. No row is cut.
        too_long: What becomes of longer rows: `refuse` ends the run with their name, `drop` leaves them out and counts
            them; `cut` is for texts that are compared with pictures.
        max_grad_norm: Gradients are clipped there; 0 does not clip.
        precision: Arithmetic of the forward pass.
        checkpointing: Recompute activations in the backward pass instead of keeping them.
        packing: Leave out the padding of batches of a `name`: rows are concatenated, but kept separate.
        compile: Backend of `torch.compile`, or none.
        sharded: Share weights, gradients and optimiser states out over several processes (FSDP2), for models that one
            device does not hold; each layer is gathered when it runs. Without it, every process has the whole model.
        balance: How tasks are balanced where they share weights: `uncertainty` weighs their losses (Kendall et al.
            2018), `gradnorm` weighs them so that their gradients are equally long (Chen et al. 2018), and `pcgrad`
            takes from gradients what conflicts with those of other tasks (Yu et al. 2020). The last two need steps with
            rows of several tasks. By default not at all.
        balance_alpha: How strongly `gradnorm` favours tasks whose losses have fallen less than others'; 0 makes all
            gradients equally long.
        average: Decay of a moving average of the trained weights, which is then validated and saved; 0 takes the
            weights of the last step.
        mixing: How batches are drawn from tasks.
        contrast: How image-text contrast and matching are trained, where the backbone has both.
        vision: Whether a tower inside the model is `frozen` (its features are extracted once) or `trained` (it
            reads pixels in every batch; the method says what of it is trained). One that the model's own processor
            shows pictures runs in every batch, unless it is `stored`: then features are extracted once, and training
            reads them.
        frames: Frames of a video that are seen, one of each of as many segments.
        shift: Greatest random shift of training images along each axis, in pixels of the model's input (with
            `vision: trained`).
        augment: Random crops and changes of training images (with `vision: trained`), or none. Videos have none.
        keep_images: MiB of decoded images kept in memory (with `vision: trained`), and of videos that have just as many
            frames as are seen.
        workers: Processes that read and decode the next batches during a step, for each process of the training; with 0
            it does so itself, between steps. Results are the same; each worker keeps its own images.
        threads: CPU threads; results are the same to the last digit only at an equal number.
        log_every: Steps between logged losses.
        save_every: Steps between checkpoints; 0 saves only the end.
        keep: Number of checkpoints kept.
        evaluate_every: Steps between validations; 0 validates never, and the last weights are the result.
        patience: Stop after so many validations without a better average of the tasks' scores; 0 never stops.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, gt=0)
    accumulation: int = Field(default=1, gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    learning_rates: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    weight_decay: float = Field(default=0.01, ge=0)
    decay_norms: bool = False
    decay_biases: bool = False
    adam_betas: tuple[Beta, Beta] = (0.9, 0.999)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)
    too_long: Literal["refuse", "drop", "cut"] = "refuse"
    max_grad_norm: float = Field(default=5.0, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpointing: bool = False
    packing: bool = False
    compile: Literal["inductor", "aot_eager", "cudagraphs"] | None = None
    sharded: bool = False
    balance: Literal["uncertainty", "gradnorm", "pcgrad"] | None = None
    balance_alpha: float = Field(default=1.5, ge=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    mixing: MixingSection = MixingSection()
    contrast: ContrastSection = ContrastSection()
    vision: Literal["frozen", "stored", "trained"] = "frozen"
    frames: int = Field(default=8, gt=0)
    shift: int = Field(default=0, ge=0)
    augment: AugmentSection | None = None
    keep_images: float = Field(default=512.0, ge=0)
    workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, gt=0)
    log_every: int = Field(default=10, gt=0)
    save_every: int = Field(default=0, ge=0)
    keep: int = Field(default=2, gt=0)
    evaluate_every: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs`, not both and not neither")
        for key in ("shift", "augment"):
            if self.vision != "trained" and getattr(self, key):
                raise ValueError(
                    f"`{key}` needs `vision: trained`, because a frozen tower sees each image once"
                )
        self._check_balance()
        if self.sharded and self.compile is not None:
            raise ValueError("`sharded` must be false with `compile`: the two have not been tried together")
        if self.patience and not self.evaluate_every:
            raise ValueError("`patience` needs `evaluate_every`, because it counts validations")
        return self

    def _check_balance(self) -> None:
        plain = type(self).model_fields["balance_alpha"].default
        if self.balance != "gradnorm" and self.balance_alpha != plain:
            raise ValueError("`balance_alpha` needs `balance: gradnorm`, which alone has it")
        if self.balance not in ("gradnorm", "pcgrad"):
            return
        if self.precision == "fp16" or self.sharded:
            raise ValueError(f"`balance: {self.balance}` needs `precision` fp32 or bf16 and `sharded: false`")
        if self.mixing.unit != "mixed" and self.accumulation == 1:
            raise ValueError(
                f"`balance: {self.balance}` needs steps with rows of several tasks: set `mixing.unit: mixed`, or "
                "`accumulation` to the number of tasks with `mixing.strategy: round_robin`"
            )


class Recipe(RunRecipe):
    """One run.

    Attributes:
        name: Name of the run and of its folder.
        label: How tables call the method; by default the name.
        backbone: The model that is adapted.
        method: A method of `weft.core`, or a list of them.
        tasks: Task name to task.
        training: How it is trained.
        evaluation: How it is scored.
        tracking: Where it is tracked.
        seed: Seed of weights, order and drawn targets, below 2**32.
        blank_images: Replace visual features by zeros, to measure what language alone can do.
        save_model: Also save the whole trained model in the folder `model` of the run, for `backbone.name` of
            other recipes. Only for methods without units, such as `full`.
        control: Whether tables list it as a control and not as a method.
        output: Folder of runs.
        published: Table of published numbers of the experiment this recipe follows, one of those that `weft compare
            --published list` names. Its rows with this recipe's label are shown by `weft train`, and never used.
        paper: Lay `paper_settings` over the recipe: what the authors' code does and few would choose.
        paper_settings: Values that `paper: true` sets. They come after the file and before `key.sub=value`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    label: str | None = None
    backbone: BackboneSection
    method: Any
    tasks: dict[str, TaskSection] = Field(min_length=1)
    training: TrainingSection
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    seed: int = Field(default=0, ge=0, lt=2**32)
    blank_images: bool = False
    save_model: bool = False
    control: bool = False
    output: Annotated[str, Field(min_length=1), Local] = "weft-runs"
    published: str | None = None
    paper: bool = Field(default=False, strict=True)
    paper_settings: dict[str, Any] | None = None

    @field_validator("tasks")
    @classmethod
    def _task_names(cls, tasks: dict[str, TaskSection]) -> dict[str, TaskSection]:
        for name in tasks:
            if not name.replace("_", "").isalnum() or name != name.lower():
                raise ValueError(
                    f"task names are lower-case letters, digits and underscores, but one is {name!r}"
                )
        return tasks

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Recipe:
        if self.paper and self.paper_settings is None:
            raise ValueError(
                "`paper` must be false where the recipe has no `paper_settings`: it follows no paper's code"
            )
        others = [name for name in self.backbone.heads or () if name not in self.tasks]
        if others:
            raise ValueError(
                f"`backbone.heads` must name tasks ({', '.join(self.tasks)}), but one is {others[0]!r}"
            )
        return self
