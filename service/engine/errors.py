"""What can go wrong in an extraction, in words that hold no content.

    EngineError 503
    ├── EngineStarting, EngineFailed
    ├── LlmRateLimited, LlmUnavailable, LlmRejected
    ├── LlmAnswerUnparsable, LlmAnswerMalformed
    ├── StoreAway, EmbeddingFailed, ReadFailed, PipelineFailed
    └── StagingMismatch ── NotSupported

A provider's error body, the raw answer and the messages never get into a detail or into an exception's context: all of
them may repeat what a person said.
"""

from __future__ import annotations

from typing import ClassVar

from service.engine.shapes import TokenUsage
from service.errors import MemvaultError, Unavailable


class EngineError(MemvaultError):
    """An extraction failed and nothing was staged.

    `transient` tells whether the same call can succeed later, `max_attempts` how often it is worth trying in all (None:
    as often as the queue allows), `retry_after` how many seconds the provider asked to be left alone.
    """

    status = 503
    code = "engine_error"
    transient: ClassVar[bool] = False
    max_attempts: ClassVar[int | None] = 1

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        #: Whether the LLM was asked by then, and what that used, as far as its provider says.
        self.asked = False
        self.usage: TokenUsage | None = None


class EngineStarting(EngineError):
    """Mem0 is still being imported."""

    code = "starting"
    transient = True
    max_attempts = None


class EngineFailed(EngineError):
    """The engine could not be built; it stays so until the settings are put right and the process is restarted."""

    code = "engine_failed"


class LlmRateLimited(EngineError):
    """The LLM answered 429."""

    code = "llm_rate_limited"
    transient = True
    max_attempts = None


class LlmUnavailable(EngineError):
    """The LLM could not be reached, did not answer in time, or answered with a server error."""

    code = "llm_unavailable"
    transient = True
    max_attempts = None


class LlmRejected(EngineError):
    """The LLM refused the request (400, 401, 403, 404, …): a setting is wrong."""

    code = "llm_rejected"


class LlmAnswerUnparsable(EngineError):
    """The LLM's answer is empty or not JSON. Another try often helps, many do not."""

    code = "llm_answer_unparsable"
    transient = True
    max_attempts = 3


class LlmAnswerMalformed(EngineError):
    """The LLM's answer has another shape than the prompt asks for. Another try often helps, many do not."""

    code = "llm_answer_malformed"
    transient = True
    max_attempts = 3


class StoreAway(EngineError):
    """What an extraction reads from, or its embedding provider, is `away`: it may wait as long as that lasts."""

    code = "store_away"
    transient = True
    max_attempts = None

    def __init__(self, away: Unavailable) -> None:
        super().__init__(away.detail)
        self.away = away.with_traceback(None)
        # What it came from may quote what was asked.
        self.away.__cause__ = self.away.__context__ = None


class EmbeddingFailed(EngineError):
    """The embedder failed or returned something that is not a vector."""

    code = "embedding_failed"
    transient = True
    max_attempts = None


class StagingMismatch(EngineError):
    """Mem0 reported something else than it staged: the seam does not fit this version of Mem0."""

    code = "staging_mismatch"


class NotSupported(StagingMismatch):
    """Mem0 asked its stores for something that a staged call has no answer to."""

    code = "engine_call_not_supported"


class ReadFailed(EngineError):
    """The reader could not read what the extraction needs, for another reason than that a store is away."""

    code = "engine_read_failed"
    transient = True
    max_attempts = None


class PipelineFailed(EngineError):
    """Mem0 raised an error of its own."""

    code = "engine_pipeline_failed"
    transient = True
    max_attempts = 3
