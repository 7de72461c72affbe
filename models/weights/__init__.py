"""Where the weights come from: `python -m models.weights {list,fetch,verify}`, and `model_path` for the stages.

Serving never downloads. A stage asks `model_path("whisper-base")` and gets a folder whose files are the ones that the
catalogue (`weights.yaml`) names by SHA-256, or an error that holds the command that brings them. `store` keeps the
folder, `sources` brings files, `catalogue` is the schema.
"""

from models.weights.store import (
    FetchFailed,
    UnknownModel,
    WeightsMissing,
    adapted_from,
    cache_folder,
    default_store,
    fetch,
    fingerprint,
    model_path,
    verify,
)

__all__ = [
    "FetchFailed",
    "UnknownModel",
    "WeightsMissing",
    "adapted_from",
    "cache_folder",
    "default_store",
    "fetch",
    "fingerprint",
    "model_path",
    "verify",
]
