"""Text to vectors: the built-in all-MiniLM-L6-v2 on ONNX Runtime, or a provider that is reached through Mem0."""

from service.embeddings.embedder import (
    Embedder,
    EmbedderClosed,
    EmbeddingModelMissing,
    EmbeddingRefused,
    EmbeddingUnavailable,
    Matrix,
    Vector,
)

__all__ = [
    "Embedder",
    "EmbedderClosed",
    "EmbeddingModelMissing",
    "EmbeddingRefused",
    "EmbeddingUnavailable",
    "Matrix",
    "Vector",
]
