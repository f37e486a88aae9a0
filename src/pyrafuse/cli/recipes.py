"""`pyrafuse recipes`."""

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrafuse.recipes.registry import Source
    from pyrafuse.training.settings import Recipe

NUM_GPUS, NUM_MACHINES = 8, 2
NUM_PARTS = 5
"""One GPU takes the authors' batch in so many parts at least: 50 images in 5, 16 in 8."""


def recipes() -> int:
    """List the recipes: what each trains, where it comes from, and its commands."""
    from pyrafuse.recipes.registry import RECIPES, SOURCES
    from pyrafuse.recipes.tricks import tricks_of
    from pyrafuse.training.settings import to_plain

    for name in RECIPES.names():
        create = RECIPES.get(name)
        recipe, source = create(), SOURCES[name]
        has_tricks = bool(source.paper) and recipe.model.name.startswith("yolov3")
        lines = {
            "model": f"{recipe.model.name}{f' on {recipe.model.backbone}' if recipe.model.backbone else ''}, "
            f"{recipe.data.size} px, {recipe.run.epochs} epochs, batch {recipe.run.batch_size}",
            "paper": source.paper,
            "published": source.published,
            "their hardware": source.hardware,
            "tricks": ", ".join(tricks_of(to_plain(recipe))) if has_tricks else "",
            **_commands(name, recipe, source),
        }
        print(f"{name}\n  {inspect.getdoc(create)}")
        print("".join(f"  {title:<20}{text}\n" for title, text in lines.items() if text))
    return 0


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
