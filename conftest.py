"""Settings of the whole test session, doctests included: float64."""

import jax

jax.config.update("jax_enable_x64", True)
