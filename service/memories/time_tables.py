"""The words by which languages other than English name times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from service.memories.time_words import TimeWords
from service.memories.weekdays import WEEKDAYS
from service.settings.languages import Language


def _units(day: str, week: str, month: str, year: str) -> dict[str, str]:
    return {"day": day, "week": week, "month": month, "year": year}


def _one(week: str, month: str, year: str) -> dict[str, str]:
    return {"week": week, "month": month, "year": year}


def _lengths(fortnight: str, half: str, half_more: str) -> dict[str, str]:
    """Return what two weeks, half a year and a year and a half are called."""
    return {"2 weeks": fortnight, "6 months": half, "18 months": half_more}


def _weekdays(*names: str, part: str = "") -> dict[str, str]:
    """Return the names of the days from Monday on; `part` may stand in one word with each: "Montagabend"."""
    return {day: f"(?:{name}){part}" if part else name for day, name in zip(WEEKDAYS, names, strict=True)}


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
    either="oder|bis",
    plural="en?",
    lengths=_lengths("vierzehn tagen|14 tagen", "einem halben jahr", "(?:andert|einein)halb jahren"),
    last="(?:letzte|vorige|vergangene)[mnrs]? {one}",
    before_last="vorletzte[mnrs]? {one}",
    this="diese[mnrs]? {one}",
    next="(?:nachste|naechste|kommende)[mnrs]? {one}",
    weekdays=_weekdays(
        *("montag", "dienstag", "mittwoch", "donnerstag", "freitag", "samstag|sonnabend", "sonntag"),
        part="(?:morgen|vormittag|mittag|nachmittag|abend|nacht)?",
    ),
    on="am |vom |von ",
    habit="jeden|jedem",
    days=_days("heute", "gestern", "vorgestern"),
    before="vor|bis|bis zu[mr]",
    since="seit|ab",
    after="nach",
    within="im|in|wahrend|waehrend|von|vom",
    monthly="mitte",
    article="de[mnrs]|das",
    of="des|von|vom",
    ordinal="",
    to="bis|bis zu[mr]",
    between="zwischen",
    also="und",
    beginning="anfang|beginn",
    ending="ende",
    present="aktuell(?:e[mnrs]?)?|derzeit(?:ige[mnrs]?)?|momentan(?:e[mnrs]?)?|zurzeit|gegenwartig(?:e[mnrs]?)?|heutzutage"
    "|jetzt|jetzige[mnrs]?|neueste[mnrs]?|jungste[mnrs]?",
    past="fruher(?:e[mnrs]?)?|frueher(?:e[mnrs]?)?|vorher(?:ige[mnrs]?)?|ehemal(?:s|ige[mnrs]?)|damals|ursprunglich|zuvor",
    earlier="bevor|ehe|davor|vor(?! allem| ort| kurzem)",
    # Not "mochte", "konnte" and "wurde", which are "möchte", "könnte" and "würde" without their accents.
    was="war(?:en|st)?|hatte(?:n|st)?|(?:wohn|leb|arbeite|mach|sag|spiel|kauf|nutz|verwende|lieb|hass|brauch"
    "|glaub|woll|studier|kann|dach|brach|wuss|bestell|besuch|koch|reis|rauch|lern|leite|heirate|bevorzug"
    "|gehor|fuhl|plan|zahl)ten?|(?:ging|kam|trank|nahm|gab|sprach|las|schrieb|fuhr|trug|hie(?:ß|ss)|blieb|schlief|stand"
    "|lag|geschah|half|traf|sah|fand|lief|verlor|begann|hielt|(?:um|ein|aus|weg|hin)?zog)(?:en)?|a(?:ß|ss)en|sa(?:ß|ss)(?:en)?|aß"
    "|(?:hat|hast|habe|haben|habt|ist|sind|bin|bist|seid|wurden?)\\b[^,;.?!]{0,80}?\\b(?<!zu\\s)(?:\\w{0,6}ge\\w{3,20}(?:t|en)"
    "|\\w{2,20}iert|(?:be|ver|er|ent)\\w{2,20}(?:t|en))",
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
    either="ou|a",
    plural="s",
    lengths=_lengths("quinze jours|15 jours|une quinzaine(?: de jours)?", "une demi-annee", "un an et demi"),
    last="{one} (?:derniere?|passee?)",
    before_last="avant-derniere? {one}",
    this="(?:cette|cet|ce) {one}",
    next="{one} prochaine?|prochaine? {one}",
    weekdays=_weekdays("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    on="",
    habit="le|les|du|au|un|chaque",
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
    between="entre",
    also="et",
    beginning="debut|commencement",
    ending="fin",
    present="actuel(?:le)?s?|actuellement|maintenant|en ce moment|de nos jours|(?:la|le|les) plus recente?s?",
    past="avant(?=\\W*$)|auparavant|ancien(?:ne)?s?|anciennement|autrefois|precedemment|precedente?s?"
    "|a l'epoque|a l'origine",
    earlier="avant",
    was="(?!(?:lait|fait|sait|plait|connait|reconnait|parait|nait|disparait|apparait|satisfait|parfait|extrait"
    "|trait|portrait|retrait|souhait|attrait|voudrait|pourrait|devrait|serait|aurait|faudrait|aimerait)\\b)"
    "\\w{2,20}(?:ait|aient)|(?:et|av|habit|viv|buv|mange|pren|fais|travaill|aim|utilis|voul|all|ven|dis)(?:ais|ions|iez)"
    "|fut|furent|(?:est|sont)(?:-(?:elles?|ils?))? (?:alle|ne|venu|parti|passe|arrive|reste|devenu)e?s?"
    "|(?:a-t-(?:elle|il|on)|ont-(?:elles|ils)|avez-vous|as-tu)(?: deja| toujours)? "
    "(?!(?:une|le|les|de|des|que|quelque|cette|ce|encore)\\b)\\w{1,20}(?:e|i|u|is|it|ert|es|us)"
    "|(?:a|ai|as|ont|avons|avez) (?:deja |toujours )?(?:ete|eu|vecu|habite|bu|pris|fait|dit|mange|travaille|achete|aime"
    "|utilise|joue|voulu|mis|ecrit|lu|vu|choisi|prefere|demande|loue)",
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
    either="o|a",
    plural="s",
    lengths=_lengths("quince dias|15 dias", "medio ano", "(?:un )?ano y medio"),
    last="{one} (?:pasad[ao]|anterior)|(?:la|el|est[ae]) ultim[ao] {one}",
    before_last="{one} antepasad[ao]|antepasad[ao] {one}",
    this="est[ae] {one}",
    next="{one} que viene|{one} proxim[ao]|proxim[ao] {one}",
    weekdays=_weekdays("lunes", "martes", "miercoles", "jueves", "viernes", "sabado", "domingo"),
    on="el |del ",
    habit="cada|los|un",
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
    between="entre",
    also="y",
    beginning="(?:inicio|comienzo|principio)s?",
    ending="fin|finales|final",
    present="actual(?:es|mente)?|ahora|en este momento|hoy en dia|mas recientes?",
    past="antes(?=\\W*$)|anterior(?:es|mente)?|antigu[ao]s?|antiguamente|originalmente|previ[ao]s?"
    "|previamente|en el pasado"
    "|solia[ns]?",
    earlier="antes",
    was="era[ns]?|eramos|fue|fueron|fui|fuiste|(?!acaba|graba)\\w{2,20}aba[ns]?|(?:hab|ten|viv|beb|com|hac|dec|quer|pod|deb"
    "|conoc|sab|cre|dorm|le|escrib|conduc|ve|prefer|sal|segu)ia[ns]?|iba[ns]?|tuvo|tuvieron|estuvo|hizo|dijo|vivio|bebio"
    "|comio|prefirio|\\w{2,20}(?:aron|ieron)|\\w{2,20}ó|(?:ha|han|has|he|habeis|hemos) \\w{2,20}(?:ado|ido|cho|to)",
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
    either="o|a|ad",
    plural="",
    lengths=_lengths("quindici giorni|15 giorni", "mezzo anno|mezz'anno", "un anno e mezzo"),
    last="{one} (?:scors|passat)[ao]|(?:scors|passat)[ao] {one}",
    before_last="penultim[ao] {one}",
    this="(?:quest[ao] |quest')(?:{one})",
    next="{one} prossim[ao]|prossim[ao] {one}",
    weekdays=_weekdays("lunedi", "martedi", "mercoledi", "giovedi", "venerdi", "sabato", "domenica"),
    on="",
    habit="il|la|di|del|della|al|alla|dal|dalla|un|una|ogni",
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
    between="tra|fra",
    also="ed?",
    beginning="inizio",
    ending="fine",
    present="attual[ei]|attualmente|adesso|in questo momento|oggigiorno|al momento|piu recent[ei]",
    past="prima(?=\\W*$)|precedent[ei]|precedentemente|in passato|un tempo|originariamente|in origine",
    earlier="prima(?= (?:di|del|dell|dell[aoe]|dei|degli|che)\\b)",
    was="era|erano|fu|furono|(?!(?:lava|cava|scava|grava|brava|schiava|leva|solleva|rileva|preleva|eleva|allieva"
    "|arrivano|derivano)\\b)"
    "\\w{2,20}(?:ava|avano|eva|evano|ivano)"
    "|(?:dorm|cap|usc|fin|serv|prefer|part|sent|ven|segu)iva"
    "|(?:ha|hanno|hai|ho|avete|abbiamo) (?:mai |gia |sempre )?(?!quest|quant|tutt)\\w{2,20}(?:at|ut|it|st|tt|s)[oaie]"
    "|(?:e|sono) (?:stat|andat|nat|cambiat|success|vissut|trasferit|arrivat|venut|rimast|diventat)[oaie]",
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
    either="ou|a",
    plural="s",
    lengths=_lengths("quinze dias|15 dias", "meio ano", "(?:um )?ano e meio"),
    last="{one} passad[ao]|ultim[ao] {one}",
    before_last="{one} retrasad[ao]|penultim[ao] {one}",
    this="n?es[ts][ae] {one}",
    next="{one} que vem|proxim[ao] {one}",
    # "Segunda" alone is "second" too.
    weekdays=_weekdays(
        *(f"{day}(?:[- ]feira|(?= passad))" for day in ("segunda", "terca", "quarta", "quinta", "sexta")),
        *("sabado", "domingo"),
    ),
    on="n[ao] ",
    habit="cada|toda|todo",
    days=_days("hoje(?! em dia)", "ontem", "anteontem|antes de ontem"),
    before="antes d[aeo]|ate",
    since="desde|a partir d[aeo]",
    after="depois d[aeo]|apos",
    within="em|n[ao]|durante",
    monthly="de",
    article="(?:o )?dia|(?:o )?mes de|[ao]",
    of="d[eo]",
    ordinal="(?:°|o)?",
    to="ao?|ate|ate o",
    between="entre",
    also="e",
    beginning="inicio|comeco",
    ending="fim|final",
    present="atual(?:mente)?|atuais|agora|neste momento|hoje em dia|mais recentes?",
    past="antes(?=\\W*$)|anterior(?:es|mente)?|antig[ao]s?|antigamente|originalmente|no passado|costumava[ms]?",
    earlier="antes",
    was="era[ms]?|eramos|foi|foram|fui|(?!(?:lava|grava|trava|brava|cava|escava)\\b)\\w{2,20}ava[ms]?|tinha[ms]?|vinha[ms]?"
    "|(?:hav|viv|beb|com|faz|diz|quer|pod|dev|conhec|sab|dorm|l|escrev|prefer)ia[ms]?|teve|tiveram|veio|vieram|esteve|fez|disse"
    "|(?!(?:meu|seu|teu|museu|europeu)\\b)\\w{2,20}eu|\\w{1,20}iu|(?!(?:sou|vou|dou|estou)\\b)\\w{2,20}ou|\\w{2,20}(?:aram|eram|iram)",
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
    either="of|tot|a",
    plural="en",
    lengths=_lengths("veertien dagen|14 dagen", "(?:een )?half jaar", "anderhalf jaar"),
    last="(?:vorige?|afgelopen|verleden|laatste) {one}",
    before_last="voorvorige? {one}|voorlaatste {one}",
    this="(?:deze|dit) {one}",
    next="(?:volgende?|komende?|aanstaande?) {one}",
    weekdays=_weekdays(
        *("maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag", "zondag"),
        part="(?:ochtend|morgen|middag|avond|nacht)?",
    ),
    on="(?:op |van )?",
    habit="elke|iedere|de|over|goede|witte",
    days=_days("vandaag", "gisteren", "eergisteren"),
    before="eerder dan|tot",
    since="sinds|vanaf",
    after="na",
    within="in|tijdens|voor",
    monthly="van",
    article="de|het",
    of="van",
    ordinal="e?",
    to="tot|tot en met|t/m",
    between="tussen",
    also="en",
    beginning="begin",
    ending="einde?",
    present="huidige?|momenteel|nu|tegenwoordig|op dit moment|nieuwste|meest recente",
    past="vroegere?|voorheen|eerdere?(?! dan)|voormalige?|oorspronkelijke?|destijds",
    earlier="voordat|alvorens|eerder dan|voor(?= (?:ze|zij|hij|we|wij|ik|jij|jullie|men)\\b)",
    was="was|waren|had|hadden|werd|werden|(?:woon|leef|hoor|speel|wil|studeer|huur|leer|rook|werk|gebruik|heet|maak|kook)"
    "[dt]en?|(?:dronk|ging|kwam|nam|gaf|reed|droeg|sliep|las|schreef|hield|vond|kocht|dacht|bracht|kon|moest|mocht|zat|stond"
    "|lag|liep|koos|bezat|verloor)(?:en|den)?|at|aten|deed|deden|zei|zeiden|kwamen|namen|gaven|lazen|schreven"
    "|(?:heeft|heb|hebt|hebben|is|ben|bent|zijn)\\b[^,;.?!]{0,80}?\\b(?<!te\\s)(?:\\w{0,6}ge\\w{3,20}(?:d|t|en)"
    "|(?:be|ver|ont)\\w{2,20}(?:d|t))",
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
