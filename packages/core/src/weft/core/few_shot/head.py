"""The one interface of all few-shot heads on a frozen dual encoder.

A head is made from class weights (the text features of the class names), fitted to a few labelled image features,
and gives logits. Any unit vectors in one space will do. Heads that adapt the encoder read images (`image_head`).

To add a head from outside: decorate a `HeadConfig` with `register_head`, and name it as the `config_class` of a
`FewShotHead`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from weft.core.all_or_nothing import all_or_nothing
from weft.core.errors import ConfigError, FewShotError
from weft.core.few_shot.calibration import fit_temperature
from weft.core.few_shot.explain import Explanation, Votes, explanations
from weft.core.few_shot.files import Provenance, check_fits, read_head, write_head
from weft.core.few_shot.grid import Grid, Search, search_grids
from weft.core.few_shot.head_config import HEADS, Axes, HeadConfig, parse_head
from weft.core.few_shot.images import Readable
from weft.core.few_shot.samples import (
    Samples,
    as_samples,
    check_every_class,
    checked_classes,
    checked_features,
)
from weft.core.few_shot.selection import SelectedOn, Selection, warn_of_the_test_set
from weft.core.registry import method_of

# Rows whose (rows, keys) votes live at a time.
_EXPLAINED_ROWS = 64
_TEMPERATURE = "temperature"

Labelled = tuple[Readable, Tensor]


class FewShotHead(nn.Module, ABC):
    """A classifier over the features of an encoder.

    Args:
        class_weights: Unit text features of the classes, shape (classes, width).
        config: Its configuration; by default that of the method's own defaults.

    Attributes:
        selection: What was chosen, on what, and the temperature; every `fit` resets it.
        num_samples: Training samples; 0 before `fit`.

    Raises:
        FewShotError: The class weights are no unit vectors.
    """

    class_weights: Tensor
    config_class: ClassVar[type[HeadConfig]]
    needs_fit: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        config = vars(cls).get("config_class")
        if config is not None and vars(config).get("head") not in cls.__mro__:
            config.head = cls

    def __init__(self, class_weights: Tensor, config: HeadConfig | None = None) -> None:
        super().__init__()
        self.config: Any = config or self.config_class(method=method_of(self.config_class, ConfigError))
        if type(self.config) is not self.config_class:
            raise ConfigError(
                f"`config` of {type(self).__name__} must be a {self.config_class.__name__}, but is a "
                f"{type(self.config).__name__}. Make the head with `make_head(class_weights, config)`."
            )
        width = class_weights.shape[-1] if isinstance(class_weights, Tensor) and class_weights.dim() else 0
        weights = checked_features(class_weights, width=width, name="class_weights")
        self.register_buffer("class_weights", weights.detach().clone())
        self.selection = Selection()
        self.num_samples = 0

    @property
    def selected(self) -> dict[str, float]:
        """Hyper-parameters in use; `search` replaces them."""
        return self.selection.parameters

    @selected.setter
    def selected(self, parameters: Mapping[str, float]) -> None:
        self.selection = replace(self.selection, parameters=dict(parameters))

    @property
    def selected_on(self) -> SelectedOn | None:
        """`validation`, `paper` (the test set), or None where nothing was selected."""
        return self.selection.chosen_on

    @property
    def temperature(self) -> float:
        """What logits are divided by for probabilities; `calibrate` fits it."""
        return self.selection.temperature

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.class_weights.shape[0]

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.class_weights.shape[1]

    def build(self, num_samples: int) -> None:
        """Make the tensors that depend on the number of training samples, without filling them."""

    def build_like(self, num_samples: int, tensors: Mapping[str, Tensor]) -> None:
        """Make the tensors of a file, without filling them; by default `build` knows which."""
        self.build(num_samples)

    def fit(
        self,
        features: Readable,
        labels: Tensor,
        validation: Labelled | None = None,
        *,
        selected_on: SelectedOn = "validation",
        seed: int = 0,
        allow_missing: bool = False,
    ) -> Self:
        """Fit to a few labelled features, choosing epochs and hyper-parameters on validation samples; return the head.

        Args:
            features: Unit image features, shape (samples, width), or (views, samples, width) with several
                augmentations of each image.
            labels: Classes, shape (samples,).
            validation: Features and labels that choose; without them the configuration's own values stay.
            selected_on: What `validation` is. `paper` says that it is the test set, as in the code of the papers;
                it is warned of and kept with the head.
            seed: Seed of order, views and new weights.
            allow_missing: Accept classes without samples; they keep their zero-shot logits.

        Raises:
            FewShotError: Features or labels break a rule; see `weft.core.few_shot.samples`.
        """
        samples = self._samples(features, labels, "features")
        if not allow_missing:
            check_every_class(samples.labels, self.num_classes)
        chosen_by = None if validation is None else self._samples(*validation, "validation features")
        warn_of_the_test_set(self.config.method, selected_on, stacklevel=2)
        # The seed is for the generator of the CPU alone; those of accelerators are not forked and stay as they are.
        with all_or_nothing(self), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.selection = Selection(chosen_on=None if chosen_by is None else selected_on)
            self.num_samples = len(samples)
            self.build(len(samples))
            self.to(self.class_weights.device, self.class_weights.dtype)
            self.fit_samples(samples, chosen_by, seed)
            if chosen_by is not None:
                self._choose(chosen_by, selected_on)
        return self.eval()

    def logits(self, features: Readable, classes: Sequence[int] | None = None) -> Tensor:
        """Scores of the classes, shape (rows, classes).

        Args:
            features: Unit image features, shape (rows, width).
            classes: Give only these, in this order, such as the 200 classes of ImageNet-A.

        Raises:
            FewShotError: The head is not fitted, the features break a rule, or a class does not exist.
        """
        scores = self.scores(self._checked(features))
        return scores if classes is None else scores[:, checked_classes(classes, self.num_classes)]

    def transfer_logits(self, features: Readable, class_weights: Tensor) -> Tensor:
        """Scores of classes that the head was not fitted on, from their names alone, shape (rows, new classes).

        What a head learned about its own classes does not apply to them, so this is zero-shot unless the head changes
        the image feature itself.

        Args:
            features: Unit image features, shape (rows, width).
            class_weights: Unit text features of the new classes, shape (new classes, width).

        Raises:
            FewShotError: The head is not fitted, or an argument breaks a rule.
        """
        checked, weights = self._checked(features), self._checked(class_weights, "class_weights")
        return self.config.logit_scale * (self.adapted(checked) @ weights.T)

    def forward(self, features: Readable) -> Tensor:
        """The same as `logits`."""
        return self.logits(features)

    def probabilities(self, features: Readable) -> Tensor:
        """Softmax of the logits at the fitted temperature, shape (rows, classes)."""
        return (self.logits(features) / self.temperature).softmax(-1)

    def search(self, features: Readable, labels: Tensor, *, selected_on: SelectedOn = "validation") -> Search:
        """Choose the hyper-parameters again, on samples as of `fit`, and use them; the temperature becomes one.

        Raises:
            FewShotError: The head is not fitted, or an argument breaks a rule.
        """
        self._require_fitted()
        samples = self._samples(features, labels, "validation features")
        warn_of_the_test_set(self.config.method, selected_on, stacklevel=2)
        return self._choose(samples, selected_on)

    def calibrate(self, features: Readable, labels: Tensor) -> float:
        """Fit the temperature to held-out samples by their log-likelihood; see `fit_temperature`."""
        samples = self._samples(features, labels, "validation features")
        value = fit_temperature(self.logits(samples.mean()), samples.labels)
        self.selection = replace(self.selection, temperature=value)
        return value

    def explain(self, features: Readable, top: int = 5) -> list[Explanation]:
        """Which class wins for each row, and which cached samples (at most `top`) voted for it, per modality."""
        found: list[Explanation] = []
        with torch.no_grad():
            for rows in self._checked(features).split(_EXPLAINED_ROWS):
                found += explanations(self.scores(rows), self.zero_shot(rows), self.votes(rows), top)
        return found

    def save(
        self,
        folder: str | Path,
        *,
        provenance: Provenance | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Path:
        """Write the head as safetensors and JSON, and return the folder.

        Args:
            folder: Where to; made if it does not exist.
            provenance: What the features were made from. Without it, `load` cannot check that.
            class_names: Names in the order of the classes; kept for people, never looked up.

        Raises:
            FewShotError: The head is not fitted, or there is not one name per class.
        """
        self._require_fitted()
        words = {
            "config": self.config.model_dump(mode="json"),
            "selected": self.selected,
            "selected_on": self.selected_on,
            "at_bounds": self.selection.at_bounds,
            "num_samples": self.num_samples,
            "dtype": str(self.class_weights.dtype).removeprefix("torch."),
        }
        tensors = {**self.state_dict(), _TEMPERATURE: torch.tensor(self.temperature, dtype=torch.float64)}
        return write_head(folder, tensors, words, provenance=provenance, class_names=class_names)

    @classmethod
    def load(cls, folder: str | Path, *, provenance: Provenance | None = None) -> Self:
        """Read a head of this class; see `load_head`.

        Raises:
            FewShotError: The folder holds another kind of head.
        """
        head = load_head(folder, provenance=provenance)
        if not isinstance(head, cls):
            raise FewShotError(
                f"`folder` must hold a {cls.__name__}, but {folder} holds a {type(head).__name__}. "
                "Use `load_head`."
            )
        return head

    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits of the class weights alone, `scale · f W`, shape (rows, classes)."""
        return self.config.logit_scale * (features @ self.class_weights.T)

    @abstractmethod
    def fit_samples(self, samples: Samples, validation: Samples | None, seed: int) -> None:
        """Fit, within `fit`; `validation` chooses the epoch of what is trained, and `seed` draws order and views."""

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Logits of checked features, on the device and in the dtype of the head, shape (rows, classes)."""

    def optional_tensors(self) -> tuple[str, ...]:
        """Parameters that may be absent from a file; they stay as `build` makes them. By default none."""
        return ()

    def adapted(self, features: Tensor) -> Tensor:
        """Image features as the head sees them; by default as they are."""
        return features

    def grid(self, features: Tensor, axes: Axes) -> Grid:
        """What a search compares on some features, at these values of the `axes` of the configuration."""
        raise AssertionError(f"{type(self).__name__} has no axes")

    def votes(self, features: Tensor) -> Votes | None:
        """What each cached sample adds to the logit of its class; None for heads without a cache."""
        return None

    def _choose(self, samples: Samples, chosen_on: SelectedOn) -> Search:
        features, axes = samples.mean(), self.config.axes()
        with torch.no_grad():
            if not axes:
                found = Search({}, samples.score(self.scores(features))[0], samples=len(samples))
            else:
                options = {"by": self.config.select_by, "widenings": self.config.widenings()}
                options |= {"ties": "first", "widenings": 0} if chosen_on == "paper" else {}
                init, grid_of = self.zero_shot(features), partial(self.grid, features)
                found = search_grids(init, samples.labels, axes, grid_of, **options)
        self.selection = self.selection.after(found, chosen_on)
        return found

    def _samples(
        self, features: Readable, labels: Tensor, name: str, num_classes: int | None = None
    ) -> Samples:
        """Checked samples, on the device of the head."""
        count = num_classes or self.num_classes
        return as_samples(features, labels, self.class_weights, num_classes=count, name=name)

    def _checked(self, features: Readable, name: str = "features") -> Any:
        """Checked features for a fitted head, on its device and in its dtype."""
        self._require_fitted()
        return checked_features(features, width=self.width, name=name).to(self.class_weights)

    def _for_others(self, class_weights: Tensor) -> Self:
        """A fitted head for other classes, with all tensors of this one whose shapes do not depend on them."""
        self._require_fitted()
        other = type(self)(class_weights, self.config)
        with torch.random.fork_rng(devices=[]):  # what is drawn is written over
            other.build_like(self.num_samples, {**self.state_dict(), "class_weights": other.class_weights})
        other.to(self.class_weights)
        other.num_samples, other.selection = self.num_samples, self.selection
        made = other.state_dict()
        kept = {name: value for name, value in self.state_dict().items() if value.shape == made[name].shape}
        other.load_state_dict({**made, **kept, "class_weights": other.class_weights})
        return other.requires_grad_(False).eval()

    def _require_fitted(self) -> None:
        if self.needs_fit and not self.num_samples:
            name = type(self).__name__
            raise FewShotError(f"{name} must be fitted first, but is not. Call `fit(features, labels)`.")


def make_head(class_weights: Tensor, config: HeadConfig | Mapping[str, Any]) -> FewShotHead:
    """The head that a configuration describes, or a dictionary with `method`, for class weights (classes, width)."""
    parsed = parse_head(config)
    return parsed.head(class_weights, parsed)


def load_head(folder: str | Path, *, provenance: Provenance | None = None) -> FewShotHead:
    """Read a head, onto the CPU.

    Args:
        folder: A folder that `FewShotHead.save` wrote.
        provenance: What the head is to be used with; a head that was made from anything else is refused.

    Raises:
        CheckpointError: A file is absent, damaged, or of another format; tensors are missing, unexpected or
            mis-shaped; or the head is stale. Every fault is listed.
    """
    words, tensors = read_head(folder, provenance)
    earlier = HEADS[words["config"]["method"]].earlier if words["config"].get("method") in HEADS else {}
    head = make_head(tensors["class_weights"], {**earlier, **words["config"]})
    head.num_samples = int(words["num_samples"])
    with torch.random.fork_rng(devices=[]):  # what is drawn is written over
        head.build_like(head.num_samples, tensors)
    head.to(tensors["class_weights"].dtype)
    tensors = {name: head.get_parameter(name) for name in head.optional_tensors()} | tensors
    check_fits(folder, {**head.state_dict(), _TEMPERATURE: torch.ones(())}, tensors)
    temperature = float(tensors.pop(_TEMPERATURE))
    head.load_state_dict(tensors)
    head.selection = Selection(words["selected"], words["selected_on"], temperature, words["at_bounds"])
    return head.requires_grad_(False).eval()


save_head = FewShotHead.save
