"""Finds the times that a text in another language than English names, and puts them into English words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from service.settings.languages import Language

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


@dataclass(frozen=True)
class TimeWords:
    """The words of one language, as regular expressions without groups that capture, over what `folded` returns.

    `numbers` are those from one to ten, `one` are the units that can be the last or this one. `{number}`, `{unit}` and
    `{one}` stand for these. `before`, `since` and `after` say which side of a time is meant, `within` that a month or a
    year follows, which alone could be another word or number. An `article` may stand between these and the time, `of`
    between a day, its month and the year, an `ordinal` behind the number of a day.
    """

    months: tuple[str, ...]
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
    article: str
    of: str
    ordinal: str
    present: str
    past: str

    def times(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield "before", "since", "after" or nothing, and a time, for each time that a folded text names."""
        for match in self._times.finditer(text):
            side = _name(
                {"before": self.before, "since": self.since, "after": self.after}, match["side"] or match["near"]
            )
            yield side, self._in_english(match)

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
                day, month, year = map(int, re.split(r"\D", numbers))
                return f"{year:04}-{month:02}-{day:02}"
            case {"ago": words}:
                digits = re.search(r"\d+", words)
                number = (
                    digits[0] if digits else _name(dict(zip(map(str, range(1, 11)), self.numbers, strict=True)), words)
                )
                return f"{number} {_name(self.units, words)}s ago"
            case {"last": words}:
                return f"last {_name(self.one, words)}"
            case {"this": words}:
                return f"this {_name(self.one, words)}"
            case {"relative": words}:
                return _name(self.days, words)
        months = dict(zip(_MONTHS, self.months, strict=True))
        named = {kind: _name(months, text) for kind, text in found.items() if kind.endswith("month")}
        return " ".join(named.get(kind, text) for kind, text in found.items() if kind in _PARTS)

    @cached_property
    def _times(self) -> re.Pattern[str]:
        month, sides = _any(self.months), _any((self.before, self.since, self.after))
        kinds = {
            "number": _any((r"\d{1,3}", *self.numbers)),
            "unit": _any(self.units.values()),
            "one": _any(self.one.values()),
        }
        ago, last, this = (_spaced(words).format_map(kinds) for words in (self.ago, self.last, self.this))
        of = rf"\.?(?:\s+{_any([self.of])})?\s+"
        article = rf"(?:{_any([self.article])}\s*)?"
        return re.compile(
            rf"""\b(?: (?:(?P<side>{sides})\s*{article})? \b(?:
                  (?P<iso>\d{{4}}-\d{{2}}-\d{{2}})
                | (?P<numeric>\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{4}})
                | (?P<day>\d{{1,2}}){self.ordinal}{of}(?P<day_month>{month})\b (?:{of}(?P<day_year>\d{{4}}))?
                | (?P<month>{month}){of}(?P<year>\d{{4}})
                | (?P<ago>{ago}) | (?P<last>{last}) | (?P<this>{this}) | (?P<relative>{_any(self.days.values())})
            ) | (?P<near>{sides}|{_any([self.within])})\s*{article} \b(?:
                  (?P<near_month>{month})\b (?!{of}\d{{4}})
                | (?:(?:{self.one["year"]})\s+(?:{_any([self.of])}\s+)?)?(?P<near_year>(?:19|20)\d\d)
            ))\b""",
            re.VERBOSE,
        )

    @cached_property
    def _present(self) -> re.Pattern[str]:
        return re.compile(rf"\b{_any([self.present])}\b")

    @cached_property
    def _past(self) -> re.Pattern[str]:
        return re.compile(rf"\b{_any([self.past])}\b")


_PARTS: Final = frozenset({"day", "day_month", "day_year", "month", "year", "near_month", "near_year"})


def folded(text: str) -> str:
    """Return a text in lower case, without accents, and with straight apostrophes."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
    return "".join(character for character in plain if not unicodedata.combining(character))


def _any(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(_spaced, patterns))})"


def _spaced(pattern: str) -> str:
    return pattern.replace(" ", r"\s+")


def _name(names: Mapping[str, str], text: str | None) -> str:
    """Return the name whose words a text has; the empty one when it has none."""
    return next((name for name, words in names.items() if re.search(rf"\b{_any([words])}\b", text or "")), "")


def _units(day: str, week: str, month: str, year: str) -> dict[str, str]:
    return {"day": day, "week": week, "month": month, "year": year}


def _one(week: str, month: str, year: str) -> dict[str, str]:
    return {"week": week, "month": month, "year": year}


def _days(today: str, yesterday: str, before: str) -> dict[str, str]:
    # The longer one first: it may hold the word of the other.
    return {"the day before yesterday": before, "yesterday": yesterday, "today": today}


_GERMAN: Final = TimeWords(
    months=(
        *("januar|janner|jan", "februar|feber|feb", "marz|maerz|mrz", "april|apr", "mai", "juni|jun"),
        *("juli|jul", "august|aug", "september|sept|sep", "oktober|okt", "november|nov", "dezember|dez"),
    ),
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
    within="im|in|wahrend|waehrend",
    article="de[mnrs]|das",
    of="des",
    ordinal="",
    present="aktuell(?:e[mnrs]?)?|derzeit(?:ige[mnrs]?)?|momentan(?:e[mnrs]?)?|zurzeit|gegenwartig(?:e[mnrs]?)?|heutzutage"
    "|jetzt|jetzige[mnrs]?|neueste[mnrs]?|jungste[mnrs]?",
    past="fruher(?:e[mnrs]?)?|frueher(?:e[mnrs]?)?|vorher(?:ige[mnrs]?)?|ehemal(?:s|ige[mnrs]?)|damals|ursprunglich|bevor|zuvor",
)
_FRENCH: Final = TimeWords(
    months=(
        *("janvier|janv", "fevrier|fevr", "mars", "avril|avr", "mai", "juin"),
        *("juillet|juil", "aout", "septembre|sept", "octobre|oct", "novembre|nov", "decembre|dec"),
    ),
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
    within="en|durant|pendant|au mois de|au mois d'",
    article="les?|la|l'",
    of="de|d'",
    ordinal="(?:er)?",
    present="actuel(?:le)?s?|actuellement|maintenant|en ce moment|de nos jours|(?:la|le|les) plus recente?s?",
    past="avant|auparavant|ancien(?:ne)?s?|anciennement|autrefois|precedemment|precedente?s?|a l'epoque|a l'origine",
)
_SPANISH: Final = TimeWords(
    months=(
        *("enero|ene", "febrero|feb", "marzo|mar", "abril|abr", "mayo", "junio|jun"),
        *("julio|jul", "agosto|ago", "septiembre|setiembre|sept?", "octubre|oct", "noviembre|nov", "diciembre|dic"),
    ),
    numbers=("una?", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez"),
    units=_units("dias?", "semanas?", "mes(?:es)?", "anos?"),
    one=_one("semana", "mes", "ano"),
    ago="hace {number} {unit}",
    last="{one} pasad[ao]|(?:la|el) ultim[ao] {one}",
    this="est[ae] {one}",
    days=_days("hoy(?! en dia)", "ayer", "anteayer|antier|antes de ayer"),
    before="antes del?|hasta",
    since="desde|a partir del?",
    after="despues del?|tras",
    within="en|durante",
    article="el|la",
    of="del?",
    ordinal="",
    present="actual(?:es|mente)?|ahora|en este momento|hoy en dia|mas recientes?",
    past="antes|anterior(?:es|mente)?|antigu[ao]s?|antiguamente|originalmente|previ[ao]s?|previamente|en el pasado"
    "|solia[ns]?",
)
_ITALIAN: Final = TimeWords(
    months=(
        *("gennaio|gen", "febbraio|feb", "marzo|mar", "aprile|apr", "maggio|mag", "giugno|giu"),
        *("luglio|lug", "agosto|ago", "settembre|sett?", "ottobre|ott", "novembre|nov", "dicembre|dic"),
    ),
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
    within="in|a|nel|nell'|durante",
    article="il|l'|la|lo",
    of="del?|dell'",
    ordinal="°?",
    present="attual[ei]|attualmente|adesso|in questo momento|oggigiorno|al momento|piu recent[ei]",
    past="prima|precedent[ei]|precedentemente|in passato|un tempo|originariamente|in origine",
)
_PORTUGUESE: Final = TimeWords(
    months=(
        *("janeiro|jan", "fevereiro|fev", "marco", "abril|abr", "maio", "junho|jun"),
        *("julho|jul", "agosto|ago", "setembro|set", "outubro|out", "novembro|nov", "dezembro|dez"),
    ),
    numbers=("uma?", "dois|duas", "tres", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez"),
    units=_units("dias?", "semanas?", "mes(?:es)?", "anos?"),
    one=_one("semana", "mes", "ano"),
    ago="ha {number} {unit}|{number} {unit} atras",
    last="{one} passad[ao]|ultim[ao] {one}",
    this="n?est[ae] {one}",
    days=_days("hoje(?! em dia)", "ontem", "anteontem|antes de ontem"),
    before="antes d[aeo]|ate",
    since="desde|a partir d[aeo]",
    after="depois d[aeo]|apos",
    within="em|n[ao]|durante",
    article="[ao]|dia|o dia",
    of="de",
    ordinal="°?",
    present="atual(?:mente)?|atuais|agora|neste momento|hoje em dia|mais recentes?",
    past="antes|anterior(?:es|mente)?|antig[ao]s?|antigamente|originalmente|no passado|costumava[ms]?",
)
_DUTCH: Final = TimeWords(
    months=(
        *("januari|jan", "februari|feb", "maart|mrt", "april|apr", "mei", "juni|jun"),
        *("juli|jul", "augustus|aug", "september|sept?", "oktober|okt", "november|nov", "december|dec"),
    ),
    numbers=("een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen", "tien"),
    units=_units("dagen|dag", "weken|week", "maanden|maand", "jaren|jaar"),
    one=_one("week", "maand", "jaar"),
    ago="{number} {unit} geleden",
    last="(?:vorige?|afgelopen|verleden) {one}",
    this="(?:deze|dit) {one}",
    days=_days("vandaag", "gisteren", "eergisteren"),
    before="voor|tot",
    since="sinds|vanaf",
    after="na",
    within="in|tijdens",
    article="de|het",
    of="van",
    ordinal="e?",
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
