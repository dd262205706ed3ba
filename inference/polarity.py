"""Which findings of a complaint are denied, which are somebody else's, and which are long past.

Works on matched words and the small words between them. When in doubt a finding stays the patient's and present: an
extra finding costs a question, a missed one may cost a life. Knows no lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from inference.grammar import (
    ACCOMPANIES,
    AFTER,
    ALSO,
    BEFORE,
    BEFORE_ONE,
    EITHER_SIDE,
    HAS,
    HISTORY,
    JOIN,
    KNOWN,
    NOT,
    OF,
    PAST,
    PERSISTS,
    POSTPOSED,
    RELATIVE,
    SAYS,
    SELF,
    TURN,
    VERB,
    Word,
    is_past,
)  # fmt: skip
from inference.text import Token

_CUES = BEFORE | BEFORE_ONE | AFTER


class Mention(NamedTuple):
    """A finding's words in the text: their places among the tokens, and what its wording says by itself.

    `is_absent`: the wording denies it ("afebrile", "no fever"); `has_negation`: it does so, or states the finding,
    with a word of negation ("peshab nahi aa raha").
    """

    code: str
    tokens: frozenset[int]
    is_absent: bool
    has_negation: bool
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """The whole complaint as read so far: tokens, their words, the statement of each, and the mentions in order."""

    tokens: Sequence[Token]
    words: Sequence[Word]
    statements: Sequence[int]
    mentions: Sequence[Mention]


def denied(sentence: Sentence) -> set[int]:
    """Which mentions are absent: by their own wording, or by a negation before, inside or after them."""
    mentions, words = sentence.mentions, sentence.words
    absent = {number for number, mention in enumerate(mentions) if mention.is_absent}
    cues = cues_of(words)
    if not cues:
        return absent
    spoken_for = frozenset().union(*(mention.tokens for mention in mentions if mention.has_negation and not mention.is_absent))
    covered = frozenset().union(*(mention.tokens for mention in mentions))
    flipped = {number for number in absent if _is_undone(mentions[number], sentence)}
    for cue in cues:
        if cue in spoken_for:
            continue
        reached = _reached(cue, sentence, covered)
        for number in reached:
            if not mentions[number].is_absent:
                absent.add(number)
            elif not mentions[number].has_negation and words[cue].kinds & (NOT | AFTER):
                flipped.add(number)  # "saans theek nahi", "not alert"
    return absent - flipped


def cues_of(words: Sequence[Word]) -> list[int]:
    """The places of words that may deny something."""
    return [index for index, word in enumerate(words) if word.kinds & _CUES]


def _is_undone(mention: Mention, sentence: Sentence) -> bool:
    """Whether the next word undoes a denial: "bukhar nahi utar raha", "saans theek nahi aa raha"."""
    following = mention.last + 1
    if following >= len(sentence.words) or sentence.statements[following] != sentence.statements[mention.last]:
        return False
    kinds = sentence.words[following].kinds
    if mention.has_negation:
        return bool(sentence.words[mention.last].kinds & AFTER and kinds & PERSISTS)
    return bool(kinds & AFTER)


def _reached(cue: int, sentence: Sentence, covered: AbstractSet[int]) -> list[int]:
    kinds = sentence.words[cue].kinds
    split = [
        number for number, mention in enumerate(sentence.mentions)
        if mention.first < cue < mention.last and cue not in mention.tokens
    ]  # fmt: skip
    return split + _beside(cue, kinds, sentence, covered)


def _beside(cue: int, kinds: int, sentence: Sentence, covered: AbstractSet[int]) -> list[int]:
    if kinds & BEFORE_ONE:
        return _after_na(cue, sentence)
    is_last = cue + 1 == len(sentence.words) or sentence.statements[cue + 1] != sentence.statements[cue]
    looks_back = kinds & AFTER or (kinds & EITHER_SIDE and is_last)
    if kinds & POSTPOSED and cue and sentence.words[cue - 1].kinds & OF:
        looks_back = True
    return _preceding(cue, sentence, covered) if looks_back else _following(cue, sentence, covered)


def _after_na(cue: int, sentence: Sentence) -> list[int]:
    """What "na" denies: the next finding only; after a verb it is a question ("bukhar hai na?") unless it is the second."""
    words, tokens = sentence.words, sentence.tokens
    asks = cue > 0 and words[cue - 1].kinds & VERB and tokens[cue - 1].clause == tokens[cue].clause
    is_second = any(words[index].kinds & BEFORE_ONE for index in range(cue))
    if asks and not is_second:
        return []
    first = next((mention.first for mention in sentence.mentions if mention.first > cue), None)
    if first is None or first - cue > 2 or tokens[first].clause != tokens[cue].clause:
        return []
    return [number for number, mention in enumerate(sentence.mentions) if mention.first == first]


def _following(cue: int, sentence: Sentence, covered: AbstractSet[int]) -> list[int]:
    """Findings listed after the cue: up to a turn, an unknown word or the statement's end.

    A list goes on through "or" and strokes, and over commas where "or" ends it or "denies" begins it; two findings
    that merely stand side by side are not both denied.
    """
    words, tokens, statements = sentence.words, sentence.tokens, sentence.statements
    crosses = _crosses_commas(cue, sentence)
    reached: list[int] = []
    frontier, may_go_on = cue, True
    for index in range(cue + 1, len(words)):
        kinds = words[index].kinds
        if tokens[index].clause != tokens[cue].clause or kinds & TURN or (kinds & _CUES and index not in covered):
            break
        new_statement = statements[index] != statements[index - 1]
        if new_statement and not crosses:
            break
        if new_statement or tokens[index].is_joined or (kinds & JOIN and not _is_urdu_and(words[index])):
            may_go_on = True
        if kinds & HAS and index not in covered and index > cue + 1:
            break
        starting = [
            number for number, mention in enumerate(sentence.mentions)
            if number not in reached and cue <= mention.first <= index <= mention.last and mention.last > cue
        ]  # fmt: skip
        if starting:
            if index > frontier and not may_go_on:
                break
            reached += starting
            frontier = max([frontier, *(sentence.mentions[number].last for number in starting)])
            may_go_on = False
        elif index not in covered and not kinds & KNOWN:
            break
    return reached


def _is_urdu_and(word: Word) -> bool:
    """Whether it is "aur": in "no fever aur khansi hai" what follows is stated anew."""
    return any(key in ("l:aur", "u:اور") for key in word.keys)


def _crosses_commas(cue: int, sentence: Sentence) -> bool:
    """Whether the list after the cue runs over commas: "denies a, b, c" and "no a, b or c"."""
    words, tokens = sentence.words, sentence.tokens
    if any(key in ("e:denie", "e:deny", "e:denied", "e:neither") for key in words[cue].keys):
        return True
    for index in range(cue + 1, len(words)):
        if tokens[index].clause != tokens[cue].clause or words[index].kinds & (_CUES | TURN):
            return False
        if any(key in ("l:or", "l:nor") for key in words[index].keys):
            return True
    return False


def _preceding(cue: int, sentence: Sentence, covered: AbstractSet[int]) -> list[int]:
    """The finding that ends before the cue ("khansi nahi", "khansi abhi nahi hai"), and those joined to it by "and".

    A word that the reader does not know, or one of going away ("bukhar kam nahi", "nahi utar raha"), stops it.
    """
    words, statements = sentence.words, sentence.statements
    after = words[cue + 1].kinds if cue + 1 < len(words) and statements[cue + 1] == statements[cue] else 0
    if after & PERSISTS and cue + 1 not in covered:
        return []
    index = cue - 1
    while index >= 0 and index not in covered and words[index].kinds & VERB and statements[index] == statements[cue]:
        index -= 1  # "bukhar hua nahi"
    reached: list[int] = []
    may_go_on = True
    while index >= 0 and statements[index] == statements[cue]:
        kinds = words[index].kinds
        if index not in covered:
            if kinds & (PERSISTS | VERB | TURN | _CUES) or not kinds & KNOWN:
                break
            may_go_on = may_go_on or bool(kinds & JOIN)
            index -= 1
            continue
        if not may_go_on and not sentence.tokens[index + 1].is_joined:
            break
        ending = [number for number, mention in enumerate(sentence.mentions) if mention.first <= index <= mention.last]
        reached += ending
        index = min(sentence.mentions[number].first for number in ending) - 1
        may_go_on = False
    return [number for number in reached if sentence.mentions[number].last < cue]


def not_the_patients(sentence: Sentence, history: AbstractSet[str]) -> set[int]:
    """Which mentions are a relative's or long past, and so say nothing of the patient now.

    `history` holds the codes that a relative may well have without the patient ("walid ko dil ki bimari"). Any other
    finding stays with the patient, who may be the relative ("my father has chest pain"), unless somebody else is
    expressly the patient and has a finding, or the relative has it "too".
    """
    kinds = 0
    for word in sentence.words:
        kinds |= word.kinds
    dropped = _long_past(sentence, history) if kinds & PAST or kinds & HISTORY or _names_years(sentence) else set()
    if not kinds & RELATIVE:
        return dropped
    owners = [_owner(mention, sentence) for mention in sentence.mentions]
    has_other = any(owner != "relative" for owner in owners)
    has_self = any(owner == "self" for owner in owners)
    for number, mention in enumerate(sentence.mentions):
        if owners[number] != "relative" or not has_other:
            continue
        if has_self or mention.code in history or _is_also(mention, sentence):
            dropped.add(number)
    return dropped


def _names_years(sentence: Sentence) -> bool:
    return any(word.unit_days is not None and word.unit_days > 300 for word in sentence.words)


def _owner(mention: Mention, sentence: Sentence) -> str:
    """Whose finding it is: "relative", "self" where the statement names the patient, else ""."""
    words = sentence.words
    if any(words[index].kinds & RELATIVE for index in mention.tokens):
        return ""
    owner = ""
    for index in range(mention.first - 1, -1, -1):
        if sentence.statements[index] != sentence.statements[mention.first]:
            break
        kinds = words[index].kinds
        if kinds & RELATIVE and not _only_speaks(index, words):
            return "relative"
        if kinds & SELF:
            owner = "self"
            break
    return owner


def _only_speaks(index: int, words: Sequence[Word]) -> bool:
    """Whether the relative reports or accompanies: "mother says", "brought by brother", "walid ke saath"."""
    if index and words[index - 1].kinds & ACCOMPANIES:
        return True
    return any(word.kinds & (SAYS | ACCOMPANIES) and not word.kinds & HAS for word in words[index + 1 : index + 3])


def _is_also(mention: Mention, sentence: Sentence) -> bool:
    """Whether "too" stands between the relative and the finding: "bhai ko bhi bukhar hai"."""
    return any(
        sentence.words[index].kinds & ALSO and sentence.statements[index] == sentence.statements[mention.first]
        for index in range(max(0, mention.first - 3), mention.first)
    )


def _long_past(sentence: Sentence, history: AbstractSet[str]) -> set[int]:
    """Mentions of a statement about years ago, or behind "past history of"."""
    words, statements = sentence.words, sentence.statements
    dropped = set()
    for number, mention in enumerate(sentence.mentions):
        if mention.code in history or mention.is_absent:
            continue
        statement = statements[mention.first]
        places = [index for index in range(len(words)) if statements[index] == statement]
        told = any(words[index].kinds & PAST and words[index + 1].kinds & HISTORY for index in places if index + 1 < mention.first)
        if told or is_past([words[index] for index in places]):
            dropped.add(number)
    return dropped
