"""Film a policy in scenes that it has never seen, with the instruction and the subtasks that it chooses.

    python examples/film.py checkpoints/nano --suite homes-l2-multi --scenes 0 1 2 --out docs/images/homes.webp

The scenes are shown side by side, whatever happens in them. `--out` may be a .webp or a .gif.
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pilot.eval.rollout import EpisodeRecord, Film, film
from pilot.eval.runner import Job, Runner
from pilot.eval.suites import load_suite

PAPER, INK, SOFT, GREEN, RED = "#14171a", "#eae7e1", "#a2a9ae", "#45c4b8", "#f0808f"
MARGIN, WORDS = 12, 92  # pixels around a panel, and below its picture
LINGER = 1.5  # seconds that the end stays


def shoot(runner: Runner, suite_name: str, *, scene: int, seed: int, size: int) -> tuple[EpisodeRecord, Film]:
    """Run one episode of the test split, and film it again with large pictures."""
    suite = load_suite(suite_name)
    record, actions = runner.run(Job(suite=suite, control="none", scene=scene, seed=seed, episodes=1))
    env = suite.make_env(image_size=size)
    shown = film(env, record, actions=actions)
    env.close()
    return record, shown


def draw_panel(record: EpisodeRecord, shown: Film, step: int, *, size: int) -> Image.Image:
    """Draw one moment of one episode: the picture, the instruction, and what the policy says."""
    last = len(shown.frames) - 1
    panel = Image.new("RGB", (size, size + WORDS), PAPER)
    panel.paste(Image.fromarray(shown.frames[min(step, last)]), (0, 0))
    draw, small, large = ImageDraw.Draw(panel), ImageFont.load_default(13), ImageFont.load_default(16)
    for i, words in enumerate(textwrap.wrap(record.prompt, size // 7)[:2]):
        draw.text((0, size + 8 + 16 * i), words, fill=SOFT, font=small)
    if step < last:
        words, colour = shown.captions[step], INK
    else:
        words, colour = ("done", GREEN) if record.success else ("not finished", RED)
    for i, part in enumerate(textwrap.wrap(words, size // 9)[:2]):
        draw.text((0, size + 46 + 20 * i), part, fill=colour, font=large)
    return panel


def draw_frames(takes: Sequence[tuple[EpisodeRecord, Film]], *, size: int, every: int) -> list[Image.Image]:
    """Draw all episodes side by side, at every so many control steps."""
    longest = max(len(shown.frames) for _, shown in takes)
    frames = []
    for step in [*range(0, longest - 1, every), longest - 1]:
        width = len(takes) * (size + MARGIN) + MARGIN
        frame = Image.new("RGB", (width, size + WORDS + 2 * MARGIN), PAPER)
        for i, (record, shown) in enumerate(takes):
            frame.paste(draw_panel(record, shown, step, size=size), (MARGIN + i * (size + MARGIN), MARGIN))
        frames.append(frame)
    return frames


def save(frames: Sequence[Image.Image], path: Path, *, fps: float) -> None:
    """Write a moving picture that repeats for ever."""
    durations = [round(1000 / fps)] * (len(frames) - 1) + [round(1000 * LINGER)]
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = {"quality": 55, "method": 4} if path.suffix == ".webp" else {"optimize": True}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, **quality)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="checkpoint folder, such as checkpoints/nano")
    parser.add_argument("--suite", default="homes-l2-multi", help="(default: %(default)s)")
    parser.add_argument("--scenes", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=224, help="pixels of a picture (default: %(default)s)")
    parser.add_argument("--every", type=int, default=2, help="draw every so many control steps (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=2.0, help="times as fast as the robot (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/film.webp"), help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if args.out.suffix not in (".webp", ".gif"):
        raise SystemExit(f"--out is a .webp or a .gif, got {args.out}")
    runner = Runner(args.policy)
    takes = [shoot(runner, args.suite, scene=scene, seed=args.seed, size=args.size) for scene in args.scenes]
    for scene, (record, shown) in zip(args.scenes, takes, strict=True):
        outcome = "success" if record.success else "no success"
        print(f"scene {scene}: {record.prompt}: {outcome}, {len(shown.frames) / shown.fps:.1f} s")
    frames = draw_frames(takes, size=args.size, every=args.every)
    save(frames, args.out, fps=takes[0][1].fps / args.every * args.speed)
    print(f"{args.out}: {len(frames)} pictures, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
