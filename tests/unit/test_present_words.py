"""The present, and what is no longer so, in questions of other languages than English."""

from __future__ import annotations

from datetime import date

import pytest

from service.memories.asked_times import asked_time
from service.settings.languages import Language

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)
PRESENT = {
    Language.GERMAN: ["Wo wohnt sie jetzt?", "ihre aktuelle Adresse"],
    Language.FRENCH: ["Où habite-t-elle maintenant ?", "son adresse actuelle"],
    Language.SPANISH: ["¿Dónde vive ahora?", "su dirección actual", "¿Qué hace hoy en día?"],
    Language.ITALIAN: ["Dove abita adesso?", "il suo indirizzo attuale"],
    Language.PORTUGUESE: ["Onde ela mora agora?", "o endereço atual"],
    Language.DUTCH: ["Waar woont ze nu?", "haar huidige adres"],
}
PAST = {
    Language.GERMAN: [
        "ihr früherer Chef",
        "Wo wohnte sie, bevor sie umzog?",
        "Wo hat sie gewohnt, ehe sie umgezogen ist?",
        "Wo lebte sie vor dem Umzug?",
        "Wer war ihr Chef vor der Fusion?",
        "Welches Mittel wurde vor der Operation genommen?",
        "Hat sie vorher in Rom gewohnt?",
    ],
    Language.FRENCH: [
        "son ancien patron",
        "Où habitait-elle auparavant ?",
        "Où habitait-elle avant de déménager ?",
        "Où a-t-elle vécu avant Lisbonne ?",
        "Qui était son chef avant la fusion ?",
        "Alice a habité où avant son déménagement ?",
        "Où est-elle allée avant Lisbonne ?",
        "Et avant ?",
    ],
    Language.SPANISH: [
        "su antiguo jefe",
        "¿Dónde vivía antes de mudarse?",
        "¿Dónde trabajaba antes de la fusión?",
        "¿Dónde ha vivido antes de Lisboa?",
        "¿Dónde trabajó antes de Seat?",
        "\u00bfDo\u0301nde trabajo\u0301 antes de Seat?",
        "¿Quién era su jefe antes de que se mudara?",
        "¿Y antes?",
    ],
    Language.ITALIAN: [
        "Dove abitava prima?",
        "la casa precedente",
        "Dove abitava prima del trasloco?",
        "Che cosa beveva prima dell'incidente?",
        "Dove ha vissuto prima che si trasferisse?",
        "Chi era il suo capo prima degli esami?",
        "Dove è andata prima di Roma?",
    ],
    Language.PORTUGUESE: [
        "o antigo chefe",
        "Onde morava antes?",
        "Onde ela morou antes de Lisboa?",
        "O que ela bebia antes da mudança?",
        "Quem era o chefe antes da fusão?",
        "Quem ela conheceu antes da mudança?",
        "De onde ela partiu antes de Lisboa?",
    ],
    Language.DUTCH: [
        "haar vroegere baas",
        "Waar woonde ze voordat ze verhuisde?",
        "Waar woonde ze voor ze verhuisde?",
        "Waar heeft ze gewoond voordat ze verhuisd is?",
        "Wie was haar baas vóór de fusie?",
    ],
}
STILL_SO = {
    Language.GERMAN: [
        "Was trinkt sie, bevor sie schläft?",
        "Welche Medikamente nimmt sie vor dem Schlafen?",
        "Was möchte sie vor dem Essen?",
        "Was ist vor dem Essen zu beachten?",
        "Was mag sie vor allem?",
    ],
    Language.FRENCH: [
        "Que boit-elle avant de dormir ?",
        "Quel lait prend-elle avant le repas ?",
        "Que faut-il faire avant son arrivée ?",
        "Quels rendez-vous a-t-elle avant midi ?",
    ],
    Language.SPANISH: [
        "¿Qué toma antes de dormir?",
        "¿Qué debo hacer lo antes posible?",
        "¿Trabajo antes de las nueve?",
        "¿Qué alergia hay que decir antes del desayuno?",
    ],
    Language.ITALIAN: [
        "Che cosa beve prima di dormire?",
        "Quando arriva, prima della cena?",
        "Ha questa medicina prima dei pasti?",
    ],
    Language.PORTUGUESE: [
        "O que ela toma antes de dormir?",
        "Qual é o seu remédio antes do café?",
        "Onde estou antes do café?",
    ],
    Language.DUTCH: [
        "Wat drinkt ze voordat ze gaat slapen?",
        "Wat neemt ze vóór het eten?",
        "Wat wil ze voor haar verjaardag?",
    ],
}


def each(questions: dict[Language, list[str]]) -> pytest.MarkDecorator:
    """One test for each question."""
    return pytest.mark.parametrize(
        ("language", "question"), [(key, one) for key, some in questions.items() for one in some]
    )


@each(PRESENT)
def test_the_present(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert (asked.spans, asked.present) == ((), True)


@each(PAST)
def test_what_is_no_longer_so(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert (asked.spans, asked.past, asked.wants_superseded) == ((), True, True)


@each(STILL_SO)
def test_what_is_so_before_something_each_time_is_so_now(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert (asked.spans, asked.past, asked.wants_superseded) == ((), False, False)


@pytest.mark.parametrize(
    ("language", "question"),
    [
        (Language.GERMAN, "Wo wohnt sie heute?"),
        (Language.FRENCH, "Où habite-t-elle aujourd'hui ?"),
        (Language.SPANISH, "¿Dónde vive hoy?"),
    ],
)
def test_today_is_the_present(language: Language, question: str) -> None:
    asked = asked_time(question, TODAY, language)
    assert asked.spans
    assert not asked.wants_superseded
