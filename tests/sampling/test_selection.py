"""All amounts of fat and all kinds of doubt are among what is chosen."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.sampling.doubt import Findings
from steatosis_d2.sampling.regions import Region
from steatosis_d2.sampling.selection import DOUBTS, FAT_CLASSES, select_regions


def make(number, *, cases=4, seed=0):
    rng = np.random.default_rng(seed)
    regions = [
        Region(f"{i % cases}.svs", str(i % cases), 10 * i, 0, 10, 1.0) for i in range(number)
    ]
    findings = [
        Findings([], float(10 ** rng.uniform(-4, -0.4)), *map(float, rng.gamma(2, 10, 3)))
        for _ in range(number)
    ]
    return regions, findings


def test_half_is_chosen_by_fat_and_half_by_doubt():
    chosen = select_regions(*make(200), number=30)
    reasons = Counter(reason for _, reason in chosen)
    assert sum(reasons[name] for name in FAT_CLASSES) == 15
    assert all(reasons[name] == 3 for name in FAT_CLASSES)
    assert all(reasons[name] == 5 for name in DOUBTS.values())


def test_the_most_doubtful_are_among_them():
    regions, findings = make(200, cases=1)
    chosen = dict(select_regions(regions, findings, number=30))
    for name in DOUBTS:
        assert int(np.argmax([getattr(one, name) for one in findings])) in chosen


def test_what_no_region_has_is_made_up_for_by_the_others():
    regions, findings = make(60)
    lean = [Findings([], 0.0, one.near_threshold, one.disagreement, 1.0) for one in findings]
    reasons = Counter(reason for _, reason in select_regions(regions, lean, number=20))
    assert reasons.total() == 20
    assert set(reasons) <= {"no fat", *DOUBTS.values()}


def test_cases_share_alike():
    chosen = select_regions(*make(200, cases=5), number=30)
    assert set(Counter(index % 5 for index, _ in chosen).values()) == {6}


@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 6))
def test_as_many_as_asked_for_and_each_once(available, number, cases):
    chosen = select_regions(*make(available, cases=cases), number=number)
    assert len(chosen) == len(dict(chosen)) == min(available, number)
