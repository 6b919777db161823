"""Configurations of studies: what is wrong stops before any work, and says where and what to do."""

import pytest

from jaxmix import study
from jaxmix.status import InputError
from jaxmix.study.configuration.choices import Intervals
from tests.study_helpers import TINY, refused, write


def changed(*pairs, end=""):
    """Return the small configuration with texts replaced, and something at its end."""
    text = TINY
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text + end


GAUSSIAN = [('kind = "paper_main"', 'kind = "gaussian"'), ("[0.0, 1.0]", "[0.0, 0.5]")]
ESTIMATORS = '["spectral", "difference_in_means"]'

# The text of the file; the start of the line that is to blame (None: the file as a whole); what
# the message says.
WRONG = {
    "unknown key": (changed(end="[nope]\na = 1\n"), "[nope]", ["'nope'", "known"]),
    "misspelt key": (
        changed(("num_rows", "num_row")), "num_row =", ["'num_row'", "did you mean 'num_rows'"],
    ),
    "unknown parameter": (
        changed(('"paper_main"', '"paper_main"\nxy_strenth = 0.5')), "xy_strenth",
        ["'xy_strenth'", "did you mean 'xy_strength'"],
    ),
    "unknown factor": (
        changed(("zt_strength", "zt_strenth")), "zt_strenth", ["did you mean 'zt_strength'"],
    ),
    "unknown option": (
        changed(end="[options.spectral]\nspeed = 1\n"), "speed", ["no option 'speed'", "none"],
    ),
    "options of nobody": (
        changed(end="[options.spectrl]\n"), "[options.spectrl]",
        ["belongs to no estimator", "did you mean 'spectral'"],
    ),
    "options that are no table": (
        changed(end="[options]\nspectral = 5\n"), "spectral = 5", ["table"],
    ),
    "unknown interval key": (
        changed(end="[intervals]\nkinds = 'delta'\n"), "kinds", ["did you mean 'kind'"],
    ),
    "unknown kind of interval": (
        changed(end="[intervals]\nkind = 'exact'\n"), "kind = 'exact'", ["'exact'", "bootstrap"],
    ),
    "confidence in percent": (
        changed(end="[intervals]\nconfidence = 95\n"), "confidence", ["95", "between 0 and 1"],
    ),
    "few resamples": (
        changed(end="[intervals]\nkind = 'bootstrap'\nnum_resamples = 5\n"), "num_resamples",
        ["5", "at least 20"],
    ),
    "unknown figure key": (changed(end="[figure]\ncolour = 1\n"), "colour", ["'colour'"]),
    "unknown kind of figure": (
        changed(end="[figure]\nkind = 'pie'\n"), "kind = 'pie'", ["'pie'", "histograms"],
    ),
    "second figure": (
        changed(end="[[figure]]\nkind = 'curves'\n[[figure]]\nkind = 'pie'\n"), "kind = 'pie'",
        ["'pie'"],
    ),
    "figures that are no tables": (
        changed(("seed = 1", "seed = 1\nfigure = [1]")), "figure", ["table"],
    ),
    "figure of an unknown factor": (
        changed(end="[figure]\nx = 'rows'\n"), "x = 'rows'", ["'rows'", "'zt_strength'"],
    ),
    "figure of an unknown estimator": (
        changed(end="[figure]\nestimators = ['bridge']\n"), "estimators = ['bridge']",
        ["'bridge'", "'spectral'"],
    ),
    "metrics that are no texts": (
        changed(end="[figure]\nmetrics = [5]\n"), "metrics", ["5", "text"],
    ),
    "text for a number": (
        changed(("num_rows = 1000", 'num_rows = "1000"')), "num_rows", ["'1000'", "whole number"],
    ),
    "real for whole": (
        changed(("num_replicates = 20", "num_replicates = 20.0")), "num_replicates",
        ["20.0", "whole number"],
    ),
    "boolean for a number": (changed(("seed = 1", "seed = true")), "seed", ["whole number"]),
    "number for a list": (
        changed((ESTIMATORS, '"spectral"')), "estimators", ["'spectral'", "list"],
    ),
    "no list of values": (changed(("[0.0, 1.0]", "0.5")), "zt_strength", ["0.5", "list"]),
    "text for a parameter": (
        changed(("[0.0, 1.0]", '[0.0, "1.0"]')), "zt_strength", ["'1.0'", "a number"],
    ),
    "population that is no table": (
        TINY.split("[population]")[0] + "population = 'paper_main'\n", "population", ["table"],
    ),
    "kind that is no text": (
        changed(('"paper_main"', '["paper_main"]')), "kind", ["paper_main", "use one of"],
    ),
    "half a level": (
        changed(('"paper_main"', '"block"\nd_z = 2.5')), "d_z", ["2.5", "whole number"],
    ),
    "empty grid": (changed(("zt_strength = [0.0, 1.0]\n", "")), "[grid]", ["empty", "drop it"]),
    "empty factor": (changed(("[0.0, 1.0]", "[]")), "zt_strength", ["empty", "at least one value"]),
    "empty zip": (changed(end="[zip]\nxy_strength = []\n"), "xy_strength", ["empty"]),
    "lists of two lengths": (
        changed(end="[zip]\nxy_strength = [0, 1]\nfitted_classes = [1]\n"), "[zip]", ["one length"],
    ),
    "value twice": (changed(("[0.0, 1.0]", "[0.5, 0.5]")), "[grid]", ["zt_strength=0.5", "twice"]),
    "value twice, whole and real": (
        changed(("[0.0, 1.0]", "[1, 1.0]")), "[grid]", ["zt_strength=1.0", "twice"],
    ),
    "pair twice": (
        changed(end="[zip]\nxy_strength = [0, 0]\nfitted_classes = [2, 2]\n"), "[grid]", ["twice"],
    ),
    "factor fixed besides": (
        changed(('"paper_main"', '"paper_main"\nzt_strength = 0.1')), "zt_strength = [",
        ["fixed elsewhere", "keep one"],
    ),
    "rows fixed besides": (
        changed(end="num_rows = [10, 20]\n"), "num_rows = [", ["fixed elsewhere"],
    ),
    "grid and zip": (
        changed(end="[zip]\nzt_strength = [0.2]\n"), "zt_strength = [0.2]", ["[grid]"],
    ),
    "no rows in a cell": (
        changed(("num_rows = 1000\n", ""), end="num_rows = [0, 10]\n"), "num_rows",
        ["has 0", "from 1 to 2^53"],
    ),
    "no estimator": (changed((ESTIMATORS, "[]")), "estimators", ["empty", "at least one"]),
    "estimator twice": (changed((ESTIMATORS, '["em", "em"]')), "estimators", ["twice", "label"]),
    "unknown estimator": (
        changed((ESTIMATORS, '["spectrl"]')), "estimators",
        ["'spectrl'", "did you mean 'spectral'", "method ="],
    ),
    "estimator that is no text": (changed((ESTIMATORS, "[5]")), "estimators", ["5", "quotes"]),
    "unknown method": (
        changed((ESTIMATORS, '["mine"]'), end="[options.mine]\nmethod = 'e'\n"), "method",
        ["unknown estimator 'e'"],
    ),
    "method that is no text": (
        changed((ESTIMATORS, '["mine"]'), end="[options.mine]\nmethod = ['em']\n"), "method",
        ["em"],
    ),
    "value of an option": (
        changed((ESTIMATORS, '["synthetic"]'), end="[options.synthetic]\nquadrature = 'fast'\n"),
        "quadrature", ["'fast'", "'gauss', 'pencil', 'prony'"],
    ),
    "type of an option": (
        changed((ESTIMATORS, '["em"]'), end="[options.em]\nnum_starts = 'many'\n"), "num_starts",
        ["'many'", "whole number"],
    ),
    "no starts": (
        changed((ESTIMATORS, '["em"]'), end="[options.em]\nnum_starts = 0\n"), "num_starts",
        ["0", "above 0"],
    ),
    "no steps": (
        changed((ESTIMATORS, '["factorization"]'), end="[options.factorization]\nmax_steps = -1\n"),
        "max_steps", ["-1", "above 0"],
    ),
    "unknown kind": (changed(("paper_main", "paper_min")), "kind", ["'paper_min'", "paper_main"]),
    "no kind": (changed(('kind = "paper_main"\n', "")), "[population]", ["kind", "use one of"]),
    "parameter out of range": (
        changed(("[0.0, 1.0]", "[0.0, 1.5]")), "zt_strength", ["1.5", "from 0 to 1"],
    ),
    "fixed parameter out of range": (
        changed(('"paper_main"', '"paper_main"\nxy_strength = -1')), "xy_strength",
        ["-1", "from 0 to 1"],
    ),
    "seed of the population": (
        changed(('"paper_main"', '"random_discrete"\npopulation_seed = -1'),
                ("zt_strength = [0.0, 1.0]", "num_classes = [2]")),
        "population_seed", ["-1", "between 0 and"],
    ),
    "huge seed of the population": (
        changed(('"paper_main"', '"random_discrete"\npopulation_seed = 99999999999999999999'),
                ("zt_strength = [0.0, 1.0]", "num_classes = [2]")),
        "population_seed", ["99999999999999999999"],
    ),
    "needs a table": (
        changed(*GAUSSIAN, (ESTIMATORS, '["nn_parafac"]')), "estimators",
        ["nn_parafac", "discrete", "gaussian", "use spectral"],
    ),
    "likelihood needs a table": (
        changed(*GAUSSIAN, (ESTIMATORS, '["factorization"]')), "estimators",
        ["discrete", 'loss = "gmm"'],
    ),
    "regression needs a table": (
        changed(*GAUSSIAN, (ESTIMATORS, '["regression_adjustment"]')), "estimators", ["discrete"],
    ),
    "more classes than levels": (
        changed(("num_rows = 1000", "num_rows = 1000\nfitted_classes = 3")), "estimators",
        ["spectral", "at most 2 classes", "not 3"],
    ),
    "no derivatives": (
        changed((ESTIMATORS, '["em"]'), end="[intervals]\nkind = 'delta'\n"), "kind = 'delta'",
        ["em", "no derivatives", "bootstrap"],
    ),
    "no likelihood to profile": (
        changed((ESTIMATORS, '["spectral"]'), end="[intervals]\nkind = 'profile'\n"),
        "kind = 'profile'", ["spectral", "no maximum-likelihood", "bootstrap"],
    ),
    "no derivatives for the acceleration": (
        changed((ESTIMATORS, '["em"]'), end="[intervals]\nkind = 'bca'\n"), "kind = 'bca'",
        ["em", "no derivatives", "'bca'", "bootstrap"],
    ),
    "no table to resample by any kind": (
        changed(*GAUSSIAN, end="[intervals]\nkind = 'basic'\n"), "kind = 'basic'",
        ["gaussian", "delta"],
    ),
    "no table to resample": (
        changed(*GAUSSIAN, end="[intervals]\nkind = 'bootstrap'\n"), "kind = 'bootstrap'",
        ["gaussian", "delta"],
    ),
    "replicates": (changed(("num_replicates = 20", "num_replicates = 0")), "num_replicates",
                   ["0", "between 1 and"]),
    "negative seed": (changed(("seed = 1", "seed = -1")), "seed", ["-1", "between 0 and"]),
    "name with a slash": (changed(('"tiny"', '"a/b"')), "name", ["'a/b'", "letters"]),
    "name of another folder": (changed(('"tiny"', '".."')), "name", ["'..'"]),
    "name that is empty": (changed(('"tiny"', '""')), "name", ["letters"]),
    "error after a list of lists": (
        changed(('"paper_main"', '"block"'), ("zt_strength = [0.0, 1.0]\n",
                "effects = [\n  [-0.1, 0.2],\n  [0.0, 0.5],\n]\nbogus = [1]\n")),
        "bogus", ["'bogus'"],
    ),
    "missing seed": (changed(("seed = 1\n", "")), None, ["'seed' is missing", "seed = 0"]),
    "missing estimators": (
        changed((f"estimators = {ESTIMATORS}\n", "")), None, ["'estimators' is missing"],
    ),
    "missing rows": (changed(("num_rows = 1000\n", "")), None, ["rows is missing", "num_rows ="]),
    "missing population": (
        TINY.split("[population]")[0], None, ["'population' is missing", "[population]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_one_line_with_its_place_and_nothing_made(case, tmp_path):
    text, start, words = WRONG[case]
    path = write(tmp_path, text)
    message = refused("study", "run", path, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]
    lines = [i for i, line in enumerate(text.splitlines(), 1) if start and line.startswith(start)]
    place = f"{path}, line {lines[0]}: " if start else f"{path}: "
    assert place in message
    for word in words:
        assert word in message


def test_every_command_checks_the_file(tmp_path):
    path = write(tmp_path, changed(("seed = 1", "seed = -1")))
    for command in ("run", "status", "summarize", "plot"):
        assert "line 2: seed is -1" in refused("study", command, path, "--out", tmp_path / "out")


def test_files_that_cannot_be_read(tmp_path):
    assert "cannot be read" in refused("study", "run", tmp_path / "none.toml")
    assert "cannot be read" in refused("study", "run", tmp_path)
    broken = write(tmp_path, "name = \n", "broken.toml")
    message = refused("study", "run", broken)
    assert "broken.toml" in message
    assert "line 1" in message
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "\xe9"'.encode("latin-1"))
    assert "UTF-8" in refused("study", "run", latin)
    assert {p.name for p in tmp_path.iterdir()} == {"broken.toml", "latin.toml"}


def test_bad_calls(tmp_path):
    path = write(tmp_path, TINY)
    out = ["--out", tmp_path / "out"]
    assert "key=value" in refused("study", "run", path, *out, "--set", "seed")
    assert "key=value" in refused("study", "run", path, *out, "--set", "=5")
    assert "'seed' is not a table" in refused("study", "run", path, *out, "--set", "seed.a=5")
    assert "at least 1" in refused("study", "run", path, *out, "--chunk-size", "0")
    assert "png" in refused("study", "plot", path, *out, "--format", "gif")
    for command in ("summarize", "plot"):
        assert "study run" in refused("study", command, path, *out)
    assert list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------- overrides


def test_overrides_replace_any_key(tmp_path):
    text = TINY.replace("num_rows = 1000\n", "")
    config = study.load(
        write(tmp_path, text),
        [
            "num_replicates=7",
            "name=other",
            "population.kind=block",
            "population.shares=[0.25, 0.75]",
            "grid.zt_strength=[0.5]",
            "grid.num_rows=[10, 20]",
            'estimators=["mine"]',
            "options.mine.method=factorization",
            "options.mine.level=2",
            "intervals.kind=delta",
        ],
    )
    assert (config.name, config.num_replicates) == ("other", 7)
    assert [dict(cell.factors) for cell in config.cells] == [
        {"zt_strength": 0.5, "num_rows": n} for n in (10, 20)
    ]
    assert [cell.num_rows for cell in config.cells] == [10, 20]
    assert config.cells[0].population.build().shares.tolist() == [0.25, 0.75]
    assert [(c.label, c.method, dict(c.options)) for c in config.estimators] == [
        ("mine", "factorization", {"level": 2})
    ]
    assert config.intervals == Intervals("delta")
    assert config.raw["grid"]["num_rows"] == [10, 20]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-4", ["--set seed: ", "-4"]),
        ("grid.zt_strength=[0.0, 2.0]", ["--set grid.zt_strength: ", "from 0 to 1"]),
        ("population.xy_strength=2", ["--set population.xy_strength: ", "from 0 to 1"]),
        ("population.kind=none", ["--set population.kind: ", "'none'"]),
        ("options.spectral.fast=true", ["--set options.spectral.fast: ", "'fast'"]),
        ("nope=1", ["--set nope: ", "'nope'"]),
        ("num_replicates=many", ["--set num_replicates: ", "'many'", "whole number"]),
        ("estimators=[spectral]", ["--set estimators=[spectral]: ", "quotes"]),
    ],
)
def test_an_error_in_an_override_names_it(override, words, tmp_path):
    path = write(tmp_path, TINY)
    message = refused("study", "run", path, "--out", tmp_path / "out", "--set", override)
    for word in words:
        assert word in message
    assert "line" not in message.split(": ")[1]
    assert list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------- cells


def factors(tmp_path, end, start=TINY):
    return [dict(cell.factors) for cell in study.load(write(tmp_path, start + end)).cells]


def test_grid_is_a_product_whose_last_factor_runs_fastest(tmp_path):
    assert factors(tmp_path, "xy_strength = [0.0, 0.5, 1.0]\n") == [
        {"zt_strength": z, "xy_strength": x} for z in (0.0, 1.0) for x in (0.0, 0.5, 1.0)
    ]


def test_zip_pairs_and_multiplies_the_grid(tmp_path):
    start = TINY.replace("num_rows = 1000\n", "")
    found = factors(tmp_path, "[zip]\nxy_strength = [0.0, 1.0]\nnum_rows = [10, 20]\n", start)
    assert found == [
        {"zt_strength": z, "xy_strength": x, "num_rows": n}
        for z in (0.0, 1.0)
        for x, n in ((0.0, 10), (1.0, 20))
    ]
    alone = start.split("[grid]")[0] + "[zip]\nxy_strength = [0.0, 1.0]\nnum_rows = [10, 20]\n"
    assert factors(tmp_path, "", alone) == [
        {"xy_strength": 0.0, "num_rows": 10}, {"xy_strength": 1.0, "num_rows": 20},
    ]  # fmt: skip


def test_no_factor_is_one_cell(tmp_path):
    assert factors(tmp_path, "", TINY.split("[grid]")[0]) == [{}]


def test_whole_and_real_numbers_are_one_type(tmp_path):
    mixed = TINY.replace("[0.0, 1.0]", "[0, 0.5, 1]")
    values = [v for cell in factors(tmp_path, "", mixed) for v in cell.values()]
    assert values == [0.0, 0.5, 1.0]
    assert {type(v) for v in values} == {float}


def test_one_population_is_one_draw_however_it_is_written(tmp_path):
    def draws(text):
        return [cell.draw_hash for cell in study.load(write(tmp_path, text)).cells]

    expected = draws(TINY)
    assert draws(TINY.replace("[0.0, 1.0]", "[0, 1]")) == expected
    assert draws(TINY.replace('"paper_main"', '"paper_main"\nxy_strength = 0')) == expected
    assert draws(TINY.replace("num_replicates = 20", "num_replicates = 30")) == expected
    assert draws(TINY.replace(', "difference_in_means"', "")) == expected
    for change in (("seed = 1", "seed = 2"), ("1000", "1001"), ("0.0, 1.0", "0.1, 0.9")):
        assert not set(draws(TINY.replace(*change))) & set(expected)


def test_every_cell_has_a_hash_of_its_own(tmp_path):
    cells = study.load(write(tmp_path, TINY + "xy_strength = [0.0, 0.5]\n")).cells
    assert len({cell.hash for cell in cells}) == len({cell.draw_hash for cell in cells}) == 4


def test_classes_that_are_fitted_default_to_those_of_the_population(tmp_path):
    text = TINY.replace('"paper_main"', '"block"\nnum_classes = 3')
    assert {cell.num_classes for cell in study.load(write(tmp_path, text)).cells} == {3}
    two = text.replace("num_rows", "fitted_classes = 2\nnum_rows")
    cells = study.load(write(tmp_path, two)).cells
    assert {(cell.num_classes, cell.population.num_classes) for cell in cells} == {(2, 3)}


def test_python_raises_what_the_command_says(tmp_path):
    with pytest.raises(InputError, match="line 2: seed"):
        study.load(write(tmp_path, changed(("seed = 1", "seed = -1"))))
