"""The findings reader: what a complaint in English, Urdu or Roman Urdu says is there, is not there, and for how long.

It works from the lexicon that travels in the symptom bundle; it knows no conditions and gives no probability. What it
did not understand it says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import OSA

from inference.case import ABSENT, PRESENT, Case
from inference.grammar import (
    AFTER,
    BEFORE,
    BEFORE_ONE,
    FILLER,
    FUNCTION,
    KNOWN,
    STRONG,
    VERB,
    Word,
    durations_of,
    kinds_of,
    statements_of,
    word_of,
)
from inference.polarity import Mention, Sentence, cues_of, denied, not_the_patients
from inference.text import Token, tokenize, word_keys

_GAP = 2  # words that may stand between two words of one phrase: "chest tightness and pain", "dard bohat seenay mein"
_ELSEWHERE = 1 << 20  # a distance that any word of the same statement is under
_FUZZY_LENGTH = 5  # a shorter word has too many neighbours at one edit: only swapped letters are mended
_SHORTEST_FUZZY = 4
_PIECE_WORDS = 80  # more words than nearly any complaint has
_FUZZY_LONG = 8  # from this length on, two edits are allowed


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

    Order and closeness matter for wordings that deny ("bukhar nahi") or that need their small words ("pait se"). In a
    finding that is stated with a negation, verb and negation may change places and words may stand between ("saans
    theek se nahi aa rahi", "saans aa nahi rahi"): such findings are dangerous to miss.
    """

    code: str
    value: str
    is_absent: bool
    has_negation: bool
    keys: tuple[str, ...]
    in_order: tuple[str, ...]
    needed: frozenset[str]
    is_loose: bool
    begins_with_verb: bool


class _Match(NamedTuple):
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
        self._history = frozenset(rule["finding"] for rule in lexicon.get("history", []))
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
            script: [key[2:] for key in sorted(counts) if key[0] == script and len(key) >= _SHORTEST_FUZZY + 2] for script in "eru"
        }
        self._word = lru_cache(maxsize=65536)(self._corrected)

    def read(self, complaint: str) -> Reading:
        """Every finding that `complaint` states or denies. An empty complaint gives an empty reading.

        A long one is read piece by piece, at sentence ends where there are any: what a word denies stands near it, and the time
        grows with the length alone.
        """
        pieces = _pieces(complaint)
        if len(pieces) == 1:
            return self._read(complaint)
        findings: list[ReadFinding] = []
        not_understood: list[tuple[int, int]] = []
        for start, end in pieces:
            reading = self._read(complaint[start:end])
            findings += [replace(found, start=found.start + start, end=found.end + start) for found in reading.findings]
            not_understood += [(first + start, last + start) for first, last in reading.not_understood]
        return Reading(tuple(findings), tuple(not_understood))

    def _read(self, complaint: str) -> Reading:
        tokens = tokenize(complaint)
        words = [self._word(token.keys) for token in tokens]
        statements = statements_of(tokens, words)
        matches = _longest(self._matches(tokens, words, statements), cues_of(words))
        used = frozenset().union(*(match.tokens for match in matches))
        sentence = Sentence(tokens, words, statements, [_mention(match) for match in matches])
        absent = denied(sentence)
        dropped = not_the_patients(sentence, self._history)
        durations = durations_of(tokens, words)
        findings = [
            self._finding(match, sentence, number in absent, durations, used)
            for number, match in enumerate(matches)
            if number not in dropped
        ]
        not_understood = tuple(
            (token.start, token.end)
            for index, token in enumerate(tokens)
            if index not in used and not words[index].kinds & KNOWN and token.keys[0][0] != "n"
        )
        return Reading(tuple(dict.fromkeys(self._completed(findings))), not_understood)

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
        for said in [code for code, value in merged.items() if value != ABSENT]:
            parent = self._parents.get(said)
            while parent is not None:
                if merged.get(parent) != PRESENT and parent not in case.findings:
                    merged[parent] = PRESENT
                parent = self._parents.get(parent)
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

    def _matches(self, tokens: list[Token], words: list[Word], statements: list[int]) -> list[_Match]:
        where: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(words):
            for key in word.keys:
                where[key].append(index)
        matches = []
        said = frozenset(where)
        for key, anchors in where.items():
            for phrase in self._by_rarest.get(key, ()):
                if phrase.needed <= said:
                    for anchor in anchors:
                        found = _gathered(phrase, anchor, where, tokens, words, statements)
                        if found is not None:
                            matches.append(_Match(phrase, found))
        return matches

    def _corrected(self, keys: tuple[str, ...]) -> Word:
        """A word as it is when the lexicon or the grammar knows it, else as its nearest spelling."""
        word = word_of(keys)
        if word.kinds or any(key in self._vocabulary for key in keys):
            return word
        corrected = []
        for key in keys:
            script, spelt = key[0], key[2:]
            if script not in self._fuzzy_words or len(spelt) < _SHORTEST_FUZZY:
                continue
            limit = 2 if len(spelt) >= _FUZZY_LONG else 1
            near = process.extractOne(spelt, self._fuzzy_words[script], scorer=OSA.distance, score_cutoff=limit)
            if near is None or near[0][0] != spelt[0]:
                continue
            if len(spelt) >= _FUZZY_LENGTH or sorted(near[0]) == sorted(spelt):
                corrected.append(f"{script}:{near[0]}")
        return word_of(tuple(corrected)) if corrected else word

    def _finding(
        self, match: _Match, sentence: Sentence, is_absent: bool, durations: list[tuple[int, float]], used: frozenset[int]
    ) -> ReadFinding:
        tokens = sentence.tokens
        first, last = min(match.tokens), max(match.tokens)
        is_severe = not is_absent and _is_strong(first, last, sentence, used)
        stated_absent = match.phrase.is_absent and not is_absent  # "saans theek nahi": denied well-being
        return ReadFinding(
            code=match.phrase.code,
            value=ABSENT if is_absent else PRESENT if stated_absent else match.phrase.value or PRESENT,
            start=tokens[first].start,
            end=tokens[last].end,
            duration_days=None if is_absent else _nearest(first, last, sentence, durations),
            is_severe=is_severe,
        )

    def _completed(self, findings: list[ReadFinding]) -> list[ReadFinding]:
        """Add what a duration or a strong word implies. Parents are added when the case's findings are merged."""
        completed = list(findings)
        for finding in findings:
            if finding.is_severe and finding.code in self._severe:
                completed.append(replace(finding, code=self._severe[finding.code]))
            if finding.duration_days is None:
                continue
            completed += [
                replace(finding, code=rule["finding"], value=rule.get("value", PRESENT))
                for rule in self._durations
                if rule["of"] == finding.code and rule.get("over_days", -1) < finding.duration_days < rule.get("under_days", 1e9)
            ]
        return completed


def _pieces(complaint: str) -> list[tuple[int, int]]:
    """Where a complaint is cut: after at most `_PIECE_WORDS` words, at the last sentence end among them, if there is one."""
    if len(complaint) <= _PIECE_WORDS:
        return [(0, len(complaint))]
    tokens = tokenize(complaint)
    cuts = [0]
    first = 0
    while len(tokens) - first > _PIECE_WORDS:
        ends = range(first + _PIECE_WORDS, first + _PIECE_WORDS // 2, -1)
        first = next((place for place in ends if tokens[place].clause != tokens[place - 1].clause), ends[0])
        cuts.append(tokens[first].start)
    return list(pairwise([*cuts, len(complaint)]))


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
    kinds = {key: kinds_of(key) for key in keys}
    if len(keys) == 1 and kinds[keys[0]] & FILLER:
        # "qay" (vomiting) sounds like "ki" (of): such a word counts only as it is spelt.
        keys = [key for key in tokenize(text)[0].keys if key[0] == "l"] or keys
    telling = tuple(key for key in keys if not kinds.get(key, 0) & FUNCTION)
    needs_small_words = len(telling) < min(2, len(keys))
    has_negation = any(kinds.get(key, 0) & (BEFORE | BEFORE_ONE | AFTER) for key in keys)
    if needs_small_words:
        telling = tuple(keys)
    is_absent = polarity == ABSENT
    in_order = telling if is_absent or has_negation or needs_small_words else ()
    is_loose = has_negation and not is_absent and len(in_order) > 2
    return _Phrase(
        code, value, is_absent, has_negation, telling, in_order, frozenset(telling), is_loose, bool(kinds.get(telling[0], 0) & VERB)
    )


def _gathered(
    phrase: _Phrase,
    anchor: int,
    where: Mapping[str, list[int]],
    tokens: Sequence[Token],
    words: Sequence[Word],
    statements: Sequence[int],
) -> frozenset[int] | None:
    """The tokens nearest to `anchor` that make up the phrase, if they stand close enough together in one sentence."""
    if len(phrase.keys) == 1:
        return frozenset((anchor,))
    clause, place, statement = tokens[anchor].clause, tokens[anchor].place, statements[anchor]
    chosen = {phrase.keys[0]: anchor}
    for key in phrase.keys[1:]:
        nearest, best = -1, 2 * _ELSEWHERE
        for index in where[key]:
            distance = abs(tokens[index].place - place) + (0 if statements[index] == statement else _ELSEWHERE)
            if distance < best and tokens[index].clause == clause and index not in chosen.values():
                nearest, best = index, distance
        if nearest < 0:
            return None
        chosen[key] = nearest
    members = frozenset(chosen.values())
    first, last = min(members), max(members)
    begins_late = words[first].kinds & VERB and not phrase.begins_with_verb  # "gir gaya behosh hai" is not "behosh ho gaya"
    if begins_late or not _is_in_order([chosen[key] for key in phrase.in_order], phrase.is_loose):
        return None
    if statements[first] != statements[last] and not _fills(members, first, last, words, statements):
        return None
    skipped = tokens[last].place - tokens[first].place + 1 - len(members)
    if skipped > 0:
        skipped -= sum(1 for index in range(first, last) if index not in members and words[index].kinds & FUNCTION)
    return members if skipped <= (_GAP if phrase.is_loose or not phrase.in_order else 0) else None


def _is_in_order(places: list[int], is_loose: bool) -> bool:
    """Whether the words stand as written; in a loose phrase the last two may change places."""
    if all(first < second for first, second in pairwise(places)):
        return True
    return is_loose and places[:-2] == sorted(places[:-2]) and places[-3] < min(places[-2:])


def _fills(members: frozenset[int], first: int, last: int, words: Sequence[Word], statements: Sequence[int]) -> bool:
    """Whether a phrase over a comma uses up the statements on both sides ("pain, abdominal"; not "leg swelling, face fine")."""
    reached = range(statements[first], statements[last] + 1)
    return all(
        index in members or words[index].kinds & FILLER or words[index].kinds == KNOWN or words[index].kinds & STRONG
        for index, statement in enumerate(statements)
        if statement in reached
    )


def _longest(matches: list[_Match], cues: list[int]) -> list[_Match]:
    """Without the matches that stand inside a longer one, in the order of the text.

    A match that a negation splits takes no shorter one with it: "fever without chills" is no "fever with chills".
    """
    kept: dict[tuple[frozenset[int], str, str], _Match] = {}
    whole = [match for match in matches if len(match.tokens) > 1 and not (cues and _is_split(match.tokens, cues))]
    for match in matches:
        if not any(match.tokens < other.tokens for other in whole):
            kept.setdefault((match.tokens, match.phrase.code, match.phrase.value), match)
    return sorted(kept.values(), key=lambda match: (min(match.tokens), max(match.tokens), match.phrase.code))


def _is_split(members: frozenset[int], cues: list[int]) -> bool:
    first, last = min(members), max(members)
    return any(first < cue < last and cue not in members for cue in cues)


def _mention(match: _Match) -> Mention:
    phrase = match.phrase
    return Mention(phrase.code, match.tokens, phrase.is_absent, phrase.has_negation, min(match.tokens), max(match.tokens))


def _is_strong(first: int, last: int, sentence: Sentence, used: frozenset[int]) -> bool:
    """Whether a strong word stands in the finding, or beside it with only small words between."""
    words, statements = sentence.words, sentence.statements

    def found(index: int, step: int) -> bool:
        while 0 <= index < len(words) and statements[index] == statements[first] and index not in used:
            kinds = words[index].kinds
            if kinds & STRONG:
                return True
            if not kinds & FUNCTION or kinds & VERB:
                return False
            index += step
        return False

    inside = any(words[index].kinds & STRONG and index not in used for index in range(first, last))
    return inside or found(first - 1, -1) or found(last + 1, 1)


def _nearest(first: int, last: int, sentence: Sentence, durations: list[tuple[int, float]]) -> float | None:
    """The days that the text gives nearest to a finding, rather in its own statement than in its sentence."""
    tokens, statements = sentence.tokens, sentence.statements
    near = [
        (statements[index] != statements[first], first - index if index < first else max(0, index - last), days)
        for index, days in durations
        if tokens[index].clause == tokens[first].clause
    ]
    return min(near)[2] if near else None


__all__ = ["FindingsReader", "ReadFinding", "Reading", "word_keys"]
