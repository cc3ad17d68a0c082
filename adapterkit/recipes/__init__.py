"""Recipes: merges of one or several stages, in mergekit's words; planned, run, and kept in the manifest."""

from .planning import Plan, plan_recipe
from .recipe import Parent, Recipe, Stage, read_recipe
from .running import run_recipe

__all__ = ["Parent", "Plan", "Recipe", "Stage", "plan_recipe", "read_recipe", "run_recipe"]
