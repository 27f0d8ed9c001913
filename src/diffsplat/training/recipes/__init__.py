"""Recipes by the name of the model that they make, and of single networks by their own."""

from diffsplat.training.recipes.embedded_mini_recipe import FEW_STEP_MINI, MINI, TEXT_DIFFUSION_MINI
from diffsplat.training.recipes.model_recipe import NETWORKS, NetworkRecipe, Recipe
from diffsplat.training.recipes.paper_recipes import PAPER_NETWORKS
from diffsplat.training.recipes.small_recipe import SMALL

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (MINI, SMALL)}
"""Models whose stages are trained one after another."""


def network_recipes() -> dict[str, NetworkRecipe]:
    """Everything that one command trains one network of: the stages of models, and single networks."""
    stages = (
        NetworkRecipe(f"{name}-{recipe.name}", f"{NETWORKS[name].replace('_', ' ')} of {recipe.name}", stage)
        for recipe in RECIPES.values()
        for name, stage in recipe.stages.items()
    )
    return {row.name: row for row in (*stages, TEXT_DIFFUSION_MINI, FEW_STEP_MINI, *PAPER_NETWORKS)}
