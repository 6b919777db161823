"""From data to a result: options, plan, estimates, errors, tests, and the calls of people."""
