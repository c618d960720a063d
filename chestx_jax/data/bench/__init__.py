"""Studies -> a benchmark on disk: questions, reasoning, checks, splits, images, statistics and a data card.

recipe    what is asked for                      prepare   a study: split, images, ballots (pure, parallel)
build     the single machine, resumable          finish    its questions: mining, checks (pure, parallel)
beam      the same functions on Apache Beam      write     files, statistics, data card
"""

from chestx_jax.data.bench.build import build_bench, preview
from chestx_jax.data.bench.recipe import MINERS, BenchError, Recipe
from chestx_jax.data.bench.splits import SPLITS, split_of

__all__ = ["MINERS", "SPLITS", "BenchError", "Recipe", "build_bench", "preview", "split_of"]
