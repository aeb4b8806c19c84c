"""Hashes of whole tensors: every value counts, and what has not changed since is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Mark = tuple[int, int, tuple[int, ...], torch.dtype, torch.device, bytes]

_CHUNK = 2**24
_PROBES = 64
_ABOUT_FILES = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
_WORTH_THREADS = 2**20
_known: WeakKeyDictionary[nn.Module, dict[str, tuple[Mark, bytes]]] = WeakKeyDictionary()


def tensor_digests(model: nn.Module, values: Iterable[tuple[str, Tensor]]) -> list[bytes]:
    """Hashes of tensors, rounded to bfloat16; hashing takes about a second per 1.2 GB and core.

    They are kept with the model, so that attaching again, or loading another adapter, costs a look at each tensor. The
    look compares its memory, torch's count of the changes to it, and 64 values spread over it: an edit through
    `.data`, which torch does not count, is overlooked there if it leaves all of these as they were.

    Args:
        model: Whose tensors they are.
        values: Name and tensor of floating numbers, on any device.
    """
    known = _known.setdefault(model, {})
    pairs = [(name, value.detach(), _mark(value)) for name, value in values]
    stale = [pair for pair in pairs if pair[0] not in known or known[pair[0]][0] != pair[2]]
    large = sum(value.numel() for _, value, _ in stale) > _WORTH_THREADS
    # hashlib lets other threads run while it reads.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1) if large else 1) as pool:
        made = list(pool.map(lambda pair: _digest(pair[1]), stale))
    known.update({name: (mark, own) for (name, _, mark), own in zip(stale, made, strict=True)})
    return [known[name][1] for name, _, _ in pairs]


def module_digest(module: nn.Module, left_out: str | None = None) -> str:
    """A hash of all that a frozen module's outputs depend on, to the last bit: for what is kept of its outputs.

    It covers its class, its configuration, and dtype, shape and every byte of its parameters and buffers. Each call
    reads them all.

    Args:
        module: The module, plain; not on the meta device.
        left_out: How the names of tensors begin that the outputs do not depend on, such as `language_model.`.
    """
    config = getattr(module, "config", None)
    words: dict[str, Any] = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
    settings = {name: value for name, value in words.items() if name not in _ABOUT_FILES}
    digest = hashlib.sha256(
        json.dumps([type(module).__name__, settings], sort_keys=True, default=str).encode()
    )
    values = [
        (name, value)
        for name, value in (*module.named_parameters(), *module.named_buffers())
        if left_out is None or not name.startswith(left_out)
    ]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for (name, value), own in zip(
            values, pool.map(lambda pair: _digest(pair[1].detach(), pair[1].dtype), values), strict=True
        ):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + own)
    return digest.hexdigest()[:32]


def _mark(value: Tensor) -> Mark:
    version = -1 if value.is_inference() else value._version
    flat = value.detach().reshape(-1)
    probes = flat[:: max(1, flat.numel() // _PROBES)].to("cpu", torch.float32).numpy().tobytes()
    return value.data_ptr(), version, tuple(value.shape), value.dtype, value.device, probes


def _digest(value: Tensor, dtype: torch.dtype = torch.bfloat16) -> bytes:
    digest = hashlib.sha256()
    for chunk in value.reshape(-1).split(_CHUNK):
        digest.update(chunk.to(dtype).cpu().contiguous().view(torch.uint8).numpy())
    return digest.digest()
