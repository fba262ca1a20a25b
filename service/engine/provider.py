"""One LLM provider of Mem0: built with our time limits and retries, called under a deadline, its errors made ours."""

from __future__ import annotations

import inspect
import threading
from importlib import import_module
from typing import Any, Final
from uuid import UUID

from service.clock import monotonic
from service.engine.errors import (
    EngineError,
    EngineFailed,
    LlmAnswerMalformed,
    LlmRateLimited,
    LlmRejected,
    LlmUnavailable,
)
from service.engine.shapes import LlmSettings, TokenUsage
from service.observability import tracing
from service.observability.metrics import LLM_CALLS, LLM_SECONDS, LLM_USE

_OPENAI_URL: Final = "https://api.openai.com/v1"
_MALFORMED: Final = (LookupError, TypeError, AttributeError, ValueError)
_LONGEST_WAIT: Final = 3600.0
#: Tokens that a call may have used. Some servers say -1 for what they do not count.
_COUNTS: Final = range(2**31)


class Provider:
    """A provider that many threads may ask at once.

    Each call runs in a thread of its own, so that the deadline holds for any provider's client, also for one that has
    no time limit or whose server sends a byte a minute. A call that was given up keeps its slot until it returns.
    """

    def __init__(self, settings: LlmSettings) -> None:
        self.name = settings.provider
        self._timeout = settings.timeout_seconds
        self._slots = threading.BoundedSemaphore(settings.concurrency)
        self._usage = threading.local()
        #: What was wrong with the last call, None when it was answered.
        self.trouble: str | None = None
        self._llm = self._build(settings)

    def ask(
        self, messages: list[dict[str, str]], *, as_json: bool, deadline: float, tenant_id: UUID | None = None
    ) -> tuple[object, TokenUsage | None]:
        """Return the raw answer and the tokens used, as far as the provider says. `deadline` is of `clock.monotonic`.

        Raises LlmRateLimited, LlmUnavailable, LlmRejected or LlmAnswerMalformed, which tells whether a call was made.
        """
        began, usage = monotonic(), None
        try:
            with tracing.span("llm chat", "client") as opened:
                answer, usage = self._ask(messages, as_json=as_json, deadline=deadline)
                if opened is not None:
                    self._describe(opened, tenant_id, usage)
        except EngineError as error:
            self.trouble = error.code
            raise
        else:
            self.trouble = None
        finally:
            LLM_CALLS.labels(self.name, self.trouble or "ok").inc()
            LLM_SECONDS.labels(self.name).observe(monotonic() - began)
            read, written = (0, 0) if usage is None else (usage.prompt, usage.completion)
            LLM_USE.count(tenant_id, read=read, written=written)
        return answer, usage

    def _describe(self, opened: Any, tenant_id: UUID | None, usage: TokenUsage | None) -> None:
        """Put into a span whose call it was and what it used, and nothing of what was said."""
        opened.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.provider.name": self.name})
        if tenant_id is not None:
            opened.set_attribute("memvault.tenant_id", str(tenant_id))
        if usage is not None:
            tokens = {"gen_ai.usage.input_tokens": usage.prompt, "gen_ai.usage.output_tokens": usage.completion}
            opened.set_attributes(tokens)

    def _ask(
        self, messages: list[dict[str, str]], *, as_json: bool, deadline: float
    ) -> tuple[object, TokenUsage | None]:
        began = monotonic()
        deadline = min(deadline, began + self._timeout)
        if not self._slots.acquire(timeout=max(0.0, deadline - began)):
            raise LlmUnavailable("all calls to the LLM that may run at once are busy")
        call = _Call()
        thread = threading.Thread(target=self._run, args=(call, messages, as_json), name="llm-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._slots.release()
            raise
        failure: EngineError | None
        if call.done.wait(timeout=max(0.0, deadline - monotonic())):
            failure = call.failure
        else:
            failure = LlmUnavailable(f"the LLM ({self.name}) did not answer within {deadline - began:.0f} seconds")
        if failure is not None:
            failure.asked = True
            raise failure
        return call.answer, call.usage

    def _run(self, call: _Call, messages: list[dict[str, str]], as_json: bool) -> None:
        self._usage.counted = None
        # Set first, so that a thread that dies of anything else than an Exception does not pass for an answer.
        call.failure = LlmUnavailable(f"the call of the LLM ({self.name}) was cut short")
        try:
            shape: dict[str, Any] = {"response_format": {"type": "json_object"}} if as_json else {}
            call.answer = self._llm.generate_response(messages=messages, **shape)
            call.usage = self._usage.counted
            call.failure = None
        except Exception as error:
            call.failure = failure_of(error, self.name)
        finally:
            self._slots.release()
            call.done.set()

    def _build(self, settings: LlmSettings) -> Any:
        """Make Mem0's LLM. Raises EngineFailed with the reason."""
        factory: Any = import_module("mem0.utils.factory").LlmFactory
        if settings.provider not in factory.provider_to_class:
            known = ", ".join(sorted(factory.provider_to_class))
            raise EngineFailed(f"the LLM provider {settings.provider!r} is unknown to Mem0; it knows {known}")
        config = dict(settings.config)
        accepted = inspect.signature(factory.provider_to_class[settings.provider][1]).parameters
        if "response_callback" in accepted:
            config["response_callback"] = self._count
        if settings.provider == "openai":
            # Named here, so that the environment cannot name another one.
            config["openai_base_url"] = config.get("openai_base_url") or _OPENAI_URL
        failure: EngineFailed
        try:
            llm = factory.create(settings.provider, config)
            _bound_client(llm, settings.timeout_seconds)
        except (ImportError, TypeError) as error:
            # Which package or which key of the config: these texts hold names only.
            failure = EngineFailed(f"the LLM provider {settings.provider!r} cannot be built: {error}")
        except Exception as error:
            failure = EngineFailed(
                f"the LLM provider {settings.provider!r} cannot be built ({type(error).__name__}); "
                "check the key, the URL and the other values of its config"
            )
        else:
            return llm
        raise failure

    def _count(self, _llm: Any, response: Any, _params: Any) -> None:
        """Take the token counts from a response, in the thread that made the call."""
        usage = getattr(response, "usage", None)
        prompt, completion = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if not isinstance(prompt, int) or not isinstance(completion, int):
            return
        if prompt in _COUNTS and completion in _COUNTS:
            self._usage.counted = TokenUsage(prompt, completion)


class _Call:
    """One call under way."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: object = None
        self.usage: TokenUsage | None = None
        self.failure: EngineError | None = None


def _bound_client(llm: Any, timeout: float) -> None:
    """Switch off the retries of the provider's SDK, for the queue decides when to try again, and bound its waiting."""
    client: Any = getattr(llm, "client", None)
    if callable(getattr(client, "with_options", None)):
        llm.client = client.with_options(max_retries=0, timeout=timeout)
        return
    http: Any = getattr(
        client, "_client", None
    )  # Ollama's client has no such option, only the HTTP client inside of it
    if hasattr(http, "timeout"):
        http.timeout = timeout


def failure_of(error: Exception, provider: str) -> EngineError:
    """Return our error for a provider's. Only the status and the class are taken over: the text may repeat a prompt."""
    status = _status(error)
    if status == 429:
        return LlmRateLimited(f"the LLM ({provider}) answered 429: too many requests", retry_after=_retry_after(error))
    if status is not None and (status >= 500 or status in (408, 409, 425)):
        return LlmUnavailable(f"the LLM ({provider}) answered {status}", retry_after=_retry_after(error))
    if status is not None and status >= 400:
        return LlmRejected(f"the LLM ({provider}) answered {status}; check its key, model and URL in the settings")
    if status is not None or isinstance(error, _MALFORMED):
        return LlmAnswerMalformed(f"the answer of the LLM ({provider}) is not one of this kind of API")
    kind = type(error).__name__
    if "timeout" in kind.lower():
        return LlmUnavailable(f"the LLM ({provider}) did not answer in time")
    return LlmUnavailable(f"the LLM ({provider}) cannot be reached ({kind})")


def _status(error: Exception) -> int | None:
    """Return the HTTP status that a provider's exception carries, wherever its SDK puts it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        candidates = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        candidates = [getattr(error, "status_code", None), getattr(error, "code", None)]
        candidates.append(getattr(response, "status_code", None))
    return next((value for value in candidates if isinstance(value, int) and 100 <= value <= 599), None)


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of a Retry-After header, at most an hour; its form with a date is not read."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    try:
        seconds = float(headers["retry-after"]) if headers is not None else None
    except (LookupError, TypeError, ValueError):
        return None
    return min(seconds, _LONGEST_WAIT) if seconds is not None and seconds >= 0 else None
