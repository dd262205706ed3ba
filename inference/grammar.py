"""The small words of a complaint: what denies, turns, strengthens, counts, dates, or names somebody else.

English, Urdu and Roman Urdu side by side, under the keys of the text module. Knows no findings and no lexicon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from inference.text import Token, fold_roman, normalize_urdu, stem_english

YEAR_DAYS = 365.0


def _keys(script: str, words: str) -> frozenset[str]:
    spell: dict[str, Callable[[str], str]] = {"e": stem_english, "r": fold_roman, "u": normalize_urdu}
    make = spell.get(script, str)
    return frozenset(f"{script}:{make(word)}" for word in words.split())


# Kinds of words, as bits, so that a word's kinds are looked up once.
(
    BEFORE, NOT, BEFORE_ONE, AFTER, EITHER_SIDE, TURN, HAS, VERB, JOIN, STRONG, FILLER, FUNCTION, PERSISTS, RELATIVE,
    SELF, SAYS, ALSO, ACCOMPANIES, AGO, ONGOING, PAST, HISTORY, PERSON, COUNTED, AGED, POSTPOSED, OF, KNOWN,
) = (1 << bit for bit in range(28))  # fmt: skip

_KINDS: dict[int, frozenset[str]] = {
    # Negation before ("no fever or cough") and after ("bukhar nahi") what is denied; "fever nil" at a statement's end.
    BEFORE: _keys("e", "no not without denies denied deny never nil none neither nor wo hasnt havent isnt arent wasnt doesnt dont didnt cannot cant") | _keys("r", "bina baghair bagair bghair") | _keys("u", "بغیر بنا"),
    NOT: _keys("e", "not hasnt havent isnt arent wasnt doesnt dont didnt never"),
    BEFORE_ONE: _keys("r", "na") | _keys("u", "نہ"),
    # "ne" (of the doer) sounds like "nai": such spellings count only as they are spelt.
    AFTER: _keys("r", "nahi nahin nhi nhin nahee") | _keys("l", "nai nae nahe ni nay") | _keys("u", "نہیں نہی") | _keys("e", "absent negative resolved"),
    EITHER_SIDE: _keys("e", "denied nil none"),
    POSTPOSED: _keys("r", "bina baghair bagair bghair") | _keys("u", "بغیر بنا"),
    TURN: _keys("e", "but however although except reports complaining complains presents presented") | _keys("r", "lekin magar laikin lakin") | _keys("u", "لیکن مگر البتہ"),
    HAS: _keys("e", "with has have having had"),
    VERB: _keys("r", "hai hain he hay tha thi the hy ho hua hui raha gaya gayi") | _keys("u", "ہے ہیں تھا تھی تھے ہو ہوا ہوئی رہا گیا گئی"),
    JOIN: _keys("e", "and or nor") | _keys("r", "aur or ya") | _keys("u", "اور یا"),
    STRONG: _keys("e", "severe severely intense extreme extremely excruciating unbearable worst terrible heavy very acute high") | _keys("r", "shadeed shadid bohat bahut bohot buhat boht zyada ziada sakht intehai tez") | _keys("u", "شدید بہت زیادہ سخت انتہائی تیز ناقابل"),
    # "bukhar utar nahi raha", "dard kam nahi": what does not go is there.
    PERSISTS: _keys("r", "utar utarta ruk rukta ja jata toot tham thamta theek thik kam khatam band aaram control qabu qaabu sambhal farq") | _keys("u", "اتر اترتا رک رکتا جا جاتا ٹوٹ تھم تھمتا ٹھیک کم ختم بند آرام قابو کنٹرول فرق") | _keys("e", "better improving improved stopping stopped resolved resolving settling relieved controlled"),
    RELATIVE: _keys("e", "father mother brother sister wife husband son daughter uncle aunt cousin grandfather grandmother parent sibling neighbour neighbor") | _keys("r", "walid walida abbu abba ammi bhai behen bahen baap khawind shohar biwi beta beti dada dadi nana nani chacha mamu khala phuppo") | _keys("u", "والد والدہ ابو ابا امی بھائی بہن باپ ماں خاوند شوہر بیوی بیٹا بیٹی دادا دادی نانا نانی چچا ماموں خالہ پھوپھی"),
    SELF: _keys("e", "i patient pt myself child baby infant") | _keys("r", "mujhe muje mujhay mjhe mareez mareeza bacha bachi bachay") | _keys("u", "مجھے مریض مریضہ بچہ بچی بچے"),
    SAYS: _keys("e", "say said report reported tell told state brought noticed notice describe worried writing calling") | _keys("r", "kehta kehti kehte bata batata bataya laya laye") | _keys("u", "کہتا کہتی کہتے بتا بتایا لایا لائے"),
    ALSO: _keys("e", "also too") | _keys("r", "bhi") | _keys("u", "بھی"),
    ACCOMPANIES: _keys("e", "by with") | _keys("r", "sath saath") | _keys("u", "ساتھ"),
    AGO: _keys("e", "ago back") | _keys("r", "pehle pehlay pahle") | _keys("u", "پہلے"),
    ONGOING: _keys("e", "since started start began still worse again now onset increasing ongoing recurrent") | _keys("r", "se say shuru abhi ab dobara phir barh") | _keys("u", "سے شروع ابھی اب دوبارہ پھر بڑھ"),
    PAST: _keys("e", "past previous"),
    HISTORY: _keys("e", "history hx"),
    PERSON: _keys("e", "boy girl male female man woman child baby") | _keys("r", "bacha bachi bache larka larki beta beti aurat mard mareez mareeza hamla hamila hamal") | _keys("u", "بچہ بچی بچے لڑکا لڑکی بیٹا بیٹی عورت مرد مریض مریضہ حاملہ حمل"),
    COUNTED: _keys("e", "for since last past over about than x"),
    AGED: _keys("e", "age aged old yo pregnant gestation") | _keys("r", "umar umer hamla hamila") | _keys("u", "عمر حاملہ"),
    OF: _keys("r", "ka ki ke") | _keys("u", "کا کی کے"),
    # Words that carry no finding: skipped inside phrases, and not reported as "not understood".
    FILLER: _keys("e", "a an the of in on at to is am are was were be been has have had my his her their i he she it they with and or for since from this that there some also pt patient c o complain complaint complaining complains feel feeling felt having get getting got very since ago due by as both left right lt rt l r side sided bilateral sudden suddenly started starting onset now today yesterday last past day week month year hour severe mild acute chronic history hx known case nos finding disorder s p x any please doctor sir madam hello dear lot much more bit after before when while which who all whole body area region site post status state old male female significant associated obvious sign symptom evidence recent new active current currently further other documented present presented presents ve positive morning night evening too we our you me your k h")
    | _keys("r", "hai hain he hay hy ho hua hui hue raha tha thi se say sy mein main me may mai ko ki ka ke kay k aur or bhi mera meri mere mujhe muje mujhay mjhe us uska uski usay ye yeh wo woh bohat bahut zyada shadeed halka thora din hafte mahine saal kal aaj subah raat shaam jab tab bilkul hota hoti hote jata jati lag lagta lagti laga lagi kar karta karti karte gaya gayi diya di pichle pichlay wala wali doctor sahib sahab salam assalam alaikum baji bacha bachi bache mareez marez aurat mard ek aik do teen char panch ab abhi phir bad baad pehle pahle par pe pay wajah kuch koi aa aana aati aata hone hona ghanta ghante tarah tarf taraf dono h hoon hun waghera wagaira shikayat masla parso parson")
    | _keys("u", "ہے ہیں ہو ہوا ہوئی ہوئے رہا تھا تھی سے میں کو کی کا کے اور بھی میرا میری میرے مجھے اس یہ وہ بہت زیادہ شدید ہلکا تھوڑا دن ہفتے مہینے سال کل آج صبح رات شام جب تب بالکل ہوتا ہوتی ہوتے جاتا جاتی لگ لگتا لگتی لگا کر کرتا کرتی گیا گئی دیا پچھلے والا والی ڈاکٹر صاحب سلام بچہ بچی بچے مریض عورت مرد ایک دو تین چار پانچ اب ابھی پھر بعد پہلے پر وجہ کچھ کوئی آ آنا آتی آتا ہونے ہونا گھنٹے طرح طرف دونوں ان کے لیے نے تو ہی جو کہ ہوں شکایت مسئلہ وغیرہ پرسوں"),
    FUNCTION: _keys("e", "a an the of in on at to is am are was were be been has have had my his her their i he she it they with and for from this that there")
    | _keys("r", "hai hain he hay hy ho hua hui raha tha thi se say sy mein main me may mai ko ki ka ke kay k mera meri mere mujhe mjhe ye yeh wo woh hota hoti hote h par pe pay")
    | _keys("u", "ہے ہیں ہو ہوا ہوئی رہا تھا تھی سے میں کو کی کا کے میرا میری میرے مجھے یہ وہ ہوتا ہوتی ہوتے پر"),
}  # fmt: skip
_MILD = _keys("e", "mild slight slightly minor little low-grade") | _keys("r", "halka halki halke thora thori thoda mamooli") | _keys("u", "ہلکا ہلکی ہلکے تھوڑا تھوڑی معمولی")  # fmt: skip

_UNITS = {
    **dict.fromkeys(_keys("e", "minute min hour hr hrs") | _keys("r", "ghanta ghante ghantay ghanton minute") | _keys("u", "گھنٹہ گھنٹے گھنٹوں منٹ"), 1 / 24),
    **dict.fromkeys(_keys("e", "day d") | _keys("r", "din dino dinon roz") | _keys("u", "دن دنوں روز"), 1.0),
    **dict.fromkeys(_keys("e", "week wk wks") | _keys("r", "hafta hafte haftay hafton") | _keys("u", "ہفتہ ہفتے ہفتوں"), 7.0),
    **dict.fromkeys(_keys("e", "month mo mth mths") | _keys("r", "mahina mahine mahinay mahinon maheena maheene") | _keys("u", "مہینہ مہینے مہینوں ماہ"), 30.0),
    **dict.fromkeys(_keys("e", "year yr yrs") | _keys("r", "saal saalon") | _keys("u", "سال سالوں"), YEAR_DAYS),
}  # fmt: skip
# "for weeks", "hafton se": several, without saying how many.
_SEVERAL = {
    **dict.fromkeys(_keys("r", "dino dinon") | _keys("u", "دنوں") | {"l:days"}, 4.0),
    **dict.fromkeys(_keys("r", "hafton") | _keys("u", "ہفتوں") | {"l:weeks"}, 21.0),
    **dict.fromkeys(_keys("r", "mahinon maheenon") | _keys("u", "مہینوں") | {"l:months"}, 90.0),
    **dict.fromkeys(_keys("r", "saalon") | _keys("u", "سالوں") | {"l:years"}, 2 * YEAR_DAYS),
}  # fmt: skip
_NUMBERS = {
    key: number
    for number, (english, roman, urdu) in {
        0.5: ("half", "adha aadha aadhe", "آدھا آدھے"),
        1.0: ("a an one", "aik ek", "ایک"),
        1.5: ("", "derh dedh", "ڈیڑھ"),
        2.0: ("two couple", "do", "دو"),
        2.5: ("", "dhai adhai", "ڈھائی"),
        3.0: ("three few", "teen tin chand", "تین چند"),
        4.0: ("four several", "char chaar kai", "چار کئی"),
        5.0: ("five", "panch paanch", "پانچ"),
        6.0: ("six", "chay cheh chhe", "چھ"),
        7.0: ("seven", "saat", "سات"),
        8.0: ("eight", "aath ath", "آٹھ"),
        9.0: ("nine", "nau", "نو"),
        10.0: ("ten", "das dus", "دس"),
        12.0: ("twelve", "barah baarah", "بارہ"),
        15.0: ("fifteen", "pandrah", "پندرہ"),
        20.0: ("twenty", "bees", "بیس"),
        30.0: ("thirty", "tees", "تیس"),
    }.items()
    for key in _keys("e", english) | _keys("r", roman) | _keys("u", urdu)
}
_SINCE = {
    **dict.fromkeys(_keys("e", "yesterday") | _keys("u", "کل") | _keys("r", "kal"), 1.0),
    **dict.fromkeys(_keys("u", "پرسوں") | _keys("r", "parso parson"), 2.0),
    **dict.fromkeys(_keys("e", "today") | _keys("u", "آج") | _keys("r", "aaj"), 0.5),
}
_ARTICLES = _keys("e", "a an")
_NUMBER = re.compile(r"n:(\d{1,3}(?:\.\d+)?)$")
# Days, weeks and months as clinics write them: 3/7, 2/52, 5/12.
_FRACTION = re.compile(r"n:(\d{1,2})/(7|52|12)$")
_FRACTION_DAYS = {"7": 1.0, "52": 7.0, "12": 30.0}


@dataclass(frozen=True, slots=True)
class Word:
    """A word's keys after spelling is mended, its kinds (bits), and what it counts; None is "counts nothing"."""

    keys: tuple[str, ...]
    kinds: int
    unit_days: float | None
    several_days: float | None
    amount: float | None
    days: float | None  # of a whole duration: "yesterday", "3/7"
    is_article: bool


def word_of(keys: tuple[str, ...]) -> Word:
    """Classify one word by its keys."""
    kinds = sum(kind for kind, members in _KINDS.items() if not members.isdisjoint(keys))
    unit = next((_UNITS[key] for key in keys if key in _UNITS), None)
    several = next((_SEVERAL[key] for key in keys if key in _SEVERAL), None)
    amount = next((_NUMBERS[key] for key in keys if key in _NUMBERS), None)
    days = next((_SINCE[key] for key in keys if key in _SINCE), None)
    if number := _NUMBER.match(keys[0]):
        amount = float(number.group(1))
    elif fraction := _FRACTION.match(keys[0]):
        days = float(fraction.group(1)) * _FRACTION_DAYS[fraction.group(2)]
    counts = unit is not None or amount is not None or days is not None
    if kinds or counts or not _MILD.isdisjoint(keys):
        kinds |= KNOWN
    return Word(keys, kinds, unit, several, amount, days, not _ARTICLES.isdisjoint(keys))


@lru_cache(maxsize=65536)
def kinds_of(key: str) -> int:
    """The kinds of one key by itself."""
    return word_of((key,)).kinds


def statements_of(tokens: Sequence[Token], words: Sequence[Word]) -> list[int]:
    """The statement of each token: ends at punctuation, at a turn ("but") and between a verb and "and"."""
    numbers = []
    extra = previous = 0
    for token, word in zip(tokens, words, strict=True):
        kinds = word.kinds
        if kinds & TURN or (kinds & JOIN and previous & VERB):
            extra += 1
        numbers.append(token.statement + extra)
        previous = kinds
    return numbers


def durations_of(tokens: Sequence[Token], words: Sequence[Word]) -> list[tuple[int, float]]:
    """Each duration that the text names, as (token, days): "3 din se", "for two weeks", "x 3/7"; ages are left out."""
    found = []
    for index, word in enumerate(words):
        if word.days is not None:
            found.append((index, word.days))
        elif word.unit_days is not None and not _is_age(index, words) and not _is_years_ago(index, words):
            before = words[index - 1] if index and tokens[index - 1].clause == tokens[index].clause else None
            if before is not None and before.amount is not None:
                if not before.is_article or (index > 1 and words[index - 2].kinds & COUNTED):
                    found.append((index, before.amount * word.unit_days))
            elif word.several_days is not None:
                found.append((index, word.several_days))
    return found


def _is_age(index: int, words: Sequence[Word]) -> bool:
    """Whether a unit belongs to an age or a pregnancy: "5 saal ka bacha", "3 years old", "8 months pregnant"."""
    following = words[index + 1 : index + 3]
    if following and following[0].kinds & AGED:
        return True
    if len(following) == 2 and following[0].kinds & OF and following[1].kinds & PERSON:
        return True
    return any(word.kinds & AGED for word in words[max(0, index - 2) : index])


def _is_years_ago(index: int, words: Sequence[Word]) -> bool:
    """Whether a unit dates something that may be over: "5 saal pehle", not "5 saal pehle se"."""
    following = words[index + 1 : index + 3]
    if words[index].unit_days != YEAR_DAYS or not following or not following[0].kinds & AGO:
        return False
    return len(following) == 1 or not following[1].kinds & ONGOING


def is_past(inside: Sequence[Word]) -> bool:
    """Whether one statement tells of years ago ("fits 5 years ago") and of nothing that goes on."""
    for index, word in enumerate(inside[:-1]):
        if word.unit_days == YEAR_DAYS and inside[index + 1].kinds & AGO:
            return not any(other.kinds & ONGOING for other in inside)
    return False
