"""Names that are looked up when they are asked for: registries, and the public names of a package."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Things by name: read-only, alphabetical, loaded at the first look, open to third parties.

    No list of names is kept anywhere. A thing is found because a module of `package` registers it when it is
    imported, or is it; because an installed distribution names it as an entry point; or because `register` got it.

    Args:
        what: What messages call a name, such as "`method`".
        error: Class of the error for a name that is taken.
        package: Package whose modules are looked through, or None.
        attribute: What each of those modules holds under the module's own name; such modules are imported one by
            one, when their names are asked for. By default they register what they hold, and all are imported at once.
        group: Group of entry points, or None.
    """

    def __init__(
        self,
        what: str,
        error: type[Exception],
        package: str | None = None,
        *,
        attribute: str | None = None,
        group: str | None = None,
    ) -> None:
        self._what = what
        self._error = error
        self._package = package
        self._attribute = attribute
        self._group = group
        self._registered: dict[str, T] = {}
        self._modules: dict[str, bool] = {}

    def register(self, name: str, thing: T, *, replace: bool = False) -> None:
        """Make a thing known; the same one may be registered again, and another take its name if `replace` says so.

        Raises:
            Exception: The registry's error, if another thing has the name.
        """
        other = self._registered.get(name)
        if other is None and self._attribute is not None:
            other = self.get(name)
        if other is not None and _described(other) != _described(thing) and not replace:
            raise self._error(
                f"{self._what} must be new, but {name!r} is taken by {_described(other)}. Choose another name for "
                f"{_described(thing)}."
            )
        self._registered[name] = thing

    def forget(self, name: str) -> None:
        """Take back what `register` made known."""
        del self._registered[name]

    def __getitem__(self, name: str) -> T:
        """The thing of a name; distributions are looked through only for names that are not of our own."""
        if name in self._registered:
            return self._registered[name]
        own = self._own()
        return own[name]() if name in own else self._loaders()[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._loaders()))

    def __len__(self) -> int:
        return len(self._loaders())

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._own() or name in self._loaders()

    def _loaders(self) -> dict[str, Callable[[], T]]:
        entries = () if self._group is None else _entries(entry_points, self._group)
        return {entry.name: entry.load for entry in entries} | self._own()

    def _own(self) -> dict[str, Callable[[], T]]:
        """What was registered, and what the package's modules hold; neither gives its name to a distribution."""
        if self._package is not None and not self._modules:
            path = importlib.import_module(self._package).__path__
            self._modules = {module.name: False for module in pkgutil.iter_modules(path)}
        found: dict[str, Callable[[], T]] = {}
        for name, imported in self._modules.items():
            if self._attribute is not None:
                found[name] = partial(self._held, name, self._attribute)
            elif not imported:
                importlib.import_module(f"{self._package}.{name}")
                self._modules[name] = True
        return found | {name: partial(self._registered.__getitem__, name) for name in self._registered}

    def _held(self, name: str, attribute: str) -> T:
        thing: T = getattr(importlib.import_module(f"{self._package}.{name}"), attribute)
        return thing


@cache
def _entries(find: Callable[..., Iterable[EntryPoint]], group: str) -> tuple[EntryPoint, ...]:
    """Entry points of a group; what is installed does not change while a process runs, and looking takes long."""
    return tuple(find(group=group))


def _described(thing: Any) -> str:
    """What tells two things apart: where a class or function is defined, the name of anything else, or all of it."""
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    return repr(getattr(thing, "name", thing))


def method_of(config: type[BaseModel], error: type[Exception]) -> str:
    """The default of a configuration's `method`, under which it is registered.

    Raises:
        Exception: Of class `error`, if `method` has no default.
    """
    method = config.__pydantic_fields__["method"].default
    if not isinstance(method, str):
        raise error(
            f"`method` of {config.__name__} must have its name as default, but has none. Write "
            '`method: Literal["my_name"] = "my_name"`.'
        )
    return method


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names are loaded when they are asked for.

    The names, and the modules they come from, are those that the package imports under `if TYPE_CHECKING:`, which are
    its `__all__` too where it has none. `import a as a` says to type checkers that a name is public.
    """
    module = sys.modules[package]
    source: str = module.__spec__.loader.get_source(package)  # type: ignore[union-attr]
    homes = {
        alias.name: node.module
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }

    vars(module).setdefault("__all__", sorted(homes))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return get, lambda: sorted({*vars(module), *homes})
