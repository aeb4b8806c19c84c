"""The sections of a recipe: what each key means, its default and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# It names a file or folder, where there is one of that name.
Local = Field(json_schema_extra={"format": "path"})


class Section(BaseModel):
    """What every section keeps: values do not change, numbers are finite, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TokenizerSection(Section):
    """A byte-level BPE tokenizer that is trained on the tasks' training texts.

    Attributes:
        vocabulary_size: Greatest number of its tokens; 260 hold every byte and nothing else.
    """

    vocabulary_size: int = Field(ge=260)


class BackboneSection(Section):
    """The model that is adapted.

    Attributes:
        name: A saved model: `miniature` (shipped), or a folder or hub id of a vision-language model. Its config says of
            which class it is, and its own processor reads texts and pictures.
        language: Hub id or folder of a BART or T5 to which visual tokens are added.
        config: An architecture with new weights: `model_type` and what that type's config takes.
        tokenizer: The tokenizer of a new architecture (with `config`): one to train on the tasks' training
            texts, or what has one: `miniature`, a folder or a hub id.
        weights: An original BLIP file (`.pth`) that is loaded into a new BLIP architecture (with `config`); environment
            variables are expanded. Images are then normalised as in BLIP.
        image_size: Side of the square that images are resized to, in pixels (with `config`).
        revision: Commit or tag on the hub.
        dtype: What the weights of a `name` are kept in; `auto` as they were saved, by default float32. What is trained
            stays in float32.
        attention: How a `name` attends; by default as transformers chooses.
        quantize: Keep the frozen linears of a `name` in 8 or in 4 bits, through bitsandbytes.
        processor: Settings of the processor of a `name`, such as `max_pixels`.
        reader: Which way of reading a `name` takes, by default the one that fits its config and processor.
        draw_absent_weights: Draw weights that a saved model lacks at random; by default one that lacks any is refused.
        heads: Task to its number of classes, for a `name` that is an encoder of images alone: each task gets a linear
            head. The method trains them by `train_full: [heads]`.
        feature_size: Width of precomputed visual features (with `language`).
        num_visual_tokens: Visual tokens per image (with `language`).
        num_images: Images that one text may speak of (with `language`).
        num_sentinels: Text sentinels and visual order tokens, as many of each, that the vocabulary gets where it lacks
            them (with `language`).
    """

    name: Annotated[str | None, Local] = None
    language: Annotated[str | None, Local] = None
    config: dict[str, Any] | None = None
    tokenizer: Annotated[TokenizerSection | str | None, Local] = None
    weights: Annotated[str | None, Local] = None
    image_size: int = Field(default=224, gt=0)
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    attention: Literal["eager", "sdpa", "flash"] | None = None
    quantize: Literal["8bit", "nf4"] | None = None
    processor: dict[str, Any] = Field(default_factory=dict)
    reader: str = "auto"
    draw_absent_weights: bool = False
    heads: dict[str, Annotated[int, Field(gt=1)]] | None = Field(default=None, min_length=1)
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
        of_saved = self.dtype or self.attention or self.quantize or self.processor or self.heads
        if self.name is None and (of_saved or self.reader != "auto"):
            raise ValueError(
                "`dtype`, `attention`, `quantize`, `processor`, `reader` and `heads` are for a `name`"
            )
        if self.heads and self.quantize:
            raise ValueError("`heads` and `quantize` have not been tried together: give one of them")
        model_type = str((self.config or {}).get("model_type"))
        if self.weights is not None and not model_type.startswith("weft_blip"):
            raise ValueError(
                "`weights` is for a `config` of type weft_blip_retrieval, weft_blip_answering or weft_blip_captioning"
            )
        return self

    @property
    def title(self) -> str:
        """How messages and tables call the model."""
        return self.name or self.language or f"new {(self.config or {}).get('model_type')}"


class PretrainingSection(Section):
    """What captions are turned into, to train vision and language together before any task.

    Attributes:
        objective: `denoising` restores a caption in which words are masked; `span_prediction` writes the masked
            spans alone, as T5 does; `matching` says whether caption and image belong together. Captioning itself
            needs no such section.
        rate: Share of words that are masked, and of pairs that do not match.
        mask: Stands for a masked word (`denoising`).
    """

    objective: Literal["denoising", "span_prediction", "matching"]
    rate: float | None = Field(default=None, gt=0, lt=1)
    mask: str = "<mask>"


class DataSection(Section):
    """Where the records of a task come from; see `weft data list`.

    Attributes:
        name: Name of the data set.
        root: Folder, archive or URL of its files; `~` and environment variables are expanded.
        train: Split to train on, or several, one after another.
        validation: Split to choose the best checkpoint by, or none.
        test: Split whose scores are reported, or none.
        options: Options of the data set for every split.
        sizes: Split role (`train`, `validation`, `test`) to the greatest number of records taken, from the front.
        test_options: Options that replace those of `options` outside training.
        features: Stores of visual features, one or several; images and videos are then not opened. See
            `weft features`.
        each_caption: Whether each caption of an image is a training example of its own; else one of an image's
            captions is drawn in every epoch.
        pretraining: What the captions are turned into, or none.
        streaming: Make training records when they are drawn, in the same order, instead of listing them at the start:
            memory holds a few row groups of shards, or none of the rows that `datasets` maps into memory.
    """

    name: str
    root: Annotated[str | None, Local] = None
    train: str | list[str] = "train"
    validation: str | None = None
    test: str | None = "test"
    options: dict[str, Any] = Field(default_factory=dict)
    test_options: dict[str, Any] = Field(default_factory=dict)
    sizes: dict[Literal["train", "validation", "test"], Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict
    )
    features: Annotated[str | list[str] | None, Local] = None
    each_caption: bool = False
    pretraining: PretrainingSection | None = None
    streaming: bool = False

    @property
    def stores(self) -> list[str]:
        """The paths of `features`."""
        return [self.features] if isinstance(self.features, str) else list(self.features or ())


class TaskSection(Section):
    """One task.

    Attributes:
        data: Its records.
        prompt: Put before every text.
        prompt_at: `end` puts it after every text instead.
        ask: What is said to a model that its own processor reads, such as `"{question} Answer with one word."`: fields
            of the record in braces, `{text}` for what its type reads, `{image}` for the place of a picture. By default
            the pictures, then the text with its `prompt`.
        system: What is said before that, filled in the same way.
        learn: `all` also trains on earlier answers of a conversation, `last` on the last alone.
        metric: Official metric; by default that of the type of record, and `exact` for questions with one answer each.
        headline: Entry of the metric's scores that tables and averages show.
        published_metric: Metric that the rows of `published` were scored by, where it is another one; it is computed
            too, and shown beside them.
        batch_size: Rows of one of its batches; by default that of `training`.
        max_text_tokens: Texts are cut there, by default at 64 tokens. Models that their own processor reads have
            `training.max_tokens` instead.
        max_target_tokens: Targets are cut there, by default at 64 tokens. Models that their own processor reads have no
            limit by default, and refuse or leave out what is longer (`training.too_long`).
        max_new_tokens: Longest generated answer.
        num_beams: Beams of generation.
        no_repeat_ngram_size: Forbids repeated n-grams in generation; 0 allows them.
        early_stopping: End a search with beams once it has as many answers as beams; else it continues until no beam
            can become better.
        answers: `drawn` trains on one answer of a question in each epoch, drawn and weighted by its soft score; `all`
            on every one, weighted by the share of annotators who gave it (with a BLIP that answers).
        choose_from: A JSON file with a list of answers, the likeliest of which is taken instead of writing one; of
            many, the 128 whose first token is likeliest are read whole.
        templates: Texts around the names of classes, where pictures are told apart by such and the model reads texts;
            a class's feature is the mean of those of its texts.
        class_names: Names that replace those of the data set in `templates`, by name.
    """

    data: DataSection
    prompt: str = ""
    prompt_at: Literal["start", "end"] = "start"
    ask: str | None = None
    system: str = ""
    learn: Literal["last", "all"] = "last"
    metric: str | None = None
    headline: str | None = None
    published_metric: str | None = None
    batch_size: int | None = Field(default=None, gt=0)
    max_text_tokens: int | None = Field(default=None, gt=0)
    max_target_tokens: int | None = Field(default=None, gt=0)
    max_new_tokens: int = Field(default=20, gt=0)
    num_beams: int = Field(default=1, gt=0)
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    early_stopping: bool = False
    answers: Literal["drawn", "all"] = "drawn"
    choose_from: Annotated[str | None, Local] = None
    templates: tuple[str, ...] = Field(default=("a photo of a {}.",), min_length=1)
    class_names: dict[str, str] = Field(default_factory=dict)

    @field_validator("templates")
    @classmethod
    def _templates_name_the_class(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for text in templates:
            if "{}" not in text:
                raise ValueError(f"a template must hold {{}} for the name of the class, but one is {text!r}")
        return templates

    @model_validator(mode="after")
    def _one_wording(self) -> TaskSection:
        if self.ask is not None and self.prompt:
            raise ValueError("give either `ask` or `prompt`: `ask` says everything that is read")
        return self


class EvaluationSection(Section):
    """How the result is scored.

    Attributes:
        batch_size: Records per pass.
        rerank: Best candidates of retrieval that a backbone with a matching head reorders, in each direction; 0
            leaves retrieval to the similarities.
        similarity_weight: Share of the similarity in the score of such a candidate.
        frame_aware: Whether frames that look like the text count more there (with the unit `frame_attention`).
    """

    batch_size: int = Field(default=128, gt=0)
    rerank: int = Field(default=0, ge=0)
    similarity_weight: float = Field(default=0.0, ge=0)
    frame_aware: bool = False


class TrackingSection(Section):
    """Where the run is tracked.

    Attributes:
        enabled: Whether MLflow is used at all.
        experiment: Name of the MLflow experiment.
        store: Folder of an embedded store, or a tracking URI. By default what `MLFLOW_TRACKING_URI` says, and else
            the folder `mlflow` beside the run folders.
        model: Whether the run keeps a model that MLflow loads and serves (recipe and adapter, not the backbone).
        register_as: Name of a registered model of MLflow that the kept model becomes a version of, or none.
        parent: Id of the MLflow run that this one is part of, such as that of a sweep.
        report_to: Also report losses to `tensorboard` or `wandb`, by transformers' own callbacks.
    """

    enabled: bool = True
    experiment: str = Field(default="weft", min_length=1)
    store: str | None = None
    model: bool = True
    register_as: str | None = Field(default=None, min_length=1)
    parent: str | None = None
    report_to: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)


class RunRecipe(Section):
    """What recipes of every kind say of their run."""

    if TYPE_CHECKING:
        name: str
        label: str | None
        output: str
        tracking: TrackingSection

    @property
    def folder(self) -> Path:
        """Folder of this run."""
        return Path(self.output) / self.name

    @property
    def title(self) -> str:
        """How tables call the method."""
        return self.label or self.name
