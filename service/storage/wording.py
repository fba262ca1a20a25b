"""Tells when two texts are worded alike: what may differ between them is never what makes another fact.

To an embedding model "Alice owes Bob 50" is nearly "Bob owes Alice 50" (a cosine of 0.99), and so with a year, a
preposition or a denial, while "I am vegetarian" and "I'm vegetarian" are at 0.92: no bound parts them. So the words
decide, all of them in their order, with every number, sign and denial; a cosine can only speak against it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

#: What may stand at the end of a text without a meaning. A question mark has one, and so has a closing bracket.
_CLOSING: Final = " .!…。！｡"
#: Vowel signs, accents and the like, which are no letters to `\w`: without them a word of Hindi falls apart.
_MARKS: Final = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)).startswith("M"))
_LETTER: Final = rf"[\w{_MARKS}]"
#: Marks on one letter, more than any language puts there. To bring thousands into their order takes quadratic time.
_MANY_MARKS: Final = re.compile(rf"[{_MARKS}]{{30}}(?=[{_MARKS}])")
_NO_ORDER_ACROSS: Final = "\u034f"
_IN_WORDS: Final = str.maketrans(dict.fromkeys(_MARKS + "-", ""))
_APOSTROPHES: Final = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc`\u00b4", "'"))
#: A number keeps what is inside of it ("1.5", "10:30", "2019-04-01"), a word its apostrophes, inner dots and hyphens. A
#: quotation mark behind a number is a measure (5', 5").
_PIECE: Final = re.compile(rf"\d+(?:[.,:/\-]\d+)*['\"]|\d+(?:[.,:/\-]\d+)+|{_LETTER}+(?:['.&/@\-]{_LETTER}+)*|[^\w\s]")
#: Written without a meaning of their own. Signs of every other kind ("-5", "C++", "50 %", "?", ":)") are kept.
_PASSED_OVER: Final = frozenset(",;:.!\"'…、。“”„«»‹›¡")
#: Where one of these says something: the point of a number that begins with it (".5", ",5"), and a denial ("!=", "!x").
_SPEAKING: Final = re.compile(rf"(?<!{_LETTER})(?:[.,](?=\d)|!(?={_LETTER}))|!(?==)")
#: Forms of a digit that are not the digit: 2⁵ is not 25, 1½ is not 11/2.
_RAISED: Final = {"<super>": "^", "<sub>": "_", "<fraction>": " "}
#: Words that a sentence may do without. "a" is none: "has few friends" is not "has a few friends".
_FILLERS: Final = frozenset({"the", "that", "really", "actually", "also"})
_DENIALS: Final = frozenset({"not", "no", "never", "nor", "neither", "none", "nothing", "nobody", "without", "hardly"})
_SHORT: Final = {"'m": "am", "'re": "are", "'ve": "have", "'ll": "will"}
_DENIED: Final = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not"}


def plain(text: str) -> str:
    """Return a text without what is no part of what it says: forms of the same letter, case, spaces, its full stop."""
    spaced = " ".join(_folded(_composed(text)).split())
    return spaced.rstrip(_CLOSING) or spaced


def gist(text: str) -> tuple[str, ...]:
    """Return the words, numbers and signs of a text in their order, without punctuation and needless words.

    Contractions are written out. "The" before a name is a part of it ("the Police"), "that" at the end of a text says
    something, and in a text with a denial every word may ("I really don't care").
    """
    pieces = list(_pieces(_composed(text), speaking=True))
    words = [_folded(piece) for piece in pieces]
    denied = not _DENIALS.isdisjoint(words)
    return tuple(
        word
        for word, after in zip(words, [*pieces, ""][1:], strict=True)
        if word not in _FILLERS or denied or (word == "the" and after[:1].isupper()) or (word == "that" and not after)
    ) or tuple(words)


def roughly(text: str) -> str:
    """Return what texts with the same `plain` form or the same `gist` have in common, by which they are looked up.

    The record keeps a number of it (`likeness`), so another form of it would find nothing that is stored already.
    """
    return " ".join(word for word in _pieces(plain(text)) if word not in _FILLERS)


def _composed(text: str) -> str:
    if not text.isascii():
        text = _MANY_MARKS.sub(rf"\g<0>{_NO_ORDER_ACROSS}", text)
        forms = ((letter, unicodedata.decomposition(letter).partition(" ")[0]) for letter in set(text))
        text = text.translate({ord(letter): _RAISED[form] + letter for letter, form in forms if form in _RAISED})
    return unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)


def _folded(text: str) -> str:
    # Not `casefold`, to which "in Maßen" (moderately) is "in Massen" (in masses). A final sigma is no other letter.
    return unicodedata.normalize("NFKC", text.lower().replace("ς", "σ"))


def _pieces(text: str, *, speaking: bool = False) -> Iterator[str]:
    for found in _PIECE.finditer(text):
        if found[0] not in _PASSED_OVER:
            yield from _written_out(found[0])
        elif speaking and _SPEAKING.match(text, found.start()):
            yield found[0]


def _written_out(piece: str) -> list[str]:
    lower = piece.lower()
    if lower in _DENIED:
        return _DENIED[lower].split()
    if "'" in piece:
        if lower.endswith("n't"):
            return [piece[:-3], "not"]
        for short, long in _SHORT.items():
            if lower.endswith(short):
                return [piece[: -len(short)], long]
    return piece.split("-") if "-" in piece and piece.translate(_IN_WORDS).isalpha() else [piece]
