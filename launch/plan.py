"""Does it fit, and what will it cost at least: compiles the real programs of a config for a topology you do not have.

    python -m launch.plan --config=configs/sft.py:qwen2_vl_7b --topology=v5e:8x8 --out=DIR

Topologies: v5e:8x8, v5p:4x4x4, v6e:8x8 and their like (needs libtpu: pip install 'chestx_jax[plan]'), cpu:8 for the
devices that JAX simulates. A GRPO config plans its whole step: weights to where they write, rollout, reference,
update. One of each for each of the config's buckets; any leaf can be changed on the line, e.g.
--config.batch_size=256 --config.data.buckets="((1024,1024),)". Writes plan.json and plan.md under --out. The exit
code is 1, with the reason, when something does not fit. A program of the 7B model takes a few minutes to compile.
"""

from absl import flags
from ml_collections import config_flags

from launch.errors import EXPECTED
from launch.program import start

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, e.g. configs/sft.py:qwen2_vl_7b.", lock_config=True
)
TOPOLOGY = flags.DEFINE_string("topology", None, "KIND:SHAPE of one slice, e.g. v5e:8x8.", required=True)
SLICES = flags.DEFINE_integer("slices", 1, "Slices of that shape.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "Directory for plan.json and plan.md.", required=True)
PROGRAMS = flags.DEFINE_multi_enum(
    "program",
    [],
    ["sft", "reshard", "rollout", "score", "grpo", "process_reward", "verdicts"],
    "What to compile, can be repeated; all that a run of the config compiles, when left out.",
)
SEARCH = flags.DEFINE_bool(
    "search", False, "Compile ways to run the training step (largest bucket); propose the fastest that fits."
)
flags.mark_flag_as_required("config")


def main() -> None:
    """See the module's docstring."""
    from chestx_jax.planning import plan
    from chestx_jax.planning.programs import recipe_programs
    from chestx_jax.planning.topology import parse_topology
    from chestx_jax.storage import on_this_machine

    topology, out = (
        parse_topology(TOPOLOGY.value, SLICES.value),
        on_this_machine(OUT.value, "--out", "write the plan to a disk"),
    )
    programs = PROGRAMS.value or recipe_programs(CONFIG.value)
    if SEARCH.value:
        (program,) = {"sft", "grpo", "process_reward"}.intersection(programs)
        largest = max(CONFIG.value.data.buckets)
        facts, changes = plan.search(CONFIG.value, topology, program, *largest)
        plan.write(facts, topology, out)
        print((out / "plan.md").read_text())
        print("proposed: " + " ".join(f"--config.{name}={value}" for name, value in changes.items()))
        return
    facts = []
    for one in plan.plan(CONFIG.value, topology, programs):
        facts.append(one)
        plan.write(facts, topology, out)  # what is compiled is not lost when a later program fails
    print((out / "plan.md").read_text())
    plan.check(facts, topology)


if __name__ == "__main__":
    from chestx_jax.planning.abstract import PlanError
    from chestx_jax.planning.compiling import CompileError
    from chestx_jax.planning.plan import DoesNotFit
    from chestx_jax.planning.topology import TopologyError

    start(main, (*EXPECTED, CompileError, DoesNotFit, PlanError, TopologyError))
