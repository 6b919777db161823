"""Options of `fit`: one record, which signature, command line and documentation repeat."""

import dataclasses
import inspect

import pytest
import typer.main

import jaxmix as jm
from jaxmix import cli
from jaxmix.fitting.options import OPTIONS, Options

SIGNATURE = inspect.signature(jm.fit).parameters


def test_the_signature_of_fit_is_the_record():
    given = {name: p.default for name, p in SIGNATURE.items() if name not in ("data", "graph")}
    assert given == {name: option.default for name, option in OPTIONS.items()}
    assert [field.name for field in dataclasses.fields(Options)] == list(OPTIONS)


@pytest.fixture(scope="module")
def flags():
    command = typer.main.get_command(cli.app).commands["fit"]
    return {flag: parameter for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "progress"])
def test_the_command_line_has_every_option(name, flags):
    option = OPTIONS[name]
    parameter = flags[option.flag or f"--{name}"]
    assert parameter.help == option.help
    default = option.default
    assert str(parameter.default) == str(default)


@pytest.mark.parametrize("name", SIGNATURE)
def test_the_docstring_has_every_option(name):
    assert f"\n    {name}\n" in jm.fit.__doc__


def test_what_was_given_is_kept_and_the_rest_is_default():
    options = Options.of(level=3, num_classes=2, seed=4)
    assert (options.level, options.num_classes, options.seed) == (3, 2, 4)
    assert options.confidence == 0.95
    with pytest.raises(jm.InputError, match="no option 'levels'"):
        Options.of(levels=3)
    with pytest.raises(jm.InputError, match=r"num_resamples \(--resamples\) is 3: give 0"):
        Options.of(num_resamples=3)
