"""From columns to view arrays, against codings written out row by row."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmix as jm
from jaxmix import CausalData, InputError
from jaxmix.sample.features import MAX_CELLS, distinct, encode

N = 240


def table(n=N, seed=0):
    """Return columns of every type; treatment and outcome too."""
    rng = np.random.default_rng(seed)
    return {
        "t": rng.permutation(np.arange(n) % 2),
        "y": rng.normal(size=n) * 3 + 5,
        "score": rng.normal(size=n) * 10 - 40,
        "other": rng.uniform(size=n),
        "count": rng.integers(0, 4, n),
        "size": rng.choice([3.5, 7.25], n),
        "flag": rng.integers(0, 2, n).astype(bool),
        "bit": rng.integers(0, 2, n),
        "town": rng.choice(["oslo", "bern", "lima"], n),
        "kind": rng.choice(["p", "q"], n),
        "area": rng.choice(["north", "south", "west"], n),
        "w": rng.uniform(0.1, 4, n),
        "f": rng.integers(1, 5, n),
        "g": rng.integers(0, 9, n),
    }


def build(z=("bit",), x=("kind",), columns=None, **more):
    frame = table() if columns is None else columns
    return CausalData.from_frame(frame, treatment="t", outcome="y", z=z, x=x, **more)


def onehot(*columns):
    """Return the joint one-hot coding, by a loop over rows; cells in lexicographic order."""
    rows = list(zip(*columns, strict=True))
    cells = sorted(set(rows))
    coded = np.zeros((len(rows), len(cells)))
    for i, row in enumerate(rows):
        coded[i, cells.index(row)] = 1.0
    return coded


def standard(values, weight=None):
    """Return a column with weighted mean 0 and variance 1, by sums over rows."""
    weight = np.ones(len(values)) if weight is None else weight
    total = sum(weight)
    mean = sum(w * v for w, v in zip(weight, values, strict=True)) / total
    variance = sum(w * (v - mean) ** 2 for w, v in zip(weight, values, strict=True)) / total
    return (np.asarray(values, float) - mean) / variance**0.5


def dummies(values):
    """Return one indicator for each text but the first."""
    return [np.array([float(v == level) for v in values]) for level in sorted(set(values))[1:]]


def linear(columns, names, weight=None):
    """Return the constant and the standardised columns, texts as indicators."""
    features = []
    for name in names:
        raw = columns[name]
        features += dummies(raw) if raw.dtype.kind == "U" else [raw]
    return np.column_stack([np.ones(len(raw)), *(standard(f, weight) for f in features)])


def moments_of(data, *, reduce=False):
    return jm.moments.from_rows(encode(data, reduce=reduce))


def assert_same_moments(ours, theirs, atol=1e-12):
    fields = ["tensor", "gram_z", "one_z", "one_x", "one_y", "value_y", "range_y", "num_rows"]
    for name in fields:
        np.testing.assert_allclose(
            getattr(ours, name), getattr(theirs, name), rtol=1e-12, atol=atol, err_msg=name
        )
    assert ours.num_shared == theirs.num_shared


# ------------------------------------------------------------------------------ the coding


@pytest.mark.parametrize(
    "names",
    [["bit"], ["size"], ["flag"], ["town"], ["kind", "bit"], ["town", "size", "flag"]],
    ids=str,
)
def test_discrete_views_are_coded_jointly(names):
    columns = table()
    views = encode(build(z=names, x=["area"]))
    np.testing.assert_array_equal(views.z, onehot(*(columns[name] for name in names)))
    np.testing.assert_array_equal(views.x, onehot(columns["area"]))
    np.testing.assert_array_equal(views.one_z, np.ones(views.z.shape[1]))
    assert views.num_shared == 0


def test_only_cells_that_occur_are_coded():
    columns = table() | {"a": ["u", "v", "w"] * (N // 3), "b": [0, 1, 0] * (N // 3)}
    views = encode(build(z=["a", "b"], columns=columns))
    np.testing.assert_array_equal(views.z, onehot(columns["a"], columns["b"]))
    assert views.z.shape == (N, 3)


@pytest.mark.parametrize(
    ("names", "features", "is_onehot"),
    [
        (["town"], "auto", True),
        (["flag", "size", "kind"], "auto", True),
        (["count"], "auto", False),
        (["score"], "auto", False),
        (["town", "score"], "auto", False),
        (["bit", "count"], "auto", False),
        (["town", "bit"], "linear", False),
        (["count"], "onehot", True),
        (["count", "town"], "onehot", True),
        (["count"], {"z": "onehot"}, True),
        (["count"], {"x": "onehot"}, False),
        (["town"], {"z": "linear"}, False),
    ],
    ids=str,
)
def test_which_views_are_one_hot(names, features, is_onehot):
    """Of z; x is text throughout. Where z is linear the two views begin with the constant."""
    columns = table()
    views = encode(build(z=names, x=["area"], features=features))
    if is_onehot:
        np.testing.assert_array_equal(views.z, onehot(*(columns[name] for name in names)))
        assert views.num_shared == 0
        return
    np.testing.assert_allclose(views.z, linear(columns, names), atol=1e-12)
    assert views.num_shared == 1
    np.testing.assert_array_equal(views.one_z, np.eye(views.z.shape[1])[0])


def test_a_one_hot_view_beside_a_linear_one_drops_its_first_cell():
    columns = table()
    views = encode(build(z=["score"], x=["town", "bit"]))
    cells = onehot(columns["town"], columns["bit"])[:, 1:]
    expected = np.column_stack([np.ones(N), *(standard(cell) for cell in cells.T)])
    np.testing.assert_allclose(views.x, expected, atol=1e-12)
    assert (views.num_shared, views.max_rank) == (1, 2)


def test_the_outcome_is_the_constant_and_its_standard_score():
    columns = table()
    views = encode(build(weights="w"))
    expected = np.column_stack([np.ones(N), standard(columns["y"], columns["w"])])
    np.testing.assert_allclose(views.y, expected, atol=1e-12)
    np.testing.assert_array_equal(views.range_y, [columns["y"].min(), columns["y"].max()])


def test_arms_weights_and_clusters_pass_through():
    columns = table()
    views = encode(build(weights="w", cluster="g", control=1))
    np.testing.assert_array_equal(views.t, 1 - columns["t"])
    np.testing.assert_allclose(views.weight, columns["w"] / columns["w"].mean(), rtol=1e-14)
    np.testing.assert_array_equal(views.multiplicity, np.ones(N))
    np.testing.assert_array_equal(views.cluster, columns["g"])
    assert (views.num_arms, views.num_clusters, views.repeated) == (2, 9, False)


# -------------------------------------------------------------------- what holds in any coding

DESIGNS = {
    "joint": {"z": ["town", "bit"], "x": ["kind"]},
    "linear": {"z": ["score", "count"], "x": ["other", "town"]},
    "mixed": {"z": ["score"], "x": ["town"]},
    "forced": {"z": ["bit", "flag"], "x": ["count"], "features": "linear"},
    "covariates": {"z": ["score"], "x": ["count"], "covariates": ["other", "kind"]},
    "covariates, one-hot": {"z": ["kind"], "x": ["flag"], "covariates": ["town", "other"]},
}
WEIGHTS = {
    "plain": {},
    "sampling": {"weights": "w"},
    "frequency": {"weights": "f", "weights_kind": "frequency"},
}
designs = pytest.mark.parametrize("design", DESIGNS)
weightings = pytest.mark.parametrize("weighting", WEIGHTS)


@designs
@weightings
def test_every_view_gives_the_constant_and_y_the_outcome(design, weighting):
    views = encode(build(**DESIGNS[design], **WEIGHTS[weighting]))
    np.testing.assert_allclose(views.z @ views.one_z, np.ones(N), atol=1e-13)
    np.testing.assert_allclose(views.x @ views.one_x, np.ones(N), atol=1e-13)
    np.testing.assert_allclose(views.y @ views.one_y, np.ones(N), atol=1e-13)
    np.testing.assert_allclose(views.y @ views.value_y, table()["y"], rtol=1e-13)


@designs
@weightings
def test_features_beside_the_constant_are_standardised(design, weighting):
    """With the weights that were given: mean 0 and variance 1."""
    views = encode(build(**DESIGNS[design], **WEIGHTS[weighting]))
    mass = {"plain": np.ones(N), "sampling": table()["w"], "frequency": table()["f"]}[weighting]
    blocks = [views.y] if design == "joint" else [views.z, views.x, views.y]
    for block in blocks:
        features = np.asarray(block)[:, 1:]
        np.testing.assert_allclose(np.average(features, axis=0, weights=mass), 0, atol=1e-12)
        np.testing.assert_allclose(np.average(features**2, axis=0, weights=mass), 1, rtol=1e-12)


@weightings
@pytest.mark.parametrize("view", [["score"], ["kind"], ["kind", "bit"]], ids=str)
def test_views_begin_with_the_same_covariates(view, weighting):
    columns, covariates = table(), ["other", "town", "size"]
    mass = {"plain": None, "sampling": columns["w"], "frequency": columns["f"]}[weighting]
    data = build(z=view, x=["count"], covariates=covariates, **WEIGHTS[weighting])
    views = encode(data)
    assert views.num_shared == 5
    np.testing.assert_allclose(views.z[:, :5], linear(columns, covariates, mass), atol=1e-12)
    np.testing.assert_array_equal(views.z[:, :5], views.x[:, :5])
    assert views.x.shape == (N, 6)
    assert views.max_rank == 2


def test_features_do_not_depend_on_units():
    columns = table()
    scaled = columns | {name: 1e6 * columns[name] - 1e7 for name in ("y", "score", "count")}
    design = {"z": ["score", "count"], "x": ["other"]}
    ours, theirs = (encode(build(**design, columns=frame)) for frame in (columns, scaled))
    np.testing.assert_allclose(ours.z, theirs.z, atol=1e-8)
    np.testing.assert_allclose(ours.y, theirs.y, atol=1e-8)


def test_without_x64_a_warning_says_so():
    data = build()
    with jax.enable_x64(False), pytest.warns(UserWarning, match="float32.*enable x64"):
        views = encode(data)
    assert views.y.dtype == np.float32


# ---------------------------------------------------------------------------------- refusals


def refusal(**design):
    with pytest.raises(InputError) as caught:
        encode(build(**design))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def cells(count):
    return table() | {"many": [f"k{i % count:03d}" for i in range(N)]}


@pytest.mark.parametrize("view", ["z", "x"])
@pytest.mark.parametrize(
    ("names", "count"), [(["many"], MAX_CELLS + 1), (["flag", "many"], MAX_CELLS // 2 + 1)]
)
def test_too_many_cells_are_refused(view, names, count):
    message = refusal(**{view: names}, columns=cells(count))
    for fragment in (f"coding of {view} ", f"over {MAX_CELLS} cells", "'many'", "'linear'"):
        assert fragment in message


def test_as_many_cells_as_allowed_are_coded():
    rows = {name: np.tile(values, 4) for name, values in cells(MAX_CELLS).items()}
    assert encode(build(z=["many"], columns=rows)).z.shape == (4 * N, MAX_CELLS)


@pytest.mark.parametrize(
    ("change", "design", "culprit"),
    [
        ({"c": ("score", 3, -7)}, {"z": ["score", "c"], "x": ["count"]}, ["'c'", "view z"]),
        ({"c": ("score", 3, -7)}, {"z": ["count"], "x": ["c", "score"]}, ["'score'", "view x"]),
        (
            {"c": ("other", -1, 0)},
            {"z": ["c"], "x": ["count"], "covariates": ["other"]},
            ["'c'", "view z", "covariates first"],
        ),
        (
            {"c": ("other", 2, 1)},
            {"z": ["score"], "x": ["count"], "covariates": ["kind", "other", "c"]},
            ["'c'"],
        ),
        ({"c": ("flag", 5, 1)}, {"z": ["town", "flag", "c", "score"]}, ["'c'", "view z"]),
        (
            {"c": ("bit", 2, 0)},
            {"z": ["bit"], "x": ["flag"], "covariates": ["c"]},
            ["one-hot coding", "view z"],
        ),
    ],
    ids=["z", "x", "covariate and z", "covariates", "behind text", "one-hot"],
)
def test_a_column_that_depends_on_others_is_named(change, design, culprit):
    columns = table()
    columns |= {new: scale * columns[old] + at for new, (old, scale, at) in change.items()}
    message = refusal(**design, columns=columns)
    for fragment in (*culprit, "linear combination", "leave it out"):
        assert fragment in message


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_columns_that_nearly_depend_are_kept(scale):
    columns = table()
    columns["near"] = scale * (columns["score"] + 1e-3 * columns["other"])
    views = encode(build(z=["score", "near"], x=["count"], columns=columns))
    assert views.z.shape == (N, 3)


@pytest.mark.parametrize(("size", "allowed"), [(5, False), (6, True)])
def test_a_small_arm_is_refused(size, allowed):
    """With three z features, an arm needs six rows."""
    columns = table() | {"t": (np.arange(N) < size).astype(int)}
    if allowed:
        assert encode(build(z=["town"], columns=columns)).z.shape == (N, 3)
        return
    message = refusal(z=["town"], columns=columns)
    for fragment in (
        "arm '1' of treatment 't'",
        "has 5 rows",
        "3 z and 2 x",
        "at least 6",
        "fewer",
    ):
        assert fragment in message


def test_a_small_arm_of_frequent_rows_is_none():
    columns = table() | {"t": (np.arange(N) < 5).astype(int), "f": np.full(N, 2)}
    frequent = WEIGHTS["frequency"]
    assert encode(build(z=["town"], columns=columns, **frequent)).z.shape == (N, 3)


# ----------------------------------------------------------------------------- distinct rows


def discrete(n=2000, seed=1):
    """Return a table in which most rows occur many times."""
    rng = np.random.default_rng(seed)
    return {
        "t": rng.integers(0, 2, n),
        "y": rng.integers(0, 3, n),
        "z": rng.choice(["a", "b"], n),
        "x": rng.integers(0, 2, n),
        "c": rng.integers(0, 3, n),
        "w": rng.choice([0.5, 1.0, 2.5], n),
        "f": rng.integers(0, 3, n),
        "g": rng.integers(0, 5, n),
    }


MERGED = {
    "plain": {},
    "sampling": {"weights": "w"},
    "frequency": {"weights": "f", "weights_kind": "frequency"},
    "clusters": {"cluster": "g"},
    "sampling and clusters": {"weights": "w", "cluster": "g"},
    "covariates": {"covariates": ["c"]},
    "linear": {"features": "linear"},
}
merged = pytest.mark.parametrize("kind", MERGED)


def build_discrete(kind, columns=None):
    columns = discrete() if columns is None else columns
    return build(["z"], ["x"], columns, **MERGED[kind])


@merged
def test_merged_rows_have_the_same_moments(kind):
    data = build_discrete(kind)
    assert len(distinct(data).t) < len(data.t) / 4
    assert_same_moments(moments_of(data, reduce=True), moments_of(data))


@merged
def test_merged_rows_carry_counts(kind):
    """Against a count of rows by all that tells them apart."""
    data = build_discrete(kind)
    short = distinct(data)

    def counted(d):
        roles = [d.t, d.outcome.values, *(c.values for c in (*d.z, *d.x, *d.covariates))]
        roles += [extra for extra in (d.weight, d.cluster) if extra is not None]
        counts = collections.Counter()
        mult = np.ones(len(d.t)) if d.multiplicity is None else d.multiplicity
        for *key, times in zip(*roles, mult, strict=True):
            counts[tuple(float(part) for part in key)] += times
        return counts

    assert counted(short) == counted(data)
    assert len(short.t) == len(counted(data))
    assert short.num_rows == data.num_rows
    assert short.arm_sizes() == data.arm_sizes()
    assert encode(data, reduce=True).repeated


def test_continuous_rows_are_not_merged():
    data = build()
    assert distinct(data) is data
    assert encode(data, reduce=True).z.shape[0] == N


@pytest.mark.parametrize(("times", "expected"), [(3, 24), (4, 8)])
def test_rows_are_merged_where_that_shortens_fourfold(times, expected):
    i = np.arange(8 * times) % 8
    columns = {"t": i % 2, "y": i // 2 % 2 + 0.5, "z": i // 4, "x": i % 2}
    assert len(distinct(build(["z"], ["x"], columns)).t) == expected


def test_what_was_dropped_is_still_known_after_merging():
    columns = discrete() | {"x": np.where(np.arange(2000) < 7, np.nan, discrete()["x"])}
    short = distinct(build_discrete("plain", columns))
    assert (short.num_dropped, short.missing, short.num_rows) == (7, {"x": 7}, 1993)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.lists(st.integers(2, 4), min_size=1, max_size=3),
)
def test_joint_coding_is_that_of_the_loop(seed, levels):
    rng = np.random.default_rng(seed)
    columns = {f"z{j}": rng.choice(list("abcd")[:k], 60) for j, k in enumerate(levels)}
    for values in columns.values():
        values[:2] = ["a", "b"]  # no column is constant
    frame = columns | {"t": np.arange(60) // 2 % 2, "y": rng.normal(size=60), "x": columns["z0"]}
    data = build(list(columns), ["x"], frame, features="onehot")
    expected = onehot(*columns.values())
    if 2 * expected.shape[1] > 30:
        with pytest.raises(InputError, match="need at least"):
            encode(data)
        return
    np.testing.assert_array_equal(encode(data).z, expected)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(list(MERGED)),
    order=st.randoms(use_true_random=False),
)
def test_moments_depend_neither_on_merging_nor_on_the_order_of_rows(seed, kind, order):
    columns = discrete(400, seed)
    rows = list(range(400))
    order.shuffle(rows)
    data = build_discrete(kind, columns)
    shuffled = build_discrete(kind, {name: values[rows] for name, values in columns.items()})
    assert_same_moments(moments_of(shuffled, reduce=True), moments_of(data))


def test_views_are_a_pytree_of_arrays():
    views = encode(build(weights="w", cluster="g"))
    again = jax.jit(lambda v: v)(views)
    assert jax.tree.structure(again) == jax.tree.structure(views)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(views), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (again.num_clusters, again.repeated) == (9, False)
