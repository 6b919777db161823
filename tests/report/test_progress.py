"""The bar of a fit: silent where nobody looks, alive while there is nothing to report."""

import time

import pytest

from jaxmix.report import progress


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.05)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def shown(capsys, *words, seconds=30):
    """Return what was written on standard error since the last call, once all words are in it."""
    text, begun = "", time.monotonic()
    while not all(word in text for word in words):
        assert time.monotonic() - begun < seconds, text
        time.sleep(0.05)
        text += capsys.readouterr().err
    return text


def test_a_bar_shows_before_the_first_report(soon, terminal, capsys):
    with progress.fit_progress():
        shown(capsys, "compiling, fitting, testing")


def test_a_bar_says_what_a_fit_is_at(soon, terminal, capsys):
    with progress.fit_progress() as report:
        report(20, 100)
        frames = shown(capsys, "resampling", "20/100 resamples")
        assert frames.rfind("resampling") > frames.rfind("testing")
        report(100, 100)
        # After the last resample its clock goes on.
        shown(capsys, "compiling, fitting, testing", "100/100 resamples", "0:00:01", "0:00:02")


def test_a_bar_shows_numbers_before_all_is_computed(soon, terminal, capsys):
    with progress.fit_progress() as report:
        report(100, 100)
        report.say("sensitivity bounds", "ATE 0.25 (std. error 0.017)")
        shown(capsys, "sensitivity bounds", "ATE 0.25 (std. error 0.017)")


def test_no_bar_for_what_is_over_at_once(terminal, capsys):
    with progress.fit_progress() as report:
        report(1, 1)
    assert capsys.readouterr().err == ""


def test_no_bar_where_nobody_looks(soon, capsys):
    with progress.fit_progress() as report:
        report(1, 2)
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_bar_is_gone_when_the_work_fails(soon, terminal, capsys):
    def work():
        with progress.fit_progress():
            shown(capsys, "compiling")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    time.sleep(0.2)
    assert capsys.readouterr().err.endswith("\x1b[2K")  # the line of the bar is erased
