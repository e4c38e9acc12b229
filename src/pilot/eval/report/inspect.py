"""`pilot data inspect`: one page about a set of demonstrations, to be looked at before it is trained on.

What looks wrong, a few episodes whole (cameras, words, state and actions along one time axis), how every dim is spread,
and what a model sees of a frame after resizing and tokenising. The page loads nothing and runs no script.

Axes: `t` steps of an episode, `ah` action horizon, `ad` action dims.
"""

import html
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pilot.data.formats.episodes import Episode, EpisodeDataset
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.open_dataset import open_episodes
from pilot.data.importers.base import describe_robot, dim_names
from pilot.data.stats import compute_norm_stats
from pilot.data.tools import quality_checks
from pilot.data.tools.quality_checks import QualityIssue
from pilot.datasets import load_layout
from pilot.eval.report import data_charts, pictures
from pilot.eval.report.charts import duration, number
from pilot.eval.report.model_view import ModelView, add_model_view
from pilot.eval.report.report import Report
from pilot.robots import load_adapter, load_robot, robot_names
from pilot.types import NormStats, Robot

STRIP_FRAMES, STRIP_PIXELS = 12, 160
MAX_WORDS = 12  # lines of a table of words
DARK, STILL = 4.0, 0.5  # levels of 255: a picture without light; two pictures that are the same


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found, and where the page lies."""

    page: Path
    episodes: int
    issues: list[QualityIssue]
    skipped: int


def inspect(
    path: str | Path,
    *,
    out: str | Path | None = None,
    robot: Robot | None = None,
    checkpoint: str | Path | None = None,
    action_horizon: int = 10,
    episodes: int = 3,
) -> Inspection:
    """Writes the page (default: `inspect.html` beside the set) and returns what was found.

    `robot`: None takes the one that the set names, or what it says of its dims. `checkpoint`: show what this policy's
    model sees; None shows π0.5's input sizes with statistics and action tokens of the set itself. `episodes`: how many
    are shown whole, spread over the set.

    Raises:
        FileNotFoundError, ValueError: what the reader finds wrong with the set as a whole; single episodes that cannot
        be read are listed on the page.
    """
    path = Path(path)
    view = ModelView.of_checkpoint(checkpoint) if checkpoint else None
    horizon = view.action_horizon if view else action_horizon
    dataset = open_episodes(path, horizon, layouts=load_layout, skip_bad=True)
    robot = robot or (view.robot if view else known_robot(dataset))
    check_dims(dataset, robot)
    stats = quiet_stats(dataset, robot)
    shown = spread(dataset.episodes, episodes)
    films = {episode.index: Film.of(dataset, episode) for episode in shown}
    found = find_all(dataset, robot, list(films.values()))
    report = Report(path.resolve().name, subtitle=subtitle(dataset, robot))
    report.highlights(highlights(dataset, found))
    add_suspicions(report, dataset, found)
    add_episodes(report, dataset, robot=robot, films=films)
    add_words(report, dataset)
    add_numbers(report, dataset, robot=robot, stats=stats)
    view = view or ModelView.of_data(dataset, robot, stats)
    add_model_view(
        report, dataset, view, rows=[episode.start + (episode.stop - episode.start) // 3 for episode in shown[:2]]
    )
    page = report.save(out or path / "inspect.html")
    return Inspection(
        page=page, episodes=len(dataset.episodes), issues=found, skipped=len(dataset.skipped)
    )  # fmt: skip


# --- what is looked at ------------------------------------------------------------------------------------------------


def known_robot(dataset: EpisodeDataset) -> Robot:
    """The robot that the set names, if there is a file for it and the dims fit; else what the set says of its dims."""
    info = dataset.metadata()
    name = str(info.get("robot_type") or info.get("name") or "unknown")
    if name in robot_names() and fits(dataset, robot := load_robot(name)):
        return robot
    features = info.get("features", {}) if isinstance(dataset, LeRobotDataset) else {}
    states, actions = (
        dim_names(next((features[n].get("names") for n in names if n in features), None), values.shape[1], kind=kind)
        for names, values, kind in (
            (("observation.state", "state"), dataset.state, "state"),
            (("action", "actions"), dataset.actions, "action"),
        )
    )
    return describe_robot(name, cameras=dataset.cameras, states=states, actions=actions, fps=float(dataset.fps))


def fits(dataset: EpisodeDataset, robot: Robot) -> bool:
    return (dataset.state.shape[1], dataset.actions.shape[1]) == (robot.state_dim, robot.action_dim)


def check_dims(dataset: EpisodeDataset, robot: Robot) -> None:
    if not fits(dataset, robot):
        raise ValueError(
            f"{dataset.path} has {dataset.state.shape[1]} state and {dataset.actions.shape[1]} action dims, robot "
            f"'{robot.name}' declares {robot.state_dim} and {robot.action_dim}; name another with --robot, or none"
        )


def quiet_stats(dataset: EpisodeDataset, robot: Robot) -> dict[str, NormStats]:
    """Statistics as training takes them; constant dims are named among the suspicions, not in a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compute_norm_stats([dataset], robot, adapter=load_adapter(robot))


def spread(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """`count` of them, evenly spaced, the first among them."""
    places = np.unique(np.linspace(0, len(episodes) - 1, min(count, len(episodes))).round().astype(int))
    return [episodes[place] for place in places.tolist()]


@dataclass(frozen=True, kw_only=True)
class Film:
    """Some pictures of an episode by camera, evenly spaced in time; `broken` are cameras that cannot be read."""

    episode: Episode
    steps: tuple[int, ...]
    pictures: dict[str, list[np.ndarray]]
    broken: dict[str, str]

    @classmethod
    def of(cls, dataset: EpisodeDataset, episode: Episode) -> "Film":
        length = episode.stop - episode.start
        steps = tuple(np.linspace(0, length - 1, min(STRIP_FRAMES, length)).round().astype(int).tolist())
        found: dict[str, list[np.ndarray]] = {}
        broken = {}
        for camera in dataset.cameras:
            try:
                found[camera] = [dataset.picture(episode.start + step, camera) for step in steps]
            except (ValueError, OSError) as error:
                broken[camera] = str(error)
        return cls(episode=episode, steps=steps, pictures=found, broken=broken)


def find_all(dataset: EpisodeDataset, robot: Robot, films: Sequence[Film]) -> list[QualityIssue]:
    """What the columns and the pictures that are shown have suspicious, and episodes that cannot be read."""
    found = quality_checks.find_quality_issues(
        dataset,
        state_names=robot.state_names,
        action_names=robot.action_names,
        control_hz=robot.control_hz,
        timestamps=read_timestamps(dataset),
    )
    unreadable = [
        QualityIssue(
            check="unreadable", what=f"episode {skip.episode} cannot be read: {skip.reason}",
            remedy="repair it, or leave it out: --skip-bad does", episodes=(skip.episode,),
        )
        for skip in dataset.skipped
    ]  # fmt: skip
    return unreadable + found + [s for film in films for s in picture_suspicions(film)]


def read_timestamps(dataset: EpisodeDataset) -> np.ndarray | None:
    """The column `timestamp` of a LeRobot set, row by row as the set is read; None where there is none."""
    if not isinstance(dataset, LeRobotDataset) or "timestamp" not in dataset.features:
        return None
    by_episode: dict[int, np.ndarray] = {}
    for file in sorted((dataset.path / "data").rglob("*.parquet")):
        try:
            table = pq.read_table(file, columns=["episode_index", "timestamp"])
        except (OSError, ValueError):
            continue  # the reader has named it already
        numbers, times = table["episode_index"].to_numpy(), table["timestamp"].to_numpy()
        edges = np.flatnonzero(np.diff(numbers, prepend=-1))
        by_episode |= dict(zip(numbers[edges].tolist(), np.split(times, edges[1:])))
    pieces = [by_episode.get(episode.index) for episode in dataset.episodes]
    if any(p is None or len(p) != e.stop - e.start for p, e in zip(pieces, dataset.episodes)):
        return None
    return np.concatenate([p for p in pieces if p is not None]).astype(np.float64)


def picture_suspicions(film: Film) -> list[QualityIssue]:
    """Cameras that are black, or that show one picture all the time."""
    found = []
    for camera, frames in film.pictures.items():
        stack, where = np.stack(frames).astype(np.float32), f"camera '{camera}' in episode {film.episode.index}"
        if stack.mean() < DARK:
            what, remedy = f"{where} is black", "a camera that was covered or not connected? Leave the episode out"
        elif len(frames) > 2 and np.abs(stack[1:] - stack[:1]).mean() < STILL:
            what, remedy = f"{where} shows the same picture all the time", "a frozen camera? Leave the episode out"
        else:
            continue
        found.append(QualityIssue(check="pictures", what=what, remedy=remedy, episodes=(film.episode.index,)))
    return found + [
        QualityIssue(
            check="pictures", what=f"camera '{camera}' of episode {film.episode.index} cannot be read: {reason}",
            remedy="fetch the file again, or leave the episode out", episodes=(film.episode.index,),
        )
        for camera, reason in film.broken.items()
    ]  # fmt: skip


# --- the page ---------------------------------------------------------------------------------------------------------


def subtitle(dataset: EpisodeDataset, robot: Robot) -> str:
    sizes = f"{robot.state_dim} state and {robot.action_dim} action dims"
    cameras = ", ".join(f"`{camera}`" for camera in dataset.cameras) or "no cameras"
    return f"Robot **{robot.name}**, {sizes}, cameras {cameras}, {float(dataset.fps):g} frames per second."


def highlights(dataset: EpisodeDataset, found: Sequence[QualityIssue]) -> list[tuple[str, str, str]]:
    frames, fps = len(dataset), float(dataset.fps)
    lengths = [episode.stop - episode.start for episode in dataset.episodes]
    ends = [f"{length / fps:.1f}" for length in (min(lengths), max(lengths))]
    usual = f"{' to '.join(dict.fromkeys(ends))} s each"
    told = len(np.unique(dataset.task_index))
    labelled = float((dataset.subtask_index >= 0).mean())
    return [
        (number(len(dataset.episodes)), "episodes", usual),
        (
            f"{frames / fps / 3600:.1f} h" if frames / fps >= 3600 else duration(frames / fps),
            "of demonstrations",
            f"{number(frames)} frames",
        ),
        (number(told), "instructions" if told != 1 else "instruction", f"{labelled:.0%} of frames have a subtask"),
        (
            str(len(found)),
            "suspicious things" if len(found) != 1 else "suspicious thing",
            f"{len(quality_checks.CHECKS)} looks at all frames",
        ),
    ]


def add_suspicions(report: Report, dataset: EpisodeDataset, found: Sequence[QualityIssue]) -> None:
    report.section("What looks wrong", "A suspicion is no proof: look at the place, then decide.")
    cards = "".join(
        f'<li class="bad"><b>{html.escape(s.check)}</b><span>{html.escape(s.what)}</span>'
        f"<small>{html.escape(s.remedy[:1].upper() + s.remedy[1:])}</small></li>"
        for s in found
    )
    kept = {name: sound for name, sound in quality_checks.CHECKS.items() if name not in {s.check for s in found}}
    fine = "".join(
        f'<li class="good"><b>{html.escape(n)}</b><small>{html.escape(s)}</small></li>' for n, s in kept.items()
    )
    report.parts.append(f'<ul class="findings">{cards}</ul><ul class="findings fine">{fine}</ul>')


def add_episodes(report: Report, dataset: EpisodeDataset, *, robot: Robot, films: dict[int, Film]) -> None:
    shown = f"{len(films)} of {len(dataset.episodes)} episodes, everything on one time axis. "
    lines = (
        "State in the first colour, the action of the same name thinner on top; the height is the whole set's range."
    )
    report.section("Episodes", shown + lines)
    for film in films.values():
        episode, seconds = film.episode, (film.episode.stop - film.episode.start) / float(dataset.fps)
        content = "".join(strip(camera, film) for camera in film.pictures) + words_of(dataset, episode)
        content += traces(dataset, robot, episode) + time_axis(seconds)
        report.figure(
            f'<div class="recording" tabindex="0"><div>{content}</div></div>',
            title=f"Episode {episode.index}: {episode.task or 'no instruction'}",
            css="episode",
            outcome=f"{seconds:.1f} s, {episode.stop - episode.start} frames",
        )


def strip(camera: str, film: Film) -> str:
    frames = [pictures.small(frame, size=STRIP_PIXELS) for frame in film.pictures[camera]]
    grain = "pixelated" if frames[0].shape[0] <= 96 else "auto"
    cells = "".join(
        f'<img src="{pictures.data_uri(frame)}" alt="{html.escape(camera)}, frame {step}">'
        for step, frame in zip(film.steps, frames)
    )
    size = f"{film.pictures[camera][0].shape[1]} × {film.pictures[camera][0].shape[0]}"
    row = f'<div class="frames" style="--n:{len(frames)};--grain:{grain}">{cells}</div>'
    return data_charts.track(camera, row, note=size)


def words_of(dataset: EpisodeDataset, episode: Episode) -> str:
    """Prompt, subtasks and what was said, along the episode."""
    rows, length = slice(episode.start, episode.stop), episode.stop - episode.start
    lines = [("instruction", [dataset.tasks[i] for i in dataset.task_index[rows]], "task")]
    if (dataset.subtask_index[rows] >= 0).any():
        named = [dataset.subtasks[i] if i >= 0 else "" for i in dataset.subtask_index[rows]]
        lines.append(("subtask", named, "subtask"))
    if (dataset.utterance_index[rows] >= 0).any():
        said = [dataset.utterances[i] if i >= 0 else "" for i in dataset.utterance_index[rows]]
        lines.append(("said aloud", said, "said"))
    return "".join(
        data_charts.track(name, data_charts.spans(runs(words, length), css=css)) for name, words, css in lines
    )


def runs(words: Sequence[str], length: int) -> list[data_charts.Span]:
    """Runs of the same words, without the silent ones."""
    starts = [i for i in range(length) if i == 0 or words[i] != words[i - 1]]
    return [
        data_charts.Span(words=words[start], start=start / length, stop=stop / length)
        for start, stop in zip(starts, [*starts[1:], length])
        if words[start]
    ]


def traces(dataset: EpisodeDataset, robot: Robot, episode: Episode) -> str:
    """One small plot per state dim with the action of its name on top, then the actions that have no such place."""
    rows, drawn = slice(episode.start, episode.stop), []
    actions = {name: dataset.actions[:, j] for j, name in enumerate(robot.action_names)}
    for i, name in enumerate(robot.state_names):
        state, over = dataset.state[:, i], None
        if name in actions and comparable(state, actions[name]):
            over = actions.pop(name)
        drawn.append(one_trace(name, state, over=over, rows=rows, unit=unit(robot, i, "state")))
    for j, name in enumerate(robot.action_names):
        if name in actions:
            drawn.append(
                one_trace(f"action {name}", actions[name], over=None, rows=rows, unit=unit(robot, j, "action"))
            )
    return "".join(drawn)


def comparable(state: np.ndarray, action: np.ndarray) -> bool:
    """Whether the values of an action are places like those of the state, not steps or speeds: their ranges agree."""
    overlap = min(state.max(), action.max()) - max(state.min(), action.min())
    union = max(state.max(), action.max()) - min(state.min(), action.min())
    return bool(overlap >= 0.4 * union)


def one_trace(name: str, values: np.ndarray, *, over: np.ndarray | None, rows: slice, unit: str) -> str:
    """A dim along the rows of an episode, on the axis of the whole set."""
    every = [values] if over is None else [values, over]
    low, high = min(float(v.min()) for v in every), max(float(v.max()) for v in every)
    air = 0.04 * (high - low)
    own, thin = values[rows], None if over is None else over[rows]
    label = f"{name} from {number(float(own[0]))} to {number(float(own[-1]))}"
    drawing = data_charts.trace(own, over=thin, label=label, low=low - air, high=high + air)
    return data_charts.track(name, drawing, note=f"{number(low)} … {number(high)}" + (f" ({unit})" if unit else ""))


def unit(robot: Robot, i: int, kind: str) -> str:
    units = robot.state_units if kind == "state" else robot.action_units
    return units[i] if units else ""


def time_axis(seconds: float) -> str:
    ticks = "".join(f'<span style="left:{k / 4:.0%}">{seconds * k / 4:.1f} s</span>' for k in range(5))
    return f'<div class="clock">{ticks}</div>'


def add_words(report: Report, dataset: EpisodeDataset) -> None:
    report.section("Words", "Every instruction and subtask of the set, the most frequent first.")
    report.table(["instruction", "episodes", "frames"], counted(dataset.tasks, dataset.task_index, dataset), title="")
    if (dataset.subtask_index >= 0).any():
        report.table(
            ["subtask", "episodes", "frames"], counted(dataset.subtasks, dataset.subtask_index, dataset), title=""
        )
    else:
        report.text("No subtasks: the high level has nothing to learn here. Add some with `pilot data annotate`.")


def counted(texts: Sequence[str], index: np.ndarray, dataset: EpisodeDataset) -> list[tuple[str, int, int]]:
    frames = Counter(index[index >= 0].tolist())
    order: list[int] = [i for i, _ in frames.most_common()]
    rows = [(texts[i], len(np.unique(dataset.episode_of[index == i])), frames[i]) for i in order[:MAX_WORDS]]
    if rest := order[MAX_WORDS:]:
        members = np.isin(index, rest)
        rows.append((f"and {len(rest)} more", len(np.unique(dataset.episode_of[members])), int(members.sum())))
    return rows


def add_numbers(report: Report, dataset: EpisodeDataset, *, robot: Robot, stats: dict[str, NormStats]) -> None:
    intro = (
        "How the values of every dim are spread, in the robot's units. The model sees what lies between the lines, the "
        "1 % and 99 % quantiles, as −1 to 1. Heights are square roots, so that rare values show."
    )
    report.section("Numbers", intro)
    add_histograms(report, "State", dataset.state, names=robot.state_names, stats=stats["state"])
    learned = learned_actions(dataset, robot)
    relative = [name for name, is_delta in zip(robot.action_names, robot.delta_mask) if is_delta]
    title = (
        f"Actions, as learned: {', '.join(relative)} relative to the state at the chunk's start"
        if relative
        else "Actions"
    )
    add_histograms(report, title, learned, names=robot.action_names, stats=stats["actions"])


def learned_actions(dataset: EpisodeDataset, robot: Robot) -> np.ndarray:
    """Actions of all chunks, minus the state where they are learned relative to it; of at most 20 000 chunks."""
    rows = np.arange(0, len(dataset), max(1, len(dataset) // 20_000))
    actions, is_pad = dataset.action_chunks(rows)
    adapter = load_adapter(robot)
    base = np.zeros((len(rows), robot.action_dim), np.float32)
    mask = np.flatnonzero(robot.delta_mask)
    base[:, mask] = adapter.state(dataset.state[rows])[:, mask]
    return (adapter.actions(actions) - base[:, None])[~is_pad]


def add_histograms(report: Report, title: str, values: np.ndarray, *, names: Sequence[str], stats: NormStats) -> None:
    cells = "".join(
        data_charts.histogram(
            values[:, i], name=name, q01=float(stats.q01[i]), q99=float(stats.q99[i]), mean=float(stats.mean[i])
        )
        for i, name in enumerate(names)
    )
    report.figure(f'<div class="histograms">{cells}</div>', title=title, css="numbers")
