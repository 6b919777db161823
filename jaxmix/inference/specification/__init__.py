"""Tests of what an estimate assumes, each a file with its statistic and its law.

`level_test`, `nested_test`, `arms_test` and `range_test` take a table, features, moments or
counts, and say their null hypothesis in words; `statistics` is the same on arrays, for many data
sets under ``vmap``.
"""

from jaxmix.inference.specification.answer import SpecificationTest, Statistic
from jaxmix.inference.specification.arms import arms_test
from jaxmix.inference.specification.averages import contrast_test
from jaxmix.inference.specification.bridge import overidentification
from jaxmix.inference.specification.level import fit_test, level_test
from jaxmix.inference.specification.nested import nested_test
from jaxmix.inference.specification.ranges import range_test
from jaxmix.inference.specification.registry import TESTS, statistics

__all__ = [
    "TESTS",
    "SpecificationTest",
    "Statistic",
    "arms_test",
    "contrast_test",
    "fit_test",
    "level_test",
    "nested_test",
    "overidentification",
    "range_test",
    "statistics",
]
