"""From an estimate to its uncertainty and to verdicts."""
