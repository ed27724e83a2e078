"""`zssbir recipes`."""

import typer


def recipes(
    name: str | None = typer.Argument(None, help="Print this recipe."),
    keys: bool = typer.Option(False, "--keys", help="List every key a recipe can have."),
    markdown: bool = typer.Option(False, "--markdown", help="With --keys: as Markdown (docs/recipes.md)."),
) -> None:
    """List the shipped recipes, print one, or explain every key."""
    from zssbir_cli.cli.console import table
    from zssbir_cli.recipe.loader import find_recipe, load_recipe, shipped_recipes
    from zssbir_cli.recipe.reference import all_keys, reference_markdown

    if markdown:
        print(reference_markdown())
    elif keys:
        for k in all_keys():
            print(f"{k.path}: {k.kind}, default {k.default}. {k.meaning}")
    elif name is not None:
        print(find_recipe(name).read_text("utf-8"), end="")
    else:
        loaded = [(p.name, load_recipe(p)) for p in shipped_recipes()]
        rows = [[file, recipe.method.name, recipe.description] for file, recipe in loaded]
        table(["recipe", "method", "what it is"], rows, "Shipped recipes")
