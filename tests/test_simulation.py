"""The simulation behind `nabz simulate`: checked against formulas of queueing theory, and against the real queue order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import factorial, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import PolicyError
from inference.policy import load_policy
from inference.queue import Waiting, ordered
from inference.service.simulation import waits
from inference.service.simulation_arrivals import Cohort, draw_cohort
from inference.service.simulation_orders import ORDERS, NabzOrder
from inference.service.simulation_presets import PRESETS, preset
from inference.service.simulation_results import EMERGENCIES, GROUPS, MEASURES, estimate, readers_needed, replicate, t_quantile
from inference.service.simulation_scenario import BinaryAI, ConfusionAI, LevelMix, Scenario, load_scenario
from inference.service.simulation_theory import low_class_wait, qucad_waits

POLICY = load_policy()
PERFECT = BinaryAI(sensitivity=1, false_positive_rate=0, positive_levels={1}, flagged_level=1, unflagged_level=3)


def scenario(**changes) -> Scenario:
    """Two levels with exponential times of 10 minutes, one reader, load 0.8, and an AI that is always right."""
    return Scenario.model_validate(
        {
            "name": "test",
            "arrivals_per_hour": 4.8,
            "readers": 1,
            "levels": {1: LevelMix(share=0.25, service_minutes=10), 3: LevelMix(share=0.75, service_minutes=10)},
            "ai": PERFECT,
            "warm_up_hours": 200,
            "measured_hours": 6000,
            "replications": 2,
            **changes,
        }
    )


def cohort(arrivals, services, levels, *, risk=None, interrupting=None) -> Cohort:
    """Cases written out by hand, which the AI knows and ranks rightly; times in minutes."""
    count = len(arrivals)
    return Cohort(
        arrival_minutes=np.array(arrivals, dtype=float),
        service_minutes=np.array(services, dtype=float),
        true_level=np.array(levels),
        known=np.ones(count, dtype=bool),
        level=np.array(levels),
        risk=np.array(risk or [0.0] * count),
        interrupting=np.array(interrupting or [False] * count),
        measured=np.ones(count, dtype=bool),
    )


def waited(order, cases, readers=1, **options) -> list[float]:
    """The waits of cases that were written out by hand."""
    room = ORDERS[order](cases, options.pop("scenario", scenario()), POLICY)
    return waits(cases, room, readers, **options).tolist()


def mean_waits(order, chosen, seed=3) -> dict[int, tuple[float, float]]:
    """By level: the mean wait over 12 replications and half of its 99.9 % interval."""
    runs = [
        replicate(chosen, (order,), POLICY, one, chosen.readers)[order][:, MEASURES.index("mean")]
        for one in np.random.SeedSequence(seed).spawn(12)
    ]
    half = t_quantile(11, 0.999) * np.std(runs, axis=0, ddof=1) / np.sqrt(12)
    return {group: (float(np.mean(runs, axis=0)[row]), float(half[row])) for row, group in enumerate(GROUPS) if group in chosen.levels}


def erlang_c(readers, offered) -> float:
    """The probability of waiting in M/M/c."""
    last = offered**readers / factorial(readers) * readers / (readers - offered)
    return last / (sum(offered**k / factorial(k) for k in range(readers)) + last)


def test_fifo_reads_in_order_of_arrival():
    """One reader, ten minutes a case: each waits for those before it."""
    assert waited("fifo", cohort([0, 1, 2], [10, 10, 10], [5, 3, 1])) == [0, 9, 18]


def test_strict_priority_reads_the_most_urgent_first_without_interrupting():
    """The case in hand is finished; then level 1 goes before level 3 though it came later."""
    assert waited("strict", cohort([0, 1, 2], [10, 10, 10], [5, 3, 1])) == [0, 19, 8]


def test_two_readers_share_one_queue():
    """The third case takes the reader who is free first."""
    assert waited("fifo", cohort([0, 0, 1], [10, 4, 10], [3, 3, 3]), readers=2) == [0, 0, 3]


def test_preemption_resumes_where_it_stopped_and_counts_the_interruption_as_wait():
    """The first case is stopped at minute 2 for 5 minutes, and has 8 of its 10 minutes left then."""
    assert waited("strict", cohort([0, 2, 6], [10, 5, 1], [3, 1, 3]), preemptive=True) == [5, 0, 9]


def test_preemption_stops_the_least_urgent_work():
    """Of two readers, the one with the level-5 case is interrupted; equals do not interrupt each other."""
    cases = cohort([0, 0, 1, 2], [10, 10, 3, 1], [3, 5, 1, 3])
    assert waited("strict", cases, readers=2, preemptive=True) == [0, 4, 0, 2]


def test_interrupting_cases_come_first_under_every_order():
    """An interrupting case passes everybody, also under FIFO."""
    cases = cohort([0, 1, 2], [10, 10, 5], [3, 1, 5], interrupting=[False, False, True])
    for order in ORDERS:
        assert waited(order, cases) == [0, 14, 8]


def test_the_weighted_score_lets_a_long_wait_outrank_a_level():
    """50 points between the levels 1 and 3 at 5 points an hour: a head start of ten hours."""
    early, late = cohort([0, 10, 500], [700, 1, 1], [5, 3, 1]), cohort([0, 10, 611], [700, 1, 1], [5, 3, 1])
    assert waited("weighted", early) == [0, 691, 200]
    assert waited("weighted", late) == [0, 690, 90]


def test_accumulating_priority_compares_rate_times_wait():
    """At minute 100, 4 x 90 beats 16 x 20 and loses to 16 x 30."""
    assert waited("accumulating", cohort([0, 10, 80], [100, 1, 1], [5, 3, 1])) == [0, 90, 21]
    assert waited("accumulating", cohort([0, 10, 70], [100, 1, 1], [5, 3, 1])) == [0, 91, 30]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 90), st.sampled_from([1, 2, 3]), st.floats(0, 1)), min_size=1, max_size=25), st.data())
def test_nabz_takes_what_the_real_queue_puts_first(cases, data):
    """However cases come and go, the simulated queue's next case is the first of inference.queue.ordered."""
    cases = sorted(cases)
    order = NabzOrder(cohort([a for a, _, _ in cases], [1] * len(cases), [b for _, b, _ in cases], risk=[c for _, _, c in cases]), POLICY)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    waiting, now = {}, 0.0
    for number, (arrival, level, risk) in enumerate(cases):
        order.put(number)
        waiting[number] = Waiting(str(number), level, start + timedelta(minutes=arrival), risk, number)
        now = max(now, arrival)
        for _ in range(data.draw(st.integers(0, 2))):
            now += data.draw(st.floats(0, 40))
            expected = ordered(waiting.values(), POLICY, start + timedelta(minutes=now))
            taken = order.take(now)
            assert taken == (expected[0].sequence if expected else None)
            waiting.pop(taken, None)


def test_nabz_holds_an_interrupted_case_again():
    """A case that was taken and comes back is not lost and not given twice."""
    order = NabzOrder(cohort([0, 1], [5, 5], [3, 3], risk=[0.1, 0.9]), POLICY)
    order.put(0)
    order.put(1)
    assert order.take(2) == 1
    order.put(1)
    assert [order.take(3), order.take(3), order.take(3)] == [1, 0, None]


@pytest.mark.parametrize(("readers", "arrivals"), [(1, 4.8), (3, 14.4)])
def test_fifo_agrees_with_erlang_c(readers, arrivals):
    """M/M/c: the mean wait is Erlang's C over the spare capacity, the same for every level."""
    offered = arrivals / 6
    exact = erlang_c(readers, offered) / (readers - offered) * 10
    chosen = scenario(readers=readers, arrivals_per_hour=arrivals, measured_hours=6000 / arrivals, warm_up_hours=100)
    for mean, half in mean_waits("fifo", chosen).values():
        assert abs(mean - exact) < half < 0.35 * exact


def test_strict_priority_agrees_with_cobham():
    """Non-preemptive M/M/1: W0 / ((1 - load above)(1 - load above and here)), with W0 = 8 minutes of work in hand."""
    means = mean_waits("strict", scenario(measured_hours=1200, warm_up_hours=100))
    for level, exact in ((1, 8 / (1 - 0.2)), (3, 8 / (1 - 0.2) / (1 - 0.8))):
        assert abs(means[level][0] - exact) < means[level][1] < 0.35 * exact


def test_accumulating_priority_agrees_with_kleinrock():
    """Rates 16 and 4 in M/M/1: the recursion for a priority that grows linearly (Kleinrock 1964)."""
    low = 8 / (1 - 0.8) / (1 - 0.2 * (1 - 4 / 16))
    high = 8 / (1 - 0.8) - 0.6 * low * (1 - 4 / 16)
    means = mean_waits("accumulating", scenario(measured_hours=1200, warm_up_hours=100))
    for level, exact in ((1, high), (3, low)):
        assert abs(means[level][0] - exact) < means[level][1] < 0.35 * exact


def test_the_exact_solution_agrees_with_formulas_where_there_are_any():
    """With nobody above it is Erlang's C; with one reader it is the preemptive-resume formula of M/M/1."""
    assert low_class_wait((1e-9, 0.1), (0.16, 0.1), 2) == pytest.approx(erlang_c(2, 1.6) / 0.4 * 10, rel=1e-6)
    time_in_system = 10 / (1 - 0.2) + 8 / (1 - 0.2) / (1 - 0.8)
    assert low_class_wait((0.02, 0.1), (0.06, 0.1), 1) == pytest.approx(time_in_system - 10, rel=1e-6)


def test_the_exact_solution_gives_the_published_qucad_figures():
    """18.29, 2.57 and 18.29 to the last digit; the published 19.98 is 0.3 % below what its model gives."""
    exact, published = qucad_waits(preset("qucad").scenario), preset("qucad").published
    for group, arm in (("diseased", "without_ai"), ("diseased", "with_ai"), ("non_diseased", "without_ai")):
        assert round(exact[group][arm], 2) == published[group][arm]
    assert exact["non_diseased"]["with_ai"] == pytest.approx(published["non_diseased"]["with_ai"], rel=0.003)


def test_every_policy_reads_the_same_cases():
    """Common random numbers: who arrives and how long each takes depends on the seed alone."""
    chosen = scenario(measured_hours=100)
    seed = np.random.SeedSequence(5)
    first, again = draw_cohort(chosen, seed), draw_cohort(chosen, seed)
    fewer = draw_cohort(chosen.model_copy(update={"ai": PERFECT.model_copy(update={"sensitivity": 0.0})}), seed)
    assert np.array_equal(first.arrival_minutes, again.arrival_minutes) and np.array_equal(first.level, again.level)
    assert np.array_equal(first.service_minutes, fewer.service_minutes) and not np.array_equal(first.level, fewer.level)


def test_the_rules_raise_and_never_lower():
    """With rules that catch everything nobody is ranked below the true level, and nobody the AI raised is lowered."""
    worst = tuple((0.0, 0.0, 0.0, 0.0, 1.0) for _ in range(5))
    raising = tuple((1.0, 0.0, 0.0, 0.0, 0.0) for _ in range(5))
    caught = {level: LevelMix(share=0.2, service_minutes=1, floor_catches=1) for level in range(1, 6)}
    for known, expected in ((worst, [1, 2, 3, 4, 5]), (raising, [1, 1, 1, 1, 1])):
        cases = draw_cohort(scenario(levels=caught, ai=ConfusionAI(known=known, unknown=worst)), np.random.SeedSequence(1))
        assert [set(cases.level[cases.true_level == level].tolist()) for level in range(1, 6)] == [{one} for one in expected]


def test_conditions_that_the_ai_does_not_know_are_ranked_by_their_own_row():
    """The unknown ones follow the unknown matrix; a yes-or-no AI flags them no more than healthy ones."""
    half = {1: LevelMix(share=1, service_minutes=1, unknown_share=0.5)}
    sure, lost = ((tuple(float(column == place) for column in range(5)),) * 5 for place in (0, 3))
    cases = draw_cohort(scenario(levels=half, ai=ConfusionAI(known=sure, unknown=lost)), np.random.SeedSequence(1))
    assert 0.45 < cases.known.mean() < 0.55
    assert np.array_equal(cases.level, np.where(cases.known, 1, 4))
    flagged = draw_cohort(scenario(levels=half), np.random.SeedSequence(1))
    assert np.array_equal(flagged.level, np.where(flagged.known, 1, 3))


def test_arrivals_follow_the_daily_shape():
    """All cases of a day with one busy hour arrive in it, at the average rate of the whole day."""
    chosen = scenario(hourly_shape=tuple(float(hour == 9) for hour in range(24)), warm_up_hours=24, measured_hours=2400)
    cases = draw_cohort(chosen, np.random.SeedSequence(2))
    assert set((cases.arrival_minutes // 60 % 24).tolist()) == {9.0}
    assert len(cases) == pytest.approx(4.8 * 2448, rel=0.03)
    assert cases.measured.sum() == pytest.approx(4.8 * 2400, rel=0.03)


def test_lognormal_times_keep_their_mean():
    """Mean 10 minutes with coefficient of variation 0.5; with 0, every case takes exactly its mean."""
    varied = draw_cohort(scenario(service_distribution="lognormal", service_cv=0.5), np.random.SeedSequence(1)).service_minutes
    assert varied.mean() == pytest.approx(10, rel=0.02) and varied.std() == pytest.approx(5, rel=0.04)
    fixed = draw_cohort(scenario(service_distribution="lognormal", service_cv=0), np.random.SeedSequence(1)).service_minutes
    assert np.allclose(fixed, 10)


@pytest.mark.parametrize(("freedom", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (19, 2.093), (39, 2.023)])
def test_the_t_quantile_is_the_one_of_the_tables(freedom, table):
    """Two-sided 95 %."""
    assert t_quantile(freedom) == pytest.approx(table, abs=6e-4)


def test_an_estimate_leaves_out_replications_without_such_a_case():
    """Mean 2 of 1, 2 and 3, with t(2) x 1 / sqrt(3); of one figure there is no interval, and of none no value."""
    one = estimate([1.0, float("nan"), 2.0, 3.0])
    assert (one.value, one.replications) == (2.0, 3)
    assert one.high - one.value == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert estimate([4.0]).value == 4.0 and isnan(estimate([4.0]).low)
    assert isnan(estimate([]).value) and estimate([]).replications == 0


def test_the_readers_needed_are_the_fewest_that_keep_every_cap():
    """One reader fails the level-1 cap of 10 minutes at load 0.8; the answer keeps it and one fewer does not."""
    chosen = scenario(measured_hours=250, warm_up_hours=50)
    seeds = np.random.SeedSequence(1).spawn(6)

    def p95(readers):
        return np.mean([replicate(chosen, ("fifo",), POLICY, seed, readers)["fifo"][1, MEASURES.index("p95")] for seed in seeds])

    own = [replicate(chosen, ("fifo",), POLICY, seed, chosen.readers) for seed in seeds]
    needed = readers_needed(chosen, "fifo", POLICY, seeds, own)
    assert needed is not None and needed > 1
    assert p95(needed) <= POLICY.levels[1].cap_minutes < p95(needed - 1)


def test_no_number_of_readers_is_claimed_where_none_was_found():
    """A cap of 1 minute at level 1 cannot be kept where the only readers tried are too few: nothing is made up."""
    impossible = POLICY.model_copy(update={"levels": {**POLICY.levels, 1: POLICY.levels[1].model_copy(update={"cap_minutes": -1})}})
    chosen = scenario(measured_hours=20, warm_up_hours=1)
    seeds = np.random.SeedSequence(1).spawn(2)
    own = [replicate(chosen, ("fifo",), impossible, seed, chosen.readers) for seed in seeds]
    assert readers_needed(chosen, "fifo", impossible, seeds, own) is None


def test_waits_are_counted_against_the_true_level():
    """A true emergency that the AI sent to level 3 counts as past the 10-minute cap of level 1."""
    blind = PERFECT.model_copy(update={"sensitivity": 0.0})
    figures = replicate(scenario(ai=blind, measured_hours=400), ("strict",), POLICY, np.random.SeedSequence(1), 1)["strict"]
    late = figures[:, MEASURES.index("past_cap")]
    assert late[GROUPS.index(1)] > 0.5 and late[GROUPS.index(3)] < 0.01
    assert late[GROUPS.index(EMERGENCIES)] == late[GROUPS.index(1)] and isnan(late[GROUPS.index(2)])


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_of_a_preset_says_where_it_comes_from(name):
    """Estimates are called estimates; the published example names itself."""
    chosen = preset(name).scenario
    given = {"arrivals_per_hour", "readers", "service_distribution", "levels.share", "levels.service_minutes"}
    given |= {f"levels.{field}" for mix in chosen.levels.values() for field in mix.model_fields_set - {"label"}}
    given |= {f"ai.{field}" for field in chosen.ai.model_fields_set & {"known", "unknown", "sensitivity", "false_positive_rate"}}
    given |= chosen.model_fields_set & {"hourly_shape", "service_cv", "interrupting_levels", "preemptive"}
    assert given <= set(chosen.sources)
    if name == "clinic":
        assert set(chosen.sources.values()) == {"estimate"}


def test_an_unknown_preset_is_refused_with_the_names():
    """The message lists what there is."""
    with pytest.raises(
        PolicyError, match="there is no preset 'hospital': choose one of clinic, qucad, or give your own scenario with --file"
    ):
        preset("hospital")


OWN = """
name = "my hub"
arrivals_per_hour = 6
readers = 1
warm_up_hours = 24
measured_hours = 240

[levels]
1 = { share = 0.1, service_minutes = 12, floor_catches = 0.8 }
4 = { share = 0.9, service_minutes = 6, unknown_share = 0.2 }

[ai]
kind = "binary"
sensitivity = 0.9
false_positive_rate = 0.1
positive_levels = [1]
flagged_level = 1
unflagged_level = 4
"""


def test_a_scenario_of_ones_own_is_read_from_toml_and_from_json(tmp_path):
    """What a preset's JSON shows can be put back as a file."""
    (tmp_path / "mine.toml").write_text(OWN, encoding="utf-8")
    mine = load_scenario(tmp_path / "mine.toml")
    assert (mine.name, mine.load) == ("my hub", pytest.approx(0.66))
    (tmp_path / "mine.json").write_text(mine.model_dump_json(), encoding="utf-8")
    assert load_scenario(tmp_path / "mine.json") == mine


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("share = 0.9", "share = 0.8", r"the levels' shares add up to 0\.9, expected 1"),
        ("readers = 1", "readers = 0", r"readers: Input should be greater than or equal to 1"),
        ("readers = 1", "raeders = 1", r"readers: Field required; raeders: Extra inputs are not permitted"),
        ('kind = "binary"', 'kind = "oracle"', r"ai: Input tag 'oracle' .* expected tags: 'binary', 'confusion'"),
        ("4 = {", "6 = {", r"levels\.6\.\[key\]: Input should be less than or equal to 5"),
        ("measured_hours = 240", "measured_hours = 1e9", r"about 6,000,000,288 cases, expected at most 2,000,000: shorten measured_hours"),
        ("[levels]", "[levels", r"is not valid TOML"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_place(tmp_path, old, new, message):
    """Each message names the field and what was expected."""
    (tmp_path / "wrong.toml").write_text(OWN.replace(old, new), encoding="utf-8")
    with pytest.raises(PolicyError, match=message):
        load_scenario(tmp_path / "wrong.toml")


def test_rows_that_are_no_probabilities_are_refused(tmp_path):
    """A confusion row that adds up to 2 is named by its level."""
    row, twice = "[0, 0, 0, 1, 0]", "[1, 0, 0, 1, 0]"
    table = f"[ai]\nkind = 'confusion'\nknown = [{row}, {twice}, {row}, {row}, {row}]\nunknown = [{', '.join([row] * 5)}]\n"
    (tmp_path / "wrong.toml").write_text(OWN[: OWN.index("[ai]")] + table, encoding="utf-8")
    with pytest.raises(PolicyError, match="the known row of level 2 adds up to 2, expected 1"):
        load_scenario(tmp_path / "wrong.toml")


def test_a_missing_scenario_is_named(tmp_path):
    """The message has the path and the reason."""
    with pytest.raises(PolicyError, match=r"the scenario .*none\.toml cannot be read: No such file"):
        load_scenario(tmp_path / "none.toml")
