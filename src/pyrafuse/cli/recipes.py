"""`pyrafuse recipes`."""

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrafuse.recipes.registry import Source
    from pyrafuse.training.settings import Recipe

NUM_GPUS, NUM_MACHINES = 8, 2
NUM_PARTS = 5
"""One GPU takes the authors' batch in so many parts at least: 50 images in 5, 16 in 8."""


def recipes(name: str = "", /) -> int:
    """List the recipes: what each trains, where it comes from, and its commands.

    A table comes first, then each recipe.

    Args:
        name: Name of one recipe, to see it alone.
    """
    from pyrafuse.base.errors import unknown_name
    from pyrafuse.recipes.registry import RECIPES, SOURCES
    from pyrafuse.recipes.tricks import tricks_of
    from pyrafuse.training.settings import to_plain

    if name and name not in RECIPES.names():
        raise unknown_name("recipe", name, RECIPES.names())
    names = [name] if name else sorted(RECIPES.names(), key=lambda each: each != "small")
    if not name:
        print("\n".join(_tabulate({each: RECIPES.create(each) for each in names})))
        print("\npyrafuse train DATA trains by small; --recipe NAME takes another\n")
    for each in names:
        create = RECIPES.get(each)
        recipe, source = create(), SOURCES[each]
        has_tricks = bool(source.paper) and str(recipe.model.name).startswith("yolov3")
        lines = {
            "model": f"{recipe.model.name}{f' on {recipe.model.backbone}' if recipe.model.backbone else ''}, "
            f"{recipe.data.size} px, {recipe.run.epochs} epochs, batch {recipe.run.batch_size}",
            "paper": source.paper,
            "published": source.published,
            "their hardware": source.hardware,
            "tricks": ", ".join(tricks_of(to_plain(recipe))) if has_tricks else "",
            **_commands(each, recipe, source),
        }
        print(f"{each}\n  {inspect.getdoc(create)}")
        print("".join(f"  {title:<20}{text}\n" for title, text in lines.items() if text))
    return 0


def _tabulate(recipes: "dict[str, Recipe]") -> list[str]:
    """A row a recipe, with what tells them apart."""
    rows = [("recipe", "model", "backbone", "px", "epochs", "batch")]
    rows += [
        (
            name,
            str(r.model.name),
            r.model.backbone or "its own",
            str(r.data.size),
            str(r.run.epochs),
            str(r.run.batch_size),
        )
        for name, r in recipes.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place < 3 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _commands(name: str, recipe: "Recipe", source: "Source") -> dict[str, str]:
    """What to type, by what it runs on; the learning rate follows the batch by itself."""
    command = " ".join(filter(None, ("train --recipe", name, source.arguments)))
    if not source.paper:
        return {"one device": f"pyrafuse {command}"}
    batch = recipe.run.batch_size - recipe.run.batch_size % (NUM_GPUS * NUM_MACHINES)
    shared = f"--nproc-per-node {NUM_GPUS} -m pyrafuse {command} --batch {batch} --output runs/{name}"
    meeting = f"--nnodes {NUM_MACHINES} --rdzv-backend c10d --rdzv-endpoint HOST:29500"
    parts = next((n for n in range(NUM_PARTS, recipe.run.batch_size) if recipe.run.batch_size % n == 0), 1)
    return {
        "one GPU": f"pyrafuse {command} --run.accumulate {parts}",
        f"{NUM_GPUS} GPUs": f"torchrun {shared}",
        f"each of {NUM_MACHINES} machines": f"torchrun {meeting} {shared} --run.nodes {NUM_MACHINES}",
    }
