"""What verdicts are worth: size and power of tests, coverage of intervals."""
