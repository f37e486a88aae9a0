"""`pyrafuse recipes`."""

import inspect


def recipes() -> int:
    """List the recipes: what each trains, where it comes from, and its commands."""
    from pyrafuse.recipes.registry import RECIPES, SOURCES

    for name in RECIPES.names():
        create = RECIPES.get(name)
        recipe, source = create(), SOURCES[name]
        command = " ".join(filter(None, ("train --recipe", name, source.arguments)))
        several = f"torchrun --nproc-per-node 2 -m pyrafuse {command} --output runs/{name}" if source.paper else ""
        lines = {
            "model": f"{recipe.model.name}{f' on {recipe.model.backbone}' if recipe.model.backbone else ''}, "
            f"{recipe.data.size} px, {recipe.run.epochs} epochs, batch {recipe.run.batch_size}",
            "paper": source.paper,
            "published": source.published,
            "one device": f"pyrafuse {command}",
            "two GPUs": several,
        }
        print(f"{name}\n  {inspect.getdoc(create)}")
        print("".join(f"  {title:<12}{text}\n" for title, text in lines.items() if text))
    return 0
