"""An embedder outside this process, reached through Mem0's zoo of providers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias

import numpy as np

from service.embeddings.embedder import EmbeddingRefused, EmbeddingUnavailable, Matrix, Vector, require_utf8
from service.errors import ConfigurationError

_NEEDS_URL: Final = {
    "openai": "openai_base_url",
    "ollama": "ollama_base_url",
    "lmstudio": "lmstudio_base_url",
    "huggingface": "huggingface_base_url",
}
"""Without their URL these would ask the environment for one, go to a public address, or download a model."""

_REFUSED: Final = {
    "fastembed": "it downloads its model at run time",
    "langchain": "it takes an object of Python, which settings cannot hold",
}


_OF_THE_TEXTS: Final = frozenset({400, 413, 422})
"""What providers answer to texts that they never take, such as one that is too long or too many at once."""

_LEAST_CHARS: Final = 200
"""A text that is refused and no longer than this is refused for something else than its length."""

_Ask: TypeAlias = Callable[[Sequence[str]], Any]


class ProviderEmbedder:
    """An `Embedder` on one of Mem0's providers. Vectors are brought to length 1, whatever the provider answers.

    `config` is Mem0's own configuration of that provider; the URL must be named in it. `dimensions` is what the model
    answers with. `prepare` imports Mem0 with telemetry and downloads off; it is called first, and takes seconds.
    `timeout` is in seconds and holds for the clients that have such an option. Raises `ConfigurationError` when the
    provider cannot be built, `EmbeddingUnavailable` when a call fails, as `EmbeddingRefused` where that is because of
    its texts or of the model; none repeats a text or the provider's words.
    """

    def __init__(
        self,
        provider: str,
        config: Mapping[str, Any],
        *,
        dimensions: int,
        prepare: Callable[[], None],
        timeout: float,
    ) -> None:
        if reason := _REFUSED.get(provider):
            raise ConfigurationError(f"The embedding provider {provider!r} is not offered: {reason}.")
        if (key := _NEEDS_URL.get(provider)) and not config.get(key):
            raise ConfigurationError(f"The embedding provider {provider!r} needs {key!r} in its config.")
        if not config.get("model"):
            raise ConfigurationError(f"The embedding provider {provider!r} needs 'model' in its config.")
        prepare()
        self._provider = provider
        self._mem0 = _build(provider, config, timeout)
        self.name: Final = f"{provider}/{config['model']}"
        self.dimensions: Final = dimensions

    def embed_query(self, text: str) -> Vector:
        """See `Embedder`."""
        vector: Vector = self._embedded([_prompt(text)], lambda prompts: [self._mem0.embed(prompts[0], "search")])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder`. One call, or as many as Mem0 makes of it for this provider; more where that is refused."""
        prompts = [_prompt(text) for text in texts]
        if not prompts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        return self._embedded(prompts, lambda some: self._mem0.embed_batch(list(some), "add"))

    def _embedded(self, prompts: Sequence[str], ask: _Ask) -> Matrix:
        """Return the vectors of texts. Of several that are refused each half is asked for alone; a long one is cut."""
        failed, is_refused = "", False
        try:
            vectors = np.array(ask(prompts), dtype=np.float32)
        except Exception as error:
            # Only the kind is taken over, and no cause: a provider's error may repeat the text.
            failed, is_refused = type(error).__name__, getattr(error, "status_code", None) in _OF_THE_TEXTS
        if not failed:
            return self._checked(vectors, len(prompts))
        if is_refused and len(prompts) > 1:
            half = len(prompts) // 2
            return np.concatenate([self._embedded(part, ask) for part in (prompts[:half], prompts[half:])])
        if is_refused and len(prompts[0]) > _LEAST_CHARS:
            # It may be longer than the model reads, and how much that is only the provider knows.
            return self._embedded([prompts[0][: len(prompts[0]) // 2]], ask)
        failure = EmbeddingRefused if is_refused else EmbeddingUnavailable
        raise failure(f"The embedding provider {self._provider!r} failed ({failed}); try again later.")

    def _checked(self, vectors: Matrix, rows: int) -> Matrix:
        if vectors.shape != (rows, self.dimensions):
            raise EmbeddingRefused(
                f"The embedding provider {self._provider!r} answered with the shape {vectors.shape} instead of "
                f"{(rows, self.dimensions)}; check the model and the dimensions in the settings."
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise EmbeddingRefused(
                f"The embedding provider {self._provider!r} answered with a vector that is zero or not finite."
            )
        normalised: Matrix = vectors / lengths
        return normalised


def _prompt(text: str) -> str:
    # Most providers refuse an empty text, which is none of the caller's business.
    return require_utf8(text) or " "


def _build(provider: str, config: Mapping[str, Any], timeout: float) -> Any:
    factory: Any = import_module("mem0.utils.factory").EmbedderFactory
    if provider not in factory.provider_to_class:
        known = ", ".join(sorted(set(factory.provider_to_class) - set(_REFUSED)))
        raise ConfigurationError(f"The embedding provider {provider!r} is unknown to Mem0; it knows {known}.")
    try:
        embedder = factory.create(provider, dict(config), None)
    except (ImportError, TypeError) as error:
        # Which package, or which key of the config: these texts hold names only.
        problem = f": {error}"
    except Exception as error:
        problem = f" ({type(error).__name__}); check the key, the URL and the other values of its config."
    else:
        client: Any = getattr(embedder, "client", None)
        if callable(getattr(client, "with_options", None)):
            embedder.client = client.with_options(timeout=timeout, max_retries=1)
        elif hasattr(getattr(client, "_client", None), "timeout"):
            client._client.timeout = timeout  # Ollama's client has it only inside
        return embedder
    raise ConfigurationError(f"The embedding provider {provider!r} cannot be built{problem}")
