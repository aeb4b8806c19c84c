"""Everything else that PEFT implements on linear maps: a configuration of PEFT, handed to PEFT itself.

PEFT builds its layer around each chosen map. Its tensors become slots like those of every other unit, so that
plans, sharing, routing and checkpoints are the same; its computation runs on them unchanged.

Needs PEFT: `pip install peft`.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from weft.core.backbone.sites import Site, SiteMap
from weft.core.errors import ConfigError, unknown
from weft.core.unit.initialisers import zeros
from weft.core.unit.places import LinearMapConfig
from weft.core.unit.protocol import TensorSpec, Unit, Weights, register_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

_OURS = (
    "target_modules",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
    "modules_to_save",
    "bias",
)


@register_unit
class PEFTConfig(LinearMapConfig):
    """A method of PEFT on linear maps that are chosen by words, as those of LoRA are.

    How it starts is PEFT's to say: as the backbone, as far as its own defaults do.

    Args:
        config: The configuration as PEFT writes it: `peft_type`, such as `LOHA`, and its options. Where it acts
            and what is trained beside is said by the other words.

    Parts: `trained`, and `fixed`, the tensors that PEFT keeps without training them.
    """

    parts = ("trained", "fixed")
    requires = ("map",)

    method: Literal["peft"] = "peft"
    config: dict[str, Any]

    @field_validator("config")
    @classmethod
    def _says_only_what_peft_decides(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("peft_type"), str):
            raise ValueError(
                f"`config` must name a method of PEFT as `peft_type`, but has {value.get('peft_type')!r}. Write "
                "for instance `{peft_type: LOHA, r: 8}`."
            )
        ours = sorted(set(_OURS) & set(value))
        if ours:
            raise ValueError(
                f"`config` must not say where the method acts, but sets {', '.join(ours)}. Use `linears`, "
                "`blocks`, `towers`, `layers` and `train_full`."
            )
        return value

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The tensors of PEFT's layer, by its own names without that of the adapter.

        Raises:
            ConfigError: If PEFT is not installed, or refuses the configuration.
        """
        specs = []
        for _, name, value in _named(self.layer(site.in_width, site.out_width)):
            part = "trained" if value.requires_grad else "fixed"
            specs.append(TensorSpec(name, tuple(value.shape), zeros, part, trainable=value.requires_grad))
        return tuple(specs)

    def layer(self, in_width: int, out_width: int) -> Any:
        """PEFT's layer around a map on the meta device.

        Args:
            in_width: Features the map reads.
            out_width: Features it returns.
        """
        return _layer(json.dumps(self.config, sort_keys=True), in_width, out_width)

    def build(self, site: Site) -> PEFTLayer:
        """The computation at a linear map."""
        return PEFTLayer(dict(self.config), site.in_width, site.out_width)

    @classmethod
    def example(cls) -> PEFTConfig:
        """A low-rank Hadamard product."""
        return cls(config={"peft_type": "LOHA", "r": 2, "alpha": 4})


class PEFTLayer(Unit):
    """The computation: PEFT's own, on our slots.

    Args:
        config: The configuration of PEFT.
        in_width: Features the map reads.
        out_width: Features it returns.
    """

    def __init__(self, config: dict[str, Any], in_width: int, out_width: int) -> None:
        self.config = config
        self.layer = _template(_layer(json.dumps(config, sort_keys=True), in_width, out_width))
        self.names = {ours: theirs for theirs, ours, _ in _named(self.layer)}
        self.indices = _indices(config, self.layer, in_width, out_width)

    def start(self, module: nn.Module, slots: Mapping[str, Tensor]) -> None:
        """Set the values that PEFT starts from, drawn by PEFT around the module itself."""
        for _, name, value in _named(_wrapped(self.config, module)):
            if name in slots:
                slots[name].copy_(value)

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """What PEFT's layer returns for `inputs`, shape `(rows, ..., out)`.

        PEFT knows no rows of different tasks: where tasks have tensors of their own, its layer runs once for
        each task, and each row takes the result of its own.
        """
        import torch

        slots = {name: weights[name] for name in self.names}
        tasks = max(value.shape[0] for value in slots.values())
        if tasks == 1 or weights.task_ids is None:
            return weights.keep_identity(self._run(output, inputs, weights, slots, 0), output)
        shape = (-1, *[1] * (output.dim() - 1))
        result = output
        for task in range(tasks):
            rows = (weights.task_ids == task).view(shape)
            result = torch.where(rows, self._run(output, inputs, weights, slots, task), result)
        return result

    def _run(
        self, output: Tensor, inputs: Tensor, weights: Weights, slots: Mapping[str, Tensor], task: int
    ) -> Tensor:
        from weft.core.unit.peft_call import call_layer

        tensors = {
            self.names[name]: value[task if value.shape[0] > 1 else 0] for name, value in slots.items()
        }
        tensors |= {name: value.to(inputs.device) for name, value in self.indices.items()}
        self.layer.train(weights.training)
        return call_layer(self.layer, tensors, weights.module, inputs, output)


@functools.lru_cache(maxsize=64)
def _layer(config: str, in_width: int, out_width: int) -> Any:
    from torch import nn

    return _wrapped(json.loads(config), nn.Linear(in_width, out_width, device="meta"), empty=True)


def _wrapped(config: dict[str, Any], module: nn.Module, *, empty: bool = False) -> Any:
    """PEFT's layer around a map; on the meta device if `empty`."""
    from torch import nn

    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            "`method: peft` needs PEFT, which is not installed. Run `pip install peft`."
        ) from error
    kinds = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    options = dict(config)
    kind = options.pop("peft_type")
    if kind not in kinds:
        raise ConfigError(unknown("`config.peft_type`", kind, [str(name.value) for name in kinds]))
    holder = nn.Module()
    holder.add_module("target", module)
    fields = kinds[kind].__dataclass_fields__
    for name in options:
        if name not in fields:
            raise ConfigError(unknown(f"an option of {kind} in `config`", name, fields))
    trained = [value for value in module.parameters() if value.requires_grad]
    try:
        theirs = kinds[kind](target_modules=["target"], **options)
        peft.inject_adapter_in_model(theirs, holder, low_cpu_mem_usage=empty)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"`config` must be what PEFT takes for {kind} on single maps, but PEFT says: {error} Change the options, "
            "or choose another method."
        ) from error
    finally:
        for value in trained:
            value.requires_grad_(True)
    return holder.get_submodule("target")


def _template(layer: Any) -> Any:
    """A copy of the layer without its map, so that it holds no weight of the backbone."""
    import copy

    template = copy.deepcopy(layer)
    del template._modules["base_layer"]
    return template.requires_grad_(False)


def _indices(config: dict[str, Any], layer: nn.Module, in_width: int, out_width: int) -> dict[str, Tensor]:
    """The tensors of integers of a layer, which follow from its sizes and so are no slots."""
    from torch import nn

    names = [name for name, value in layer.named_buffers() if not value.is_floating_point()]
    if not names:
        return {}
    found = dict(_wrapped(config, nn.Linear(in_width, out_width)).named_buffers())
    return {name: found[name] for name in names}


def _named(layer: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Name in the layer and our name, which lacks that of the adapter, of every real tensor but the map's."""
    for name, value in (*layer.named_parameters(), *layer.named_buffers()):
        if not name.startswith("base_layer.") and value.is_floating_point():
            yield name, ".".join(word for word in name.split(".") if word != "default"), value
