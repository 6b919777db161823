"""Clusters: how many there are, in all and in each arm, and what is said of few."""

import json

import numpy as np
import pandas as pd
import pytest

import jaxmix as jm
from jaxmix import InputError, cli
from tests.helpers import causal_data, linear_rows

N = 400


def rows(groups, **more):
    frame = linear_rows(np.random.default_rng(0), N)
    t = frame["t"].astype(int)
    return frame | {"g": np.asarray(groups(t, np.arange(N)))} | more


def both(k):
    """Return clusters with rows of both arms."""
    return lambda t, i: i % k


def within(*sizes):
    """Return clusters that lie within arms, so many in each."""
    return lambda t, i: np.where(t == 0, i % sizes[0], sizes[0] + i % sizes[1])


REFUSED = {
    "one": (both(1), "cluster 'g' has one value"),
    "two": (both(2), "cluster 'g' has two values"),
    "the arms": (within(1, 1), "all rows of arm '0' lie in one cluster ('0')"),
    "the arms' names": (lambda t, i: np.array(["u", "v"])[t], "arm '0' lie in one cluster ('u')"),
    "one among the treated": (within(30, 1), "all rows of arm '1' lie in one cluster ('30')"),
    "one among the controls": (within(1, 30), "all rows of arm '0' lie in one cluster ('0')"),
    "two, one among the treated": (
        lambda t, i: np.where(t == 0, i % 2, 1), "all rows of arm '1' lie in one cluster ('1')"
    ),
    "the treated of one cluster in thirty": (
        lambda t, i: np.where(t == 0, i % 30, 7), "all rows of arm '1' lie in one cluster ('7')"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_clusters_without_errors_are_refused(case):
    groups, message = REFUSED[case]
    with pytest.raises(InputError) as raised:
        causal_data(rows(groups), cluster="g")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    # They stand in nobody's way as long as nothing is asked of them.
    assert causal_data(rows(groups)).cluster is None


def test_clusters_are_counted_where_rows_are_used():
    """The third cluster is in rows that are dropped, or that have no weight."""
    groups, w = rows(both(3))["g"], np.ones(N)
    frame = rows(both(3))
    gaps = frame | {"y": np.where(groups == 2, np.nan, frame["y"])}
    with pytest.raises(InputError, match="has two values"):
        causal_data(gaps, cluster="g")
    weightless = {n: v for n, v in frame.items() if n != "w"} | {"v": np.where(groups == 2, 0.0, w)}
    with pytest.raises(InputError, match="has two values"):
        causal_data(weightless, cluster="g", weights="v")


def test_the_command_line_refuses_them_too(tmp_path, capsys):
    pd.DataFrame(rows(both(2))).to_csv(tmp_path / "rows.csv", index=False)
    call = "--treatment t --outcome y --z z0,z1 --x x0,x1 --cluster g --resamples 0"
    code = cli.run(["fit", str(tmp_path / "rows.csv"), *call.split()])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "cluster 'g' has two values" in err
    assert "leave the clusters out" in err


NOTED = {
    "3 clusters": (both(3), "there are 3 clusters, and standard errors"),
    "19 clusters": (both(19), "there are 19 clusters, and standard errors"),
    "2 in each arm": (within(2, 2), "there are 4 clusters, of which 2 have rows where t is 0"),
    "few treated": (within(40, 3), "there are 43 clusters, of which 3 have rows where t is 1"),
    "few controls": (within(4, 40), "there are 44 clusters, of which 4 have rows where t is 0"),
    "few with treated": (
        lambda t, i: np.where(t == 0, i % 30, i % 5),
        "there are 30 clusters, of which 5 have rows where t is 1",
    ),
    "20 clusters": (both(20), ""),
    "40 clusters": (both(40), ""),
    "20 in each arm": (within(20, 20), ""),
}


@pytest.mark.parametrize("case", NOTED)
def test_few_clusters_are_said_aloud(case):
    groups, note = NOTED[case]
    result = jm.fit(causal_data(rows(groups), cluster="g"), num_resamples=0)
    noted = [warning for warning in result.warnings if "clusters" in warning]
    assert len(noted) == bool(note)
    assert result.ate.se > 0
    if note:
        assert noted[0].startswith(note)
        assert noted[0].endswith("from fewer than about 20 clusters are too small")
        assert f"Note: {note}" in " ".join(result.summary().split())
        assert noted[0] in json.loads(json.dumps(result.to_dict()))["warnings"]


def test_an_arm_in_one_cluster_would_have_no_error():
    """Why it is refused: influences of the arm add up to 0 in its cluster, without any noise."""
    views = jm.features.encode(causal_data(rows(within(30, 2)), cluster="g"))
    merged = np.minimum(np.asarray(views.cluster), 30)

    def treated(moments):
        return moments.y_by_arm[1] / moments.arm_probabilities[1]

    one = views.redesigned(cluster=merged, num_clusters=31)
    assert float(jm.asymptotic.standard_errors(treated, views)) > 1e-3
    assert float(jm.asymptotic.standard_errors(treated, one)) < 1e-9
