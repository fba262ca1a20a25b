"""The languages that keyword search knows."""

from __future__ import annotations

from enum import StrEnum


class Language(StrEnum):
    """A language of texts, by its English name. `MULTILINGUAL` takes the words of any script as they stand."""

    ARABIC = "arabic"
    AZERBAIJANI = "azerbaijani"
    BASQUE = "basque"
    BENGALI = "bengali"
    CATALAN = "catalan"
    CHINESE = "chinese"
    DANISH = "danish"
    DUTCH = "dutch"
    ENGLISH = "english"
    FINNISH = "finnish"
    FRENCH = "french"
    GERMAN = "german"
    GREEK = "greek"
    HEBREW = "hebrew"
    HINGLISH = "hinglish"
    HUNGARIAN = "hungarian"
    INDONESIAN = "indonesian"
    ITALIAN = "italian"
    JAPANESE = "japanese"
    KAZAKH = "kazakh"
    MULTILINGUAL = "multilingual"
    NEPALI = "nepali"
    NORWEGIAN = "norwegian"
    PORTUGUESE = "portuguese"
    ROMANIAN = "romanian"
    RUSSIAN = "russian"
    SLOVENE = "slovene"
    SPANISH = "spanish"
    SWEDISH = "swedish"
    TAJIK = "tajik"
    TURKISH = "turkish"
