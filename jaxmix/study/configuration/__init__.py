"""The configuration of a study: a TOML file, checked, as cells that name their own tables."""
