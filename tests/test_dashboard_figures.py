"""The dashboard's figures from histories of a few cases that a person can count."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, isnan, log

import pytest
from queue_database import POLICY

from inference.service.web.dashboard_drift import chance_index, reading_of, risk_bin, shift_of, shifts, stability_index
from inference.service.web.dashboard_figures import override_weeks, queue_figure, review_figure, wait_figures
from inference.service.web.dashboard_history import CaseFacts, Decision, History, Window, date_of, day_of, start_us
from inference.service.web.dashboard_rises import ALL, rise_figure
from inference.service.web.rates import pooled, quantile, rate

MINUTE = 60_000_000
NOW = datetime(2026, 7, 14, 12, 0, tzinfo=UTC)  # 17:00 in Pakistan
WINDOW = Window(NOW, 14)
TODAY = WINDOW.last_day


def case(day: int = TODAY, **given) -> CaseFacts:
    values = {
        "district": "badin", "level": 3, "risk": 0.05, "scored_by": "models and rules", "needs_review": False, "specialty": "general",
        "is_patient_known": True, "review_kinds": frozenset(), "syndromes": (), **given,
    }  # fmt: skip
    return CaseFacts(day, **values)


def decided(sequence: int, id_: str, kind: str, before: int = 3, level: int = 3, day: int = TODAY) -> Decision:
    return Decision(sequence, day, id_, kind, before, level)


def test_days_are_pakistans():
    """19:00 UTC is midnight there."""
    late, early = datetime(2026, 7, 14, 18, 59, tzinfo=UTC), datetime(2026, 7, 14, 19, 0, tzinfo=UTC)
    assert [date_of(day_of(int(at.timestamp() * 1e6))).day for at in (late, early)] == [14, 15]
    assert day_of(start_us(TODAY)) == TODAY and day_of(start_us(TODAY) - 1) == TODAY - 1


def test_a_window_is_whole_days_up_to_today():
    """Fourteen with today, and the fourteen before."""
    assert (WINDOW.first_day, WINDOW.first_before) == (TODAY - 13, TODAY - 27)
    assert len(WINDOW.all_days) == 14
    assert Window(NOW, 7).first_read == TODAY - 17  # the rises of seven days need eleven days before the first of them


def test_wilson_intervals():
    """8 of 10, from the formula by hand: (0.8 + 3.8416 / 20) / 1.38416 ± …; of nothing there is none."""
    one = rate(8, 10)
    assert (one.share, round(one.low, 3), round(one.high, 3)) == (0.8, 0.490, 0.943)
    assert (rate(0, 5).low, rate(5, 5).high) == (0, 1)
    assert 0 < rate(0, 5).high < 1
    assert isnan(rate(0, 0).share)
    assert pooled([rate(1, 2), rate(2, 8)]) == rate(3, 10)


def test_quantiles():
    """The middle one; between two of them; of nothing NaN."""
    assert (quantile([3, 1, 2], 0.5), quantile([1, 2], 0.5)) == (2, 1.5)
    assert isnan(quantile([], 0.5))


def test_waits_of_a_level():
    """Level 2 (one hour): 10, 30 and 90 minutes until the claim, and two that wait past it: 2 of 5 in time."""
    history = History()
    history.claims[2] += [10 * MINUTE, 30 * MINUTE, 90 * MINUTE]
    history.late[2] += [61 * MINUTE, 200 * MINUTE]
    one = wait_figures(history, POLICY)[1]
    assert (one.level, one.cap_minutes, one.n, one.median_minutes, one.late, one.longest_late_minutes) == (2, 60, 3, 30, 2, 200)
    assert (one.in_time.k, one.in_time.n) == (2, 5)
    assert one.p90_minutes == pytest.approx(78)  # 30 + 0.8 * 60


def test_at_the_cap_is_in_time():
    """Sixty minutes of sixty."""
    history = History()
    history.claims[2].append(60 * MINUTE)
    assert wait_figures(history, POLICY)[1].in_time.k == 1


def test_waits_of_nobody_are_undefined():
    """NaN with n = 0, never 0 minutes or 100 %."""
    one = wait_figures(History(), POLICY)[0]
    assert (one.n, one.late, one.in_time.n) == (0, 0, 0)
    assert all(isnan(value) for value in (one.median_minutes, one.p90_minutes, one.in_time.share, one.longest_late_minutes))


def test_the_queue_is_walked_back():
    """Five are open now; two came and one went today, one moved from level 4 to 3 yesterday."""
    history = History(open_by_level={3: 5, 4: 1}, open_by_district={"badin": 4, "thatta": 2, "dadu": 0})
    history.change_by_level.update({(TODAY, 3): 1, (TODAY - 1, 3): 1, (TODAY - 1, 4): -1})
    history.change_by_district.update({(TODAY, "badin"): 1})
    history.arrivals[TODAY] = 2
    queue = queue_figure(history, Window(NOW, 7))
    assert queue.levels[3][-3:] == (3, 4, 5)
    assert queue.levels[4][-3:] == (2, 1, 1)
    assert queue.levels[1] == (0,) * 7
    assert queue.districts == (("badin", (3, 3, 3, 3, 3, 3, 4)), ("thatta", (2,) * 7))
    assert (queue.n_districts, queue.arrivals[-2:], queue.open_now) == (2, (0, 2), 6)


def test_a_queue_is_never_negative():
    """A case that changed its district makes the walk back uneven."""
    history = History(open_by_district={"badin": 1})
    history.change_by_district[TODAY, "badin"] = 3
    assert queue_figure(history, Window(NOW, 7)).districts[0][1] == (0, 0, 0, 0, 0, 0, 1)


def test_ten_districts_are_shown():
    """Those with most open cases; equal ones by name."""
    history = History(open_by_district={f"d{n:02d}": 1 + n // 10 for n in range(12)})
    queue = queue_figure(history, WINDOW)
    assert [name for name, _ in queue.districts] == ["d10", "d11", *(f"d{n:02d}" for n in range(8))]
    assert queue.n_districts == 12


def test_overrides_by_week():
    """This week four cases: one up, one down, one agreed, one only completed; the week before one that went up."""
    history = History(
        decisions=[
            decided(9, "a", "overridden", 3, 2),
            decided(10, "a", "completed", 2, 2),
            decided(11, "b", "overridden", 3, 4),
            decided(12, "c", "agreed"),
            decided(13, "d", "completed"),
            decided(2, "e", "overridden", 5, 1, TODAY - 8),
        ]
    )
    before, now = override_weeks(history, WINDOW)
    assert (now.more_urgent, now.less_urgent) == (rate(1, 4), rate(1, 4))
    assert (before.more_urgent, before.less_urgent) == (rate(1, 1), rate(0, 1))
    assert (before.first_day, before.last_day, now.first_day, now.last_day) == (TODAY - 13, TODAY - 7, TODAY - 6, TODAY)


def test_a_case_counts_once_from_its_first_level_to_its_last():
    """Up and down again is no change; the order in which rows were read does not matter."""
    there_and_back = [decided(5, "a", "overridden", 2, 3), decided(4, "a", "overridden", 3, 2, TODAY - 8)]
    before, now = override_weeks(History(decisions=there_and_back), WINDOW)
    assert (before.more_urgent.n, now.more_urgent, now.less_urgent) == (0, rate(0, 1), rate(0, 1))


def test_the_oldest_week_may_be_short():
    """Thirty days are four weeks and two days."""
    weeks = override_weeks(History(), Window(NOW, 30))
    assert [week.last_day - week.first_day + 1 for week in weeks] == [2, 7, 7, 7, 7]


def test_review_reasons_of_the_newest():
    """Three cases, of which one was erased: of the other two one has two reasons."""
    cases = [case(review_kinds=frozenset({"photo_quality", "nothing_given"})), case(review_kinds=None), case()]
    reviews = review_figure(History(cases=cases))
    assert (reviews.n, reviews.any_reason) == (2, rate(1, 2))
    assert reviews.kinds == (("nothing_given", rate(1, 2)), ("photo_quality", rate(1, 2)))
    assert review_figure(History(cases=[case()] * 1500)).n == 1000


def test_the_stability_index_by_hand():
    """30 of 40 before and 10 of 40 now; with half a case added: shares 30.5 / 41 and 10.5 / 41."""
    before, now = 30.5 / 41, 10.5 / 41
    by_hand = 2 * (before - now) * log(before / now)
    assert stability_index([30, 10], [10, 30]) == pytest.approx(by_hand)
    assert stability_index([30, 10], [30, 10]) == 0
    assert isnan(stability_index([0, 0], [3, 4]))


def test_an_empty_category_gives_no_infinity():
    """Half a case stands for none."""
    assert 0 < stability_index([10, 0], [5, 5]) < inf


def test_what_chance_alone_gives():
    """Chi-square's 95th percentile with one degree of freedom is 3.84, with four 9.49; times 1/100 + 1/100."""
    assert chance_index(2, 100, 100) == pytest.approx(3.84 * 0.02, rel=0.03)
    assert chance_index(5, 100, 100) == pytest.approx(9.49 * 0.02, rel=0.01)
    assert chance_index(2, 0, 100) == inf


@pytest.mark.parametrize(
    ("index", "by_chance", "reading"),
    [(0.02, 0.05, "stable"), (0.15, 0.05, "look"), (0.3, 0.05, "act"), (0.15, 0.2, "few"), (0.9, 0.2, "act"), (float("nan"), inf, "few")],
)
def test_how_an_index_reads(index: float, by_chance: float, reading: str):
    """Too few to tell only where chance alone could give it; a change that chance cannot give counts even with few."""
    assert reading_of(index, by_chance) == reading


def test_what_moved_most():
    """Level 5 went from half to nothing, level 1 from nothing to half."""
    shift = shift_of("level", {"1": 0, "3": 100, "5": 100}, {"1": 100, "3": 100, "5": 0}, ["1", "2", "3", "4", "5"])
    assert shift.reading == "act"
    assert shift.moved in (("1", 0, 0.5), ("5", 0.5, 0))
    assert (shift.n_before, shift.n) == (200, 200)


def test_every_feature_is_compared():
    """The same cases before and now are stable in all; without cases nothing can be told."""
    cases = [case(level=1 + n % 5, risk=n / 200, specialty="ab"[n % 2]) for n in range(200)]
    assert {shift.reading for shift in shifts(cases, cases)} == {"stable"}
    assert {shift.reading for shift in shifts([], cases)} == {"few"}
    assert {shift.reading for shift in shifts([], [])} == {"few"}


def test_a_probability_counts_only_where_models_gave_one():
    """Rules alone store a risk of 0, which is none."""
    before = [case()] * 50
    now = [case(scored_by="rules alone", risk=0.0)] * 50
    by_name = {shift.feature: shift for shift in shifts(before, now)}
    assert (by_name["risk"].n, by_name["risk"].reading, by_name["scored_by"].reading) == (0, "few", "act")


def test_rare_specialties_are_counted_together():
    """Five in a hundred are a category of their own."""
    now = [case(specialty="big")] * 90 + [case(specialty=f"rare {n}") for n in range(10)]
    specialty = shifts(now, now)[-1]
    assert specialty.now == {"big": 90, "other": 10}


def test_bins_of_the_probability():
    """By their lower ends; what cannot be falls in the first and the last."""
    assert [risk_bin(risk) for risk in (0, 0.0099, 0.01, 0.3, 1, -0.1)] == ["0", "0", "0.01", "0.3", "0.3", "0"]


def daily(counts: dict[int, int], **given) -> list[CaseFacts]:
    """Cases with diarrhoea: `counts` by how many days ago."""
    return [case(TODAY - back, syndromes=("watery_diarrhoea",), **given) for back, n in sorted(counts.items()) for _ in range(n)]


def test_an_outbreak_in_one_district():
    """One case a day for weeks, and eight today: an alarm for the district, and for all districts together."""
    history = History(cases=daily({back: 8 if back == 0 else 1 for back in range(18)}), first_day_ever=TODAY - 100)
    rises = rise_figure(history, Window(NOW, 30))
    assert [(one.district, one.day, one.rise.cases, one.rise.expected, one.days) for one in rises.alarms] == [
        (ALL, TODAY, 8, 1, 1),
        ("badin", TODAY, 8, 1, 1),
    ]
    assert (rises.n_series, rises.n_days, rises.n_looks) == (2, 7, 14)
    assert rises.alarms[0].counts == (1,) * 11 + (8,)


def test_a_district_that_is_asked_for_is_looked_at_alone():
    """No second series for the same cases."""
    history = History(cases=daily({0: 8}), first_day_ever=TODAY - 100)
    assert [one.district for one in rise_figure(history, Window(NOW, 30, "badin")).alarms] == ["badin"]


def test_a_young_service_is_not_judged():
    """Its days before the first case are no baseline of zeros."""
    rises = rise_figure(History(cases=daily({0: 8}), first_day_ever=TODAY - 3), WINDOW)
    assert (rises.alarms, rises.n_days, rises.whole_days) == ((), 0, 4)


def test_days_whose_cases_cannot_be_read_are_no_baseline():
    """Cases from before there were syndromes, or erased ones, would look like days without any."""
    old = [case(TODAY - back, syndromes=None) for back in range(5, 18)]
    rises = rise_figure(History(cases=daily(dict.fromkeys(range(5), 5)) + old, first_day_ever=TODAY - 100), WINDOW)
    assert (rises.alarms, rises.n_days, rises.whole_days) == ((), 0, 5)


def test_days_that_were_cut_off_are_no_baseline():
    """The reading stopped at the newest cases."""
    history = History(cases=daily({0: 9}), first_day_ever=TODAY - 100, first_whole_day=TODAY - 12, is_cut=True)
    assert rise_figure(history, WINDOW).n_days == 2
