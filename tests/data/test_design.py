"""The design of a sample, and what it admits: one answer wherever it is asked for."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxmix as jm
from jaxmix import InputError
from jaxmix.data import design as designs
from jaxmix.data.columns import Column
from jaxmix.data.design import Design
from jaxmix.sample.views import on_device
from tests.helpers import linear_rows

RANDOM = Design()
WEIGHTED = Design(weight=np.array([0.5, 1.5]))
CLUSTERED = Design(cluster=np.arange(80) // 2, num_clusters=40)
ANSWERS = ("against_chi_square", "against_likelihood", "against_bounds", "against_robust_j")
T, ARMS = np.array([0, 1, 0, 1, 0, 1]), ("0", "1")


def answers(design):
    return [getattr(design, answer)() for answer in ANSWERS], design.is_random


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    rows = linear_rows(rng, 400, d_z=3)
    return rows | {
        "even": np.full(400, 3.0), "w": rng.uniform(0.5, 2, 400), "c": np.arange(400) % 40
    }  # fmt: skip


def data_of(frame, **roles):
    return jm.CausalData.from_frame(
        frame, treatment="t", outcome="y", z=["z0", "z1", "z2"], x=["x0", "x1"], **roles
    )


def test_what_the_rows_say(frame):
    cases = {"": RANDOM, "even": RANDOM, "w": WEIGHTED}  # weights that do not differ are none
    for weights, design in cases.items():
        data = data_of(frame, weights=weights or None)
        for own in (data.design, jm.features.encode(data).design):
            assert answers(own) == answers(design)
    data = data_of(frame, cluster="c")
    for own in (data.design, jm.features.encode(data).design):
        assert (answers(own), own.num_clusters) == (answers(CLUSTERED), 40)


@pytest.mark.parametrize("answer", ANSWERS)
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


def test_kinds_of_resamples():
    counts = Design(multiplicity=np.array([1.0, 2.0]), repeated=True)
    grouped = dataclasses.replace(counts, cluster=np.array([0, 1]), num_clusters=2)
    found = {
        corrected: [d.resampling(corrected=corrected) for d in (RANDOM, counts, grouped, WEIGHTED)]
        for corrected in (False, True)
    }
    bayes = "bayesian"
    assert found == {False: [bayes, "multinomial", bayes, bayes], True: ["multinomial"] * 4}


def test_every_test_gives_the_one_answer(frame):
    for roles, design in ({"weights": "w"}, WEIGHTED), ({"cluster": "c"}, CLUSTERED):
        data = data_of(frame, **roles)
        found = jm.specification.level_test(data, 2, level=3)
        assert not found.applies
        assert found.reason == design.against_chi_square()
        four = jm.fit(data, level=4, num_resamples=0).diagnostics.specification
        assert four.applies == (design is WEIGHTED)
        if design is CLUSTERED:
            assert four.reason == design.against_robust_j()


def column(role, values):
    return {role: Column(role[0], np.asarray(values, float))}


def test_columns_of_the_design_are_read_by_role():
    weights = column("weights", [1, 2, 3, 4, 5, 3])
    groups = column("cluster", [9, 9, 7, 7, 8, 8])
    sampled = designs.of_columns(weights | groups, "sampling", T, ARMS)
    np.testing.assert_allclose(sampled.weight, np.array([1, 2, 3, 4, 5, 3]) / 3, rtol=1e-15)
    assert sampled.multiplicity is None
    assert not sampled.repeated
    assert (sampled.cluster.tolist(), sampled.num_clusters) == ([2, 2, 0, 0, 1, 1], 3)
    counted = designs.of_columns(weights, "frequency", T, ARMS)
    assert counted.weight is None
    assert (counted.multiplicity.tolist(), counted.repeated) == ([1, 2, 3, 4, 5, 3], True)
    assert jax.tree.leaves(designs.of_columns({}, "sampling", T, ARMS)) == []


def test_rows_without_weight_do_not_count():
    assert designs.rows_that_count({}, "sampling") is None
    assert designs.rows_that_count(column("weights", [1, 2]), "sampling") is None
    some = designs.rows_that_count(column("weights", [1, 0]), "frequency")
    assert some.tolist() == [True, False]
    with pytest.raises(InputError, match="zero in every row"):
        designs.rows_that_count(column("weights", [0, 0]), "sampling")
    with pytest.raises(InputError, match=r"not whole numbers \(1\.5\)"):
        designs.rows_that_count(column("weights", [1.5, 0]), "frequency")
    with pytest.raises(InputError, match=r"negative \(-2, first in row 2\)"):
        designs.check_columns(column("weights", [1, -2]))
    with pytest.raises(InputError, match="is text"):
        designs.check_columns({"weights": Column("w", np.zeros(1, int), ("much",))})


WHOLE = Design(
    weight=np.array([1.0, 1.0, 2.0, 1.0]), multiplicity=np.array([1.0, 3.0, 1.0, 2.0]),
    cluster=np.array([0, 0, 1, 1]), num_clusters=2, repeated=True,
)  # fmt: skip


def test_every_column_is_taken_by_rows():
    """Whatever columns the record has: a column that is left behind would be of other rows."""
    some = WHOLE.take(np.array([3, 0]))
    for name in ("weight", "multiplicity", "cluster"):
        assert getattr(some, name).tolist() == getattr(WHOLE, name)[[3, 0]].tolist()
    assert (some.num_clusters, some.repeated) == (2, True)
    assert len(jax.tree.leaves(WHOLE)) == 3


def test_merging_adds_multiplicities_and_nothing_else():
    assert [key.tolist() for key in WHOLE.key_columns()] == [[1, 1, 2, 1], [0, 0, 1, 1]]
    first, place = np.array([0, 2, 3]), np.array([0, 0, 1, 2])
    merged = WHOLE.merged(first, place)
    assert merged.multiplicity.tolist() == [4, 1, 2]
    assert (merged.weight.tolist(), merged.cluster.tolist()) == ([1, 2, 1], [0, 1, 1])
    assert RANDOM.merged(first, place).multiplicity.tolist() == [2, 1, 1]
    assert RANDOM.merged(first, place).repeated


def test_on_the_device_every_row_has_a_mass():
    for design, mass in (WHOLE, [1, 3, 2, 2]), (RANDOM, [1, 1, 1, 1]):
        device = on_device(design.filled(4))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(device))
        assert jax.jit(lambda own: own.mass)(device).tolist() == mass
        assert device.on_host().mass.tolist() == mass
        assert device.repeated == design.repeated
