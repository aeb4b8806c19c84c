"""Write the pages of options: one of all keys of recipes, and for each method one of what its class says and counts."""

from __future__ import annotations

import functools
import inspect
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from pydantic import BaseModel
from transformers import BartConfig, BartForConditionalGeneration, CLIPConfig, CLIPModel

from weft.core import Sharing, UnitConfig, WeftError, plan
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import SUBLAYERS, Site
from weft.core.unit.protocol import units
from weft.train.backbones.loading import planned_model
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_any, load_recipe
from weft.train.recipe.training import Recipe

DOCS = Path(__file__).parents[1] / "docs"
TASKS = ("vqa", "gqa", "nlvr", "caption")
COMMON = tuple(UnitConfig.model_fields)
BLIP = "uniadapter/coco"
ROLES = {"attention": ("query", "key", "value", "output"), "ffn": ("gate", "up", "down")}
ROLES["cross_attention"] = ROLES["attention"]
WIDTH, HEIGHT, STEP = 180, 26, 58


@functools.cache
def backbones() -> dict[str, Any]:
    """Models of common size without weights, the first of which a method fits is counted."""
    blip = planned_model(load_recipe(BLIP).backbone)
    with torch.device("meta"):
        return {
            "BART-base": BartForConditionalGeneration(BartConfig(encoder_layers=6, decoder_layers=6, d_model=768,
                encoder_ffn_dim=3072, decoder_ffn_dim=3072, encoder_attention_heads=12, decoder_attention_heads=12)),
            "BLIP (ViT-B/16)": blip,
            "CLIP ViT-B/16": CLIPModel(CLIPConfig(vision_config={"patch_size": 16}, projection_dim=512)),
        }  # fmt: skip


def pages() -> Iterator[tuple[str, str]]:
    """The paths and texts of all pages."""
    yield "recipe_keys.md", recipe_page()
    names = list(units())
    lines = [
        f"| [`{name}`]({name}.md) | {_summary(units()[name])} | {_parts(units()[name])} |" for name in names
    ]
    head = "| method | what it does | parts |\n|---|---|---|"
    yield (
        "methods/index.md",
        f"""# Methods

Each method is named as `method:` in a recipe, or by its class in Python; several go in a list. `sharing` says across
what each of its parts is shared ([Concepts](../concepts.md)), `towers`, `stacks` and `layers` where it acts, and
`train_full` which components of the model are trained beside it. [Which models can be adapted](../families.md) says
what fits where.

{head}
{chr(10).join(lines)}
""",
    )
    for name in names:
        yield f"methods/{name}.md", page(name)


def recipe_page() -> str:
    """The keys of both kinds of recipes, section by section."""
    parts = [
        "# Recipe keys",
        "Every key that a recipe may have, with its default and meaning; any other is an error. `weft recipes schema` "
        "prints the same as a JSON Schema, with which editors complete and check recipes.",
    ]
    for kind, title in (
        (Recipe, "Recipes that train"),
        (FewShotRecipe, "Few-shot recipes, which have `heads`"),
    ):
        parts.append(f"## {title}")
        for where, section in sections(kind):
            parts += [f"### `{where}`"] * bool(where) + [_options(section, common=())]
    return "\n\n".join(parts) + "\n"


def sections(kind: type[BaseModel], where: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """A section and those below it, with the keys under which they stand; names that users give are in capitals."""
    yield where, kind
    for name, field in kind.model_fields.items():
        place = f"{where}.{name}".lstrip(".")
        named = f"{place}.NAME" if "dict[str" in str(field.annotation) else place
        for other in _models_in(field.annotation):
            yield from sections(other, named)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def page(name: str) -> str:
    """The page of one method."""
    config = units()[name]
    example = usual(config)
    found = _planned(example)
    parts = [f"# {name}", _described(config)]
    if found is not None:
        title, planned = found
        if any(site.block in SUBLAYERS for site in planned.sites):
            parts += [
                "## Where it sits",
                _placed(title),
                picture(resolve(backbones()[title]).sites, planned.sites),
            ]
        parts += ["## How much is trained", _counted(example, title)]
    parts += ["## Options", _options(config), "## Recipe", _recipe(example), "## Source", _source(config)]
    return "\n\n".join(part for part in parts if part) + "\n"


def usual(config: type[UnitConfig]) -> UnitConfig:
    """A method with its defaults, or an example of it where some option must be given."""
    try:
        found = config()  # type: ignore[call-arg]
    except ValueError:
        return config.example()
    return config.example() if _planned(found) is None else found


def _summary(config: type[UnitConfig]) -> str:
    return " ".join(_doc(config).partition("\n\n")[0].split())


def _parts(config: type[UnitConfig]) -> str:
    return ", ".join(f"`{part}`" for part in config.parts)


def _doc(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def _described(config: type[BaseModel]) -> str:
    """What the class says beside its arguments."""
    kept = re.sub(r"Args:\n(?:[ ]+.*\n?|\n(?=[ ]))*", "", _doc(config))
    return re.sub(r"\n{3,}", "\n\n", kept).strip()


def _argument_lines(config: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for parent in reversed(config.__mro__):
        block = re.search(
            r"(?:Args|Attributes):\n((?:[ ]+.*\n?|\n(?=[ ]))*)",
            inspect.cleandoc(parent.__dict__.get("__doc__") or ""),
        )
        for name, text in re.findall(
            r"^ {4}(\w+): ((?:.*\n?)(?:^ {8}.*\n?)*)", block[1] if block else "", re.MULTILINE
        ):
            found[name] = " ".join(text.split())
    return found


def _options(config: type[BaseModel], common: tuple[str, ...] = COMMON) -> str:
    said = _argument_lines(config)
    lines = [
        f"| `{name}` | {_default(field)} | {said.get(name, '').replace('|', chr(92) + '|')} |"
        for name, field in config.model_fields.items()
        if name not in common
    ]
    head = f"| {'option' if common else 'key'} | default | meaning |\n|---|---|---|"
    return "\n".join([head, *lines]) if lines else "None of its own."


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return "see below" if isinstance(value, BaseModel) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    words: str = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True)
    return words.removesuffix("\n").removesuffix("\n...")


def _planned(config: UnitConfig) -> tuple[str, Any] | None:
    for title, model in backbones().items():
        try:
            return title, plan(model, config, list(TASKS))
        except WeftError:
            continue
    return None


def _placed(title: str) -> str:
    return f"In {title}, one layer of each stack; what is filled is where it acts."


def _counted(config: UnitConfig, title: str) -> str:
    policies: Mapping[str, Sharing] = {
        "as it is": config.sharing,
        "single": Sharing.single(),
        "half": Sharing.half(),
        "multiple": Sharing.multiple(),
    }
    rows: dict[str, str] = {}
    for word, policy in policies.items():
        try:
            planned = plan(backbones()[title], config.model_copy(update={"sharing": policy}), list(TASKS))
        except WeftError:
            continue
        counts = f"{planned.trainable_parameters:,} | {planned.percent:.2f} %"
        rows[counts] = f"{rows[counts]}, {word}" if counts in rows else word
    lines = "\n".join(f"| {words} | {counts} |" for counts, words in rows.items())
    said = ", ".join(f"`{name}: {_plain(value)}`" for name, value in _set(config).items()) or "its defaults"
    return (
        f"On {title} with four tasks and {said}:\n\n| sharing | trained | of the model |\n|---|---:|---:|\n"
        + lines
    )


def _set(config: UnitConfig) -> dict[str, Any]:
    """What an example sets beside the defaults."""
    kept = config.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in kept.items() if name not in ("method", "sharing")}


def _recipe(config: UnitConfig) -> str:
    example = {"method": config.method, **_set(config)}
    if config.parts:
        example["sharing"] = "single"
    text = yaml.safe_dump({"method": example}, sort_keys=False, default_flow_style=None)
    shipped = [name for name, used in methods_of_recipes().items() if example["method"] in used]
    said = ""
    if shipped:
        shown = ", ".join(f"`{name}`" for name in shipped[:6])
        said = f"\n\nShipped recipes with it: {shown}{f' and {len(shipped) - 6} more' if len(shipped) > 6 else ''}."
    return f"```yaml\n{text}```{said}"


@functools.cache
def methods_of_recipes() -> dict[str, frozenset[str]]:
    """The methods of every recipe that is shipped."""
    found = {}
    for name in built_in_recipes():
        method = getattr(load_any(name), "method", None)
        listed = method if isinstance(method, list) else [method] if method else []
        found[name] = frozenset(one["method"] for one in listed)
    return found


def _source(config: type[UnitConfig]) -> str:
    module = _doc(sys.modules[config.__module__])
    return module.partition("\n\n")[2].strip() or "No paper: it is a word for what is frozen or trained."


def picture(sites: Sequence[Site], chosen: Any) -> str:
    """The layers of each stack as SVG: sub-layers and their linear maps, filled where a plan acts.

    Args:
        sites: All sites of a model.
        chosen: Those of the plan.
    """
    acts = {entry.address for entry in chosen}
    stacks: dict[str, dict[tuple[str, str], bool]] = {}
    for site in sites:
        if site.block in SUBLAYERS and site.layer is not None:
            stack = stacks.setdefault(" ".join(filter(None, (site.tower, site.stack))), {})
            stack[site.block, site.role] = stack.get((site.block, site.role), False) or site.address in acts
    columns = "".join(_column(place, title, found) for place, (title, found) in enumerate(stacks.items()))
    height = 32 + STEP * max(len({block for block, _ in found}) for found in stacks.values())
    width = 20 + (WIDTH + 40) * len(stacks)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="sans-serif" font-size="11" fill="currentColor">{columns}</svg>'
    )


def _column(place: int, title: str, found: Mapping[tuple[str, str], bool]) -> str:
    left = 10 + place * (WIDTH + 40)
    drawn = [f'<text x="{left}" y="16" font-weight="bold">{title}</text>']
    blocks = [block for block in SUBLAYERS if any(block == other for other, _ in found)]
    for row, block in enumerate(blocks):
        top = 28 + row * STEP
        drawn.append(f'<text x="{left}" y="{top + 8}">{block.replace("_", "-")}</text>')
        roles = [role for role in ROLES[block] if (block, role) in found]
        each = (WIDTH - 34) / max(len(roles), 1)
        for number, role in enumerate(roles):
            drawn.append(_box(left + number * each, top + 12, each - 3, role, found[block, role]))
        drawn.append(_box(left + WIDTH - 30, top + 12, 30, "+", found.get((block, ""), False)))
    return "".join(drawn)


def _box(left: float, top: float, width: float, word: str, filled: bool) -> str:
    fill, ink = ("#0b7a75", "white") if filled else ("none", "currentColor")
    return (
        f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{HEIGHT}" rx="4" fill="{fill}" stroke="#8a97a3"/>'
        f'<text x="{left + width / 2:.0f}" y="{top + 17}" text-anchor="middle" font-size="9" fill="{ink}">{word}</text>'
    )


def main() -> None:
    """Rewrite all pages."""
    shutil.rmtree(DOCS / "methods", ignore_errors=True)
    (DOCS / "methods").mkdir(parents=True)
    for name, text in pages():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
