"""The published networks: AMSER, Amser+, and the three that those papers compare with (R23).

Written from their papers' descriptions; those three read log-Mel and words. All take their sizes from `FusionConfig`
and are trained and judged as ours are.
"""
