"""From what size on a tenant's vectors are compressed or given a graph, and how far either is searched."""

from __future__ import annotations

from typing import Final

#: Kilobytes of vectors (200,000 of 384 numbers) below which a tenant is scanned and gets no graph. A scan finds what is
#: nearest whatever the vectors are like; a graph misses more the less they cluster.
SCAN_KB: Final = 300_000
#: Kilobytes of vectors (2,000 of 384 numbers) in one place from which on they are compressed, or indexed at all.
COMPRESS_KB: Final = 3_000
#: The share of a vector's numbers that one byte keeps to scale; those farther out are cut. A server tells it in single
#: precision: what that holds exactly can be compared.
QUANTILE: Final = 127 / 128
#: How many times as many candidates as asked for are compared again by their full vectors.
OVERSAMPLING: Final = {"scalar": 2.0, "turbo": 4.0, "binary": 4.0}
#: Candidates that a walk through a graph keeps in hand.
EF: Final = 512
