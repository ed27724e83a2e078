"""`zssbir recipes`."""

import typer

from zssbir_cli.cli import complete, options
from zssbir_cli.cli.options import flag


def recipes(
    context: typer.Context,
    name: str | None = typer.Argument(
        None, metavar="RECIPE", autocompletion=complete.recipes, help="Print this recipe."
    ),
    keys: bool = flag("List every key a recipe can have.", "--keys"),
    markdown: bool = flag("With --keys: as Markdown (docs/recipes.md).", "--markdown"),
) -> None:
    """List the shipped recipes, print one, or explain every key.

    Example: zssbir recipes mobilenet > mine.yaml
    """
    from zssbir_cli.cli.console import table
    from zssbir_cli.errors import UsageError
    from zssbir_cli.recipe.loader import find_recipe, load_recipe, shipped_recipes
    from zssbir_cli.recipe.reference import all_keys, reference_markdown

    if keys:
        options.allow_only(context, "--keys", "keys", "markdown")
    if markdown and not keys:
        raise UsageError("--markdown needs --keys")
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
