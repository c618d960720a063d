"""What a build is asked for."""

from dataclasses import dataclass

from chestx_jax.data.questions import SAMPLINGS, QuestionError
from chestx_jax.data.schema import TASKS

MINERS = ("none", "rules", "llm")
"""Where reasoning comes from, for studies that do not bring their own."""


class BenchError(ValueError):
    """Studies or a recipe that cannot become a benchmark; the message names study and field."""


@dataclass(frozen=True)
class Recipe:
    """Two builds of the same studies by the same recipe make the same files.

    Attributes:
      tasks: the questions to build.
      seed: fixes every draw.
      sampling: a name of `questions.SAMPLINGS`.
      miner: one of `MINERS`.
      longest_side: images are stored under out/images, at most so many pixels long; None leaves them where
        they are.

    Raises:
      BenchError: an unknown sampling or miner, or a side below one pixel. QuestionError: an unknown task.
    """

    tasks: tuple[str, ...] = TASKS
    seed: int = 0
    sampling: str = "balanced"
    miner: str = "none"
    longest_side: int | None = None

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                raise QuestionError(f"task {task!r} is none of {', '.join(TASKS)}")
        if self.sampling not in SAMPLINGS:
            raise BenchError(f"sampling {self.sampling!r} is none of {', '.join(SAMPLINGS)}")
        if self.miner not in MINERS:
            raise BenchError(f"miner {self.miner!r} is none of {', '.join(MINERS)}")
        if self.longest_side is not None and self.longest_side < 1:
            raise BenchError(f"longest_side is {self.longest_side}, expected at least 1")
