"""Populations by name, as studies and `simulate` ask for them: checked, then built."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping

import jax
from jaxtyping import Array

from jaxmix.estimators.registry import METHODS
from jaxmix.populations import KINDS, DiscretePopulation
from jaxmix.populations.population import Population
from jaxmix.study.configuration.methods import Chosen
from jaxmix.study.configuration.source import Source, check_type, suggest
from jaxmix.types import Json

SEED = "population_seed"
"""Parameter that fixes one random population; without it every replicate draws its own."""


@dataclasses.dataclass(frozen=True)
class PopulationSpec:
    """How a population is made: its kind with all parameters, defaults filled in.

    Attributes
    ----------
    kind
        A key of `jaxmix.populations.KINDS`.
    parameters
        Pairs of a name and a value, lists as tuples.
    population_seed
        For random kinds: the seed of one population; None draws one for every replicate.
    num_classes
        Classes of the population.
    max_rank
        Most classes that its views can tell apart.
    shape
        Of its moment tensor, ``(a, d_z, d_x, d_y)``.
    is_table
        Whether all of its columns are discrete.
    level
        The strongest level that holds; a kind has one, whatever is drawn.
    """

    kind: str
    parameters: tuple[tuple[str, Json], ...]
    population_seed: int | None
    num_classes: int
    max_rank: int
    shape: tuple[int, ...]
    is_table: bool
    level: int

    @classmethod
    def checked(
        cls,
        source: Source,
        kind: str,
        given: Mapping[str, Json],
        factors: Mapping[str, Json],
    ) -> PopulationSpec:
        """Build the population once, and say on which line what is wrong with it."""

        def place(name: str) -> tuple[str, ...]:
            if name not in factors:
                return ("population", name)
            return ("grid" if name in source.data.get("grid", {}) else "zip", name)

        known = parameters_of(source, kind)
        for name, value in given.items():
            if name not in known:
                source.fail(place(name), f"{kind} has no parameter {name!r}{suggest(name, known)}")
            check_type(source, place(name), value, known[name].types)
        seed = given.get(SEED)
        assert seed is None or isinstance(seed, int)
        if seed is not None and not 0 <= seed < 1 << 63:
            source.fail(place(SEED), f"{SEED} is {seed}; it has to lie between 0 and 2^63 - 1")
        filled = {n: known[n].exact(given.get(n, known[n].default)) for n in known if n != SEED}
        parameters = tuple(sorted(filled.items()))
        try:
            found = _examine(kind, parameters, seed)
        except (ValueError, TypeError, OverflowError) as error:
            text = " ".join(str(error).split())
            # Blame the parameter that the message names, else the population as a whole.
            named = [name for name in given if re.search(rf"\b{name}\b", text)]
            source.fail(place(named[0] if named else "kind"), f"{kind}: {text}")
        return cls(kind, parameters, seed, *found)

    @property
    def is_random(self) -> bool:
        """Whether every replicate draws a population of its own."""
        return takes_key(self.kind) and self.population_seed is None

    @property
    def described(self) -> dict[str, Json]:
        """Everything that determines the population, for its hash."""
        return {"kind": self.kind, "seed": self.population_seed, **dict(self.parameters)}

    def build(self, key: Array | None = None) -> Population:
        """Return the population; a fixed one from its own seed, a random one from `key`."""
        if self.population_seed is not None:
            key = jax.random.key(self.population_seed)
        return _build(self.kind, self.parameters, key)

    def check_method(self, source: Source, chosen: Chosen, k: int, intervals: str | bool) -> None:
        """Refuse an estimator that cannot run on this population."""
        method, place = METHODS[chosen.method], ("estimators",)
        options = dict(chosen.options)
        loss = options.get("loss", "kl")
        by_likelihood = chosen.is_likelihood
        if (method.needs_table or by_likelihood) and not self.is_table:
            others = "spectral, synthetic or bridge"
            if by_likelihood:
                others = f'loss = "gmm" under [options.{chosen.label}]'
            source.fail(place, f"{chosen.label} needs a population whose columns are all discrete, "
                        f"and {self.kind} is not; use {others}")  # fmt: skip
        ranked = method.needs_rank or (chosen.method == "factorization" and loss != "kl")
        if ranked and k > self.max_rank:
            source.fail(place, f"{chosen.label} can tell apart at most {self.max_rank} classes "
                        f"with the proxies of {self.kind}, not {k}; use more levels")  # fmt: skip
        if intervals not in (False, "delta") and not self.is_table:
            source.fail(("intervals", "kind"), "the bootstrap resamples tables, and "
                        f"{self.kind} has none; use kind = \"delta\"")  # fmt: skip


def takes_key(kind: str) -> bool:
    """Whether a kind of population is drawn at random."""
    return next(iter(inspect.signature(KINDS[kind]).parameters), "") == "key"


def parameters_of(source: Source, kind: object) -> dict[str, _Parameter]:
    """Return the parameters of a kind."""
    if not isinstance(kind, str) or kind not in KINDS:
        names = ", ".join(sorted(KINDS))
        what = "the kind of the population is missing" if kind is None else f"no kind {kind!r}"
        place = ("population",) if kind is None else ("population", "kind")
        source.fail(place, f"{what}; use one of {names}")
    parameters = inspect.signature(KINDS[kind]).parameters
    found = {n: _Parameter(p.default, str(p.annotation)) for n, p in parameters.items()}
    found.pop("key", None)
    return found | ({SEED: _Parameter(None, "int")} if takes_key(kind) else {})


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """A parameter of a population: its default, and its annotation in the signature."""

    default: Json
    annotation: str

    @property
    def types(self) -> tuple[type, ...]:
        """The types of TOML that it takes."""
        words = self.annotation.split(" | ")
        return tuple(kind for word in words for kind in _TYPES.get(word, ()))

    def exact(self, value: Json) -> Json:
        """Return a value as it is hashed: 1 and 1.0 are one where the parameter is real."""
        if isinstance(value, (list, tuple)):
            return tuple(self.exact(v) for v in value)
        if isinstance(value, int) and not isinstance(value, bool) and float in self.types:
            return float(value)
        return value


_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (float,), "str": (str,), "Numbers": (float, list),
}  # fmt: skip


@functools.cache
def _examine(
    kind: str, parameters: tuple[tuple[str, Json], ...], seed: int | None
) -> tuple[int, int, tuple[int, ...], bool, int]:
    """Build a population once, and return what is known of it."""
    population = _build(kind, parameters, jax.random.key(seed or 0))
    shapes = jax.eval_shape(lambda drawn: drawn.moments(), population)
    is_table = isinstance(population, DiscretePopulation)
    shape = shapes.tensor.shape
    return population.num_classes, shapes.max_rank, shape, is_table, population.level


def _build(kind: str, parameters: tuple[tuple[str, Json], ...], key: Array | None) -> Population:
    arguments = dict(parameters)
    return KINDS[kind](key, **arguments) if takes_key(kind) else KINDS[kind](**arguments)


def population_of_file(path: str) -> PopulationSpec:
    """Read a population from a TOML file: its ``kind`` and parameters, in or out of a table.

    Raises
    ------
    InputError
        As for a study's ``[population]``.
    """
    source = Source.read(path)
    if not isinstance(source.data.get("population"), dict):
        source = dataclasses.replace(
            source, data={"population": source.data}, implied=("population",)
        )
    given = dict(source.data["population"])
    kind = given.pop("kind", None)
    return PopulationSpec.checked(source, kind, given, {})
