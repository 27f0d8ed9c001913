"""Training: recipes, stages and the trainer."""
