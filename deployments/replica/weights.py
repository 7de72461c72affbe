"""The weights of a replica, found on the node that it runs on."""

from __future__ import annotations

import socket
from pathlib import Path

import ray

from models.resolve import OtherWeights, Wanted, locate
from models.weights import UnknownModel, WeightsMissing


def on_this_node(model: Wanted) -> Path | str:
    """Where a model is on this node, or its id of Hugging Face.

    Raises:
        WeightsMissing: it is not here, or another one is. The text names the node and the command that brings it.
    """
    try:
        return locate(model)
    except (WeightsMissing, UnknownModel, OtherWeights) as error:
        raise WeightsMissing(f"on node {node_name()}: {error}") from error


def node_name() -> str:
    """As operators know it: its host, and its address and id in Ray where Ray runs."""
    if not ray.is_initialized():
        return socket.gethostname()
    node_id = ray.get_runtime_context().get_node_id()
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()}, {node_id[:12]})"
