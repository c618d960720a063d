"""Numbers for completions: the rewards of GRPO, and the rules over findings that they rest on."""
