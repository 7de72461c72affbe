"""How networks learn: objective, loop, curriculum, cross-validation."""
