"""The engine: Mem0's extraction, built once, run per call on staged stores; its errors become ours.

Importing this package does not import Mem0: `Engine.start_loading` does, in the background.
"""

from service.engine.answers import AnswerLimits
from service.engine.engine import Engine
from service.engine.environment import refuse_environment
from service.engine.errors import (
    EmbeddingFailed,
    EngineError,
    EngineFailed,
    EngineStarting,
    LlmAnswerMalformed,
    LlmAnswerUnparsable,
    LlmRateLimited,
    LlmRejected,
    LlmUnavailable,
    NotSupported,
    StagingMismatch,
    StoreAway,
)
from service.engine.mem0_import import import_mem0
from service.engine.shapes import Counts, Draft, Extraction, LlmSettings, Reader, Recalled, TokenUsage, tokens_of

__all__ = [
    "AnswerLimits",
    "Counts",
    "Draft",
    "EmbeddingFailed",
    "Engine",
    "EngineError",
    "EngineFailed",
    "EngineStarting",
    "Extraction",
    "LlmAnswerMalformed",
    "LlmAnswerUnparsable",
    "LlmRateLimited",
    "LlmRejected",
    "LlmSettings",
    "LlmUnavailable",
    "NotSupported",
    "Reader",
    "Recalled",
    "StagingMismatch",
    "StoreAway",
    "TokenUsage",
    "import_mem0",
    "refuse_environment",
    "tokens_of",
]
