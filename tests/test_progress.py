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


def test_a_bar_shows_before_the_first_report(soon, terminal, capsys):
    with progress.fit_progress():
        time.sleep(0.4)
    assert "compiling, fitting, testing" in capsys.readouterr().err


def test_a_bar_says_what_a_fit_is_at(soon, terminal, capsys):
    with progress.fit_progress() as report:
        report(20, 100)
        time.sleep(0.4)
        first = capsys.readouterr().err
        report(100, 100)
        time.sleep(1.2)
    assert "resampling" in first
    assert "20/100 resamples" in first
    last = capsys.readouterr().err
    assert "compiling, fitting, testing" in last
    assert "100/100 resamples" in last
    assert "0:00:01" in last  # the clock goes on


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
            time.sleep(0.2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    time.sleep(0.2)
    shown = capsys.readouterr().err
    assert shown.endswith("\x1b[2K")  # the line of the bar is erased
