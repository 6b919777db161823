"""The scheme of draws: written out by hand, its laws, and what a draw does not depend on."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix as jm
from jaxmix.sample.resamples import draws, resampled, resamplers
from jaxmix.sample.resamples.units import BLOCK, Units, units_of
from jaxmix.sample.sample import Sample
from tests.helpers import causal_data, linear_rows

kinds = pytest.mark.parametrize("kind", draws.KINDS)
weights = pytest.mark.parametrize("kind", ["poisson", "bayesian"])
KEY = jax.random.key(11)
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(pair, counter):
    """Return Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw 2011), in whole numbers."""
    word = 2**32
    keys = [*pair, pair[0] ^ pair[1] ^ 0x1BD11BDA]
    a, b = ((c + k) % word for c, k in zip(counter, keys, strict=False))
    for i in range(5):
        for rotation in ROTATIONS[i % 2]:
            a = (a + b) % word
            b = a ^ ((b << rotation | b >> (32 - rotation)) % word)
        a, b = (a + keys[(i + 1) % 3]) % word, (b + keys[(i + 2) % 3] + i + 1) % word
    return a, b


def pair_of(resample, block):
    key = jax.random.fold_in(jax.random.fold_in(KEY, resample), block)
    return [int(word) for word in jax.random.key_data(key)]


def piece(resample, row):
    """Return the 16 bits of a row, as the scheme says it."""
    block, place = divmod(row, BLOCK)
    quarter, evaluation = divmod(place, 1024)
    word = threefry(pair_of(resample, block), (0, evaluation))[quarter // 2]
    return word >> 16 * (quarter % 2) & 0xFFFF


def keys_of(num, key=KEY):
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num))


def drawn(n, kind, num=3, key=KEY):
    units = Units(jnp.ones(n), repeated=False)
    return np.asarray(draws.draw_units(keys_of(num, key), units, kind))


@weights
def test_weights_are_those_of_the_scheme(kind):
    found = drawn(2 * BLOCK + 50, kind)
    for resample in (0, 2):
        for row in (0, 5, 1023, 1024, 2100, 4095, 4096, 2 * BLOCK + 49):
            bits = piece(resample, row)
            if kind == "bayesian":
                a, b = bits / 65536, (bits + 1) / 65536
                lower = a * np.log(a) if a else 0.0
                expected = 1 - (b * np.log(b) - lower) * 65536
            else:
                expected = sum(bits < most for most in draws.POISSON)
            assert found[resample, row] == pytest.approx(expected, abs=1e-10)


def test_multinomial_rows_are_those_of_the_scheme():
    n = 37
    expected = np.zeros(n)
    for slot in range(n):
        expected[threefry(pair_of(1, 0), (0, slot // 2))[slot % 2] * n >> 32] += 1
    np.testing.assert_array_equal(drawn(n, "multinomial")[1], expected)


def test_the_laws_of_sixteen_bits():
    """What the docstrings say of them, exactly computed."""
    times = -np.diff([65536, *draws.POISSON, 0]) / 65536
    j = np.arange(len(times))
    assert times @ j == times @ (j - 1) ** 2 == 1.0
    assert times @ (j - 1) ** 3 == pytest.approx(1.00003, abs=5e-6)
    exact = np.exp(-1) / np.array([1, 1, 2, 6, 24, 120, 720, 5040, 40320])
    assert np.abs(times - exact).max() < 1.9e-5
    assert 1 - exact.sum() < 1.2e-6
    table = draws.exponential()
    assert table.shape == (65536,)
    assert table.mean() == pytest.approx(1, abs=1e-14)
    assert 1 - table.var() == pytest.approx(1.65e-5, abs=5e-8)
    assert ((table - 1) ** 3).mean() == pytest.approx(2 - 5.7e-4, abs=5e-6)
    assert table[0] == pytest.approx(12.09, abs=5e-3)
    assert (np.diff(table) < 0).all()
    assert table[-1] > 0


@kinds
def test_mean_variance_and_independence(kind):
    """Between rows, between the pieces of one word, between blocks and between resamples."""
    n, num = 2 * BLOCK, 60
    found = drawn(n, kind, num) - 1
    fourth = {"poisson": 4, "multinomial": 4, "bayesian": 9}[kind]
    total = found.size
    if kind == "multinomial":
        np.testing.assert_array_equal(found.sum(1), 0)
    else:
        assert abs(found.mean()) < 4 / np.sqrt(total)
    assert found.var() == pytest.approx(1, abs=4 * np.sqrt((fourth - 1) / total) + 1 / n)
    # Each row's own mean over resamples, and its spread: (n) means with variance 1 / num.
    assert found.mean(0).var() * num == pytest.approx(1, abs=5 * np.sqrt(2.5 / n))
    for power in (1, 2):
        rows = found**power
        rows = (rows - rows.mean()) / rows.std()
        # A product of independent rows has variance 1.
        for lag in (1, 2, 1024, 2048, 3072, BLOCK):
            product = (rows[:, lag:] * rows[:, :-lag]).mean()
            assert abs(product) < 4.5 / np.sqrt(num * (n - lag)) + 1 / n
        assert abs((rows[1:] * rows[:-1]).mean()) < 4.5 / np.sqrt(total)


def test_blocks_of_a_multinomial_have_the_right_sizes():
    n, num = 2 * BLOCK + 1000, 200
    found = drawn(n, "multinomial", num)
    np.testing.assert_array_equal(found.sum(1), n)
    ends = [0, BLOCK, 2 * BLOCK, n]
    for low, high in itertools.pairwise(ends):
        sizes, share = found[:, low:high].sum(1), (high - low) / n
        spread = n * share * (1 - share)
        assert abs(sizes.mean() - n * share) < 4 * np.sqrt(spread / num)
        assert sizes.var() == pytest.approx(spread, rel=4 * np.sqrt(2 / num))


def test_a_block_may_have_many_more_draws_than_rows():
    totals = jnp.array([[5.0 * BLOCK, 3.0], [0.0, 7000.0]])
    found = draws.draw_blocks(
        keys_of(2), 0, BLOCK + 10, "multinomial", float, num_units=BLOCK + 10, totals=totals
    )
    np.testing.assert_array_equal(found[:, :BLOCK].sum(1), totals[:, 0])
    np.testing.assert_array_equal(found[:, BLOCK:].sum(1), totals[:, 1])
    # The first 3 slots of block 1 are the same for any total.
    fewer = draws.draw_blocks(
        keys_of(2), 0, BLOCK + 10, "multinomial", float, num_units=BLOCK + 10,
        totals=jnp.array([[4096.0, 3.0], [4096.0, 3.0]]),
    )  # fmt: skip
    np.testing.assert_array_equal(found[0, BLOCK:], fewer[0, BLOCK:])


@weights
def test_rows_that_are_appended_change_no_draw(kind):
    whole = drawn(3 * BLOCK, kind)
    for n in (7, 1000, 1500, BLOCK, BLOCK + 1, 2 * BLOCK + 1024):
        np.testing.assert_array_equal(drawn(n, kind), whole[:, :n])


@kinds
def test_other_resamples_change_no_draw(kind):
    np.testing.assert_array_equal(drawn(BLOCK + 9, kind, 2), drawn(BLOCK + 9, kind, 5)[:2])


@kinds
def test_any_blocks_are_drawn_alone(kind):
    n = 3 * BLOCK + 100
    keys, whole = keys_of(2), drawn(n, kind, 2)
    totals = draws.totals_of_blocks(keys, n, float) if kind == "multinomial" else None
    for first, num in [(0, n), (1, BLOCK), (2, 2 * BLOCK), (3, BLOCK)]:
        found = draws.draw_blocks(keys, first, num, kind, float, num_units=n, totals=totals)
        end = min(n, first * BLOCK + num)
        np.testing.assert_array_equal(
            found[:, : end - first * BLOCK], whole[:, first * BLOCK : end]
        )


@kinds
def test_kinds_of_keys_and_numbers(kind):
    """Keys of an earlier JAX draw the same; numbers of half precision are these, rounded."""
    raw = jax.random.key_data(KEY)
    np.testing.assert_array_equal(drawn(BLOCK + 9, kind, key=raw), drawn(BLOCK + 9, kind))
    other = drawn(BLOCK + 9, kind, key=jax.random.key(11, impl="rbg"))
    assert abs(other.mean() - 1) < 0.05
    units = Units(jnp.ones(50, jnp.float32), repeated=False)
    half = draws.draw_units(keys_of(3), units, kind)
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(half, drawn(50, kind).astype(np.float32))


@pytest.fixture(scope="module")
def views():
    frame = linear_rows(np.random.default_rng(0), BLOCK + 700)
    frame["mass"] = np.random.default_rng(1).uniform(0.5, 2.0, BLOCK + 700)
    frame["g"] = np.arange(BLOCK + 700) % 90
    return {
        "rows": jm.features.encode(causal_data(frame, weights="mass")),
        "clusters": jm.features.encode(causal_data(frame, weights="mass", cluster="g")),
    }


@kinds
@pytest.mark.parametrize("form", ["rows", "clusters", "strata"])
def test_moments_of_resamples_are_those_of_their_rows(views, monkeypatch, form, kind):
    """However many rows and resamples are at hand at once."""
    own = views["clusters" if form == "clusters" else "rows"]
    labels = own.t if form == "strata" else None
    times = draws.draw_multiplicities(keys_of(5), own, kind, labels)
    many = [jm.moments.from_rows(own.redesigned(multiplicity=one)) for one in times]
    for room, numbers in [(1 << 23, 1 << 21), (2 * BLOCK, 1 << 14)]:
        monkeypatch.setattr(resampled, "ROOM", room)
        monkeypatch.setattr(resamplers, "_WEIGHTS", room)
        monkeypatch.setattr("jaxmix.sample.sums.CHUNK_NUMBERS", numbers)
        jax.clear_caches()
        found = Sample(own).resampled(KEY, np.arange(5), kind=kind, strata=labels)
        for i, expected in enumerate(many):
            for name in ("tensor", "gram_z", "square_x", "num_rows"):
                np.testing.assert_allclose(
                    getattr(found, name)[i], getattr(expected, name), rtol=1e-10, atol=1e-12
                )
    jax.clear_caches()


def test_many_small_strata_keep_their_sizes():
    frame = linear_rows(np.random.default_rng(0), 600)
    own = jm.features.encode(causal_data(frame))
    labels = np.arange(600) % 150
    units = units_of(own.design, labels)
    assert units.blocks.width == 4
    found = np.asarray(draws.draw_units(keys_of(300), units, "multinomial"))
    sums = np.stack([found[:, labels == h].sum(1) for h in range(150)])
    np.testing.assert_array_equal(sums, 4)
    # Four draws of four rows: mean 1, variance 3/4.
    assert found.mean() == 1
    assert found.var() == pytest.approx(0.75, abs=4 * np.sqrt(2 / found.size))


def test_large_strata_have_several_blocks():
    n = 3 * BLOCK
    labels = (np.arange(n) % 3 == 0).astype(int)  # of 8,192 and 4,096 rows
    views = jm.features.encode(causal_data(linear_rows(np.random.default_rng(0), n)))
    units = units_of(views.design, labels)
    found = np.asarray(draws.draw_units(keys_of(60), units, "multinomial"))
    for h in (0, 1):
        inside = found[:, labels == h]
        np.testing.assert_array_equal(inside.sum(1), (labels == h).sum())
        assert inside.var() == pytest.approx(1, abs=4 * np.sqrt(3 / inside.size) + 1e-3)


@kinds
def test_the_error_of_a_mean(kind):
    n, num = BLOCK + 200, 1000
    frame = linear_rows(np.random.default_rng(3), n)
    views = jm.features.encode(causal_data(frame))

    def mean(moments):
        return moments.y_by_arm.sum()

    found = np.asarray(jm.bootstrap(mean, views, key=KEY, num_resamples=num, kind=kind))
    formula = frame["y"].std() / np.sqrt(n)
    assert found.std() == pytest.approx(formula, rel=4 / np.sqrt(2 * num))
    assert found.mean() == pytest.approx(frame["y"].mean(), abs=4 * formula / np.sqrt(num))


def test_a_result_says_by_which_scheme_it_was_drawn():
    data = causal_data(linear_rows(np.random.default_rng(0), 200))
    assert jm.fit(data, num_resamples=0, checks=False).to_dict()["draws"] == draws.DRAWS == 2
