"""The data of the nano recipe: demonstrations in generated homes, and questions about pictures of them.

Sets never share a home: each starts at a home number of its own. Homes of the test split are in none of them.
"""

from pilot.datasets import Dataset

_BOTH = "flow and FAST on actions, text on subtasks with their boxes"

DATASETS = (
    Dataset(
        name="homes-l1",
        path="nano/l1_single",
        robot="homes",
        reader="robot",
        objective=_BOTH,
        collect={"suite": "homes-l1", "scenes": 160, "episodes_per_scene": 4, "first_scene": 0, "seed": 0},
    ),
    Dataset(
        name="homes-l2",
        path="nano/l2_single",
        robot="homes",
        reader="robot",
        objective=_BOTH,
        collect={"suite": "homes-l2", "scenes": 700, "episodes_per_scene": 3, "first_scene": 10_000, "seed": 1},
    ),
    Dataset(
        name="homes-l2-multi",
        path="nano/l2_multi",
        robot="homes",
        reader="robot",
        objective=_BOTH,
        collect={"suite": "homes-l2-multi", "scenes": 300, "episodes_per_scene": 3, "first_scene": 20_000, "seed": 2},
    ),
    Dataset(
        name="homes-verbal",
        path="nano/l2_verbal",
        robot="homes",
        reader="robot",
        objective=_BOTH + "; half of the prompts are what a person said last",
        collect={
            "suite": "homes-l2-multi",
            "scenes": 60,
            "episodes_per_scene": 3,
            "first_scene": 30_000,
            "seed": 3,
            "verbal": True,
        },
    ),
    Dataset(
        name="homes-own",
        path="nano/l2_multi_own",
        robot="homes",
        reader="robot",
        objective=_BOTH + "; states that a policy led to, the checkpoint that `pilot collect --policy` names",
        collect={
            "suite": "homes-l2-multi",
            "scenes": 60,
            "episodes_per_scene": 2,
            "first_scene": 50_000,
            "seed": 5,
            "driven_steps": 100,
        },
    ),
    Dataset(
        name="homes-web",
        path="nano/web",
        robot="homes",
        reader="web",
        objective="text on answers; no actions",
        collect={"suite": "homes-l2-multi", "rows": 36_000, "scenes": 1500, "first_scene": 40_000, "seed": 4},
    ),
)
