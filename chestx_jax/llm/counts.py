"""What a run cost, and what it would cost."""

from collections import Counter
from dataclasses import dataclass, field

CHARACTERS_PER_TOKEN = 4  # rule of thumb for English with the common byte-pair vocabularies


@dataclass
class Counts:
    """Running totals of a client.

    Attributes:
      requests: asked for by the caller; equal ones in one batch are sent once and counted in `repeated`.
      calls: HTTP calls sent, retries included.
      retries: by reason.
      prompt_tokens, completion_tokens: as the server reports them, malformed answers included.
    """

    requests: int = 0
    repeated: int = 0
    cache_hits: int = 0
    calls: int = 0
    answered: int = 0
    invalid: int = 0
    broken_cache_files: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def summary(self) -> str:
        """One line for the terminal."""
        retried = ", ".join(f"{reason} {n}" for reason, n in sorted(self.retries.items()))
        return (
            f"{self.requests} requests: {self.cache_hits} from the cache, {self.repeated} repeated, "
            f"{self.answered} answered, {self.invalid} invalid; {self.calls} calls, "
            f"{self.retries.total()} retries{f' ({retried})' if retried else ''}; "
            f"{self.prompt_tokens} prompt and {self.completion_tokens} completion tokens"
        )


@dataclass(frozen=True)
class Estimate:
    """A dry run: nothing is sent.

    Attributes:
      to_ask: requests that are neither cached nor repeated: the calls that would be made if none failed.
      prompt_tokens: estimated from the characters of what would be sent.
      most_completion_tokens: the sum of the requests' limits; answers are usually far shorter.
    """

    requests: int
    cached: int
    to_ask: int
    prompt_tokens: int
    most_completion_tokens: int

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def summary(self) -> str:
        """One line for the terminal."""
        return (
            f"dry run: {self.requests} requests, {self.cached} answered already, {self.to_ask} to ask; "
            f"about {self.prompt_tokens} prompt tokens, "
            f"at most {self.most_completion_tokens} completion tokens"
        )
