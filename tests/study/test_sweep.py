"""Data sets of a study: what they depend on, and what they do not."""

import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jaxmix import study
from jaxmix.study.sweep import blocks, cell_key
from tests.study_helpers import environment, of, ran, table, write

BASE = """\
name = "draws"
seed = 3
num_replicates = 70
num_rows = 200
bound = false
estimators = ["difference_in_means", "spectral"]
"""
FIXED = '[population]\nkind = "paper_main"\n[grid]\nzt_strength = [0.2, 0.8]\n'
RANDOM = '[population]\nkind = "random_discrete"\nfamily = "generic"\n[grid]\nnum_rows = [200]\n'
CONTINUOUS = '[population]\nkind = "gaussian"\n[grid]\nzt_strength = [0.5]\n'
TEXTS = {
    "fixed": BASE + FIXED,
    "random": BASE.replace("num_rows = 200\n", "") + RANDOM,
    "continuous": BASE + CONTINUOUS,
}
NAIVE = "difference_in_means"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return each study, in seven chunks."""
    return {
        name: ran(tmp_path_factory.mktemp(name), text, chunk_size=10)
        for name, text in TEXTS.items()
    }


def naive(store, position=0):
    """Return what is a function of the data alone, and so tells draws apart."""
    return of(store, NAIVE, position)["ate"].to_numpy()


def same_estimates(found, expected, is_table):
    """Compare tables: draws of tables exactly, the rest but for the order of summation."""
    assert found["status"].tolist() == expected["status"].tolist()
    own = expected["estimator"] == NAIVE
    exactly = 0 if is_table else 1e-12
    np.testing.assert_allclose(found["ate"][own], expected["ate"][own], rtol=exactly, atol=exactly)
    regular = expected["status"] == "SUCCESS"
    assert regular.sum() > len(own) / 2
    for name in ("ate", "effects", "shares", "true_effects", "true_ate"):
        for a, b in zip(found[name][regular], expected[name][regular], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", TEXTS)
def test_chunks_change_nothing(name, stores, tmp_path):
    store = ran(tmp_path, TEXTS[name])
    for position in range(len(store.config.cells)):
        same_estimates(table(store, position), table(stores[name], position), name != "continuous")


def test_replicates_differ(stores):
    for store in stores.values():
        assert len(set(naive(store))) > 65


def test_the_order_of_cells_changes_nothing(stores, tmp_path):
    other = ran(tmp_path, TEXTS["fixed"].replace("[0.2, 0.8]", "[0.8, 0.5, 0.2]"), chunk_size=10)
    assert naive(other, 0).tolist() == naive(stores["fixed"], 1).tolist()
    assert naive(other, 2).tolist() == naive(stores["fixed"], 0).tolist()


def test_a_grid_and_a_table_of_its_own_are_one_cell(stores, tmp_path):
    alone = TEXTS["fixed"].replace("[grid]\nzt_strength = [0.2, 0.8]", "zt_strength = 0.8")
    assert naive(ran(tmp_path, alone, chunk_size=10)).tolist() == naive(stores["fixed"], 1).tolist()


def test_another_estimator_changes_nothing(stores, tmp_path):
    options = "[options.em]\nnum_starts = 1\nmax_steps = 100\n"
    alone = TEXTS["fixed"].replace("0.2, 0.8", "0.2") + options
    alone = alone.replace('["difference_in_means", "spectral"]', '["em"]')
    more = alone.replace('["em"]', '["em", "difference_in_means"]')
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = ran(tmp_path / "a", alone, chunk_size=10)
    second = ran(tmp_path / "b", more, chunk_size=10)
    assert naive(second).tolist() == naive(stores["fixed"]).tolist()
    found, expected = of(second, "em"), of(first, "em")
    assert found["status"].tolist() == expected["status"].tolist()
    # Random starts that differ would end in other places after so few steps.
    for name in ("effects", "shares"):
        a, b = (np.stack(frame[name]) for frame in (found, expected))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["fixed", "random"])
def test_more_replicates_begin_with_the_same(name, stores, tmp_path):
    more = ran(tmp_path, TEXTS[name].replace("= 70", "= 90"), chunk_size=10)
    assert naive(more)[:70].tolist() == naive(stores[name]).tolist()
    assert more.config.cells[0].hash != stores[name].config.cells[0].hash


def test_seeds_rows_and_cells_have_draws_of_their_own(stores, tmp_path):
    first, second = naive(stores["fixed"], 0), naive(stores["fixed"], 1)
    assert np.mean(first == second) < 0.1
    for i, change in enumerate((("seed = 3", "seed = 4"), ("num_rows = 200", "num_rows = 201"))):
        folder = tmp_path / str(i)
        folder.mkdir()
        other = naive(ran(folder, TEXTS["fixed"].replace(*change), chunk_size=10))
        assert np.mean(other == first) < 0.1


def test_classes_that_are_fitted_do_not_enter_the_draw(stores, tmp_path):
    text = TEXTS["fixed"].replace("seed = 3", "seed = 3\nfitted_classes = 1")
    cells = study.load(write(tmp_path, text)).cells
    keys = [jax.random.key_data(cell_key(cell)).tolist() for cell in cells]
    expected = stores["fixed"].config.cells
    assert keys == [jax.random.key_data(cell_key(cell)).tolist() for cell in expected]
    assert keys[0] != keys[1]


def test_random_populations_are_each_replicates_own(stores, tmp_path):
    truths = of(stores["random"], NAIVE)["true_ate"]
    assert len(set(truths)) == 70
    fixed = TEXTS["random"].replace('"generic"', '"generic"\npopulation_seed = 5')
    store = ran(tmp_path, fixed, chunk_size=10)
    truths = of(store, NAIVE)["true_ate"]
    assert len(set(truths)) == 1
    (tmp_path / "again").mkdir()
    again = ran(tmp_path / "again", fixed.replace("seed = 3", "seed = 8"), chunk_size=10)
    assert set(of(again, NAIVE)["true_ate"]) == set(truths)
    assert np.mean(naive(again) == naive(store)) < 0.1
    built = store.config.cells[0].population.build()
    assert float(built.ate) == pytest.approx(truths[0], abs=1e-14)


def test_draws_have_the_mean_of_the_population(stores):
    """By symmetry the difference in means of the paper's design is 0 at every strength."""
    for position in range(2):
        found = naive(stores["fixed"], position)
        assert abs(found.mean()) < 4 * found.std(ddof=1) / np.sqrt(len(found))


def test_chunks_are_of_one_size_and_nothing_is_computed_twice(tmp_path):
    config = study.load(write(tmp_path, TEXTS["fixed"]))
    starts = [(b.start, len(b.truth.ate)) for b in blocks(config, config.cells[0], chunk_size=11)]
    assert starts == [(start, 10) for start in range(0, 70, 10)]


def test_four_devices_change_nothing(stores, tmp_path):
    script = """
        import sys
        import jax
        jax.config.update("jax_num_cpu_devices", 4)
        jax.config.update("jax_enable_x64", True)
        from jaxmix import study
        assert jax.local_device_count() == 4
        config = study.load(f"{sys.argv[1]}/study.toml")
        study.run(config, f"{sys.argv[1]}/whole")
        study.run(config, f"{sys.argv[1]}/in_chunks", chunk_size=10)
    """
    write(tmp_path, TEXTS["fixed"])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = stores["fixed"]
    for folder in ("whole", "in_chunks"):
        store = study.Store(tmp_path / folder, expected.config)
        cells = store.manifest()["cells"].values()
        assert {own["num_devices"] for own in cells} == {4}
        for position in range(len(store.config.cells)):
            same_estimates(table(store, position), table(expected, position), is_table=True)
