"""The findings reader: what a complaint in English, Urdu or Roman Urdu says is there, is not there, and for how long.

It works from the lexicon that travels in the symptom bundle; it knows no conditions and gives no probability. What it
did not understand it says.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from inference.case import ABSENT, PRESENT, Case
from inference.text import Token, fold_roman, normalize_urdu, stem_english, tokenize, word_keys

_GAP = 2  # words that may stand between two words of one phrase: "chest tightness and pain", "dard bohat seenay mein"
_FUZZY_LENGTH = 5  # a shorter word has too many neighbours at one edit: only swapped letters are mended
_SHORTEST_FUZZY = 4
_FUZZY_LONG = 8  # from this length on, two edits are allowed


def _keys(script: str, words: str) -> frozenset[str]:
    make = {"e": stem_english, "r": fold_roman, "u": normalize_urdu}[script]
    return frozenset(f"{script}:{make(word)}" for word in words.split())


# Negation before ("no fever or cough") and after ("bukhar nahi") what is denied.
_BEFORE = _keys("e", "no not without denies denied deny never nil none absent neither nor negative wo hasnt havent isnt doesnt dont didnt") | _keys("r", "bina baghair") | _keys("u", "بغیر بنا")
_BEFORE_ONE = _keys("r", "na") | _keys("u", "نہ")
_AFTER = _keys("r", "nahi nahin nhi nai nahe nae nahee ni") | _keys("u", "نہیں نہی نھیں") | _keys("e", "absent negative resolved denied")
_TURN = _keys("e", "but however although with has have having except reports complaining") | _keys("r", "lekin magar par laikin") | _keys("u", "لیکن مگر البتہ")
_VERB = _keys("r", "hai hain he hay tha thi the hy ho hua hui raha rahi rahe rha rhi gaya gayi") | _keys("u", "ہے ہیں تھا تھی تھے ہو ہوا ہوئی رہا رہی رہے گیا گئی")

_STRONG = _keys("e", "severe severely intense extreme extremely excruciating unbearable worst terrible heavy very acute high") | _keys("r", "shadeed shadid bohat bahut bohot buhat boht zyada ziada sakht intehai tez") | _keys("u", "شدید بہت زیادہ سخت انتہائی تیز ناقابل")
_MILD = _keys("e", "mild slight slightly minor little low-grade") | _keys("r", "halka halki halke thora thori thoda mamooli") | _keys("u", "ہلکا ہلکی ہلکے تھوڑا تھوڑی معمولی")

_UNITS = {
    **dict.fromkeys(_keys("e", "minute min hour hr") | _keys("r", "ghanta ghante ghantay ghanton minute") | _keys("u", "گھنٹہ گھنٹے گھنٹوں منٹ"), 1 / 24),
    **dict.fromkeys(_keys("e", "day d") | _keys("r", "din dino dinon roz") | _keys("u", "دن دنوں روز"), 1.0),
    **dict.fromkeys(_keys("e", "week wk") | _keys("r", "hafta hafte haftay hafton") | _keys("u", "ہفتہ ہفتے ہفتوں"), 7.0),
    **dict.fromkeys(_keys("e", "month mo") | _keys("r", "mahina mahine mahinay mahinon maheena maheene") | _keys("u", "مہینہ مہینے مہینوں ماہ"), 30.0),
    **dict.fromkeys(_keys("e", "year yr") | _keys("r", "saal saalon") | _keys("u", "سال سالوں"), 365.0),
}  # fmt: skip
_NUMBERS = {
    key: number
    for number, (english, roman, urdu) in {
        0.5: ("half", "adha aadha", "آدھا"),
        1.0: ("a an one", "aik ek", "ایک"),
        2.0: ("two couple", "do", "دو"),
        3.0: ("three few", "teen tin chand", "تین چند"),
        4.0: ("four several", "char chaar kai", "چار کئی"),
        5.0: ("five", "panch paanch", "پانچ"),
        6.0: ("six", "chay cheh chhe", "چھ"),
        7.0: ("seven", "saat", "سات"),
        8.0: ("eight", "aath ath", "آٹھ"),
        9.0: ("nine", "nau", "نو"),
        10.0: ("ten", "das dus", "دس"),
        15.0: ("fifteen", "pandrah", "پندرہ"),
    }.items()
    for key in _keys("e", english) | _keys("r", roman) | _keys("u", urdu)
}
_SINCE = {
    **dict.fromkeys(_keys("e", "yesterday") | _keys("u", "کل") | _keys("r", "kal"), 1.0),
    **dict.fromkeys(_keys("e", "today") | _keys("u", "آج") | _keys("r", "aaj"), 0.5),
}

# Words that carry no finding: skipped inside phrases, and not reported as "not understood".
_FILLER = (
    _keys("e", "a an the of in on at to is am are was were be been has have had my his her their i he she it they with and or for since from this that there some also pt patient c o complain complaint complaining feel feeling felt having get getting got very since ago due by as both left right lt rt l r side sided bilateral sudden suddenly started starting onset now today yesterday last past day week month year hour severe mild acute chronic history hx known case nos finding disorder s p x any please doctor sir madam hello dear lot much more since bit after before when while which all whole body area region site post status state")
    | _keys("r", "hai hain he hay hy ho hua hui hue raha rahi rahe rha rhi tha thi se say sy mein main me may mai ko ki ka ke kay k aur or bhi mera meri mere mujhe muje mujhay us uska uski usay ye yeh wo woh bohat bahut zyada shadeed halka thora din hafte mahine saal kal aaj subah raat shaam jab tab bilkul hota hoti hote jata jati lag lagta lagti laga lagi kar karta karti karte gaya gayi diya di pichle pichlay wala wali doctor sahib sahab salam assalam alaikum baji bacha bachi bache mareez marez aurat mard ek aik do teen char panch ab phir bad baad pehle pahle par pe wajah kuch aa aana aati aata hone hona ghanta ghante tarah tarf taraf dono")
    | _keys("u", "ہے ہیں ہو ہوا ہوئی ہوئے رہا رہی رہے تھا تھی سے میں کو کی کا کے اور بھی میرا میری میرے مجھے اس یہ وہ بہت زیادہ شدید ہلکا تھوڑا دن ہفتے مہینے سال کل آج صبح رات شام جب تب بالکل ہوتا ہوتی ہوتے جاتا جاتی لگ لگتا لگتی لگا کر کرتا کرتی گیا گئی دیا پچھلے والا والی ڈاکٹر صاحب سلام بچہ بچی بچے مریض عورت مرد ایک دو تین چار پانچ اب پھر بعد پہلے پر وجہ کچھ آ آنا آتی آتا ہونے ہونا گھنٹے طرح طرف دونوں ان ان کے لیے نے تو ہی جو کہ")
)  # fmt: skip
_FUNCTION = (
    _keys("e", "a an the of in on at to is am are was were be been has have had my his her their i he she it they with and for from this that there")
    | _keys("r", "hai hain he hay hy ho hua hui raha rahi rahe rha rhi tha thi se say mein main me may mai ko ki ka ke kay k mera meri mere mujhe ye yeh wo woh hota hoti hote")
    | _keys("u", "ہے ہیں ہو ہوا ہوئی رہا رہی رہے تھا تھی سے میں کو کی کا کے میرا میری میرے مجھے یہ وہ ہوتا ہوتی ہوتے")
)  # fmt: skip
_CONNECTORS = _BEFORE | _BEFORE_ONE | _AFTER | _TURN | _STRONG | _MILD | frozenset(_UNITS) | frozenset(_NUMBERS) | frozenset(_SINCE)


@dataclass(frozen=True, slots=True)
class ReadFinding:
    """One finding as read: its code, `present`, `absent` or a value, and the span of the words that say it.

    `duration_days` and `is_severe` are None and False where the complaint does not say; a finding derived from
    another (a parent, a duration, a strong word) carries that one's span.
    """

    code: str
    value: str
    start: int
    end: int
    duration_days: float | None = None
    is_severe: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was read, and the spans of words that were not understood."""

    findings: tuple[ReadFinding, ...]
    not_understood: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Phrase:
    """A wording: what it says, its words' keys (rarest first), and where order matters also as written.

    Order and closeness matter for wordings that deny ("bukhar nahi") or that need their small words ("pait se").
    """

    code: str
    value: str
    is_absent: bool
    keys: tuple[str, ...]
    in_order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Match:
    phrase: _Phrase
    tokens: frozenset[int]


class FindingsReader:
    """Reads complaints with one lexicon. Building it costs some tens of milliseconds; reading, a fraction of one."""

    def __init__(self, lexicon: Mapping[str, Any], parents: Mapping[str, str]) -> None:
        """`lexicon` as in the symptom contract's vocabulary; `parents` maps a finding's code to its parent's."""
        self._parents = parents
        self._durations = lexicon.get("duration", [])
        self._severe = {rule["of"]: rule["finding"] for rule in lexicon.get("severe", [])}
        self._measured = lexicon.get("measured", [])
        phrases = [phrase for entry in lexicon["phrases"] if (phrase := _phrase(*entry)) is not None]
        counts: dict[str, int] = defaultdict(int)
        for phrase in phrases:
            for key in phrase.keys:
                counts[key] += 1
        self._by_rarest: dict[str, list[_Phrase]] = defaultdict(list)
        for phrase in phrases:
            ordered = tuple(sorted(phrase.keys, key=lambda key: (counts[key], key)))
            self._by_rarest[ordered[0]].append(replace(phrase, keys=ordered))
        self._vocabulary = frozenset(counts)
        self._fuzzy_words = {
            script: [key[2:] for key in sorted(counts) if key[0] == script and len(key) >= _SHORTEST_FUZZY + 2]
            for script in "eru"
        }
        self._corrected = lru_cache(maxsize=65536)(self._correct)

    def read(self, complaint: str) -> Reading:
        """Every finding that `complaint` states or denies. An empty complaint gives an empty reading."""
        tokens = tokenize(complaint)
        keys = [self._corrected(token.keys) for token in tokens]
        matches = _longest(self._matches(tokens, keys))
        used = frozenset().union(*(match.tokens for match in matches))
        absent = _negated(tokens, keys, matches)
        durations = _durations(tokens, keys)
        severe = {index for index in range(len(tokens)) if index not in used and not _STRONG.isdisjoint(keys[index])}
        findings = [
            self._finding(match, tokens, index in absent, durations, severe) for index, match in enumerate(matches)
        ]
        return Reading(tuple(dict.fromkeys(self._completed(findings))), tuple(self._not_understood(tokens, keys, used)))

    def read_case(self, case: Case) -> tuple[dict[str, str | tuple[str, ...]], Reading]:
        """Findings by code from the form, the measurements and the complaint, in that order of trust."""
        reading = self.read(case.complaint) if case.complaint else Reading((), ())
        merged: dict[str, str | tuple[str, ...]] = dict(case.findings)
        for code, value in self._from_vitals(case):
            merged.setdefault(code, value)
        several: dict[str, list[str]] = defaultdict(list)
        for finding in reading.findings:
            if finding.value in (PRESENT, ABSENT):
                # Two mentions that disagree ("no fever now, fever last night") count as present.
                if finding.code not in merged or (finding.code not in case.findings and finding.value == PRESENT):
                    merged[finding.code] = finding.value
            elif finding.value not in several[finding.code]:
                several[finding.code].append(finding.value)
        for code, values in several.items():
            merged.setdefault(code, values[0] if len(values) == 1 else tuple(values))
        for code in [code for code, value in merged.items() if value != ABSENT]:
            while (parent := self._parents.get(code)) is not None:
                if merged.get(parent) != PRESENT and parent not in case.findings:
                    merged[parent] = PRESENT
                code = parent
        return merged, reading

    def _from_vitals(self, case: Case) -> Iterable[tuple[str, str]]:
        for rule in self._measured:
            value = getattr(case.vitals, rule["vital"])
            if value is None:
                continue
            if value >= rule.get("at_least", float("inf")) or value <= rule.get("at_most", float("-inf")):
                yield rule["finding"], PRESENT
            elif value < rule.get("absent_below", float("-inf")) or value > rule.get("absent_above", float("inf")):
                yield rule["finding"], ABSENT

    def _matches(self, tokens: list[Token], keys: list[tuple[str, ...]]) -> list[_Match]:
        where: dict[str, list[int]] = defaultdict(list)
        for index, token_keys in enumerate(keys):
            for key in token_keys:
                where[key].append(index)
        matches = []
        for key, anchors in where.items():
            for phrase in self._by_rarest.get(key, ()):
                if all(other in where for other in phrase.keys):
                    for anchor in anchors:
                        found = _gathered(phrase, anchor, where, tokens)
                        if found is not None:
                            matches.append(_Match(phrase, found))
        return matches

    def _correct(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """A word's keys as they are when the lexicon or the grammar knows one, else those of its nearest spelling."""
        if any(key in self._vocabulary or key in _FILLER or key in _CONNECTORS for key in keys):
            return keys
        corrected = []
        for key in keys:
            script, word = key[0], key[2:]
            if script not in self._fuzzy_words or len(word) < _SHORTEST_FUZZY:
                continue
            limit = 2 if len(word) >= _FUZZY_LONG else 1
            near = process.extractOne(word, self._fuzzy_words[script], scorer=OSA.distance, score_cutoff=limit)
            if near is None or near[0][0] != word[0]:
                continue
            if len(word) >= _FUZZY_LENGTH or sorted(near[0]) == sorted(word):
                corrected.append(f"{script}:{near[0]}")
        return tuple(corrected) or keys

    def _finding(
        self, match: _Match, tokens: list[Token], is_absent: bool, durations: list[tuple[int, float]], severe: set[int]
    ) -> ReadFinding:
        first, last = min(match.tokens), max(match.tokens)
        clause = tokens[first].clause
        near = [(_distance(first, last, index), days) for index, days in durations if tokens[index].clause == clause]
        is_severe = any(first - 2 <= index <= last + 2 and tokens[index].clause == clause for index in severe)
        return ReadFinding(
            code=match.phrase.code,
            value=ABSENT if is_absent else match.phrase.value or PRESENT,
            start=tokens[first].start,
            end=tokens[last].end,
            duration_days=min(near)[1] if near and not is_absent else None,
            is_severe=is_severe and not is_absent,
        )

    def _completed(self, findings: list[ReadFinding]) -> list[ReadFinding]:
        """Add what a duration or a strong word implies. Parents are added when the case's findings are merged."""
        completed = list(findings)
        for finding in findings:
            if finding.is_severe and finding.code in self._severe:
                completed.append(replace(finding, code=self._severe[finding.code]))
            if finding.duration_days is None:
                continue
            for rule in self._durations:
                if rule["of"] == finding.code and rule.get("over_days", -1) < finding.duration_days < rule.get("under_days", 1e9):
                    completed.append(replace(finding, code=rule["finding"], value=rule.get("value", PRESENT)))
        return completed

    def _not_understood(
        self, tokens: list[Token], keys: list[tuple[str, ...]], used: frozenset[int]
    ) -> Iterable[tuple[int, int]]:
        for index, token in enumerate(tokens):
            known = index in used or token.keys[0][0] == "n"
            if not known and not any(key in _FILLER or key in _CONNECTORS for key in keys[index]):
                yield token.start, token.end


def _phrase(code: str, value: str, polarity: str, script: str, text: str) -> _Phrase | None:
    """A lexicon entry as the keys of its telling words; None when it has no word at all."""
    prefix = {"en": "e", "roman": "r", "ur": "u"}[script]
    keys: list[str] = []
    for token in tokenize(text):
        own = [key for key in token.keys if key[0] == prefix] or list(token.keys)
        if own[0] not in keys:
            keys.append(own[0])
    if not keys:
        return None
    if len(keys) == 1 and keys[0] in _FILLER:
        # "qay" (vomiting) sounds like "ki" (of): such a word counts only as it is spelt.
        keys = [key for key in tokenize(text)[0].keys if key[0] == "l"] or keys
    telling = tuple(key for key in keys if key not in _FUNCTION)
    needs_small_words = len(telling) < min(2, len(keys))
    denies = polarity == ABSENT or any(key in _BEFORE or key in _BEFORE_ONE or key in _AFTER for key in keys)
    if needs_small_words:
        telling = tuple(keys)
    return _Phrase(code, value, polarity == ABSENT, telling, telling if denies or needs_small_words else ())


def _gathered(phrase: _Phrase, anchor: int, where: Mapping[str, list[int]], tokens: list[Token]) -> frozenset[int] | None:
    """The tokens nearest to `anchor` that make up the phrase, if they stand close enough together in one sentence."""
    clause = tokens[anchor].clause
    chosen = {phrase.keys[0]: anchor}
    for key in phrase.keys[1:]:
        free = [index for index in where[key] if tokens[index].clause == clause and index not in chosen.values()]
        if not free:
            return None
        chosen[key] = min(free, key=lambda index: abs(tokens[index].place - tokens[anchor].place))
    members = frozenset(chosen.values())
    first, last = min(members), max(members)
    small_words = sum(
        1 for index in range(first, last) if index not in members and not _FUNCTION.isdisjoint(tokens[index].keys)
    )
    skipped = tokens[last].place - tokens[first].place + 1 - len(members) - small_words
    if phrase.in_order:
        places = [chosen[key] for key in phrase.in_order]
        return members if skipped <= 0 and places == sorted(places) else None
    return members if skipped <= _GAP else None


def _longest(matches: list[_Match]) -> list[_Match]:
    """Without the matches that stand inside a longer one, in the order of the text."""
    kept: dict[tuple[frozenset[int], str, str], _Match] = {}
    for match in matches:
        if not any(match.tokens < other.tokens for other in matches):
            kept.setdefault((match.tokens, match.phrase.code, match.phrase.value), match)
    return sorted(kept.values(), key=lambda match: (min(match.tokens), max(match.tokens), match.phrase.code))


def _negated(tokens: list[Token], keys: list[tuple[str, ...]], matches: list[_Match]) -> set[int]:
    """Which matches are denied: by their own wording, or by a negation before or after them in the sentence."""
    absent = {index for index, match in enumerate(matches) if match.phrase.is_absent}
    spoken_for = frozenset().union(*(match.tokens for match in matches if not match.phrase.is_absent))
    for cue in range(len(tokens)):
        if cue in spoken_for:
            continue
        if not _BEFORE.isdisjoint(keys[cue]) or not _BEFORE_ONE.isdisjoint(keys[cue]):
            absent |= _following(cue, tokens, keys, matches, only_one=_BEFORE.isdisjoint(keys[cue]))
        elif not _AFTER.isdisjoint(keys[cue]):
            absent |= _preceding(cue, tokens, keys, matches)
    return absent


def _following(
    cue: int, tokens: list[Token], keys: list[tuple[str, ...]], matches: list[_Match], only_one: bool
) -> set[int]:
    """Matches after the cue, up to a turn ("but"), a second verb or the sentence's end."""
    end = len(tokens)
    for index in range(cue + 1, len(tokens)):
        if tokens[index].clause != tokens[cue].clause or not _TURN.isdisjoint(keys[index]):
            end = index
            break
    inside = [number for number, match in enumerate(matches) if cue < min(match.tokens) and max(match.tokens) < end]
    if only_one:
        return set(inside[:1])
    return {number for number in inside if _is_listed(cue, min(matches[number].tokens), tokens, matches)}


def _is_listed(cue: int, first: int, tokens: list[Token], matches: list[_Match]) -> bool:
    """Whether only listed findings and joining words stand between the cue and the finding ("no fever, cough or rash")."""
    covered = {token for match in matches for token in match.tokens}
    strangers = [
        index for index in range(cue + 1, first)
        if index not in covered and _FILLER.isdisjoint(tokens[index].keys) and _CONNECTORS.isdisjoint(tokens[index].keys)
    ]
    return len(strangers) <= 1


def _preceding(cue: int, tokens: list[Token], keys: list[tuple[str, ...]], matches: list[_Match]) -> set[int]:
    """Matches before the cue, back to a verb, a turn, a comma or another negation ("bukhar hai, khansi nahi")."""
    begin = 0
    for index in range(cue - 1, -1, -1):
        ends = not (_VERB | _TURN | _AFTER).isdisjoint(keys[index])
        if tokens[index].clause != tokens[cue].clause or (ends and not _inside(index, matches)):
            begin = index + 1
            break
        if tokens[index + 1].place - tokens[index].place > 1:
            begin = index + 1
            break
    return {number for number, match in enumerate(matches) if min(match.tokens) >= begin and max(match.tokens) < cue}


def _inside(index: int, matches: list[_Match]) -> bool:
    return any(index in match.tokens for match in matches)


def _durations(tokens: list[Token], keys: list[tuple[str, ...]]) -> list[tuple[int, float]]:
    """Each duration that the text names, as (token, days): "3 din se", "for two weeks", "since yesterday"."""
    found = []
    for index in range(len(tokens)):
        days = next((_UNITS[key] for key in keys[index] if key in _UNITS), None)
        if days is not None and index > 0:
            amount = _amount(keys[index - 1])
            if amount is not None:
                found.append((index, amount * days))
        since = next((_SINCE[key] for key in keys[index] if key in _SINCE), None)
        if since is not None:
            found.append((index, since))
    return found


_WHOLE = re.compile(r"n:(\d{1,3}(?:\.\d+)?)$")


def _amount(keys: tuple[str, ...]) -> float | None:
    number = _WHOLE.match(keys[0])
    if number:
        return float(number.group(1))
    return next((_NUMBERS[key] for key in keys if key in _NUMBERS), None)


def _distance(first: int, last: int, index: int) -> int:
    return first - index if index < first else max(0, index - last)


__all__ = ["FindingsReader", "ReadFinding", "Reading", "word_keys"]
