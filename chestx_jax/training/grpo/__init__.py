"""Group-relative policy optimisation: advantages, losses."""
