"""DINOv2-small, read from an ONNX file whose backbone it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from weft.data.media.transforms import Resample
from weft.eval.readers.image_processor import square_transform
from weft.train.backbones.packaged.packages import DINOV2_SMALL
from weft.train.errors import RunError

IMAGE_SIZE = 224
"""Side of the squares that `build_dinov2` lets the image processor make; the model takes any multiple of 14."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as DINOv2 was trained
_FILTER: Resample = "bicubic"
_WIDTH, _PATCHES = 384, 37 * 37
_FRONT = "backbone."
_RENAMED = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
)


def build_dinov2(folder: Path) -> None:
    """Write the model with its image processor into an empty folder.

    Raises:
        RunError: If a package is absent, or holds other files.
    """
    load_dinov2().save_pretrained(folder)
    square_transform(IMAGE_SIZE, _MEAN, _STD, _FILTER).processor.save_pretrained(folder)


def load_dinov2() -> Dinov2Model:
    """The model in evaluation mode.

    Raises:
        RunError: If the package that holds it, or `onnx`, is absent.
    """
    graph = _graph(DINOV2_SMALL.located())
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=_WIDTH, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
        )
    ).eval()
    state = _state(graph, model.state_dict())
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model


def _graph(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise RunError(
            f"`onnx` must be installed to read {path.name}, but is not. Run `pip install onnx`."
        ) from None
    return onnx.load(path).graph


def _state(graph: Any, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the model to its tensors; what export to ONNX folded is taken apart again."""
    from onnx import numpy_helper

    constants = {item.name: torch.tensor(numpy_helper.to_array(item)) for item in graph.initializer}
    found = {name.removeprefix(_FRONT): value for name, value in constants.items() if name.startswith(_FRONT)}
    for node in graph.node:
        # A linear map's weight has lost its name: the node that multiplies by its transpose has kept its own.
        if node.op_type == "MatMul" and node.name.startswith("/backbone/"):
            place = node.name.removeprefix("/backbone/").rpartition("/MatMul")[0].replace("/", ".")
            found.update({f"{place}.weight": constants[name].mT for name in node.input if name in constants})
    alone = next(
        constants[name]
        for node in graph.node
        if node.op_type == "Concat" and node.name.startswith("/backbone/embeddings/")
        for name in node.input
        if name in constants and constants[name].shape == (1, 1, _WIDTH)
    )
    grid = next(value for value in constants.values() if value.shape == (1, _PATCHES, _WIDTH))
    found["embeddings.position_embeddings"] = torch.cat([alone, grid], dim=1)
    found["embeddings.mask_token"] = torch.zeros_like(own["embeddings.mask_token"])  # of training alone
    return {_renamed(name): value.contiguous() for name, value in found.items()}


def _renamed(name: str) -> str:
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name
