"""In-place subclassing: how a unit gets into a backbone without touching its modules' names.

The class of a module is replaced by a generated subclass of the same name. Parameter names and `isinstance`
stay true, nothing is copied, any module works (quantised ones too), and it takes effect even after
`torch.compile`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from weft.core.errors import AttachError

_CLASSES: dict[tuple[type, type], type] = {}


def adapted_class(mixin: type, base: type) -> type:
    """The generated subclass of `base`, with the methods of `mixin`; always the same object for the same two."""
    key = (mixin, base)
    if key not in _CLASSES:
        body = {"__module__": base.__module__, "__qualname__": base.__qualname__, "_weft_base": base}
        body |= {"__doc__": base.__doc__, "_weft_mixin": mixin}
        body |= mixin._weft_methods(base)  # type: ignore[attr-defined]
        _CLASSES[key] = type(base.__name__, (mixin, base), body)
    return _CLASSES[key]


def swap_class(module: nn.Module, mixin: type) -> None:
    """Give a module the generated subclass.

    Raises:
        AttachError: If the module's `forward` was replaced on the instance, which would hide ours.
    """
    module.__class__ = adapted_class(mixin, type(module))
    instance_forward = module.__dict__.get("forward")
    if instance_forward is None:
        return
    # Accelerate keeps the original in `_old_forward` and calls that one.
    if "_old_forward" not in module.__dict__:
        restore_class(module)
        raise AttachError(
            f"`model` must not have `forward` replaced on a module, but {type(module).__name__} has. Undo "
            "that replacement, attach, then replace again."
        )
    module.__dict__["_old_forward"] = type(module).forward.__get__(module)


def restore_class(module: nn.Module) -> None:
    """Give a module back the class it had."""
    module.__class__ = type(module)._weft_base  # type: ignore[attr-defined]
    if "_old_forward" in module.__dict__:
        module.__dict__["_old_forward"] = type(module).forward.__get__(module)


class Picklable:
    """Lets instances of generated classes be pickled and deep-copied.

    A pickle names the class that the generated one was made from, and the mixin.
    """

    _weft_mixin: ClassVar[type]
    _weft_base: ClassVar[type]

    @staticmethod
    def _weft_methods(base: type) -> dict[str, Any]:
        """Methods of the generated class that depend on the class it is made from."""
        return {}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Rebuild the class first, then set the state."""
        cls = type(self)
        return _rebuild, (cls._weft_mixin, cls._weft_base), self.__getstate__()


def _rebuild(mixin: type, base: type) -> Any:
    cls: Any = adapted_class(mixin, base)
    return cls.__new__(cls)
