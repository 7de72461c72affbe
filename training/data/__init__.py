"""What networks learn from: texts, features, augmentation, folds."""
