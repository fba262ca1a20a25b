"""Finds the times that a text in another language than English names, and puts them into English words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from service.settings.languages import Language

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


COUNTED: Final = (
    r"(?:euros?|dollars?|dolares|dollari|franken|francs?|pfund|pounds?|%|€|\$|prozent|percent|km|kg|kilo\w*|grams?|grammi?"
    r"|gramos?|met(?:er|re|ri|ro|ros|res|ers)|miles?|steps?|schritten?|pas|pasos|passi|passos|stappen|people|personen"
    r"|personnes|personas|persone|pessoas)(?!\w)"
)
"""What a number that could be a year counts: then it is none."""
#: In Dutch accents make "before" of "for".
_ACCENTED: Final = {"v\u00f3\u00f3r": "eerder dan"}


class Named(NamedTuple):
    """Where a text names a time, "before", "since", "after", "to" or nothing, and the time in English."""

    start: int
    end: int
    side: str
    time: str


@dataclass(frozen=True)
class TimeWords:
    """The words of one language, as regular expressions without groups that capture, over what `folded` returns.

    `short` are the months cut short, which count before a year only: many are other words too. `numbers` are those
    from one to ten, `one` are the units that can be the last or this one. `{number}`, `{unit}` and `{one}` stand for
    these. `before`, `since` and `after` say which side of a time is meant, `within` that a month or a year follows,
    which alone could be another word or number, `monthly` that a month does. An `article` may stand between these and
    the time, `of` between a day, its month and the year, an `ordinal` behind the number of a day. `to` joins the two
    ends of a span.
    """

    months: tuple[str, ...]
    short: tuple[str, ...]
    numbers: tuple[str, ...]
    units: Mapping[str, str]
    one: Mapping[str, str]
    ago: str
    last: str
    this: str
    days: Mapping[str, str]
    before: str
    since: str
    after: str
    within: str
    monthly: str
    article: str
    of: str
    ordinal: str
    to: str
    present: str
    past: str

    def times(self, text: str) -> Iterator[Named]:
        """Yield the times that a folded text names, one behind the other."""
        sides = {"before": self.before, "since": self.since, "after": self.after, "to": self.to}
        for match in self._times.finditer(text):
            side = _name(sides, match["side"] or match["near"])
            yield Named(match.start(), match.end(), side, self._in_english(match))

    def joins(self, between: str) -> bool:
        """Whether what stands between two times makes a span of them."""
        return re.fullmatch(rf"\s*{_any([self.to])}\s*", between) is not None

    def means_present(self, text: str) -> bool:
        """Whether a folded text means what is so now."""
        return self._present.search(text) is not None

    def means_past(self, text: str) -> bool:
        """Whether a folded text means what is no longer so."""
        return self._past.search(text) is not None

    def _in_english(self, match: re.Match[str]) -> str:
        found = {name: text for name, text in match.groupdict().items() if text is not None}
        match found:
            case {"iso": day}:
                return day
            case {"numeric": numbers}:
                day, month, year = map(int, re.findall(r"\d+", numbers))
                return f"{year:04}-{month:02}-{day:02}"
            case {"ago": words}:
                return f"{self._number(words)} {_name(self.units, words)}s ago"
            case {"last": words}:
                return f"last {_name(self.one, words)}"
            case {"this": words}:
                return f"this {_name(self.one, words)}"
            case {"relative": words} | {"sided_relative": words}:
                return _name(self.days, words)
        months = dict(zip(_MONTHS, map("|".join, zip(self.months, self.short, strict=True)), strict=True))
        named = {kind: _name(months, text) for kind, text in found.items() if kind.endswith("month")}
        return " ".join(named.get(kind, text) for kind, text in found.items() if kind in _PARTS)

    def _number(self, words: str) -> str:
        digits = re.search(r"\d+", words)
        if digits:
            return digits[0]
        return _name({str(number): pattern for number, pattern in enumerate(self.numbers, 1)}, words)

    @cached_property
    def _times(self) -> re.Pattern[str]:
        # Days first: in some languages the day before yesterday begins with "before".
        days, month, sides = _any(self.days.values()), _any(self.months), _any((self.before, self.since, self.after))
        dated = _any((*self.months, *self.short))
        kinds = {
            "number": _any((r"\d{1,3}", *self.numbers)),
            "unit": _any(self.units.values()),
            "one": _any(self.one.values()),
        }
        ago, last, this = (_spaced(words).format_map(kinds) for words in (self.ago, self.last, self.this))
        of = rf"(?:\.\s*|\s+)(?:{_any([self.of])}\s*)?"
        article, to = rf"(?:{_any([self.article])}\s*)?", _any([self.to])
        # The whole expression is verbose, so that a space in it is none.
        return re.compile(
            rf"""\b(?: (?P<relative>{days}) | (?:(?P<side>{sides})\s*{article})? \b(?:
                  (?P<iso>\d{{4}}-\d{{2}}-\d{{2}})
                | (?P<numeric>\d{{1,2}}[./-]\s?\d{{1,2}}[./-]\s?\d{{4}})
                | (?:(?P<day>\d{{1,2}}){self.ordinal}{of})? (?P<month>{dated}){of}(?P<year>\d{{4}})
                | (?P<near_day>\d{{1,2}}){self.ordinal}{of}(?P<day_month>{month})
                | (?P<ago>{ago}) | (?P<last>{last}) | (?P<this>{this})
                | (?P<sided_relative>{days})
            ) | (?P<near>{sides}|{_any([self.within])}|{to}|{_any([self.monthly])}(?!\s*\d))\s*{article} \b(?:
                  (?P<near_month>{month})\b (?!{of}\d{{4}})
                | (?:(?:{self.one["year"]})\s+(?:{_any([self.of])}\s*)?)?
                  (?P<near_year>(?:19|20)\d\d) (?!(?:\s+{to}\s+\d+)?\s*{COUNTED})
            ))\b""",
            re.VERBOSE,
        )

    @cached_property
    def _present(self) -> re.Pattern[str]:
        return re.compile(rf"\b{_any([self.present])}\b")

    @cached_property
    def _past(self) -> re.Pattern[str]:
        return re.compile(rf"\b{_any([self.past])}(?!\w)")


_PARTS: Final = frozenset({"day", "month", "year", "near_day", "day_month", "near_month", "near_year"})


def folded(text: str) -> str:
    """Return a text in lower case, without accents, and with straight apostrophes."""
    plain = unicodedata.normalize("NFC", text.lower().replace("\u2019", "'"))
    for accented, meant in _ACCENTED.items():
        plain = plain.replace(accented, meant)
    return "".join(
        character for character in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(character)
    )


def _any(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(_spaced, patterns))})"


def _spaced(pattern: str) -> str:
    return pattern.replace(" ", r"\s+")


def _name(names: Mapping[str, str], text: str | None) -> str:
    """Return the name whose words a text has; the empty one when it has none of them."""
    return next((name for name, words in names.items() if re.search(rf"\b{_any([words])}(?!\w)", text or "")), "")


def _units(day: str, week: str, month: str, year: str) -> dict[str, str]:
    return {"day": day, "week": week, "month": month, "year": year}


def _one(week: str, month: str, year: str) -> dict[str, str]:
    return {"week": week, "month": month, "year": year}


def _days(today: str, yesterday: str, before: str) -> dict[str, str]:
    # The longer one first: it may hold the word of the other.
    return {"the day before yesterday": before, "yesterday": yesterday, "today": today}


_GERMAN: Final = TimeWords(
    months=(
        *("januar|janner", "februar|feber", "marz|maerz", "april", "mai", "juni"),
        *("juli", "august", "september", "oktober", "november", "dezember"),
    ),
    short=("jan", "feb", "mrz", "apr", "mai", "jun", "jul", "aug", "sept?", "okt", "nov", "dez"),
    numbers=("ein|einem|einer", "zwei", "drei", "vier", "funf|fuenf", "sechs", "sieben", "acht", "neun", "zehn"),
    units=_units("tagen?|tag", "wochen?", "monaten?|monat", "jahren?|jahr"),
    one=_one("woche", "monats?", "jahre?s?"),
    ago="vor {number} {unit}",
    last="(?:letzte|vorige|vergangene)[mnrs]? {one}",
    this="diese[mnrs]? {one}",
    days=_days("heute", "gestern", "vorgestern"),
    before="vor|bis|bis zu[mr]",
    since="seit|ab",
    after="nach",
    within="im|in|wahrend|waehrend|von|vom",
    monthly="anfang|mitte|ende",
    article="de[mnrs]|das",
    of="des",
    ordinal="",
    to="bis|bis zu[mr]",
    present="aktuell(?:e[mnrs]?)?|derzeit(?:ige[mnrs]?)?|momentan(?:e[mnrs]?)?|zurzeit|gegenwartig(?:e[mnrs]?)?|heutzutage"
    "|jetzt|jetzige[mnrs]?|neueste[mnrs]?|jungste[mnrs]?",
    past="fruher(?:e[mnrs]?)?|frueher(?:e[mnrs]?)?|vorher(?:ige[mnrs]?)?|ehemal(?:s|ige[mnrs]?)|damals|ursprunglich|bevor|zuvor",
)
_FRENCH: Final = TimeWords(
    months=(
        *("janvier", "fevrier", "mars", "avril", "mai", "juin"),
        *("juillet", "aout", "septembre", "octobre", "novembre", "decembre"),
    ),
    short=("janv", "fevr", "mars", "avr", "mai", "juin", "juil", "aout", "sept", "oct", "nov", "dec"),
    numbers=("une?", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"),
    units=_units("jours?", "semaines?", "mois", "annees?|ans?"),
    one=_one("semaine", "mois", "annee|an"),
    ago="il y a {number} {unit}",
    last="{one} (?:derniere?|passee?)",
    this="(?:cette|cet|ce) {one}",
    days=_days("aujourd'hui", "hier", "avant-hier"),
    before="avant|jusqu'en|jusqu'au|jusqu'a",
    since="depuis|a partir de|a partir du",
    after="apres",
    within="en|durant|pendant",
    monthly="de|au",
    article="(?:le )?mois de|(?:le )?mois d'|les?|la|l'",
    of="de|d'",
    ordinal="(?:er)?",
    to="a|au|jusqu'a|jusqu'au|jusqu'en",
    present="actuel(?:le)?s?|actuellement|maintenant|en ce moment|de nos jours|(?:la|le|les) plus recente?s?",
    past="avant|auparavant|ancien(?:ne)?s?|anciennement|autrefois|precedemment|precedente?s?|a l'epoque|a l'origine",
)
_SPANISH: Final = TimeWords(
    months=(
        *("enero", "febrero", "marzo", "abril", "mayo", "junio"),
        *("julio", "agosto", "septiembre|setiembre", "octubre", "noviembre", "diciembre"),
    ),
    short=("ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sept?|set", "oct", "nov", "dic"),
    numbers=("una?", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez"),
    units=_units("dias?", "semanas?", "mes(?:es)?", "anos?"),
    one=_one("semana", "mes", "ano"),
    ago="hace {number} {unit}",
    last="{one} (?:pasad[ao]|anterior)|(?:la|el|est[ae]) ultim[ao] {one}",
    this="est[ae] {one}",
    days=_days("hoy(?! en dia)", "ayer", "anteayer|antier|antes de ayer"),
    before="antes del?|hasta",
    since="desde|a partir del?",
    after="despues del?|tras",
    within="en|durante",
    monthly="de",
    article="(?:el )?dia|(?:el )?mes de|el|la",
    of="del?",
    ordinal="(?:°|o)?",
    to="al?|hasta|hasta el",
    present="actual(?:es|mente)?|ahora|en este momento|hoy en dia|mas recientes?",
    past="antes|anterior(?:es|mente)?|antigu[ao]s?|antiguamente|originalmente|previ[ao]s?|previamente|en el pasado"
    "|solia[ns]?",
)
_ITALIAN: Final = TimeWords(
    months=(
        *("gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno"),
        *("luglio", "agosto", "settembre", "ottobre", "novembre", "dicembre"),
    ),
    short=("gen", "feb", "mar", "apr", "mag", "giu", "lug", "ago", "sett?", "ott", "nov", "dic"),
    numbers=("un[ao]?", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci"),
    units=_units("giorn[io]", "settiman[ae]", "mes[ei]", "ann[io]"),
    one=_one("settimana", "mese", "anno"),
    ago="{number} {unit} fa",
    last="{one} (?:scors|passat)[ao]|(?:scors|passat)[ao] {one}",
    this="(?:quest[ao] |quest')(?:{one})",
    days=_days("oggi(?!giorno)", "ieri", "l'altro ieri|altro ieri|l'altroieri|avantieri"),
    before="prima del|prima dell'|prima di|fino al?",
    since="dall'|dal?|a partire dal?",
    after="dopo",
    within="in|nel|nell'|durante",
    monthly="ad?|di|d'",
    article="(?:il )?mese di|il|l'|la|lo",
    of="del?|dell'",
    ordinal="(?:°|o)?",
    to="al?|ad|all'|fino al?",
    present="attual[ei]|attualmente|adesso|in questo momento|oggigiorno|al momento|piu recent[ei]",
    past="prima (?:di|del|dell'|della|dello|che)|prima(?=\\W*$)|precedent[ei]|precedentemente|in passato|un tempo"
    "|originariamente|in origine",
)
_PORTUGUESE: Final = TimeWords(
    months=(
        *("janeiro", "fevereiro", "marco", "abril", "maio", "junho"),
        *("julho", "agosto", "setembro", "outubro", "novembro", "dezembro"),
    ),
    short=("jan", "fev", "mar", "abr", "maio?", "jun", "jul", "ago", "set", "out", "nov", "dez"),
    numbers=("uma?", "dois|duas", "tres", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez"),
    units=_units("dias?", "semanas?", "mes(?:es)?", "anos?"),
    one=_one("semana", "mes", "ano"),
    ago="ha {number} {unit}|{number} {unit} atras",
    last="{one} passad[ao]|ultim[ao] {one}",
    this="n?es[ts][ae] {one}",
    days=_days("hoje(?! em dia)", "ontem", "anteontem|antes de ontem"),
    before="antes d[aeo]|ate",
    since="desde|a partir d[aeo]",
    after="depois d[aeo]|apos",
    within="em|n[ao]|durante",
    monthly="de",
    article="(?:o )?dia|(?:o )?mes de|[ao]",
    of="de",
    ordinal="(?:°|o)?",
    to="ao?|ate|ate o",
    present="atual(?:mente)?|atuais|agora|neste momento|hoje em dia|mais recentes?",
    past="antes|anterior(?:es|mente)?|antig[ao]s?|antigamente|originalmente|no passado|costumava[ms]?",
)
_DUTCH: Final = TimeWords(
    months=(
        *("januari", "februari", "maart", "april", "mei", "juni"),
        *("juli", "augustus", "september", "oktober", "november", "december"),
    ),
    short=("jan", "feb", "mrt", "apr", "mei", "jun", "jul", "aug", "sept?", "okt", "nov", "dec"),
    numbers=("een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen", "tien"),
    units=_units("dagen|dag", "weken|week", "maanden|maand", "jaren|jaar"),
    one=_one("week", "maand", "jaar"),
    ago="{number} {unit} geleden",
    last="(?:vorige?|afgelopen|verleden|laatste) {one}",
    this="(?:deze|dit) {one}",
    days=_days("vandaag", "gisteren", "eergisteren"),
    before="eerder dan|tot",
    since="sinds|vanaf",
    after="na",
    within="in|tijdens|voor",
    monthly="van|begin|eind",
    article="de|het",
    of="van",
    ordinal="e?",
    to="tot|tot en met|t/m",
    present="huidige?|momenteel|nu|tegenwoordig|op dit moment|nieuwste|meest recente",
    past="vroegere?|voorheen|eerdere?|voormalige?|oorspronkelijke?|destijds|voordat",
)

TIME_WORDS: Final[Mapping[Language, TimeWords]] = {
    Language.GERMAN: _GERMAN,
    Language.FRENCH: _FRENCH,
    Language.SPANISH: _SPANISH,
    Language.ITALIAN: _ITALIAN,
    Language.PORTUGUESE: _PORTUGUESE,
    Language.DUTCH: _DUTCH,
}
"""The languages whose times are understood beside English."""
