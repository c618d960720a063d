"""Models in Flax NNX. They take arrays and know no files."""
