"""Words in several languages: what is stored, and a question whose word English takes for another one."""

from __future__ import annotations

from service.settings.languages import Language

WORDS = [
    (Language.GERMAN, "Sie wohnt in einem der alten Häuser am Fluss", "Haus"),
    (Language.FRENCH, "Elle monte des chevaux depuis dix ans", "cheval"),
    (Language.SPANISH, "Su hermana canta canciones antiguas", "canción"),
    (Language.RUSSIAN, "Она любит старые книги", "книга"),
    (Language.JAPANESE, "彼女は東京に住んでいます", "東京"),
    (Language.CHINESE, "她喜欢喝绿茶", "绿茶"),
]
