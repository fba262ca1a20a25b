"""What an embedder is: the interface that everything else leans on, and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import ConfigurationError, Unavailable

Vector: TypeAlias = NDArray[np.float32]
"""Shape (dimensions,), of length 1."""

Matrix: TypeAlias = NDArray[np.float32]
"""Shape (n, dimensions), each row of length 1."""


class EmbeddingModelMissing(ConfigurationError):
    """The weights, or the graph made of them, cannot be read or written."""

    code = "embedding_model_missing"


class EmbeddingUnavailable(Unavailable):
    """A provider did not answer, or answered with something that is not a vector of the agreed size."""

    code = "embeddings_unavailable"


class EmbeddingRefused(EmbeddingUnavailable):
    """A provider is there and gives no vectors of the agreed size for these texts; waiting does not help by itself."""


class EmbedderClosed(EmbeddingUnavailable):
    """The embedder was closed: the process is shutting down."""


class Embedder(Protocol):
    """Turns text into vectors of length 1. Safe to call from many threads at once.

    A text that has no UTF-8 form (a lone surrogate) raises ValueError. Longer texts than the model reads are cut, not
    refused.
    """

    @property
    def name(self) -> str:
        """The model's name. It is kept beside each vector: vectors of different models are never compared."""
        ...

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        ...

    def embed_query(self, text: str) -> Vector:
        """The vector of a search text."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """The vectors of stored texts, in the order of `texts`. No texts give a matrix of no rows."""
        ...


def require_utf8(text: str) -> str:
    """Return `text`, or raise ValueError if it has no UTF-8 form. The error does not carry the text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        position = error.start
    else:
        return text
    raise ValueError(f"The text to embed has a lone surrogate at position {position}; send well-formed Unicode.")
