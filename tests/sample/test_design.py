"""The design of a sample, and what it admits: one answer wherever it is asked for."""

import dataclasses

import numpy as np
import pytest

import jaxmix as jm
from jaxmix.sample.design import Design
from tests.helpers import linear_rows

RANDOM, WEIGHTED, CLUSTERED = Design(), Design(weighted=True), Design(num_clusters=40)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    rows = linear_rows(rng, 400, d_z=3)
    return rows | {
        "even": np.full(400, 3.0), "w": rng.uniform(0.5, 2, 400), "c": np.arange(400) % 40
    }  # fmt: skip


def views_of(frame, **roles):
    data = jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z0", "z1", "z2"], x=["x0", "x1"], **roles
    )
    return jm.features.encode(data)


def test_what_the_rows_say(frame):
    assert views_of(frame).design == RANDOM
    assert views_of(frame, weights="w").design == WEIGHTED
    assert views_of(frame, cluster="c").design == CLUSTERED
    # Weights that do not differ are none.
    assert views_of(frame, weights="even").design == RANDOM


@pytest.mark.parametrize(
    "answer", ["against_chi_square", "against_likelihood", "against_bounds", "against_robust_j"]
)
def test_reasons(answer):
    assert getattr(RANDOM, answer)() == ""
    assert "cluster" in getattr(CLUSTERED, answer)()
    weighted = getattr(WEIGHTED, answer)()
    assert weighted == "" if answer == "against_robust_j" else "weights" in weighted


def test_profiles():
    assert RANDOM.takes_profile(asked=False, at_a_bound=False)
    for design in (WEIGHTED, CLUSTERED):
        assert not design.takes_profile(asked=False, at_a_bound=False)
        assert design.takes_profile(asked=True, at_a_bound=False)
        assert design.takes_profile(asked=False, at_a_bound=True)
    in_strata = dataclasses.replace(RANDOM, stratified=True)
    assert not in_strata.takes_profile(asked=True, at_a_bound=True)


def test_every_test_gives_the_one_answer(frame):
    for roles, design in ({"weights": "w"}, WEIGHTED), ({"cluster": "c"}, CLUSTERED):
        data = jm.CausalData.from_frame(
            frame, treatment="t", outcome="y", z=["z0", "z1", "z2"], x=["x0", "x1"], **roles
        )
        found = jm.specification.level_test(data, 2, level=3)
        assert not found.applies
        assert found.reason == design.against_chi_square()
        four = jm.fit(data, level=4, num_resamples=0).diagnostics.specification
        assert four.applies == (design == WEIGHTED)
        if design == CLUSTERED:
            assert four.reason == design.against_robust_j()
