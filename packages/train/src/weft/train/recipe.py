"""A recipe: one YAML file is one run. Unknown keys are errors, and all faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from weft.train.errors import RecipeError, near
from weft.train.recipe_files import apply_overrides, find_recipe, read_yaml


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenizerSection(_Section):
    """A byte-level BPE tokenizer that is trained on the tasks' training texts.

    Attributes:
        vocabulary_size: Greatest number of its tokens; 260 hold every byte and nothing else.
    """

    vocabulary_size: int = Field(ge=260)


class BackboneSection(_Section):
    """The model that is adapted.

    Attributes:
        name: A saved VL model: `miniature` (shipped), a folder, or a hub id.
        language: Hub id or folder of a BART or T5 to which visual tokens are added.
        config: An architecture with new weights: `model_type` and what that type's config takes.
        tokenizer: The tokenizer of a new architecture (with `config`): one to train on the tasks' training
            texts, or what has one: `miniature`, a folder or a hub id.
        image_size: Side of the square that images are resized to, in pixels (with `config`).
        revision: Commit or tag on the hub.
        feature_size: Width of precomputed visual features (with `language`).
        num_visual_tokens: Visual tokens per image (with `language`).
        num_images: Images that one text may speak of (with `language`).
        num_sentinels: Text sentinels and visual order tokens, as many of each, that the vocabulary gets where it lacks
            them (with `language`).
    """

    name: str | None = None
    language: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: TokenizerSection | str | None = None
    image_size: int = Field(default=224, gt=0)
    revision: str | None = None
    feature_size: int = Field(default=2048, gt=0)
    num_visual_tokens: int = Field(default=36, gt=0)
    num_images: int = Field(default=2, gt=0)
    num_sentinels: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> BackboneSection:
        if sum(source is not None for source in (self.name, self.language, self.config)) != 1:
            raise ValueError(
                "give either `name` (a saved model), `language` (a BART or T5) or `config` (new weights), and "
                "only one of them"
            )
        if (self.config is None) != (self.tokenizer is None):
            raise ValueError("`config` and `tokenizer` belong together: give both or none")
        return self

    @property
    def title(self) -> str:
        """How messages and tables call the model."""
        return self.name or self.language or f"new {(self.config or {}).get('model_type')}"


class DataSection(_Section):
    """Where the records of a task come from; see `weft data list`.

    Attributes:
        name: Name of the data set.
        root: Folder, archive or URL of its files; `~` and environment variables are expanded.
        train: Split to train on.
        validation: Split to choose the best checkpoint by, or none.
        test: Split whose scores are reported, or none.
        options: Options of the data set for every split.
        sizes: Split role (`train`, `validation`, `test`) to the greatest number of records taken, from the front.
        test_options: Options that replace those of `options` outside training.
    """

    name: str
    root: str | None = None
    train: str = "train"
    validation: str | None = None
    test: str | None = "test"
    options: dict[str, Any] = Field(default_factory=dict)
    test_options: dict[str, Any] = Field(default_factory=dict)
    sizes: dict[Literal["train", "validation", "test"], int] = Field(default_factory=dict)


class TaskSection(_Section):
    """One task.

    Attributes:
        data: Its records.
        prompt: Put before every text.
        metric: Official metric; by default that of the type of record.
        headline: Entry of the metric's scores that tables and averages show.
        batch_size: Rows of one of its batches; by default that of `training`.
        max_text_tokens: Texts are cut there.
        max_target_tokens: Targets are cut there.
        max_new_tokens: Longest generated answer.
        num_beams: Beams of generation.
        no_repeat_ngram_size: Forbids repeated n-grams in generation; 0 allows them.
    """

    data: DataSection
    prompt: str = ""
    metric: str | None = None
    headline: str | None = None
    batch_size: int | None = Field(default=None, gt=0)
    max_text_tokens: int = Field(default=64, gt=0)
    max_target_tokens: int = Field(default=64, gt=0)
    max_new_tokens: int = Field(default=20, gt=0)
    num_beams: int = Field(default=1, gt=0)
    no_repeat_ngram_size: int = Field(default=0, ge=0)


class MixingSection(_Section):
    """How batches are drawn from the tasks; see `weft.data.mixing.TaskMixture`."""

    strategy: Literal["proportional", "temperature", "round_robin", "weights"] = "proportional"
    temperature: float = Field(default=1.0, gt=0)
    weights: dict[str, float] | None = None
    caps: dict[str, int] | int | None = None
    unit: Literal["homogeneous", "mixed"] = "homogeneous"


class TrainingSection(_Section):
    """How the weights are trained.

    Attributes:
        steps: Optimiser steps. Exclusive with `epochs`.
        epochs: Passes over the mixture.
        batch_size: Rows of one batch, over all devices.
        accumulation: Batches per step.
        learning_rate: Peak of the schedule.
        schedule: Shape after the warm-up.
        warmup: Share of the steps in which the rate rises.
        weight_decay: Decoupled decay of matrices; norms and biases have none unless `decay_norms`.
        decay_norms: Also decay norms and biases.
        adam_betas: Betas of AdamW.
        adam_epsilon: Epsilon of AdamW.
        max_grad_norm: Gradients are clipped there; 0 does not clip.
        precision: Arithmetic of the forward pass.
        mixing: How batches are drawn from tasks.
        vision: Whether a tower inside the model is `frozen` (its features are extracted once) or `trained` (it
            reads pixels in every batch; the method says what of it is trained).
        shift: Greatest random shift of training images along each axis, in pixels of the model's input (with
            `vision: trained`).
        keep_images: MiB of decoded images kept in memory (with `vision: trained`).
        threads: CPU threads; results are the same to the last digit only at an equal number.
        log_every: Steps between logged losses.
        save_every: Steps between checkpoints; 0 saves only the end.
        keep: Number of checkpoints kept.
        evaluate_every: Steps between validations; 0 validates never, and the last weights are the result.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, gt=0)
    accumulation: int = Field(default=1, gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    decay_norms: bool = False
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=5.0, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    mixing: MixingSection = MixingSection()
    vision: Literal["frozen", "trained"] = "frozen"
    shift: int = Field(default=0, ge=0)
    keep_images: float = Field(default=512.0, ge=0)
    threads: int | None = Field(default=None, gt=0)
    log_every: int = Field(default=10, gt=0)
    save_every: int = Field(default=0, ge=0)
    keep: int = Field(default=2, gt=0)
    evaluate_every: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs`, not both and not neither")
        if self.vision == "frozen" and self.shift:
            raise ValueError("`shift` needs `vision: trained`, because a frozen tower sees each image once")
        return self


class EvaluationSection(_Section):
    """How the result is scored."""

    batch_size: int = Field(default=128, gt=0)


class TrackingSection(_Section):
    """Where the run is tracked.

    Attributes:
        enabled: Whether MLflow is used at all.
        experiment: Name of the MLflow experiment.
        store: Folder of an embedded store, or a tracking URI. By default what `MLFLOW_TRACKING_URI` says, and else
            the folder `mlflow` beside the run folders.
        model: Whether the run keeps a model that MLflow loads and serves (recipe and adapter, not the backbone).
    """

    enabled: bool = True
    experiment: str = "weft"
    store: str | None = None
    model: bool = True


class Recipe(_Section):
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
        seed: Seed of weights, order and drawn targets.
        blank_images: Replace visual features by zeros, to measure what language alone can do.
        save_model: Also save the whole trained model in the folder `model` of the run, for `backbone.name` of
            other recipes. Only for methods without units, such as `full`.
        control: Whether tables list it as a control and not as a method.
        output: Folder of runs.
        published: Figures of the paper this recipe follows, and their source; shown by reports, never used.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    label: str | None = None
    backbone: BackboneSection
    method: Any
    tasks: dict[str, TaskSection] = Field(min_length=1)
    training: TrainingSection
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    seed: int = Field(default=0, ge=0)
    blank_images: bool = False
    save_model: bool = False
    control: bool = False
    output: str = "weft-runs"
    published: dict[str, Any] = Field(default_factory=dict)

    @field_validator("tasks")
    @classmethod
    def _task_names(cls, tasks: dict[str, TaskSection]) -> dict[str, TaskSection]:
        for name in tasks:
            if not name.replace("_", "").isalnum() or name != name.lower():
                raise ValueError(
                    f"task names are lower-case letters, digits and underscores, but one is {name!r}"
                )
        return tasks

    @property
    def folder(self) -> Path:
        """Folder of this run."""
        return Path(self.output) / self.name

    @property
    def title(self) -> str:
        """How tables call the method."""
        return self.label or self.name


def load_recipe(source: str | Path | Mapping[str, Any], overrides: list[str] | None = None) -> Recipe:
    """Read, override and validate a recipe.

    Args:
        source: A path, a built-in name such as `demo/single_adapter`, or a dictionary.
        overrides: `key.sub=value` entries; values are read as YAML.

    Returns:
        The recipe.

    Raises:
        RecipeError: With every fault at once.
    """
    if isinstance(source, Mapping):
        values, shown = dict(source), "the recipe"
    else:
        path = find_recipe(source)
        values, shown = read_yaml(path), str(source)
    values = apply_overrides(values, overrides or [])
    faults: list[str] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults += [
            _fault(f["loc"], f["type"], f["msg"], f.get("input")) for f in error.errors(include_url=False)
        ]
    faults += _method_faults(values.get("method"))
    if faults or recipe is None:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise RecipeError(f"{shown} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n{listed}")
    return recipe


def _method_faults(method: Any) -> list[str]:
    """Faults of the method, found by the registered units themselves."""
    if method is None:
        return []
    from weft.core.errors import WeftError
    from weft.core.method import parse_method

    try:
        parse_method(method)
    except WeftError as error:
        lines = [line.removeprefix("- ") for line in str(error).splitlines()]
        return [f"method.{line}" for line in lines[1:]] or lines
    return []


def _fault(place: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    where = ".".join(str(word) for word in place)
    if kind == "extra_forbidden":
        return f"{where}: unknown key. {near(place[-1], _keys_at(place[:-1]))}"
    if kind == "missing":
        return f"{where}: this key is needed."
    message = message.removeprefix("Value error, ")
    return (
        f"{where}: {message}, but is {value!r}." if not isinstance(value, Mapping) else f"{where}: {message}."
    )


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at a place, following optional sections and mappings of sections."""
    model: Any = Recipe
    for word in place:
        if isinstance(model, type) and issubclass(model, BaseModel) and word in model.model_fields:
            model = _section(model.model_fields[str(word)].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section(annotation: Any) -> Any:
    if isinstance(annotation, type):
        return annotation
    found = [
        a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)
    ]
    return found[0] if found else annotation
