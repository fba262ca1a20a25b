"""Tells when two texts are worded alike: what may differ between them is never what makes another fact.

To an embedding model "Alice owes Bob 50" is nearly "Bob owes Alice 50" (a cosine of 0.99), and so with a year, a
preposition or a denial, while "I am vegetarian" and "I'm vegetarian" are at 0.92: no bound parts them. So the words
decide, all of them in their order, with every number, sign and denial; a cosine can only speak against it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
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
#: Where one of these says something: the point of what begins with it (".5", ",5", ".NET"), a denial ("!=", "!x").
_SPEAKING: Final = re.compile(rf"(?<!{_LETTER})(?:,(?=\d)|[.!](?={_LETTER}))|!(?==)")
#: What parts a sentence, and so tells in one with a denial what is denied: "no, meat is fine" is not "no meat is fine".
PARTING: Final = frozenset(",;:.!…、。")
#: What parts the items of a list where it stands between two words: "soy, milk and nuts" is not "soy milk and nuts".
_LISTING: Final = re.compile(rf"(?:(?<=[^\W\d_])|(?<=[{_MARKS}]))[,;、]\s*(?=[^\W\d_])")
_LISTS: Final = frozenset(",;、")
#: Words behind which it parts no items, and those before which it may stand or not.
_ADDING: Final = frozenset({"really", "actually", "also"})
_OPENING: Final = _ADDING | {"yes", "hi", "hello", "hey", "ok", "okay", "well", "so", "oh"}
_JOINING: Final = _ADDING | {"and", "or"}
#: A word as case is looked at in it, and the letters of one script in it: digits and endings are written onto units.
_WORD: Final = re.compile(r"\w+")
_RUN: Final = re.compile(r"[A-Za-zΩμ]+|[А-Яа-я]+")
#: Units whose prefix or name is another one in another case: milli and mega, bits and bytes, molar and metre.
_UNITS: Final = frozenset(
    {f"m{unit}" for unit in ("W", "Wh", "V", "VA", "A", "J", "N", "Pa", "Hz", "Ω", "eV", "T", "S", "Sv", "M")}
    | {f"м{unit}" for unit in ("Вт", "В", "А", "Дж", "Н", "Па", "Гц", "Ом", "эВ", "Тл", "Зв")}
    | {f"{prefix}{unit}" for prefix in "KMGT" for unit in ("b", "Bps")}
    | {f"{prefix}б" for prefix in "КМГТ"}
    | {"kB", "KB", "kBps", "кБ", "КБ", "Mg", "ML", "nM", "μM"}
)
#: Forms of a digit that are not the digit: 2⁵ is not 25, 1½ is not 11/2.
_RAISED: Final = {"<super>": "^", "<sub>": "_", "<fraction>": " "}
#: Words that a sentence may do without. "a" is none: "has few friends" is not "has a few friends".
_FILLERS: Final = _ADDING | {"the", "that"}
#: The same with what may part the items of a list.
_NEEDLESS: Final = _FILLERS | _LISTS
#: Behind one of these "the" says which: "out of question" is the contrary of "out of the question".
_PREPOSITIONS: Final = frozenset(
    {"at", "behind", "by", "from", "in", "into", "of", "off", "on", "out", "to", "under", "with"}
)
_DENIALS: Final = frozenset(
    {"not", "no", "never", "nor", "neither", "none", "nothing", "nobody", "without", "hardly"}
    # German, Dutch; French, Italian; Spanish, Portuguese.
    | {"nicht", "kein", "keine", "keinen", "nie", "ohne", "niet", "geen", "nooit", "zonder"}
    | {"pas", "jamais", "sans", "non", "mai", "senza", "nunca", "sin", "não", "nem", "sem"}
)
_SHORT: Final = {"'m": "am", "'re": "are", "'ve": "have", "'ll": "will"}
_DENIED: Final = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not"}


def plain(text: str) -> str:
    """Return a text without what is no part of what it says: forms of the same letter, case, spaces, its full stop.

    Codes ("X7kQ2") and units ("mW", "Mb") keep their case: in another one they are others.
    """
    return _closed(_cased(_composed(text)))


def gist(text: str) -> tuple[str, ...]:
    """Return the words, numbers and signs of a text in their order, without punctuation and needless words.

    Contractions are written out. "The" before a name is a part of it ("the Police"), behind a preposition it says which
    ("in the office"), "that" at the end of a text says something, and in a text with a denial every word and sign may
    ("I really don't care", "no, meat is fine"). A comma between two words parts them, but behind "yes" and before
    "and".
    """
    composed = _composed(text)
    pieces = list(_pieces(composed, speaking=_speaks))
    words = [_cased(piece) for piece in pieces]
    if not _DENIALS.isdisjoint(words):
        parted = _pieces(_closed(composed), speaking=lambda piece, at: piece[at] in PARTING)
        return tuple(_cased(piece) for piece in parted)
    around = zip(["", *words], words, [*pieces, ""][1:], strict=False)
    kept = tuple(word for before, word, after in around if word not in _NEEDLESS or _says(word, before, after))
    return kept or tuple(words)


def roughly(text: str) -> str:
    """Return what texts with the same `plain` form or the same `gist` have in common, by which they are looked up.

    The record keeps a number of it (`likeness`), so another form of it would find nothing that is stored already.
    """
    return " ".join(word for word in _pieces(_closed(_folded(_composed(text)))) if word not in _FILLERS)


def _speaks(text: str, at: int) -> object:
    return _SPEAKING.match(text, at) or _LISTING.match(text, at)


def _says(filler: str, before: str, after: str) -> bool:
    """Tell whether what a sentence may do without says something between these two."""
    if filler in _LISTS:
        # The comma of ",5 kg" stands before a digit, and one that parts items before a word.
        return after[:1].isdigit() or (before not in _OPENING and after.lower() not in _JOINING)
    if filler == "the":
        return after[:1].isupper() or before in _PREPOSITIONS
    return filler == "that" and not after


def _closed(text: str) -> str:
    spaced = " ".join(text.split())
    return spaced.rstrip(_CLOSING) or spaced


def _cased(text: str) -> str:
    """Return a text in one case, but for the words whose case is not that of a sentence."""
    parts, at = [], 0
    for found in _WORD.finditer(text):
        if _is_code(found[0]):
            parts += [_folded(text[at : found.start()]), found[0]]
            at = found.end()
    return "".join([*parts, _folded(text[at:])])


def _is_code(word: str) -> bool:
    """Tell whether a word with digits has letters of both cases in another way than "Covid19", or has such a unit."""
    if not _UNITS.isdisjoint(_RUN.findall(word)):
        return True
    if word.isalpha() or word.isdigit():
        return False
    letters = "".join(letter for letter in word if letter.isalpha())
    return not (letters.islower() or letters.isupper() or letters[1:] == letters[1:].lower())


def _composed(text: str) -> str:
    if not text.isascii():
        text = _MANY_MARKS.sub(rf"\g<0>{_NO_ORDER_ACROSS}", text)
        forms = ((letter, unicodedata.decomposition(letter).partition(" ")[0]) for letter in set(text))
        text = text.translate({ord(letter): _RAISED[form] + letter for letter, form in forms if form in _RAISED})
    return unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)


def _folded(text: str) -> str:
    # Not `casefold`, to which "in Maßen" (moderately) is "in Massen" (in masses). A final sigma is no other letter.
    return unicodedata.normalize("NFKC", text.lower().replace("ς", "σ"))


def _pieces(text: str, *, speaking: Callable[[str, int], object] = lambda text, at: False) -> Iterator[str]:
    """Yield the words, numbers and signs of a text; what is passed over else, where it is `speaking`."""
    for found in _PIECE.finditer(text):
        if found[0] not in _PASSED_OVER:
            yield from _written_out(found[0])
        elif speaking(text, found.start()):
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
