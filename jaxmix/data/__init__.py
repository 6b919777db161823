"""Tables with roles: columns, what they hold, and the checks before anything is computed."""

from jaxmix.data.roles import CausalData, read

__all__ = ["CausalData", "read"]
