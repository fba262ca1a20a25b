"""How strong a candidate is among those of its request, from its meaning and its words."""

from __future__ import annotations

from typing import Final

#: What the best BM25 of a request counts in its order, where the best cosine counts 1.
WORDS: Final = 0.5
#: The least BM25 that counts that much; a lesser best counts in proportion. It has hardly more than one word of the
#: question, often in another sense, and must not go before what is nearer by meaning for being the best there is.
ENOUGH: Final = 12.0


def strength(semantic: float, bm25: float, best_bm25: float) -> float:
    """Return what a candidate's order in one request goes by, as long as it stands alone."""
    return max(semantic, 0.0) + (WORDS * bm25 / max(best_bm25, ENOUGH) if bm25 > 0 else 0.0)
