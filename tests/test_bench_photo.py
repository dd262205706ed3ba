"""The photo part of the benchmark: what it times, in which order."""

from __future__ import annotations

from training import bench_photo


def test_calls_are_timed_in_turn_on_the_same_file() -> None:
    """Both get each file, one after the other, once more than is counted."""
    seen: list[tuple[str, bytes]] = []
    medians = bench_photo.in_turn([lambda content: seen.append(("a", content)), lambda content: seen.append(("b", content))], [b"1", b"2"])
    assert seen[:4] == [("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", b"2")]
    assert len(seen) == 2 * (bench_photo.REPEATS + 1)
    assert len(medians) == 2 and min(medians) >= 0
