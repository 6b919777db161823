"""Settings of the whole test session, doctests included: float64, and no silent promotion."""

import jax

jax.config.update("jax_enable_x64", True)
