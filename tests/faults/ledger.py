"""What the clients of a storm were told: by it the service is judged when the storm is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Person:
    """One user of one tenant, whose memories one client writes, one call after the other.

    A call without an answer, or with a 503, may have been done or not; all others were.
    """

    key: str
    name: str
    #: Memories that were acknowledged and not deleted, each with the texts that it may have.
    kept: dict[str, set[str]] = field(default_factory=dict)
    #: Memories whose deletion was acknowledged.
    gone: set[str] = field(default_factory=set)
    #: Of `kept`: those whose deletion was asked for and not answered.
    unsure: set[str] = field(default_factory=set)
    #: Texts whose add was asked for and not answered.
    asked: set[str] = field(default_factory=set)
    #: Extractions that were acknowledged, by event, with what was said.
    events: dict[str, str] = field(default_factory=dict)
    erased: bool = False
    #: An erasure was asked for and not answered.
    doubtful: bool = False

    def may_say(self, memory_id: str, text: str) -> bool:
        """Whether a memory may be there with this text."""
        if self.erased or memory_id in self.gone:
            return False
        if memory_id in self.kept:
            return text in self.kept[memory_id]
        return text in self.asked or text in self.events.values()


@dataclass
class Tally:
    """The figures of one storm."""

    asked: int = 0
    acknowledged: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    faults: dict[str, int] = field(default_factory=dict)
    exits: list[int] = field(default_factory=list)
    seconds: float = 0.0
    agreed_after: float = 0.0
    quiet_after: float = 0.0
    persons: int = 0
    erased: int = 0
    memories: int = 0
    extracted: int = 0
    failed_extractions: int = 0
    audit_rows: int = 0

    def lines(self) -> list[str]:
        """Return the figures for a reader."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        kills = sum(code == -9 for code in self.exits)
        others = [code for code in self.exits if code != -9]
        unanswered = ", ".join(f"{count} {what}" for what, count in self.unanswered.most_common())
        return [
            f"{kills} processes killed; {faults}; {len(others)} ended by themselves {sorted(set(others))}",
            f"{self.asked} calls in {self.seconds:.0f} s: {self.acknowledged} acknowledged,"
            f" {self.unanswered.total()} without an answer or refused for now: {unanswered}",
            f"{self.persons} users, {self.erased} erased; {self.memories} memories, {self.extracted} extractions,"
            f" {self.failed_extractions} of them failed",
            f"index and record agreed {self.agreed_after:.1f} s after the storm, the queue was empty after"
            f" {self.quiet_after:.1f} s; {self.audit_rows} rows of the trail verified",
        ]
