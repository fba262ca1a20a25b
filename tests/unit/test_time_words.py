"""Times in questions of other languages than English, as they are understood on a Thursday in November 2026."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memories.asked_times import asked_time
from service.memories.time_tables import TIME_WORDS
from service.memories.time_words import folded
from service.settings.languages import Language

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)
NAMED = {
    Language.GERMAN: [
        ("Was hat sie am Montag gesagt?", "2026-11-23", "2026-11-24"),
        ("Was machte sie letzten Montag?", "2026-11-23", "2026-11-24"),
        ("Was geschah am Montagabend?", "2026-11-23", "2026-11-24"),
        ("Was hat er von Montag bis Mittwoch gemacht?", "2026-11-23", "2026-11-26"),
        ("Was hat sich seit Montag geändert?", "2026-11-23", "9999-12-31"),
        ("Was hat sie am Montag letzter Woche gesagt?", "2026-11-16", "2026-11-17"),
        ("Was hat sie am Montag, den 4. Mai 2026, gesagt?", "2026-05-04", "2026-05-05"),
        ("Was hat sie am letzten Montag im Mai gesagt?", "2026-05-01", "2026-06-01"),
        ("Was geschah zwischen Montag und Mittwoch?", "2026-11-23", "2026-11-26"),
        ("Was macht sie nächsten Montag?", "2026-11-30", "2026-12-01"),
        ("Wohin fährt sie im Mai nächsten Jahres?", "2027-05-01", "2027-06-01"),
        ("Was geschah im Mai letzten Jahres?", "2025-05-01", "2025-06-01"),
        ("Was geschah im Mai des Jahres 2024?", "2024-05-01", "2024-06-01"),
        ("Was war zwischen März und Mai?", "2026-03-01", "2026-06-01"),
        ("zwischen dem 3. März und dem 5. Mai 2025", "2025-03-03", "2025-05-06"),
        ("zwischen dem 3. und dem 5. Mai 2025", "2025-05-03", "2025-05-06"),
        ("3.5.2025 - 5.5.2025", "2025-05-03", "2025-05-06"),
        ("vom 3. bis 5. Mai 2025", "2025-05-03", "2025-05-06"),
        ("zwischen 2019 und 2021", "2019-01-01", "2022-01-01"),
        ("nach dem Ende von 2024", "2025-01-01", "9999-12-31"),
        ("bis Ende März", "0001-01-01", "2026-04-01"),
        ("seit Anfang 2024", "2024-01-01", "9999-12-31"),
        ("von März bis Ende Mai", "2026-03-01", "2026-06-01"),
        ("Ende des Jahres 2024", "2024-09-01", "2025-01-01"),
        ("Was geschah am 1. 3. 2025?", "2025-03-01", "2025-03-02"),
        ("Was geschah am 3.März 2025?", "2025-03-03", "2025-03-04"),
        ("Wo war sie von März bis Mai 2025?", "2025-03-01", "2025-06-01"),
        ("Wo war sie von 2020 bis 2022?", "2020-01-01", "2023-01-01"),
        ("Wo wohnte sie bis März 2025?", "0001-01-01", "2025-03-01"),
        ("Was ist seit gestern neu?", "2026-11-25", "9999-12-31"),
        ("Was war Anfang Mai?", "2026-05-01", "2026-06-01"),
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
        ("Was war vor zwei oder drei Wochen?", "2026-11-02", "2026-11-16"),
        ("vor 2-3 Wochen", "2026-11-02", "2026-11-16"),
        ("Was sagte sie vor zwei Montagen?", "2026-11-16", "2026-11-17"),
        ("am vorletzten Montag", "2026-11-16", "2026-11-17"),
        ("vorletzte Woche", "2026-11-09", "2026-11-16"),
        ("vor vierzehn Tagen", "2026-11-09", "2026-11-16"),
        ("vor anderthalb Jahren", "2025-05-01", "2025-06-01"),
        ("Was war Anfang 2024?", "2024-01-01", "2024-05-01"),
    ],
    Language.FRENCH: [
        ("Qu'a-t-elle dit lundi dernier ?", "2026-11-23", "2026-11-24"),
        ("Qu'a-t-elle dit lundi ?", "2026-11-23", "2026-11-24"),
        ("Qu'a-t-elle dit de lundi à mercredi ?", "2026-11-23", "2026-11-26"),
        ("Que s'est-il passé le lundi 4 mai 2026 ?", "2026-05-04", "2026-05-05"),
        ("Que s'est-il passé ce lundi ?", "2026-11-23", "2026-11-24"),
        ("Que fait-elle lundi prochain ?", "2026-11-30", "2026-12-01"),
        ("Où ira-t-il en mai de l'année prochaine ?", "2027-05-01", "2027-06-01"),
        ("en mai de l'année dernière", "2025-05-01", "2025-06-01"),
        ("en mai de l'année 2024", "2024-05-01", "2024-06-01"),
        ("entre mars et mai", "2026-03-01", "2026-06-01"),
        ("entre le 1er et le 5 mai 2025", "2025-05-01", "2025-05-06"),
        ("du 3 au 5 mai 2025", "2025-05-03", "2025-05-06"),
        ("après la fin de l'année 2024", "2025-01-01", "9999-12-31"),
        ("jusqu'à fin mars", "0001-01-01", "2026-04-01"),
        ("à la fin de 2024", "2024-09-01", "2025-01-01"),
        ("depuis début 2024", "2024-01-01", "9999-12-31"),
        ("Où était-il de mars à mai 2025 ?", "2025-03-01", "2025-06-01"),
        ("Où était-il depuis 2020 jusqu'en 2022 ?", "2020-01-01", "2023-01-01"),
        ("après le mois de mars", "2026-04-01", "9999-12-31"),
        ("depuis hier", "2026-11-25", "9999-12-31"),
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
        ("il y a deux ou trois semaines", "2026-11-02", "2026-11-16"),
        ("il y a deux lundis", "2026-11-16", "2026-11-17"),
        ("l'avant-dernière semaine", "2026-11-09", "2026-11-16"),
        ("il y a quinze jours", "2026-11-09", "2026-11-16"),
        ("il y a un an et demi", "2025-05-01", "2025-06-01"),
    ],
    Language.SPANISH: [
        ("¿Qué dijo el lunes pasado?", "2026-11-23", "2026-11-24"),
        ("¿Qué dijo el lunes?", "2026-11-23", "2026-11-24"),
        ("¿Qué hizo del lunes al miércoles?", "2026-11-23", "2026-11-26"),
        ("¿Qué dijo el lunes de la semana pasada?", "2026-11-16", "2026-11-17"),
        ("¿Qué pasó el lunes 4 de mayo de 2026?", "2026-05-04", "2026-05-05"),
        ("¿Qué hará el lunes que viene?", "2026-11-30", "2026-12-01"),
        ("en mayo del año pasado", "2025-05-01", "2025-06-01"),
        ("en mayo del año 2024", "2024-05-01", "2024-06-01"),
        ("entre marzo y mayo", "2026-03-01", "2026-06-01"),
        ("del 3 al 5 de mayo de 2025", "2025-05-03", "2025-05-06"),
        ("hasta finales de 2024", "0001-01-01", "2025-01-01"),
        ("desde principios de 2024", "2024-01-01", "9999-12-31"),
        ("¿Y antes de ayer?", "2026-11-24", "2026-11-25"),
        ("antes del día 3 de marzo", "0001-01-01", "2026-03-03"),
        ("desde marzo hasta mayo de 2024", "2024-03-01", "2024-06-01"),
        ("el 1º de mayo", "2026-05-01", "2026-05-02"),
        ("en el mes de marzo", "2026-03-01", "2026-04-01"),
        ("la semana anterior", "2026-11-16", "2026-11-23"),
        ("este último mes", "2026-10-01", "2026-11-01"),
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
        ("hace dos o tres semanas", "2026-11-02", "2026-11-16"),
        ("hace dos sábados", "2026-11-14", "2026-11-15"),
        ("la semana antepasada", "2026-11-09", "2026-11-16"),
        ("hace quince días", "2026-11-09", "2026-11-16"),
        ("hace medio año", "2026-05-01", "2026-06-01"),
    ],
    Language.ITALIAN: [
        ("Che cosa ha detto lunedì scorso?", "2026-11-23", "2026-11-24"),
        ("Che cosa ha detto lunedì?", "2026-11-23", "2026-11-24"),
        ("Che cosa ha detto da lunedì a mercoledì?", "2026-11-23", "2026-11-26"),
        ("Che cosa è cambiato da lunedì?", "2026-11-23", "9999-12-31"),
        ("Che cosa farà lunedì prossimo?", "2026-11-30", "2026-12-01"),
        ("nel maggio dell'anno scorso", "2025-05-01", "2025-06-01"),
        ("nel maggio dell'anno 2024", "2024-05-01", "2024-06-01"),
        ("tra marzo e maggio", "2026-03-01", "2026-06-01"),
        ("dal 3 al 5 maggio 2025", "2025-05-03", "2025-05-06"),
        ("dopo la fine del 2024", "2025-01-01", "9999-12-31"),
        ("dall'inizio del 2024", "2024-01-01", "9999-12-31"),
        ("dall'anno scorso", "2025-01-01", "9999-12-31"),
        ("Dall'8 marzo 2025", "2025-03-08", "9999-12-31"),
        ("Dall'agosto 2024", "2024-08-01", "9999-12-31"),
        ("prima dell'8 marzo", "0001-01-01", "2026-03-08"),
        ("da marzo a maggio 2024", "2024-03-01", "2024-06-01"),
        ("dal 2020 al 2022", "2020-01-01", "2023-01-01"),
        ("il 1º maggio", "2026-05-01", "2026-05-02"),
        ("ad agosto", "2026-08-01", "2026-09-01"),
        ("nel mese di marzo", "2026-03-01", "2026-04-01"),
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
        ("due o tre settimane fa", "2026-11-02", "2026-11-16"),
        ("due lunedì fa", "2026-11-16", "2026-11-17"),
        ("quindici giorni fa", "2026-11-09", "2026-11-16"),
        ("un anno e mezzo fa", "2025-05-01", "2025-06-01"),
        ("la penultima settimana", "2026-11-09", "2026-11-16"),
    ],
    Language.PORTUGUESE: [
        ("O que ela disse na segunda-feira passada?", "2026-11-23", "2026-11-24"),
        ("O que ela disse na segunda passada?", "2026-11-23", "2026-11-24"),
        ("O que ela disse na segunda-feira?", "2026-11-23", "2026-11-24"),
        ("O que ela disse no sábado?", "2026-11-21", "2026-11-22"),
        ("O que ela fará na próxima segunda-feira?", "2026-11-30", "2026-12-01"),
        ("em maio do ano passado", "2025-05-01", "2025-06-01"),
        ("em maio do ano de 2024", "2024-05-01", "2024-06-01"),
        ("entre março e maio", "2026-03-01", "2026-06-01"),
        ("de 3 a 5 de maio de 2025", "2025-05-03", "2025-05-06"),
        ("depois do fim de 2024", "2025-01-01", "9999-12-31"),
        ("desde o início de 2024", "2024-01-01", "9999-12-31"),
        ("antes de ontem", "2026-11-24", "2026-11-25"),
        ("de março até maio de 2024", "2024-03-01", "2024-06-01"),
        ("1º de maio", "2026-05-01", "2026-05-02"),
        ("no mês de março", "2026-03-01", "2026-04-01"),
        ("essa semana", "2026-11-23", "2026-11-30"),
        ("nesse ano", "2026-01-01", "2027-01-01"),
        ("O que ela disse na semana passada?", "2026-11-16", "2026-11-23"),
        ("O que aconteceu em março de 2025?", "2025-03-01", "2025-04-01"),
        ("Onde estávamos em 3 de março de 2025?", "2025-03-03", "2025-03-04"),
        ("O que decidimos há três semanas?", "2026-11-02", "2026-11-09"),
        ("Onde ele estava dois anos atrás?", "2024-01-01", "2025-01-01"),
        ("Onde morava antes de março?", "0001-01-01", "2026-03-01"),
        ("O que mudou desde o dia 3 de março de 2025?", "2025-03-03", "9999-12-31"),
        ("E anteontem?", "2026-11-24", "2026-11-25"),
        ("Aonde foram no ano passado?", "2025-01-01", "2026-01-01"),
        ("há duas ou três semanas", "2026-11-02", "2026-11-16"),
        ("duas ou três semanas atrás", "2026-11-02", "2026-11-16"),
        ("há dois sábados", "2026-11-14", "2026-11-15"),
        ("a semana retrasada", "2026-11-09", "2026-11-16"),
        ("há meio ano", "2026-05-01", "2026-06-01"),
    ],
    Language.DUTCH: [
        ("Wat zei ze afgelopen maandag?", "2026-11-23", "2026-11-24"),
        ("Wat zei ze maandagavond?", "2026-11-23", "2026-11-24"),
        ("Wat zei ze van maandag tot woensdag?", "2026-11-23", "2026-11-26"),
        ("Wat doet ze volgende maandag?", "2026-11-30", "2026-12-01"),
        ("in mei vorig jaar", "2025-05-01", "2025-06-01"),
        ("in mei van het jaar 2024", "2024-05-01", "2024-06-01"),
        ("tussen maart en mei", "2026-03-01", "2026-06-01"),
        ("van 3 tot 5 mei 2025", "2025-05-03", "2025-05-06"),
        ("van 2020 tot 2022", "2020-01-01", "2023-01-01"),
        ("na het einde van 2024", "2025-01-01", "9999-12-31"),
        ("tot eind 2024", "0001-01-01", "2025-01-01"),
        ("Wat zei ze vorige week?", "2026-11-16", "2026-11-23"),
        ("Wat gebeurde er in maart 2025?", "2025-03-01", "2025-04-01"),
        ("Waar waren we op 3 maart 2025?", "2025-03-03", "2025-03-04"),
        ("Wat is drie weken geleden besloten?", "2026-11-02", "2026-11-09"),
        ("Waar woonde hij vóór maart?", "0001-01-01", "2026-03-01"),
        ("Waar woonde hij eerder dan 2024?", "0001-01-01", "2024-01-01"),
        ("het budget voor 2025", "2025-01-01", "2026-01-01"),
        ("Wat heb ik gepland voor vandaag?", "2026-11-26", "2026-11-27"),
        ("plannen voor dit jaar", "2026-01-01", "2027-01-01"),
        ("rooster voor maart", "2026-03-01", "2026-04-01"),
        ("Wat zei ze de laatste week?", "2026-11-16", "2026-11-23"),
        ("van maart tot en met mei 2025", "2025-03-01", "2025-06-01"),
        ("sinds gisteren", "2026-11-25", "9999-12-31"),
        ("Wat is er sinds 3 maart 2025 veranderd?", "2025-03-03", "9999-12-31"),
        ("Wie vertrok in 2024?", "2024-01-01", "2025-01-01"),
        ("En eergisteren?", "2026-11-24", "2026-11-25"),
        ("Waar gingen ze vorig jaar heen?", "2025-01-01", "2026-01-01"),
        ("twee of drie weken geleden", "2026-11-02", "2026-11-16"),
        ("twee maandagen geleden", "2026-11-16", "2026-11-17"),
        ("voorvorige week", "2026-11-09", "2026-11-16"),
        ("een half jaar geleden", "2026-05-01", "2026-06-01"),
        ("eind 2024", "2024-09-01", "2025-01-01"),
    ],
}
NOTHING = {
    Language.GERMAN: [
        "Was macht sie am Montag?",
        "Wo ist sie jeden Montag?",
        "Wer wohnt hier?",
        "Wer geht vor?",
        "im 2. Stock",
        "nach 20 Jahren",
        "ab 2000 Euro",
        "in 2000 Schritten",
        "von 2000 Personen",
        "vor dem Haus",
        "am 31. Februar 2025",
    ],
    Language.FRENCH: [
        "Que fait-elle le lundi ?",
        "Que fait-elle lundi ?",
        "Qui habite ici ?",
        "le 3 rue Mars",
        "Mai Tai",
        "dans dix ans",
        "en sept jours",
    ],
    Language.SPANISH: [
        "¿Qué hace los lunes?",
        "¿Qué hace el lunes?",
        "¿Trabaja de lunes a viernes?",
        "¿Vive en el mar?",
        "¿Quién vive aquí?",
        "de 2000 euros",
        "Marzo es su perro",
        "31 de febrero de 2025",
    ],
    Language.ITALIAN: [
        "Che cosa fa il lunedì?",
        "Che cosa fa lunedì?",
        "Chi abita qui?",
        "Abita a 2000 metri",
        "Da 2000 a 3000 euro",
        "la prima lingua di Anna",
        "Guarda in giù",
        "2000 euro",
        "tra due settimane",
    ],
    Language.PORTUGUESE: [
        "O que ela faz na segunda-feira?",
        "Quem mora aqui?",
        "Marco mora aqui",
        "no mar",
        "2000 euros",
    ],
    Language.DUTCH: [
        "Wat doet ze op maandag?",
        "Wie woont hier?",
        "2000 euro",
        "over twee weken",
    ],
}


@pytest.mark.parametrize(
    ("language", "question", "first", "end"), [(language, *one) for language, some in NAMED.items() for one in some]
)
def test_a_named_time(language: Language, question: str, first: str, end: str) -> None:
    ((begins, ends),) = asked_time(question, TODAY, language).spans
    assert (begins.date().isoformat(), ends.date().isoformat()) == (first, end)


@pytest.mark.parametrize(
    ("language", "question"),
    [
        (Language.GERMAN, "im März oder April 2025"),
        (Language.GERMAN, "am 3. März und am 5. April 2025"),
        (Language.FRENCH, "en mars ou en avril 2025"),
        (Language.SPANISH, "en marzo o abril de 2025"),
        (Language.ITALIAN, "a marzo o aprile 2025"),
        (Language.PORTUGUESE, "em março ou abril de 2025"),
        (Language.DUTCH, "in maart of april 2025"),
    ],
)
def test_two_months_of_one_year(language: Language, question: str) -> None:
    assert [begins.year for begins, _ in asked_time(question, TODAY, language).spans] == [2025, 2025]


@pytest.mark.parametrize(
    ("language", "question"), [(language, one) for language, some in NOTHING.items() for one in some]
)
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


@given(st.text(max_size=60), st.dates(), st.sampled_from(sorted(TIME_WORDS)))
def test_no_question_fails(text: str, today: date, language: Language) -> None:
    for words in ("31.02.2025", "am 99. mai", "vor 999 jahren", "il y a 999 ans", "hace 999 meses", "in 1900"):
        asked_time(f"{text} {words}", today, language)


def test_accents_and_apostrophes_are_folded() -> None:
    assert folded("L\u2019Été, FRÜHER, a\u0303o") == "l'ete, fruher, ao"


@pytest.mark.parametrize(
    ("language", "question"),
    [
        (Language.DUTCH, "wat was er 1,5 jaar geleden"),
        (Language.ITALIAN, "1,5 anni fa"),
        (Language.PORTUGUESE, "2,5 anos atrás"),
        (Language.PORTUGUESE, "vinte e dois anos atrás"),
        (Language.GERMAN, "Kapitel 3 bis 2024"),
        (Language.GERMAN, "Zimmer 12 bis gestern"),
        (Language.DUTCH, "van 1900 tot 2000 euro"),
        (Language.FRENCH, "entre 10 et 2000 euros"),
        (Language.GERMAN, "Was machte sie vor einem Sonntag?"),
        (Language.GERMAN, "Was sagte Frau Winter 2023?"),
        (Language.FRENCH, "il y a deux ans et demi"),
        (Language.SPANISH, "hace dos años y medio"),
        (Language.ITALIAN, "1,5 o 2 anni fa"),
        (Language.PORTUGUESE, "vinte e dois ou três anos atrás"),
    ],
)
def test_no_time_is_made_of_a_part_of_one(language: Language, question: str) -> None:
    assert asked_time(question, TODAY, language).spans == ()
