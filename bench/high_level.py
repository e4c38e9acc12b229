"""What a checkpoint's high level says to recorded frames: share of right words, kinds of mistakes, confusions.

    python bench/high_level.py checkpoints/nano data/nano/l2_multi_own --rows 512

The set should be of homes that the checkpoint was not trained on; `pilot collect --policy CHECKPOINT` makes one of
states that a policy itself led to.
"""

import argparse

from pilot.data.formats.open_dataset import open_episodes
from pilot.datasets import layouts_from
from pilot.eval.offline.high_level import measure_high_level
from pilot.infer.policy import load_policy


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    policy = load_policy(args.checkpoint, num_steps=1)  # nobody acts on the chunks
    dataset = open_episodes(args.data, policy.metadata["action_horizon"], layouts=layouts_from(None))
    print(measure_high_level(policy, dataset, rows=args.rows, seed=args.seed).to_markdown())


if __name__ == "__main__":
    main()
