"""The built-in embedder: all-MiniLM-L6-v2 on ONNX Runtime, on the CPU, without a network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from service.embeddings.embedder import EmbeddingModelMissing, Matrix, Vector, require_utf8
from service.embeddings.minilm_graph import DIMENSIONS, MAX_PIECES, ensure_graph, find_model

# ONNX Runtime reports to its makers, and writes an id of the machine into the home folder, from its import on: before
# `disable_telemetry_events` can be called. Only this variable prevents it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

MAX_BATCH_PIECES: Final = 512
"""How many word pieces, padding included, run at once. More is not faster and takes more memory, which is then kept."""

_FIRST_CUT: Final = 8 * 1024
_MAX_THREADS: Final = 8


class MiniLM:
    """all-MiniLM-L6-v2 (`Embedder`): 384 dimensions; reads the first 256 word pieces of a text.

    `folder` keeps the ONNX graph, written at the first start (90 MB). `threads` is how many threads one run may use;
    0 means one per core that the process may use, at most eight. Name it where a container has a CPU quota, which the
    number of cores does not show. Raises `EmbeddingModelMissing` if the weights are not installed or the graph cannot
    be written or read. Do not use an instance on both sides of a fork.
    """

    name: Final = "all-MiniLM-L6-v2"
    dimensions: Final = DIMENSIONS

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        # `encode` for one text only is used, never `encode_batch`: it starts no threads, so that a later fork is
        # safe and TOKENIZERS_PARALLELISM does not matter.
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(find_model() / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_PIECES)
        self._tokenizer.no_padding()
        self._session = _open(ensure_graph(folder), threads or min(_cores(), _MAX_THREADS))

    def embed_query(self, text: str) -> Vector:
        """See `Embedder`. 4 ms for a sentence on two cores, 40 ms for 256 word pieces."""
        vector: Vector = self._run([self._pieces(text)])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder`. Texts of like length run together, so that little is spent on padding."""
        pieces = [self._pieces(text) for text in texts]
        vectors = np.empty((len(pieces), DIMENSIONS), dtype=np.float32)
        for rows in _batches([len(row) for row in pieces]):
            vectors[rows] = self._run([pieces[row] for row in rows])
        return vectors

    def _run(self, pieces: list[NDArray[np.int32]]) -> Matrix:
        shape = (len(pieces), max(map(len, pieces)))
        ids, mask = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        for row, values in enumerate(pieces):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = 1
        vectors: Matrix = self._session.run(["vectors"], {"ids": ids, "mask": mask})[0]
        return vectors

    def _pieces(self, text: str) -> NDArray[np.int32]:
        """The ids of the word pieces of `text`, at most 256, as if it had been tokenised whole."""
        require_utf8(text)
        # The tokenizer works through the whole text before it cuts (200 ms for 100,000 characters), so it gets a
        # beginning, and a longer one if the last word of that, which may be cut in two, is among the pieces kept.
        cut = _FIRST_CUT
        encoding: Encoding = self._tokenizer.encode(text[:cut])
        while cut < len(text) and not _ends_before_last_word(encoding):
            cut *= 4
            encoding = self._tokenizer.encode(text[:cut])
        return np.array(encoding.ids, dtype=np.int32)


def _ends_before_last_word(encoding: Encoding) -> bool:
    """Whether truncation left out the whole last word of what was tokenised."""
    if not encoding.overflowing:
        return False
    # Each part ends with the separator, which belongs to no word.
    return bool(encoding.overflowing[-1].word_ids[-2] != encoding.word_ids[-2])


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers, shortest first, in groups of at most `MAX_BATCH_PIECES` when padded to their longest."""
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[row] > MAX_BATCH_PIECES:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _open(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take whole cores from the rest of the service, and a query is not faster with them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's errors share no base class of their own.
        raise EmbeddingModelMissing(
            f"ONNX Runtime cannot read the graph {graph}. Delete it and the .weights file beside it, and start again: "
            "they are written anew."
        ) from error
