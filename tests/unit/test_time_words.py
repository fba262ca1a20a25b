"""Times in questions of other languages than English, as they are understood on a Thursday in November 2026."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memories.asked_times import asked_time
from service.memories.time_words import TIME_WORDS, folded
from service.settings.languages import Language

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)
NAMED = {
    Language.GERMAN: [
        ("Was hat sie letzte Woche gesagt?", "2026-11-16", "2026-11-23"),
        ("Was geschah im März 2025?", "2025-03-01", "2025-04-01"),
        ("Wo waren wir am 3. März 2025?", "2025-03-03", "2025-03-04"),
        ("Wo waren wir am 03.03.2025?", "2025-03-03", "2025-03-04"),
        ("Was wurde vor drei Wochen beschlossen?", "2026-11-02", "2026-11-09"),
        ("Wo war sie vor 2 Jahren?", "2024-01-01", "2025-01-01"),
        ("Wo wohnte er vor März?", "0001-01-01", "2026-03-01"),
        ("Wo wohnte er vor dem 3. März 2025?", "0001-01-01", "2025-03-03"),
        ("Was hat sich seit 2024 geändert?", "2024-01-01", "9999-12-31"),
        ("Wer ging im Jahr 2023?", "2023-01-01", "2024-01-01"),
        ("Was war vorgestern?", "2026-11-24", "2026-11-25"),
        ("Was war im letzten Jahr?", "2025-01-01", "2026-01-01"),
        ("Was kam nach Juni 2025?", "2025-07-01", "9999-12-31"),
        ("WAS WAR IM MAERZ?", "2026-03-01", "2026-04-01"),
    ],
    Language.FRENCH: [
        ("Qu'a-t-elle dit la semaine dernière ?", "2026-11-16", "2026-11-23"),
        ("Que s'est-il passé en mars 2025 ?", "2025-03-01", "2025-04-01"),
        ("Où étions-nous le 1er mai ?", "2026-05-01", "2026-05-02"),
        ("Qu'a-t-on décidé il y a trois semaines ?", "2026-11-02", "2026-11-09"),
        ("Où était-il il y a un an ?", "2025-01-01", "2026-01-01"),
        ("Où habitait-il avant mars ?", "0001-01-01", "2026-03-01"),
        ("Quoi de neuf depuis le 3 mars 2025 ?", "2025-03-03", "9999-12-31"),
        ("Qui est parti en 2024 ?", "2024-01-01", "2025-01-01"),
        ("Et avant-hier ?", "2026-11-24", "2026-11-25"),
        ("Qu’a-t-il mangé aujourd’hui ?", "2026-11-26", "2026-11-27"),
        ("Où sont-ils allés l'an dernier ?", "2025-01-01", "2026-01-01"),
        ("Au mois d'août, où étaient-ils ?", "2026-08-01", "2026-09-01"),
    ],
    Language.SPANISH: [
        ("¿Qué dijo la semana pasada?", "2026-11-16", "2026-11-23"),
        ("¿Qué pasó en marzo de 2025?", "2025-03-01", "2025-04-01"),
        ("¿Dónde estuvimos el 3 de marzo de 2025?", "2025-03-03", "2025-03-04"),
        ("¿Qué decidimos hace tres semanas?", "2026-11-02", "2026-11-09"),
        ("¿Dónde vivía antes de marzo?", "0001-01-01", "2026-03-01"),
        ("¿Qué cambió desde el 3 de marzo?", "2026-03-03", "9999-12-31"),
        ("¿Quién se fue en el año 2023?", "2023-01-01", "2024-01-01"),
        ("¿Y anteayer?", "2026-11-24", "2026-11-25"),
        ("¿Adónde fueron el ano pasado?", "2025-01-01", "2026-01-01"),
        ("¿Qué hicieron después de junio?", "2026-07-01", "9999-12-31"),
    ],
    Language.ITALIAN: [
        ("Che cosa ha detto la settimana scorsa?", "2026-11-16", "2026-11-23"),
        ("Che cosa è successo nel marzo 2025?", "2025-03-01", "2025-04-01"),
        ("Dove eravamo il 3 marzo 2025?", "2025-03-03", "2025-03-04"),
        ("Che cosa abbiamo deciso tre settimane fa?", "2026-11-02", "2026-11-09"),
        ("Dove abitava prima di marzo?", "0001-01-01", "2026-03-01"),
        ("Che cosa è cambiato dal 3 marzo 2025?", "2025-03-03", "9999-12-31"),
        ("Chi è partito nel 2024?", "2024-01-01", "2025-01-01"),
        ("E l'altro ieri?", "2026-11-24", "2026-11-25"),
        ("Dove sono andati l'anno scorso?", "2025-01-01", "2026-01-01"),
        ("Che cosa ha fatto quest'anno?", "2026-01-01", "2027-01-01"),
    ],
    Language.PORTUGUESE: [
        ("O que ela disse na semana passada?", "2026-11-16", "2026-11-23"),
        ("O que aconteceu em março de 2025?", "2025-03-01", "2025-04-01"),
        ("Onde estávamos em 3 de março de 2025?", "2025-03-03", "2025-03-04"),
        ("O que decidimos há três semanas?", "2026-11-02", "2026-11-09"),
        ("Onde ele estava dois anos atrás?", "2024-01-01", "2025-01-01"),
        ("Onde morava antes de março?", "0001-01-01", "2026-03-01"),
        ("O que mudou desde o dia 3 de março de 2025?", "2025-03-03", "9999-12-31"),
        ("E anteontem?", "2026-11-24", "2026-11-25"),
        ("Aonde foram no ano passado?", "2025-01-01", "2026-01-01"),
    ],
    Language.DUTCH: [
        ("Wat zei ze vorige week?", "2026-11-16", "2026-11-23"),
        ("Wat gebeurde er in maart 2025?", "2025-03-01", "2025-04-01"),
        ("Waar waren we op 3 maart 2025?", "2025-03-03", "2025-03-04"),
        ("Wat is drie weken geleden besloten?", "2026-11-02", "2026-11-09"),
        ("Waar woonde hij voor maart?", "0001-01-01", "2026-03-01"),
        ("Wat is er sinds 3 maart 2025 veranderd?", "2025-03-03", "9999-12-31"),
        ("Wie vertrok in 2024?", "2024-01-01", "2025-01-01"),
        ("En eergisteren?", "2026-11-24", "2026-11-25"),
        ("Waar gingen ze vorig jaar heen?", "2025-01-01", "2026-01-01"),
    ],
}
PRESENT = {
    Language.GERMAN: ["Wo wohnt sie jetzt?", "ihre aktuelle Adresse"],
    Language.FRENCH: ["Où habite-t-elle maintenant ?", "son adresse actuelle"],
    Language.SPANISH: ["¿Dónde vive ahora?", "su dirección actual", "¿Qué hace hoy en día?"],
    Language.ITALIAN: ["Dove abita adesso?", "il suo indirizzo attuale"],
    Language.PORTUGUESE: ["Onde ela mora agora?", "o endereço atual"],
    Language.DUTCH: ["Waar woont ze nu?", "haar huidige adres"],
}
PAST = {
    Language.GERMAN: ["ihr früherer Chef", "Wo wohnte sie, bevor sie umzog?"],
    Language.FRENCH: ["son ancien patron", "Où habitait-elle auparavant ?"],
    Language.SPANISH: ["su antiguo jefe", "¿Dónde vivía antes de mudarse?"],
    Language.ITALIAN: ["Dove abitava prima?", "la casa precedente"],
    Language.PORTUGUESE: ["o antigo chefe", "Onde morava antes?"],
    Language.DUTCH: ["haar vroegere baas", "Waar woonde ze voordat ze verhuisde?"],
}
NOTHING = {
    Language.GERMAN: [
        "Wer wohnt hier?",
        "Wer geht vor?",
        "im 2. Stock",
        "nach 20 Jahren",
        "vor dem Haus",
        "am 31. Februar 2025",
    ],
    Language.FRENCH: ["Qui habite ici ?", "le 3 rue Mars", "Mai Tai", "dans dix ans", "2000 euros"],
    Language.SPANISH: ["¿Quién vive aquí?", "de 2000 euros", "Marzo es su perro", "31 de febrero de 2025"],
    Language.ITALIAN: ["Chi abita qui?", "2000 euro", "tra due settimane"],
    Language.PORTUGUESE: ["Quem mora aqui?", "Marco mora aqui", "2000 euros"],
    Language.DUTCH: ["Wie woont hier?", "2000 euro", "over twee weken"],
}


def each(questions: dict[Language, list[str]]) -> pytest.MarkDecorator:
    """One test for each question."""
    return pytest.mark.parametrize(
        ("language", "question"), [(key, one) for key, some in questions.items() for one in some]
    )


@pytest.mark.parametrize(
    ("language", "question", "first", "end"), [(language, *one) for language, some in NAMED.items() for one in some]
)
def test_a_named_time(language: Language, question: str, first: str, end: str) -> None:
    ((begins, ends),) = asked_time(question, TODAY, language).spans
    assert (begins.date().isoformat(), ends.date().isoformat()) == (first, end)


@each(PRESENT)
def test_the_present(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert (asked.spans, asked.present) == ((), True)


@each(PAST)
def test_what_is_no_longer_so(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert (asked.spans, asked.past, asked.wants_superseded) == ((), True, True)


@each(NOTHING)
def test_no_time(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert (asked.spans, asked.present, asked.past) == ((), False, False)


@pytest.mark.parametrize("language", TIME_WORDS)
def test_english_is_understood_too(language: Language) -> None:
    assert asked_time("What did she say last week?", TODAY, language) == asked_time(
        "What did she say last week?", TODAY
    )
    assert asked_time("her current address", TODAY, language).present


def test_another_language_is_not_read_as_if_it_were_this_one() -> None:
    """In French "hier" is yesterday, in German it is here."""
    assert asked_time("hier", TODAY, Language.FRENCH).spans
    for language in (Language.ENGLISH, Language.GERMAN, Language.DUTCH, Language.MULTILINGUAL):
        assert not asked_time("hier", TODAY, language).spans


@pytest.mark.parametrize("language", TIME_WORDS)
def test_each_month_number_and_unit_is_known_by_all_its_words(language: Language) -> None:
    words = TIME_WORDS[language]
    for month, patterns in enumerate(words.months, 1):
        for name in filter(str.isalpha, patterns.split("|")):
            ((begins, _),) = asked_time(f"{name} 2025", TODAY, language).spans
            assert (begins.year, begins.month) == (2025, month), name
    for number in range(1, 11):
        said = [_said(words.ago, one, words.units["year"]) for one in words.numbers[number - 1].split("|")]
        for question in said:
            ((begins, _),) = asked_time(question, TODAY, language).spans
            assert begins.year == 2026 - number, question


def _said(ago: str, number: str, unit: str) -> str:
    """One way to say how long ago something was: of each choice the first, of what may be left out nothing."""
    first = ago.split("|")[0].format(number=number, unit=unit.split("|")[0])
    return re.sub(r"\[(.).*?\]", r"\1", re.sub(r"(?:\[.*?\]|\w)\?", "", first))


@given(st.text(max_size=60), st.dates(), st.sampled_from(sorted(TIME_WORDS)))
def test_no_question_fails(text: str, today: date, language: Language) -> None:
    for words in ("31.02.2025", "am 99. mai", "vor 999 jahren", "il y a 999 ans", "hace 999 meses", "in 1900"):
        asked_time(f"{text} {words}", today, language)


def test_accents_and_apostrophes_are_folded() -> None:
    assert folded("L\u2019Été, FRÜHER, a\u0303o") == "l'ete, fruher, ao"
