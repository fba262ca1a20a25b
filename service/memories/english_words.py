"""The English words that times are made of, and what stands around a time that tells how it is meant."""

from __future__ import annotations

import re
from typing import Final

from service.memories.english_tenses import Tense, tense_at
from service.memories.time_words import COUNTED
from service.memories.weekdays import WEEKDAYS

MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
WEEKDAY: Final = f"(?:{'|'.join(WEEKDAYS)})"
UNIT: Final = r"(?:day|week|fortnight|month|year)s?"
_COUPLE: Final = r"(?:a\s+)?couple(?:\s+of)?"
_NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBER: Final = rf"(?:\d{{1,3}}|an?|{'|'.join(_NUMBERS)}|{_COUPLE})"
#: What is not before such a number: "twenty-one days ago", "half a year ago".
NO_PART: Final = (
    r"(?<!twenty\s)(?<!thirty\s)(?<!forty\s)(?<!fifty\s)(?<!sixty\s)(?<!seventy\s)(?<!eighty\s)(?<!ninety\s)"
    r"(?<!hundred\s)(?<!hundred\sand\s)(?<!half\s)(?<!quarter\sof\s)"
)
_UNITS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_ORDINALS: Final = (
    *(*_UNITS, "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth"),
    *("eighteenth", "nineteenth", "twentieth", *(f"twenty-{unit}" for unit in _UNITS), "thirtieth", "thirty-first"),
)
#: A day of a month in words, from "first" on.
ORDINAL: Final = "(?:{})".format("|".join(word.replace("-", r"[\s-]") for word in reversed(_ORDINALS)))
#: What stands before the year of a month: "in May of 2024", "May 3, 2025", "in March of the year 2025".
OF_YEAR: Final = r",?\s+(?:of\s+)?(?:the\s+year\s+)?"
#: What makes somebody's or something's name of a month before it: "before June moved out", "April's class".
NAMED_SO: Final = (
    r"(?!['’]s\b|\s+['’]\d|\s+(?:\w+ed|was|had|went|left|got|came|told|said|gave|took|became|began|started|met|bought"
    r"|found|made|quit|is|has|does|can|could|will|would|should|might|must)\b)"
)
#: What a number behind a month counts, so that it is no day.
OF_ANYTHING: Final = rf"(?:{COUNTED}|(?:{UNIT}|hours?|minutes?|times)\b)"
#: What may stand behind a weekday, or a number that is a day: no word that it would be the name or the number of.
ALONE: Final = (
    rf"(?=\s*(?:[,;:?!)&/\u2013\u2014]|\.(?!\w)|-\s*{WEEKDAY}|$)|\s+(?:a|about|after|an|and|as|at|because|before|but"
    r"|by|did|during|for|from|he|her|his|how|i|if|in|it|last|my|next|of|on|or|our|she|so|that|the|their|then|they|this"
    r"|through|till|to|until|was|we|were|what|when|where|which|while|who|why|with|you|your)\b)"
)
#: Words that are one end of a span.
ENDS: Final = {"from": "from", "between": "between", "to": "through", "through": "through", "and": "and"}
SIDES: Final = {
    **{"before": "before", "prior to": "before", "earlier than": "before", "until": "until", "till": "until"},
    **{"up to": "up to", "since": "since", "after": "after", "later than": "after"},
    **{"more than": "before", "less than": "since"},
    **ENDS,
}
OPEN: Final = frozenset({"before", "until", "up to", "since", "after"})
OPEN_WORDS: Final = frozenset({"before", "prior to", "earlier than", "until", "till", "up to", "later than", "since"})
#: Before "last year" these make it the last of something: "her last year at school". "Her" alone may be somebody.
OF_SOMEBODY: Final = re.compile(
    r"(?:\b(?:my|your|his|its|our|their)|['’]s|\b(?:after|before|during|for|in|of|on|over|since|until)\s+her)\s+\Z",
    re.IGNORECASE,
)
THE: Final = re.compile(r"\bthe\s+\Z", re.IGNORECASE)
#: Characters that are looked at for a word before a time, and around a time for what may be each year or each week.
_NEAR: Final = 24
_AROUND: Final = 300
_HABIT: Final = re.compile(
    r"\b(?:always|each|ever|every|generally|never|normally|often|regularly|typically|use(?:d)?\s+to|usual(?:ly)?|weekly)\b",
    re.IGNORECASE,
)
#: A question without a verb of the past: "Who comes on Monday?", "appointments on Monday".
_ASKS: Final = re.compile(
    r"\b(?:how|what|when|where|which|who|whom|whose|why|agenda|appointments?|calendar|deadlines?|due|free|plans?|remind"
    r"|reminders?|schedule|tasks?|to-?dos?|upcoming)\b",
    re.IGNORECASE,
)


def said(match: re.Match[str]) -> str:
    """Return the words that say which side of a time is meant, in small letters; the empty text for none."""
    return " ".join((match["side"] or "").lower().split())


def behind(pattern: re.Pattern[str], text: str, end: int) -> bool:
    """Whether a pattern, which ends with its text, takes what stands just in front of a place of it."""
    return pattern.search(text, max(0, end - _NEAR), end) is not None


def counted(words: str) -> int:
    """Return the number that words of `NUMBER` say."""
    word = words.lower()
    if word.isdigit():
        return int(word)
    return _NUMBERS.index(word) + 1 if word in _NUMBERS else 2 if "couple" in word else 1


def in_digits(ordinal: str) -> str:
    """Return the number of a day that a word of `ORDINAL` says."""
    return str(_ORDINALS.index("-".join(ordinal.lower().replace("-", " ").split())) + 1)


def tells_a_habit(text: str, start: int, end: int) -> bool:
    """Whether what is said around a time is of each such time: "every Friday", "what she usually does"."""
    return _HABIT.search(text, max(0, start - _AROUND), end + _AROUND) is not None


def tense_of(text: str, start: int, end: int, *, noted: bool) -> Tense | None:
    """Return the tense around a time; of what was is also what is `noted` of it without a verb: "notes from Monday"."""
    tense = tense_at(text, start, end)
    if tense is None and noted and not _ASKS.search(text, max(0, start - _AROUND), end + _AROUND):
        return Tense.WAS
    return tense
