"""Verbs that give information without training: list, explain, cost."""

from __future__ import annotations

from typing import Annotated

import typer

from modalift.cli.common import AsJson, Overrides, RecipeName, print_result, recipe_of

verbs = typer.Typer()


@verbs.command("list", rich_help_panel="Information", epilog="Example: `modalift list networks`")
def list_registered(
    what: Annotated[str, typer.Argument(
        metavar="WHAT", help="schemes, networks, modalities, datasets, derived, recipes or keys")] = "schemes",
    as_json: AsJson = False,
) -> None:
    """List what is available: schemes, networks, modalities, datasets, derived views, recipes, or the keys of a recipe."""
    from modalift.report import listing

    data, table = listing.listing(what)
    print_result(as_json, data, table)


@verbs.command(rich_help_panel="Information", epilog="Example: `modalift explain utd_mhad/distill_pose`")
def explain(recipe: RecipeName, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Describe a recipe before training: its networks (trained or frozen, deployed or not), cost and loss terms."""
    from modalift.engine.build import assemble
    from modalift.report import explain as explaining

    experiment = assemble(recipe_of(recipe, overrides), train=False)
    print_result(as_json, explaining.as_json(experiment), explaining.render(experiment))


@verbs.command(rich_help_panel="Information",
               epilog="Example: `modalift cost tsm backbone=resnet50 --classes 83 --input 3x8x224x224 --paper-msd`")
def cost(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="a network family, see `modalift list networks`")],
    options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="the family's options")] = None,
    classes: Annotated[int, typer.Option(help="number of classes")] = 27,
    clip: Annotated[str | None, typer.Option("--input", metavar="CxTxHxW", help="channels, frames, height and width of a "
                                             "clip, such as 3x8x224x224, or 60x32x1x1 for a signal; default: the "
                                             "family's")] = None,
    paper_msd: Annotated[bool, typer.Option("--paper-msd", help="also print GFLOPs as the MSD paper counts them")] = False,
    as_json: AsJson = False,
) -> None:
    """Count a network's parameters, multiply-accumulates per clip and the activations kept for the backward pass."""
    from modalift.networks import has_classes
    from modalift.overrides import key_values
    from modalift.report import costing

    given = dict(key_values(options or [], "option"))
    extents = costing.clip_of(network) if clip is None else costing.read_extents(clip)
    found = costing.figures(costing.make(network, classes, extents, given), extents, paper_msd)
    class_count = {"classes": classes} if has_classes(network) else {}
    named = ", ".join([" ".join([network, *(options or [])]), *(f"{v} {k}" for k, v in class_count.items())])
    print_result(as_json, {"network": network, "options": given, **class_count, "input": str(extents), **found},
        costing.render(f"{named}, clip of {str(extents).replace('x', ' x ')}", found),
        *([costing.LEGACY_NOTE] if paper_msd else []))
