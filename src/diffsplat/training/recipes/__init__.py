"""Recipes by the name of the model that they make."""

from diffsplat.training.recipes.mini_recipe import MINI
from diffsplat.training.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {MINI.name: MINI}
