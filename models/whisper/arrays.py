"""The file of a Whisper in CTranslate2's format: its arrays, by its own names and by openai-whisper's.

The format is plain: a version, a name, named arrays and aliases, little-endian. It joins query, key and value into one
matrix (openai-whisper keeps three, and its key has no bias) and cannot carry code.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

_DTYPES: Final = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # by CTranslate2's number
_FORMAT: Final = 6  # of the file
_REVISION: Final = 3  # of its WhisperSpec
_STACKS: Final = ("encoder", "decoder")

Arrays = dict[str, NDArray[np.generic]]


def read_arrays(file: Path) -> Arrays:
    """The arrays of a `model.bin`, by name; raises ValueError where it is not a Whisper of that format."""
    with file.open("rb") as stream:
        version, specification = _integer(stream), _name(stream)
        if specification != "WhisperSpec":
            raise ValueError(f"{file}: a {specification!r} of format {version}, expected a WhisperSpec")
        _integer(stream)  # revision of the specification
        arrays = dict(_array(stream) for _ in range(_integer(stream)))
        for _ in range(_integer(stream)):
            alias, name = _name(stream), _name(stream)
            arrays[alias] = arrays[name]
    return arrays


def write_arrays(file: Path, arrays: Arrays) -> None:
    """Write a `model.bin` that `read_arrays` reads: arrays that share their memory are written once, with aliases."""
    first: dict[int, str] = {}
    for name, values in arrays.items():
        first.setdefault(id(values), name)
    own = {name: arrays[name] for name in first.values()}
    aliases = {name: first[id(values)] for name, values in arrays.items() if name not in own}
    with file.open("wb") as stream:
        stream.write(struct.pack("<I", _FORMAT) + _packed("WhisperSpec") + struct.pack("<II", _REVISION, len(own)))
        for name, values in own.items():
            stream.write(_packed(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape))
            number = next(number for number, dtype in _DTYPES.items() if values.dtype == dtype)
            stream.write(struct.pack("<BI", number, values.nbytes) + values.tobytes())
        stream.write(struct.pack("<I", len(aliases)))
        for alias, name in aliases.items():
            stream.write(_packed(alias) + _packed(name))


def layers_of(arrays: Arrays, stack: str) -> int:
    """How many layers the `encoder` or the `decoder` has."""
    return len({name.split("/")[1] for name in arrays if name.startswith(f"{stack}/layer_") and name.count("/") > 2})


def renamed(arrays: Arrays) -> list[tuple[str, NDArray[np.generic]]]:
    """The arrays by openai-whisper's names: views, so what is written into them is in `arrays` too."""
    pairs: list[tuple[str, NDArray[np.generic]]] = [
        ("encoder.positional_embedding", arrays["encoder/position_encodings/encodings"]),
        ("decoder.positional_embedding", arrays["decoder/position_encodings/encodings"]),
        ("decoder.token_embedding.weight", arrays["decoder/embeddings/weight"]),
    ]
    for convolution in ("conv1", "conv2"):
        pairs += [
            (f"encoder.{convolution}.{part}", arrays[f"encoder/{convolution}/{part}"]) for part in ("weight", "bias")
        ]
    pairs += _norm(arrays, "encoder/layer_norm", "encoder.ln_post")
    pairs += _norm(arrays, "decoder/layer_norm", "decoder.ln")
    for stack in _STACKS:
        for number in range(layers_of(arrays, stack)):
            pairs += _block(arrays, f"{stack}/layer_{number}", f"{stack}.blocks.{number}", stack == "decoder")
    return pairs


def _block(arrays: Arrays, source: str, target: str, cross: bool) -> list[tuple[str, NDArray[np.generic]]]:
    pairs = _attention(arrays, f"{source}/self_attention", f"{target}.attn", ("query", "key", "value"))
    if cross:
        pairs += _attention(arrays, f"{source}/attention", f"{target}.cross_attn", ("query",), ("key", "value"))
    pairs += _linear(arrays, f"{source}/ffn/linear_0", f"{target}.mlp.0")
    pairs += _linear(arrays, f"{source}/ffn/linear_1", f"{target}.mlp.2")
    return pairs + _norm(arrays, f"{source}/ffn/layer_norm", f"{target}.mlp_ln")


def _attention(
    arrays: Arrays, source: str, target: str, *joined: tuple[str, ...]
) -> list[tuple[str, NDArray[np.generic]]]:
    """`joined` says which projections each of the source's linear layers holds; its last one is the output."""
    pairs = _norm(arrays, f"{source}/layer_norm", f"{target}_ln")
    for number, projections in enumerate(joined):
        weights = np.split(arrays[f"{source}/linear_{number}/weight"], len(projections))
        biases = np.split(arrays[f"{source}/linear_{number}/bias"], len(projections))
        for projection, weight, bias in zip(projections, weights, biases, strict=True):
            pairs.append((f"{target}.{projection}.weight", weight))
            if projection != "key":
                pairs.append((f"{target}.{projection}.bias", bias))
    return pairs + _linear(arrays, f"{source}/linear_{len(joined)}", f"{target}.out")


def _linear(arrays: Arrays, source: str, target: str) -> list[tuple[str, NDArray[np.generic]]]:
    return [(f"{target}.{part}", arrays[f"{source}/{part}"]) for part in ("weight", "bias")]


def _norm(arrays: Arrays, source: str, target: str) -> list[tuple[str, NDArray[np.generic]]]:
    return [(f"{target}.weight", arrays[f"{source}/gamma"]), (f"{target}.bias", arrays[f"{source}/beta"])]


def _integer(stream: BinaryIO) -> int:
    return int(struct.unpack("<I", stream.read(4))[0])


def _packed(name: str) -> bytes:
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def _name(stream: BinaryIO) -> str:
    length = struct.unpack("<H", stream.read(2))[0]
    return stream.read(length).rstrip(b"\0").decode()


def _array(stream: BinaryIO) -> tuple[str, NDArray[np.generic]]:
    name = _name(stream)
    rank = stream.read(1)[0]
    shape = struct.unpack(f"<{rank}I", stream.read(4 * rank))
    dtype = np.dtype(_DTYPES[stream.read(1)[0]])
    content = stream.read(_integer(stream))
    return name, np.frombuffer(content, dtype).reshape(shape)
