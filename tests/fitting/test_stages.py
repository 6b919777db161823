"""What a result computes when it is first read: never in the call, once, whatever the order."""

import copy
import dataclasses
import json
import pickle
import threading

import jax
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import Status
from jaxmix.fitting import stages
from jaxmix.report.tables import number
from jaxmix.sample.moments import from_rows
from tests.golden.cases import counted, table

COUNTS = table((2, 2, 2, 2), 2, 2_000, 6)
OPTIONS = {"num_classes": 2, "num_resamples": 20, "interval": "percentile"}


def fitted(**options):
    return jm.fit(counted(COUNTS, 20), **(OPTIONS | {"level": 3} | options))


def parts(result):
    checks = result.diagnostics.checks
    return checks.tests, checks.rows, checks.bounds


def is_read(result):
    return [part.is_read for part in parts(result)]


@pytest.fixture(scope="module")
def unread():
    """Return a result of which tests read copies."""
    with jax.enable_x64(False):  # as a user's session is
        return fitted()


@pytest.fixture(scope="module")
def packed(unread):
    assert is_read(unread) == [False] * 3
    return pickle.dumps(unread)


@pytest.fixture(scope="module")
def record(packed):
    """Return what it says once everything is read."""
    return pickle.loads(packed).to_dict()


def test_a_fit_leaves_for_later_what_can_wait(unread):
    result = copy.deepcopy(unread)
    assert result.to_frame() is not None
    assert len(result.plot().axes) == 2
    assert result.untested == ""
    assert is_read(result) == [False] * 3
    assert set(result.tests) == {"arms", "range"}
    assert result.diagnostics.gap > 0
    assert is_read(result) == [True, False, False]
    assert len(result.influential) == 3
    assert is_read(result) == [True, True, False]
    assert result.sensitivity is result.sensitivity
    assert is_read(result) == [True, True, True]
    assert is_read(unread) == [False] * 3


def test_what_is_left_is_named_before_it_is_computed(unread):
    result, told = copy.deepcopy(unread), []
    assert result.complete(lambda part: told.append((part, is_read(result)))) is result
    assert told == [
        ("tests of the classes", [False] * 3), ("influential rows", [True, False, False]),
        ("sensitivity bounds", [True, True, False]),
    ]  # fmt: skip
    result.complete(told.append)
    assert len(told) == 3


def test_a_result_in_brief_computes_nothing(unread):
    result = copy.deepcopy(unread)
    first, second = (number(float(effect), 3) for effect in result.law.effects)
    told = result.in_brief()
    assert told.startswith("ATE ")
    assert told.endswith(f"; by class {first}, {second}")
    assert is_read(result) == [False] * 3
    alone = dataclasses.replace(result, law=None, ate=result.ate._replace(se=None))
    assert alone.in_brief() == f"ATE {number(result.ate.value, 3)}"


ORDERS = {
    "bounds first": ["sensitivity", "influential", "tests"],
    "rows first": ["influential", "tests", "sensitivity"],
    "summary first": ["summary", "tests"],
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_reading_changes_nothing(order, packed, record):
    with jax.enable_x64(False):
        result = pickle.loads(packed)
        for name in ORDERS[order]:
            found = getattr(result, name)
            if callable(found):
                found()
        assert result.to_dict() == record


def test_reading_changes_no_estimate(unread, record):
    plain = fitted(checks=False).to_dict()
    for name in ("ate", "naive", "law", "potential_means", "spread", "status", "warnings"):
        assert plain[name] == record[name]
    assert record["sensitivity"] is not None
    assert plain["sensitivity"] is None


def test_a_result_is_stored_copied_and_changed_before_and_after_it_is_read(unread, record):
    result = copy.deepcopy(unread)
    early = dataclasses.replace(result, seed=5)
    late = dataclasses.replace(result.complete(), seed=5)
    assert is_read(early) == is_read(late) == [True] * 3  # one computation for all of them
    assert early.to_dict() == late.to_dict() == record | {"seed": 5}
    for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert is_read(again) == [True] * 3
        assert again.to_dict() == record
    # The table is let go: what is stored is the answer.
    assert len(pickle.dumps(result.diagnostics.checks)) < len(
        pickle.dumps(unread.diagnostics.checks)
    )


def test_two_threads_that_read_at_once_get_the_same(unread):
    result, found = copy.deepcopy(unread), []
    threads = [
        threading.Thread(target=lambda: found.append((result.influential, result.tests)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(found) == 2
    assert found[0] == found[1] == (result.influential, result.tests)


def test_rows_are_summed_once_for_all_stages(monkeypatch):
    """The moments, and their covariance: tests that are read later ask the sample for them."""
    sums = []

    def counting(views, *, covariance=False):
        sums.append(covariance)
        return from_rows(views, covariance=covariance)

    for room in ("sample", "second"):  # whoever forms sums over rows by that name
        monkeypatch.setattr(f"jaxmix.sample.{room}.from_rows", counting)
    rng = np.random.default_rng(0)
    u, t = (rng.random(400) < 0.5).astype(float), rng.integers(0, 2, 400)
    frame = {name: u + rng.normal(size=400) for name in ("z", "x")}
    frame |= {"t": t, "y": u * t + rng.normal(size=400)}
    data = jm.CausalData.from_frame(frame, treatment="t", outcome="y", z=["z"], x=["x"])
    jm.fit(data, level=3, num_classes=2, num_resamples=0).complete()
    assert sorted(sums) == [False, True]


def refuse(*args, **options):
    raise AssertionError("this was not asked for")


def test_what_was_left_out_is_not_computed(monkeypatch):
    for stage in ("Tests", "Rows", "Bounds"):
        monkeypatch.setattr(getattr(stages, stage), "__call__", refuse)
    result = fitted(checks=False)
    assert (result.tests, result.influential, result.sensitivity) == ({}, (), None)
    assert "left out" in result.untested
    assert "influential" not in result.summary()
    assert result.complete().to_dict()["diagnostics"]["tests"] == {}


def test_a_headline_reads_the_classes_that_stand_beside_it(monkeypatch):
    monkeypatch.setattr(stages.Bounds, "__call__", lambda self: self)
    result = fitted(level="auto")
    beside = result.conditional
    assert not any(is_read(result)[1:2] + is_read(beside))
    assert result.sensitivity is beside.sensitivity
    assert result.tests is beside.tests
    assert result.influential != beside.influential
    withdrawn = dataclasses.replace(result, law=None)
    assert withdrawn.sensitivity is None
    assert withdrawn.tests == {}
    assert withdrawn.untested == "no law of level 2 or 3 stands in the result"


def test_bounds_of_contradictions_are_not_searched(monkeypatch):
    monkeypatch.setattr(stages.Bounds, "__call__", refuse)
    monkeypatch.setattr(
        "jaxmix.fitting.consistency.of_point", lambda *_: ("the numbers do not agree",)
    )
    result = fitted()
    assert result.status is Status.INCONSISTENT
    assert result.sensitivity is None
    assert result.untested == "numbers of the estimate contradict each other"
    assert result.to_dict()["sensitivity"] is None
    assert len(result.influential) == 3


@pytest.mark.parametrize("size", [2.0**700, 2.0**-700])
def test_what_is_read_later_has_the_units_of_the_outcome(size, record):
    """In powers of two, which change no digit: searches end where they end, to the last one."""
    data = counted(COUNTS, 20)
    values = data.outcome.values * size
    large = jm.fit(
        dataclasses.replace(data, outcome=dataclasses.replace(data.outcome, values=values)),
        **OPTIONS, level=3,
    )  # fmt: skip
    assert is_read(large)[1:] == [False, False]
    assert large.untested == ""
    bounds = record["sensitivity"]
    for name in ("strengths", "ate", "effects", "ate_interval", "level3_effects"):
        np.testing.assert_array_equal(getattr(large.sensitivity, name) / size, bounds[name])
    np.testing.assert_array_equal(large.sensitivity.shares, bounds["shares"])
    rows = record["diagnostics"]["influential"]
    assert [row.change / size for row in large.influential] == [change for _, _, change in rows]
    assert json.dumps(large.to_dict(), allow_nan=False)


def test_stages_of_resamples_report_and_nothing_keeps_the_callback():
    told = []
    result = fitted(progress=lambda *counts: told.append(counts))
    assert told[-1] == (20, 20)
    assert is_read(pickle.loads(pickle.dumps(result))) == [False] * 3


def test_results_pickled_by_the_release_before_are_read(record, packed):
    """Their tests, rows and bounds were fields."""
    new = pickle.loads(packed).complete()
    diagnostics = dict(vars(new.diagnostics))
    del diagnostics["checks"]
    for name in ("tests", "complex_spectra", "gap", "condition", "influential"):
        diagnostics[name] = getattr(new.diagnostics, name)
    old = object.__new__(jm.Result), object.__new__(type(new.diagnostics))
    old[1].__setstate__(diagnostics)
    fields = vars(new) | {"diagnostics": old[1], "sensitivity": new.sensitivity, "untested": ""}
    del fields["beside"]
    old[0].__setstate__(fields | {"conditional": None})
    assert (old[0].beside, old[0].conditional) == ({}, None)
    assert old[0].to_dict() == record
    assert old[0].summary() == new.summary()
    old[0].__setstate__(fields | {"conditional": new})
    assert old[0].conditional is new
    assert old[0].to_dict()["diagnostics"]["level_3"] == record
