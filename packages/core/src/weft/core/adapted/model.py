"""What an adapted model can do beside what its backbone can."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from weft.core.adapted.bank import Store
from weft.core.adapted.routing import (
    Routing,
    TaskNames,
    check_batch,
    note_gradient,
    route_ids,
    route_names,
)
from weft.core.adapted.subclassing import Picklable
from weft.core.adapted.tasks import add_task, check_wrapped, remove_task
from weft.core.adapted.token_modality import token_modality
from weft.core.backbone.owners import Media
from weft.core.errors import AttachError, RoutingError
from weft.core.files.saving import check_save_options, save_adapter


class RoutedCheckpoint:
    """Gradient checkpointing that recomputes under the routing of the forward pass."""

    def __init__(self, store: Store, function: Callable[..., Any]) -> None:
        self.store = store
        self.function = function

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `self.function` on a `function` that carries the present routing with it."""
        store = self.store
        routing, enabled, signals, media = store.routing, store.enabled, store.signals, store.media
        prepared, losses = store.prepared, store.losses

        def routed(*inputs: Any, **named: Any) -> Any:
            with store.using(routing, enabled, signals, media, prepared):
                return function(*inputs, **named)

        if losses is not None:
            return self.function(_adding_once(routed, store, losses), *args, **kwargs)
        return self.function(routed, *args, **kwargs)


def _adding_once(function: Callable[..., Any], store: Store, losses: list[Tensor]) -> Callable[..., Any]:
    """A function that adds its auxiliary losses in its first call, and only computes them when it is recomputed."""
    has_graph, is_first = torch.is_grad_enabled(), True

    def adding(*inputs: Any, **named: Any) -> Any:
        nonlocal is_first
        added: list[Tensor] = []
        with store.setting("losses", added):
            result = function(*inputs, **named)
        if added and has_graph and not torch.is_grad_enabled():
            raise AttachError(
                "`use_reentrant` must be false where units add auxiliary losses, but is true, so that no gradient "
                'would reach them. Call `model.gradient_checkpointing_enable({"use_reentrant": False})`.'
            )
        if is_first:
            losses.extend(added)
        is_first = False
        return result

    return adding


def route_checkpointing(model: nn.Module, store: Store | None) -> None:
    """Wrap, or with None unwrap, the checkpointing functions of a model's layers."""
    for module in model.modules():
        function = module.__dict__.get("_gradient_checkpointing_func")
        if isinstance(function, RoutedCheckpoint):
            function = function.function
        if function is not None:
            wrapped = function if store is None else RoutedCheckpoint(store, function)
            module.__dict__["_gradient_checkpointing_func"] = wrapped


class AdaptedModel(Picklable):
    """Mixin of the root of an adapted model; `weft.core.attach` gives it to the model's class."""

    weft: Store
    training: bool
    _weft_arguments: tuple[str, ...]

    @staticmethod
    def _weft_methods(base: type) -> dict[str, Any]:
        return root_methods(base)

    def forward(
        self, *args: Any, task_ids: Tensor | Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> Any:
        """The backbone's own forward.

        By default, what is routed says the task of every row; `task_ids` say it for one call, shape `(rows,)`, or a
        mapping from modality to such.
        """
        store = self.weft
        if not torch.compiler.is_compiling():
            check_wrapped(self, store)  # type: ignore[arg-type]
        inputs = {**dict(zip(self._weft_arguments, args, strict=False)), **kwargs}
        signals = store.signals
        if store.image_tokens and (ids := inputs.get("input_ids")) is not None:
            signals = {"token_modality": token_modality(ids, store.image_tokens), **signals}
        routing = store.routing
        if task_ids is not None:
            routing = route_ids(task_ids)
        media = None
        if routing is not None:
            owned = store.owners_rule is not None
            check_batch(routing, inputs, owned=owned, repeats=store.generating)
            media = media_of(self, routing, inputs)
        if routing is None and signals is store.signals:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        trains = torch.is_grad_enabled() and self.training and torch.compiler.is_compiling()
        if task_ids is not None and routing is not None and trains:
            store.presence.note_ids(routing.ids.values())
        with store.using(routing, store.enabled, signals, media):
            output = super().forward(*args, **kwargs)  # type: ignore[misc]
        if store.owned and routing is not None:
            note_owned(self, routing, output)
        return output

    @contextlib.contextmanager
    def route(
        self,
        task: str | None = None,
        *,
        tasks: TaskNames | Mapping[str, TaskNames] | None = None,
        task_ids: Tensor | Mapping[str, Tensor] | None = None,
        owners: Mapping[str, Sequence[int] | Tensor] | None = None,
    ) -> Iterator[None]:
        """Say which task the rows belong to; exactly one of the first three arguments.

        Args:
            task: One task for all rows.
            tasks: A task for each row (None: no unit acts on the row), or a mapping from modality to that.
            task_ids: The same as positions in `model.weft.tasks`, shape `(rows,)`, -1 for no unit.
            owners: Modality to the row of the batch that each row of its towers belongs to, int64: of each
                image, tile or packed token, in the order in which the tower sees them. Needed only where it does
                not follow from the batch; see `weft.core.backbone.owners`.

        Raises:
            RoutingError: If not exactly one argument is given, or a task or modality is unknown.
        """
        store = self.weft
        if sum(argument is not None for argument in (task, tasks, task_ids)) != 1:
            raise RoutingError(
                "`route` must get exactly one of `task`, `tasks` and `task_ids`. Give one name for all rows, "
                "one name per row, or ids."
            )
        if task_ids is not None:
            routing = route_ids(task_ids, owners)
        else:
            named = task if task is not None else tasks
            routing = route_names(named or (), store.tasks, store.presence.seen.device, owners)
        try:
            with store.using(routing, store.enabled):
                yield
        finally:
            routing.note(store.presence)

    def add_task(self, task: str, *, like: str | None = None) -> None:
        """Give a new task its own slots, wherever tasks have any; see `weft.core.adapted.tasks.add_task`."""
        add_task(self, task, like=like)  # type: ignore[arg-type]

    def remove_task(self, task: str) -> None:
        """Remove a task and its slots; see `weft.core.adapted.tasks.remove_task`."""
        remove_task(self, task)  # type: ignore[arg-type]

    def set_task(self, task: str | None) -> None:
        """Route all rows to one task until further notice; None takes it back.

        Raises:
            RoutingError: If the task is unknown.
        """
        store = self.weft
        if store.routing is not None:
            store.routing.note(store.presence)
        store.routing = None if task is None else route_names(task, store.tasks, store.presence.seen.device)

    @contextlib.contextmanager
    def signal(self, **signals: Tensor | None) -> Iterator[None]:
        """Hand tensors of the batch, rows first, to the units that read them; None takes one away."""
        store = self.weft
        present = {name: value for name, value in {**store.signals, **signals}.items() if value is not None}
        with store.using(store.routing, store.enabled, present):
            yield

    def train(self, mode: bool = True) -> Any:
        """Set the mode of the backbone's modules; frozen ones keep their running statistics, which nothing would save.

        Batch norms that no method trains in full stay in evaluation.
        """
        super().train(mode)  # type: ignore[misc]
        if mode:
            for module in with_frozen_statistics(self):
                module.eval()
        return self

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Switch all units off; what is trained in full keeps its trained values."""
        with self.weft.using(self.weft.routing, False):
            yield

    def print_trainable_parameters(self) -> None:
        """Print the number of trainable parameters, of all, and their ratio."""
        plan = self.weft.plan
        print(  # noqa: T201  (printing is what it is for)
            f"trainable params: {plan.trainable_parameters:,} || all params: {plan.total_parameters:,} || "
            f"trainable%: {plan.percent:.4f}"
        )

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        is_main_process: bool = True,
        **kwargs: Any,
    ) -> None:
        """Save the adapter alone: `adapter_model.safetensors` and `weft_config.json`. No network is used.

        Args:
            save_directory: Folder, made if it is missing.
            state_dict: Gathered state of a model whose parameters are sharded.
            is_main_process: Whether this process writes; the others do nothing.
            **kwargs: What `transformers` passes and an adapter has no use for, such as `max_shard_size`.

        Raises:
            ConfigError: If another argument is given, or one that asks for something else than is written.
        """
        check_save_options(kwargs)
        if is_main_process:
            save_adapter(self, save_directory, state_dict=state_dict)  # type: ignore[arg-type]

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if gradient_checkpointing_func is not None:
            kwargs["gradient_checkpointing_func"] = RoutedCheckpoint(self.weft, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable=enable, **kwargs)  # type: ignore[misc]
        route_checkpointing(self, self.weft)  # type: ignore[arg-type]


def note_owned(model: Any, routing: Routing, output: Any) -> None:
    """Let the gradient of a pass say that the tasks routed in it were trained, which parameters belong to."""
    model.weft.own(model)  # sharding puts other parameters in their place
    if torch.compiler.is_compiling():
        return
    for value in output.values() if isinstance(output, Mapping) else ():
        if isinstance(value, Tensor) and value.requires_grad:
            value.register_hook(partial(note_gradient, model.weft.presence, routing))


def with_frozen_statistics(model: Any) -> list[nn.Module]:
    """The norms with running statistics of an adapted model whose own parameters no method trains in full."""
    trained = {full.path.rpartition(".")[0] for full in model.weft.plan.full}
    return [
        module
        for path, module in model.named_modules()
        if isinstance(module, _NormBase)
        and module.affine
        and module.track_running_stats
        and path not in trained
    ]


def media_of(model: Any, routing: Routing, inputs: Mapping[str, Any]) -> Sequence[Media] | None:
    """Images and videos of a batch, where an adapted model has towers that need to know their owners."""
    rule = model.weft.owners_rule if model.weft.needs_owners else None
    if rule is None or all(ids.shape[0] == 1 for ids in routing.ids.values()):
        return None
    return rule(model, _unpacked(routing, inputs)) or None


def _unpacked(routing: Routing, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs with each packed token in the row that owns it, for rules that count placeholders."""
    owner, ids = routing.owners.get("text"), inputs.get("input_ids")
    if owner is None or ids is None or ids.shape != (1, owner.shape[0]):
        return inputs
    rows = next(given.shape[0] for key in ("text", "") if (given := routing.ids.get(key)) is not None)
    own = owner == torch.arange(rows, device=owner.device)[:, None]
    return {**inputs, "input_ids": torch.where(own, ids, -1)}


@contextlib.contextmanager
def packed_rows(model: Any, owners: Tensor) -> Iterator[None]:
    """Say which rows the tokens of a packed batch belong to, whose tasks are routed already.

    A wrapper such as data parallelism may hold the model; nothing happens if it is not adapted or nothing is routed.
    The owners are the row of each token, int64, shape `(tokens,)`.
    """
    store = getattr(getattr(model, "module", model), "weft", None)
    if store is None or store.routing is None:
        yield
        return
    routing = replace(store.routing, owners={**store.routing.owners, "text": owners})
    with store.using(routing, store.enabled):
        yield


def root_methods(base: type) -> dict[str, Any]:
    """Methods of the generated class of a root that depend on the backbone's class.

    Code that looks at the signature of `forward` (Trainer, generation) sees the backbone's own, with
    `task_ids`.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return AdaptedModel.forward(self, *args, **kwargs)

    def generate(self: Any, *args: Any, task_ids: Tensor | None = None, **kwargs: Any) -> Any:
        store = self.weft
        routing = store.routing if task_ids is None else route_ids(task_ids)
        inputs = {"input_ids": args[0] if args else kwargs.get("inputs"), **kwargs}
        # Newer releases encode the images before the first call of the model.
        media = None if routing is None else media_of(self, routing, inputs)
        with store.using(routing, store.enabled, media=media), store.setting("generating", True):
            return base.generate(self, *args, **kwargs)  # type: ignore[attr-defined]

    forward.__signature__ = _with_task_ids(base.forward)  # type: ignore[attr-defined]
    forward.__doc__ = base.forward.__doc__  # type: ignore[attr-defined]
    methods: dict[str, Any] = {"forward": forward}
    methods["_weft_arguments"] = tuple(inspect.signature(base.forward).parameters)[1:]  # type: ignore[attr-defined]
    if hasattr(base, "generate"):
        generate.__doc__ = base.generate.__doc__
        methods["generate"] = generate
    return methods


def _with_task_ids(forward: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(forward)
    extra = inspect.Parameter("task_ids", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [*signature.parameters.values(), extra]
    return signature.replace(parameters=sorted(parameters, key=lambda each: each.kind))
