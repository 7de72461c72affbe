"""The networks that the papers compare with (R23), and a linear probe as the floor below them all.

The networks are written from their papers' descriptions. They read log-Mel and words, as published, take their sizes
from `FusionConfig` and are trained and judged as ours are.
"""
