"""Parts of a result that are computed when they are first read."""

import copy
import pickle
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmix.results.later import Later


def third(array):
    return array / 3


def test_a_value_is_computed_once_and_its_means_are_let_go():
    calls = []
    later = Later(lambda: calls.append(0) or len(calls))
    assert not later.is_read
    assert repr(later) == "computed when it is read"
    assert [later.read(), later.read()] == [1, 1]
    assert later.is_read
    assert repr(later) == "1"


def test_what_fails_can_be_read_again():
    attempts = iter([ZeroDivisionError, None])

    def compute():
        if error := next(attempts):
            raise error
        return 5

    later = Later(compute)
    try:
        later.read()
    except ZeroDivisionError:
        assert not later.is_read
    assert later.read() == 5


def test_it_computes_with_all_digits_wherever_it_is_read():
    with jax.enable_x64(False):
        found = Later(partial(jnp.ones, 2)).read()
    assert found.dtype == np.float64


def test_pickled_arrays_keep_their_digits():
    later = Later(partial(third, jnp.ones(2)))
    packed = pickle.dumps(later)
    with jax.enable_x64(False):
        again, copied = pickle.loads(packed), copy.deepcopy(later)
        for other in (again, copied):
            assert not other.is_read
            np.testing.assert_array_equal(np.asarray(other.read()), np.full(2, 1 / 3))
    assert not later.is_read
    read = pickle.loads(pickle.dumps(again))
    assert read.is_read
    np.testing.assert_array_equal(np.asarray(read.read()), np.asarray(again.read()))


def test_two_threads_that_read_at_once_get_the_same():
    both, calls = threading.Barrier(2, timeout=60), []

    def compute():
        calls.append(threading.get_ident())
        both.wait()  # neither has the value while both are here
        return jnp.asarray(1.0) / 3

    later = Later(compute)
    found = []
    threads = [threading.Thread(target=lambda: found.append(later.read())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(calls)) == len(calls) == 2
    assert found[0] == found[1] == later.read()
    assert found[0].dtype == np.float64


def test_equal_values_make_equal_parts():
    assert Later.known((1, 2)) == Later(partial(tuple, [1, 2]))
    assert Later.known((1, 2)) != Later.known((1, 3))
    assert Later.known(1) != 1
