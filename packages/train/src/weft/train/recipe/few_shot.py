"""A few-shot recipe: one encoder, one data set, several heads, several numbers of shots, several seeds.

A recipe with the key `heads` is one of these; any other is a `weft.train.recipe.training.Recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from weft.train.errors import near
from weft.train.recipe.sections import Local, RunRecipe, Section, TrackingSection


class EncoderSection(Section):
    """The frozen encoder of images and texts.

    Attributes:
        library: Where its class comes from: `transformers` (CLIP, SigLIP, SigLIP 2, and weft's dual encoder),
            `open_clip`, or `weft` (its own models; a BLIP becomes one).
        name: Folder or hub id of a model with its tokenizer and image processor; with `open_clip` an architecture, such
            as RN50.
        weights: File of weights: of open_clip or OpenAI (`.pt`) for `open_clip`, an original BLIP (`.pth`) for `weft`;
            environment variables are expanded.
        sha256: Digest that the file of weights must have.
        revision: Commit or tag on the hub.
        logit_scale: Factor of cosines; by default that of the model.
        width: Width of its features, for `weft plan`; checked when it runs.
    """

    library: Literal["transformers", "open_clip", "weft"] = "transformers"
    name: Annotated[str, Local]
    weights: Annotated[str | None, Local] = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$")
    revision: str | None = None
    logit_scale: float | None = Field(default=None, gt=0)
    width: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _weights_belong_to_the_library(self) -> Self:
        if self.library == "open_clip" and self.weights is None:
            raise ValueError("`weights` must name a file for an architecture of open_clip")
        if self.library == "transformers" and self.weights is not None:
            raise ValueError("`weights` is for the libraries open_clip and weft; `name` says it all here")
        if self.sha256 is not None and self.weights is None:
            raise ValueError("`sha256` is that of `weights`: give both")
        if self.library == "open_clip" and self.revision is not None:
            raise ValueError("`revision` is for models on the hub; an architecture of open_clip has none")
        return self


class SourceSection(Section):
    """Where labelled images come from; see `weft data list`.

    Attributes:
        name: Name of a classification data set.
        root: Folder, archive or URL of its files; `~` and environment variables are expanded.
        options: Options of the data set.
    """

    name: str
    root: Annotated[str | None, Local] = None
    options: dict[str, Any] = Field(default_factory=dict)


class FewShotDataSection(SourceSection):
    """The data set that heads are fitted on.

    Attributes:
        label: How tables call it where there are several; by default its name.
        train: Split that shots are drawn from.
        validation: Split that min(K, 4) validation images per class are drawn from; None draws them from what the
            shots leave of `train`.
        test: Split that is scored; None sets every second image of each class of `train` aside for it.
        class_names: Names that replace those of the data set in prompts, by name.
        allow_duplicate_names: Accept equal names, as ImageNet has them.
        num_classes: Number of classes, for `weft plan`; checked when it runs.
    """

    label: str | None = None
    train: str = "train"
    validation: str | None = "val"
    test: str | None = "test"
    class_names: dict[str, str] = Field(default_factory=dict)
    allow_duplicate_names: bool = False
    num_classes: int | None = Field(default=None, gt=0)


class ShiftedSection(SourceSection):
    """A further test set whose classes are among those of the data set, such as ImageNet-A.

    Attributes:
        split: Split that is scored.
    """

    split: str = "test"


class TransferSection(SourceSection):
    """A further test set of other classes, which heads know by their names alone (cross-dataset).

    Attributes:
        split: Split that is scored.
        class_names: Names that replace those of the data set in prompts, by name.
        allow_duplicate_names: Accept equal names.
        templates: Texts around class names; by default those of the recipe.
        class_texts: As that of the recipe, for this set.
    """

    split: str = "test"
    class_names: dict[str, str] = Field(default_factory=dict)
    allow_duplicate_names: bool = False
    templates: tuple[str, ...] | None = None
    class_texts: Annotated[str | None, Local] = None


class AlsoSection(Section):
    """A further data set, on whose own draws the same heads run.

    Attributes:
        data: The data set; its label is its key.
        templates: Texts around class names; by default those of the recipe.
        class_texts: As that of the recipe, for this set.
    """

    data: FewShotDataSection
    templates: tuple[str, ...] | None = None
    class_texts: Annotated[str | None, Local] = None


class ViewsSection(Section):
    """Augmented views of the training images.

    Attributes:
        count: Views of each image; 1 with `augment: false` is the plain image.
        augment: Crop and mirror them at random.
        smallest_crop: Least share of the area in a crop.
    """

    count: int = Field(default=10, gt=0)
    augment: bool = True
    smallest_crop: float = Field(default=0.5, gt=0, le=1)


class FewShotRecipe(RunRecipe):
    """One comparison.

    Attributes:
        name: Name of the run and of its folder.
        label: How tables call it; by default the name.
        encoder: The frozen encoder, or the name of one of `encoders`.
        encoders: Further encoders by name: `encoder=rn50` on the command line takes the one of that name.
        data: The data set.
        templates: Texts around class names; none (`[]`) where `class_texts` says it all.
        class_texts: JSON file with a list of texts about each class, by the name that prompts write, as CuPL has
            them. A class's feature is the mean of these and of the templates.
        heads: Heads of `weft.core.few_shot`, each with its `method`; two of one method need a `label`.
        prompt_stage: A `coop` head that is fitted first for the text caches of XMAdapter; None takes the templates.
        shots: Images per class (K).
        seeds: Seeds of draws and heads.
        views: Augmented views of training images.
        selection: What chooses epochs and hyper-parameters: `validation`, `paper` (the test set, as in the papers'
            code; it is said wherever scores are shown), or `none`.
        protocol: `all` classes, or `base_to_new`: fit on the first half of the classes, test on both halves.
        shifted: Further test sets of the same classes by name.
        transfer: Further test sets of other classes by name.
        also: Further data sets by name; tables then show each, and the average over all.
        batch_size: Images that the encoder reads at a time.
        threads: CPU threads.
        tracking: Where it is tracked.
        output: Folder of runs.
        published: Table of published numbers, one of those that `weft compare --published list` names. Its rows with
            the methods of these heads are shown by `weft train`, and never used.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    label: str | None = None
    encoder: EncoderSection
    encoders: dict[str, EncoderSection] = Field(default_factory=dict)
    data: FewShotDataSection
    templates: tuple[str, ...] = ("a photo of a {}.",)
    class_texts: Annotated[str | None, Local] = None
    heads: tuple[dict[str, Any], ...] = Field(min_length=1)
    prompt_stage: dict[str, Any] | None = None
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)
    views: ViewsSection = ViewsSection()
    selection: Literal["validation", "paper", "none"] = "validation"
    protocol: Literal["all", "base_to_new"] = "all"
    shifted: dict[str, ShiftedSection] = Field(default_factory=dict)
    transfer: dict[str, TransferSection] = Field(default_factory=dict)
    also: dict[str, AlsoSection] = Field(default_factory=dict)
    batch_size: int = Field(default=64, gt=0)
    threads: int | None = Field(default=None, gt=0)
    tracking: TrackingSection = TrackingSection()
    output: Annotated[str, Local] = "weft-runs"
    published: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _encoder_by_name(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("encoder"), str):
            return values
        name, named = values["encoder"], values.get("encoders") or {}
        if name not in named:
            raise ValueError(f"`encoder` is no name of one of `encoders`: {name!r}. {near(name, named)}")
        return {**values, "encoder": named[name]}

    @field_validator("shots", "seeds")
    @classmethod
    def _some_and_different(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if not values or len(set(values)) != len(values) or min(values) < 1:
            raise ValueError(f"give at least one number from 1 on, each once, not {list(values)}")
        return values

    @field_validator("heads")
    @classmethod
    def _heads_are_known(cls, heads: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        labels = [label_of(head) for head in heads]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"heads must have different labels, but {', '.join(twice)} occur twice")
        for head in heads:
            _check_head(head)
        return heads

    @field_validator("prompt_stage")
    @classmethod
    def _stage_is_coop(cls, stage: dict[str, Any] | None) -> dict[str, Any] | None:
        if stage is not None:
            if stage.get("method") != "coop":
                raise ValueError(f"the prompt stage is a head of method coop, not {stage.get('method')!r}")
            _check_head(stage)
        return stage

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if any(not part.templates and part.class_texts is None for part in self.parts().values()):
            raise ValueError("`templates` must hold a text, or `class_texts` name a file")
        if self.tracking.report_to:
            raise ValueError(
                "`tracking.report_to` is for runs with a trainer, which heads have not; leave it out"
            )
        if self.also and (self.shifted or self.transfer):
            raise ValueError("further test sets (shifted, transfer) belong to one data set; take `also` out")
        if self.protocol == "base_to_new" and (self.shifted or self.transfer):
            raise ValueError("base_to_new has its own test sets; take `shifted` and `transfer` out")
        names = ["test", *self.shifted, *self.transfer]
        if len(set(names)) != len(names):
            raise ValueError("`shifted` and `transfer` must name different test sets, none of them 'test'")
        return self

    def parts(self) -> dict[str, FewShotRecipe]:
        """Name of each data set to the recipe for it alone; the name is empty where there is only one."""
        if not self.also:
            return {"": self}
        own = self.data.label or self.data.name
        sections = {own: AlsoSection(data=self.data, class_texts=self.class_texts), **self.also}
        return {
            name: self.model_copy(
                update={
                    "data": part.data,
                    "templates": self.templates if part.templates is None else part.templates,
                    "class_texts": part.class_texts,
                    "also": {},
                }
            )
            for name, part in sections.items()
        }


def label_of(head: Mapping[str, Any]) -> str:
    """How tables call a head of a recipe."""
    return str(head.get("label") or head.get("method"))


def config_of(head: Mapping[str, Any]) -> Any:
    """The configuration of a head of a recipe."""
    from weft.core.few_shot import parse_head

    return parse_head({key: value for key, value in head.items() if key != "label"})


def _check_head(head: Mapping[str, Any]) -> None:
    from weft.core.errors import WeftError

    try:
        config_of(head)
    except WeftError as error:
        raise ValueError(str(error)) from None
