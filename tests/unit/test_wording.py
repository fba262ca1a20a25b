"""Which texts are worded alike, and which facts are never taken for another: one list of each."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from service.storage.wording import gist, plain, roughly

pytestmark = pytest.mark.unit

#: The same but for forms of letters, case, spaces and what closes the text.
SAME_BUT_FOR_FORM = [
    ("I like tea", "I like tea."),
    ("I like tea", "  i LIKE\n tea !"),
    ("Ich wohne in \u00c5lesund", "ICH WOHNE IN A\u030aLESUND"),
    ("ﬁnds tea fine", "finds tea ﬁne…"),
    ("GROẞE FÜẞE", "große Füße"),
    ("Ο ΟΔΥΣΣΕΥΣ ΗΡΘΕ", "ο οδυσσευς ηρθε"),
    ("Lives in İzmir", "LIVES in İzmir."),
    ("I don’t like tea", "I don't like tea"),
    ("No, I don't like tea", "no, i don't LIKE tea!\n"),
    ("Had Covid19 in May, has an mp3 player", "had covid19 in may, has an MP3 player"),
    ("At 5 PM it was 5 MM deep and 100KM away", "at 5 pm it was 5 mm deep and 100km away"),
]
#: The same but for punctuation, contractions and needless words: the vector has the last word.
SAME_GIST = [
    ("User likes tea", "The user likes tea"),
    ("I am vegetarian", "I'm vegetarian"),
    ("I can't swim", "I cannot swim"),
    ("I do not like tea", "I don't like tea"),
    ("I really love Italian food", "I love Italian food"),
    ("She said that she moved to Rome", "She said she moved to Rome"),
    ('My favourite movie is "Inception"', "My favourite movie is Inception"),
    ("Bob is a part-time nurse", "Bob is a part time nurse"),
    ("İzmir-Ankara treni", "İzmir Ankara treni"),
    ("Yes, I moved to Rome", "Yes I moved to Rome"),
    ("Likes soy, milk, and nuts", "Likes soy, milk and nuts"),
    ("Moved on May 5, 2020", "Moved on May 5 2020"),
    ("Actually, User likes tea, really", "User likes tea"),
    ("Moved to Rome,5 years ago", "Moved to Rome, 5 years ago"),
    ("Hi! I am vegetarian", "Hi, I am vegetarian"),
    ("I can't eat nuts, ever.", "I cannot eat nuts, ever"),
    ("The code is X7kQ2", "Code is X7kQ2"),
]
#: Two facts, however near they are to a model: a number, a sign, a name, a denial, an order, a time, a small word.
OTHER_FACTS = [
    ("I moved to Rome in 2019", "I moved to Rome in 2020"),
    ("I like tea", "I don't like tea"),
    ("Allergic to nuts", "Not allergic to nuts"),
    ("Alice owes Bob 50", "Bob owes Alice 50"),
    ("User prefers cats to dogs", "User prefers dogs to cats"),
    ("I moved to Rome", "I moved from Rome"),
    ("moved before lunch", "moved after lunch"),
    ("I live in Rome", "I lived in Rome"),
    ("Max has a dog", "Max has dogs"),
    ("Has few friends", "Has a few friends"),
    ("temperature is -5", "temperature is 5"),
    ("pays 2⁵ euros", "pays 25 euros"),
    ("walks 1½ miles", "walks 11/2 miles"),
    ("earns $50", "earns €50"),
    ("50 % of it", "50 of it"),
    ("takes .5 mg", "takes 5 mg"),
    ("takes .5mg", "takes 5mg"),
    ("weighs .5 kg", "weighs ,5 kg"),
    ("costs $.50", "costs $50"),
    ("lost ,8 kg", "lost 8 kg"),
    ("version 1.5", "version 15"),
    ("version 1.5", "version 1 5"),
    ("at 10:30", "at 10:20"),
    ("at 10:30", "at 10-30"),
    ("Account 4711-22", "Account 471-122"),
    ("is 5' tall", 'is 5" tall'),
    ("retries when status != 500", "retries when status = 500"),
    ("stops when code!=404", "stops when code=404"),
    ("flag is !active", "flag is active"),
    ("Knows C++", "Knows C"),
    ("Knows C#", "Knows C"),
    ("You like tea?", "You like tea"),
    ("I failed :)", "I failed :("),
    ("likes 北京", "likes 南京"),
    ("trinkt Bier in Maßen", "trinkt Bier in Massen"),
    ("zahlte die Buße", "zahlte die Busse"),
    ("ılık severim", "ilik severim"),
    ("ILIK SEVERİM", "İLİK SEVERİM"),
    ("लड़का बीमार है", "लड़की बीमार है"),
    ("वह काम है", "वह का म है"),
    ("works at a-b-c", "works at a-b-d"),
    # "The" is a part of a name, "that" is what is known, and a denial turns on the word beside it.
    ("User listens to the Police", "User listens to police"),
    ("The Who is my favourite", "Who is my favourite"),
    ("He knows that", "He knows"),
    ("I really don't care", "I don't really care"),
    ("It is not actually true", "It is not true"),
    # What parts a sentence tells what is denied, "the" behind a preposition which one is meant.
    ("Alice said no, meat is fine", "Alice said no meat is fine"),
    ("Nuts? No! Fish is fine", "Nuts? No fish is fine"),
    ("Don't stop: the pills help", "Don't: stop the pills, help"),
    ("Ich esse Fleisch, nicht Fisch", "Ich esse Fleisch nicht, Fisch"),
    ("A refund is out of the question", "A refund is out of question"),
    ("She is in the office until 2026", "She is in office until 2026"),
    # The case of codes and of units.
    ("booking code X7kQ2", "booking code x7kQ2"),
    ("booking code X7kQ2", "booking code x7kq2"),
    ("the plant makes 5 MW", "the plant makes 5 mW"),
    ("the line has 100 MB/s", "the line has 100 Mb/s"),
    ("the line has 100MB", "the line has 100Mb"),
    ("the disk reads 90 kB/s", "the disk reads 90 kb/s"),
    ("used 5 MWh", "used 5 mWh"),
    ("a pulse of 5 MeV", "a pulse of 5 meV"),
    ("the tank has 5 mM", "the tank has 5 mm"),
    ("станция даёт 5 МВт", "станция даёт 5 мВт"),
    ("диск на 500 МБ", "диск на 500 Мб"),
    ("출력은 5 MW입니다", "출력은 5 mW입니다"),
    ("회선은 100Mb입니다", "회선은 100MB입니다"),
    # What parts the items of a list.
    ("Allergic to soy, milk and nuts", "Allergic to soy milk and nuts"),
    ("Her children are Anna, Maria and Tom", "Her children are Anna Maria and Tom"),
    ("Buys ice; cream; rice", "Buys ice cream; rice"),
    ("लड़का बीमार है, माँ घर है", "लड़का बीमार है माँ, घर है"),
    ("Tom, said Bob, lies", "Tom said Bob lies"),
    ("uses .NET", "uses NET"),
    ("...", "?"),
]


@pytest.mark.parametrize(("one", "other"), SAME_BUT_FOR_FORM)
def test_form_makes_no_other_text(one: str, other: str) -> None:
    assert plain(one) == plain(other)
    assert roughly(one) == roughly(other)


@pytest.mark.parametrize(("one", "other"), SAME_GIST)
def test_needless_words_make_no_other_gist(one: str, other: str) -> None:
    assert plain(one) != plain(other)
    assert gist(one) == gist(other)
    assert roughly(one) == roughly(other)


@pytest.mark.parametrize(("one", "other"), OTHER_FACTS)
def test_another_fact_is_never_worded_alike(one: str, other: str) -> None:
    assert plain(one) != plain(other)
    assert gist(one) != gist(other)


def test_what_is_stored_is_looked_up_as_before() -> None:
    assert roughly("Takes .5 mg when status != 500, !important.") == "takes 5 mg when status = 500 important"


@pytest.mark.parametrize("form", [plain, gist, roughly])
def test_thousands_of_marks_on_one_letter_cost_little(form: Callable[[str], object]) -> None:
    """As long as a message may be; putting the marks in their order took half a second, in which nobody was served."""
    marked, taken = "a" + "\u0301\u0316" * 9_999, []
    for _ in range(3):
        began = time.process_time()
        form(marked)
        taken.append(time.process_time() - began)
    assert min(taken) < 0.15
    # What languages write is ordered as ever.
    assert plain("a\u0301\u0316" * 20) == plain("a\u0316\u0301" * 20)


def test_a_text_of_nothing_but_punctuation_or_needless_words_is_no_other_than_itself() -> None:
    texts = ["", ".", "!", "the", "that", "The that", "?", "🙂", "🙃", "\u200d", "\x00"]
    assert len({plain(text) for text in texts}) == len(texts)
    assert gist("the") == gist("The") != gist("that")
    assert gist("really") != gist("also")
