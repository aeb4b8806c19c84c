"""Show the fields of a pydantic model as the arguments it is made with, and names that a package hands on.

The reference is built by reading sources, without running them, so the constructor that pydantic writes is
not there. This extension of griffe adds it: an argument per field, inherited ones first, with its default. Another
makes public what a package imports as ``from a import b as b``, as type checkers take it.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe

BASE = "pydantic.BaseModel"


class ModelSignatures(griffe.Extension):
    """Gives every pydantic model of a package the ``__init__`` that its fields imply."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Visit the models once the package is read and base classes can be looked up."""
        for model in models_in(pkg):
            own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
            constructor = griffe.Function("__init__", parameters=griffe.Parameters(own, *arguments_of(model)))
            model.set_member("__init__", constructor)


class Reexports(griffe.Extension):
    """Makes names public that a module imports under their own name."""

    def on_alias_instance(self, *, node: Any, alias: griffe.Alias, **_: Any) -> None:
        """Look at the name's import."""
        names = node.names if isinstance(node, ast.ImportFrom) else []
        if any(each.name == each.asname == alias.name for each in names):
            alias.public = True


def models_in(owner: griffe.Module | griffe.Class) -> list[griffe.Class]:
    """Return the pydantic models that a module or class defines, those of its submodules included."""
    found = []
    for member in owner.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Class) and lineage(member)[-1:] == [BASE]:
            found.append(member)
        if isinstance(member, griffe.Module | griffe.Class):
            found.extend(models_in(member))
    return found


def lineage(model: griffe.Class) -> list[griffe.Class | str]:
    """Return a class and its first bases upward; the last is a name where the base is not ours to read."""
    base = next(iter(model.bases), None)
    if base is None:
        return [model]
    path = base if isinstance(base, str) else base.canonical_path
    try:
        above = model.modules_collection[path]
        return [model, *lineage(above.final_target if above.is_alias else above)]
    except (KeyError, griffe.AliasResolutionError):
        return [model, path]


def arguments_of(model: griffe.Class) -> list[griffe.Parameter]:
    """Return the fields of a model and of those it inherits from, as keyword arguments."""
    fields: dict[str, griffe.Parameter] = {}
    for owner in reversed([step for step in lineage(model) if isinstance(step, griffe.Class)]):
        for name, member in owner.members.items():
            if is_field(name, member):
                default = default_of(member.value)
                kind = griffe.ParameterKind.keyword_only
                fields[name] = griffe.Parameter(
                    name, annotation=member.annotation, kind=kind, default=default
                )
    return list(fields.values())


def is_field(name: str, member: griffe.Object | griffe.Alias) -> bool:
    """Return whether a member is an annotated, public attribute of the instances."""
    if member.is_alias or not member.is_attribute or member.annotation is None or name == "model_config":
        return False
    return not name.startswith("_") and "ClassVar" not in str(member.annotation)


def default_of(value: Any) -> Any:
    """Return what a reader should see as a field's default: inside ``Field(...)``, the value it holds."""
    if not isinstance(value, griffe.ExprCall) or str(value.function).rpartition(".")[2] != "Field":
        return value
    for argument in value.arguments:
        if not isinstance(argument, griffe.ExprKeyword):
            return argument
        if argument.name == "default":
            return argument.value
        if argument.name == "default_factory":
            return f"{argument.value}()"
    return None
