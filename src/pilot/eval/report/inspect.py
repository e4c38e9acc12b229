"""`pilot data inspect`: one page about a set of demonstrations, to be looked at before it is trained on.

What looks wrong, a few episodes whole (cameras, words, state and actions along one time axis), how every dim is spread,
and what a model sees of a frame after resizing and tokenising. The page loads nothing and runs no script.

Axes: `t` steps of an episode, `ah` action horizon, `ad` action dims.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup

from pilot.data.formats.episodes import Episode, EpisodeDataset
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.open_dataset import open_episodes
from pilot.data.formats.rlds import RldsLayout
from pilot.data.importers.base import describe_robot, dim_names
from pilot.data.stats import compute_norm_stats
from pilot.data.tools import quality_checks
from pilot.data.tools.quality_checks import QualityIssue
from pilot.datasets import load_layout
from pilot.eval.report import data_charts, pictures
from pilot.eval.report.charts import duration, number
from pilot.eval.report.model_view import ModelView, add_model_view
from pilot.eval.report.report import Report, grain
from pilot.eval.report.templates import macros
from pilot.robots import load_adapter, load_robot, robot_names
from pilot.types import NormStats, Robot

STRIP_FRAMES, STRIP_PIXELS = 12, 160
MAX_WORDS = 12  # lines of a table of words
DARK, STILL = 4.0, 0.5  # levels of 255: a picture without light; two pictures that are the same


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The findings of an inspection, and the path of its page."""

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
    layouts: Callable[[str], RldsLayout] = load_layout,
) -> Inspection:
    """Write the page about a data set, and return what was found.

    Args:
        path: the folder of the set.
        out: the page; by default `inspect.html` in the folder of the set.
        robot: None takes the one that the set names, or else what the set says about its dims.
        checkpoint: show what this policy's model sees; None shows the input sizes of π0.5, with statistics and action
            tokens of the set itself.
        action_horizon: the length of a chunk, without a checkpoint.
        episodes: how many are shown whole, spread over the set.
        layouts: gives the layout of an RLDS set by its name, as `pilot.datasets.layouts_from` does for a file.

    Raises:
        FileNotFoundError, ValueError: the set as a whole cannot be read; single episodes that cannot be read are listed
            on the page.
    """
    path = Path(path)
    view = ModelView.of_checkpoint(checkpoint, robot=robot.name if robot else "") if checkpoint else None
    horizon = view.action_horizon if view else action_horizon
    dataset = open_episodes(path, horizon, layouts=layouts, skip_bad=True)
    robot = robot or (view.robot if view else known_robot(dataset))
    check_dims(dataset, robot)
    stats = quiet_stats(dataset, robot)
    shown = spread_out(dataset.episodes, episodes)
    films = {episode.index: EpisodePictures.of(dataset, episode) for episode in shown}
    issues = find_issues(dataset, robot, list(films.values()))
    report = Report(path.resolve().name, subtitle=subtitle(dataset, robot))
    report.highlights(highlights(dataset, issues))
    add_issues(report, issues)
    add_episodes(report, dataset, robot=robot, films=films)
    add_words(report, dataset)
    add_numbers(report, dataset, robot=robot, stats=stats)
    view = view or ModelView.of_data(dataset, robot, stats)
    add_model_view(
        report, dataset, view, rows=[episode.start + (episode.stop - episode.start) // 3 for episode in shown[:2]]
    )
    page = report.save(out or path / "inspect.html")
    return Inspection(page=page, episodes=len(dataset.episodes), issues=issues, skipped=len(dataset.skipped))


# --- what is looked at ------------------------------------------------------------------------------------------------


def known_robot(dataset: EpisodeDataset) -> Robot:
    """Return the robot that the set names, if there is one and its dims fit; else what the set says about its dims."""
    info = dataset.metadata()
    name = str(info.get("robot_type") or info.get("name") or "unknown")
    if name in robot_names() and has_dims_of(dataset, robot := load_robot(name)):
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


def has_dims_of(dataset: EpisodeDataset, robot: Robot) -> bool:
    """Return whether state and action have as many dims as the robot declares."""
    return (dataset.state.shape[1], dataset.actions.shape[1]) == (robot.state_dim, robot.action_dim)


def check_dims(dataset: EpisodeDataset, robot: Robot) -> None:
    """Check that the robot fits the set.

    Raises:
        ValueError: it has other dims.
    """
    if not has_dims_of(dataset, robot):
        raise ValueError(
            f"{dataset.path} has {dataset.state.shape[1]} state and {dataset.actions.shape[1]} action dims, robot "
            f"'{robot.name}' declares {robot.state_dim} and {robot.action_dim}; name another with --robot, or none"
        )


def quiet_stats(dataset: EpisodeDataset, robot: Robot) -> dict[str, NormStats]:
    """Return statistics as training takes them; constant dims are among the issues, so there is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compute_norm_stats([dataset], robot, adapter=load_adapter(robot))


def spread_out(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """Return `count` of the episodes, evenly spaced, the first among them."""
    positions = np.unique(np.linspace(0, len(episodes) - 1, min(count, len(episodes))).round().astype(int))
    return [episodes[position] for position in positions.tolist()]


@dataclass(frozen=True, kw_only=True)
class EpisodePictures:
    """Some pictures of an episode by camera, evenly spaced in time; `broken` are cameras that cannot be read."""

    episode: Episode
    steps: tuple[int, ...]
    pictures: dict[str, list[np.ndarray]]
    broken: dict[str, str]

    @classmethod
    def of(cls, dataset: EpisodeDataset, episode: Episode) -> "EpisodePictures":
        """Read the pictures of an episode."""
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


def find_issues(dataset: EpisodeDataset, robot: Robot, films: Sequence[EpisodePictures]) -> list[QualityIssue]:
    """Return what is suspicious in the columns and in the pictures shown, and episodes that cannot be read."""
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
    return unreadable + found + [s for film in films for s in picture_issues(film)]


def read_timestamps(dataset: EpisodeDataset) -> np.ndarray | None:
    """Read the column `timestamp` of a LeRobot set, in the order of its rows; None if there is none."""
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


def picture_issues(film: EpisodePictures) -> list[QualityIssue]:
    """Return an issue for each camera that is black, frozen or unreadable."""
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
    """Say in a sentence what robot recorded the set."""
    sizes = f"{robot.state_dim} state and {robot.action_dim} action dims"
    cameras = ", ".join(f"`{camera}`" for camera in dataset.cameras) or "no cameras"
    return f"Robot **{robot.name}**, {sizes}, cameras {cameras}, {float(dataset.fps):g} frames per second."


def highlights(dataset: EpisodeDataset, issues: Sequence[QualityIssue]) -> list[tuple[str, str, str]]:
    """Return the big numbers of the page: value, what it is, small print."""
    frames, fps = len(dataset), float(dataset.fps)
    lengths = [episode.stop - episode.start for episode in dataset.episodes]
    ends = [f"{length / fps:.1f}" for length in (min(lengths), max(lengths))]
    usual = f"{' to '.join(dict.fromkeys(ends))} s each"
    instructions = len(np.unique(dataset.task_index))
    labelled = float((dataset.subtask_index >= 0).mean())
    return [
        (number(len(dataset.episodes)), "episodes", usual),
        (
            f"{frames / fps / 3600:.1f} h" if frames / fps >= 3600 else duration(frames / fps),
            "of demonstrations",
            f"{number(frames)} frames",
        ),
        (
            number(instructions),
            "instructions" if instructions != 1 else "instruction",
            f"{labelled:.0%} of frames have a subtask",
        ),
        (
            str(len(issues)),
            "suspicious things" if len(issues) != 1 else "suspicious thing",
            f"{len(quality_checks.CHECKS)} checks of all frames",
        ),
    ]


def add_issues(report: Report, issues: Sequence[QualityIssue]) -> None:
    """Add what looks wrong, and the checks that found nothing."""
    report.section("What looks wrong", "A suspicion is no proof: look at the frames, then decide.")
    failed = {issue.check for issue in issues}
    passed = {check: sound for check, sound in quality_checks.CHECKS.items() if check not in failed}
    report.add(macros("data.html").findings(issues, passed))


def add_episodes(report: Report, dataset: EpisodeDataset, *, robot: Robot, films: dict[int, EpisodePictures]) -> None:
    """Add a few episodes whole, on one time axis each."""
    shown = f"{len(films)} of {len(dataset.episodes)} episodes, everything on one time axis. "
    lines = "Thick: the state; thin: the action of the same name. The height is the range of the whole set."
    report.section("Episodes", shown + lines)
    for film in films.values():
        episode, seconds = film.episode, (film.episode.stop - film.episode.start) / float(dataset.fps)
        tracks = [strip(camera, film) for camera in film.pictures]
        tracks += word_tracks(dataset, episode) + traces(dataset, robot, episode)
        report.figure(
            macros("data.html").recording(tracks, seconds),
            title=f"Episode {episode.index}: {episode.task or 'no instruction'}",
            css="episode",
            outcome=f"{seconds:.1f} s, {episode.stop - episode.start} frames",
        )


def strip(camera: str, film: EpisodePictures) -> Markup:
    """Draw the pictures of a camera side by side."""
    frames = [pictures.shrink(frame, size=STRIP_PIXELS) for frame in film.pictures[camera]]
    shown = [(step, pictures.data_uri(frame)) for step, frame in zip(film.steps, frames)]
    size = f"{film.pictures[camera][0].shape[1]} × {film.pictures[camera][0].shape[0]}"
    page = macros("data.html")
    return page.track(camera, page.strip(camera, shown, grain(frames[0])), size)


def word_tracks(dataset: EpisodeDataset, episode: Episode) -> list[Markup]:
    """Draw instruction, subtasks and utterances along the episode."""
    rows, length = slice(episode.start, episode.stop), episode.stop - episode.start
    lines = [("instruction", [dataset.tasks[i] for i in dataset.task_index[rows]], "task")]
    if (dataset.subtask_index[rows] >= 0).any():
        subtasks = [dataset.subtasks[i] if i >= 0 else "" for i in dataset.subtask_index[rows]]
        lines.append(("subtask", subtasks, "subtask"))
    if (dataset.utterance_index[rows] >= 0).any():
        utterances = [dataset.utterances[i] if i >= 0 else "" for i in dataset.utterance_index[rows]]
        lines.append(("utterance", utterances, "said"))
    page = macros("data.html")
    return [page.track(name, page.spans(word_spans(words, length), css), "") for name, words, css in lines]


def word_spans(words: Sequence[str], length: int) -> list[data_charts.WordSpan]:
    """Return the runs of the same words, without those that are empty."""
    starts = [i for i in range(length) if i == 0 or words[i] != words[i - 1]]
    return [
        data_charts.WordSpan(words=words[start], start=start / length, stop=stop / length)
        for start, stop in zip(starts, [*starts[1:], length])
        if words[start]
    ]


def traces(dataset: EpisodeDataset, robot: Robot, episode: Episode) -> list[Markup]:
    """Draw each state dim with the action of its name on top, then the actions that have no state dim."""
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
    return drawn


def comparable(state: np.ndarray, action: np.ndarray) -> bool:
    """Return whether an action commands positions like those of the state, not steps or speeds: their ranges agree."""
    overlap = min(state.max(), action.max()) - max(state.min(), action.min())
    union = max(state.max(), action.max()) - min(state.min(), action.min())
    return bool(overlap >= 0.4 * union)


def one_trace(name: str, values: np.ndarray, *, over: np.ndarray | None, rows: slice, unit: str) -> Markup:
    """Draw a dim along the rows of an episode, on the axis of the whole set."""
    every = [values] if over is None else [values, over]
    low, high = min(float(v.min()) for v in every), max(float(v.max()) for v in every)
    air = 0.04 * (high - low)
    own, thin = values[rows], None if over is None else over[rows]
    label = f"{name} from {number(float(own[0]))} to {number(float(own[-1]))}"
    drawing = data_charts.trace(own, over=thin, label=label, low=low - air, high=high + air)
    span = f"{number(low)} … {number(high)}" + (f" ({unit})" if unit else "")
    return macros("data.html").track(name, drawing, span)


def unit(robot: Robot, i: int, kind: str) -> str:
    """Return the unit of a dim, or "" if the robot declares none."""
    units = robot.state_units if kind == "state" else robot.action_units
    return units[i] if units else ""


def add_words(report: Report, dataset: EpisodeDataset) -> None:
    """Add every instruction and subtask with its counts."""
    report.section("Words", "Every instruction and subtask of the set, the most frequent first.")
    report.table(
        ["instruction", "episodes", "frames"], count_texts(dataset.tasks, dataset.task_index, dataset), title=""
    )
    if (dataset.subtask_index >= 0).any():
        report.table(
            ["subtask", "episodes", "frames"], count_texts(dataset.subtasks, dataset.subtask_index, dataset), title=""
        )
    else:
        report.text("No subtasks: the high level has nothing to learn here. Add some with `pilot data annotate`.")


def count_texts(texts: Sequence[str], index: np.ndarray, dataset: EpisodeDataset) -> list[tuple[str, int, int]]:
    """Return (text, episodes, frames) of the most frequent texts, and one row for the rest."""
    frames = Counter(index[index >= 0].tolist())
    order: list[int] = [i for i, _ in frames.most_common()]
    rows = [(texts[i], len(np.unique(dataset.episode_of[index == i])), frames[i]) for i in order[:MAX_WORDS]]
    if rest := order[MAX_WORDS:]:
        members = np.isin(index, rest)
        rows.append((f"and {len(rest)} more", len(np.unique(dataset.episode_of[members])), int(members.sum())))
    return rows


def add_numbers(report: Report, dataset: EpisodeDataset, *, robot: Robot, stats: dict[str, NormStats]) -> None:
    """Add how the values of every dim are spread."""
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
    """Return the actions of at most 20 000 chunks, relative to the state where they are learned so."""
    rows = np.arange(0, len(dataset), max(1, len(dataset) // 20_000))
    actions, is_pad = dataset.action_chunks(rows)
    adapter = load_adapter(robot)
    base = np.zeros((len(rows), robot.action_dim), np.float32)
    mask = np.flatnonzero(robot.delta_mask)
    base[:, mask] = adapter.state(dataset.state[rows])[:, mask]
    return (adapter.actions(actions) - base[:, None])[~is_pad]


def add_histograms(report: Report, title: str, values: np.ndarray, *, names: Sequence[str], stats: NormStats) -> None:
    """Add the histogram of each dim."""
    cells = [
        data_charts.histogram(
            values[:, i], name=name, q01=float(stats.q01[i]), q99=float(stats.q99[i]), mean=float(stats.mean[i])
        )
        for i, name in enumerate(names)
    ]
    report.figure(macros("data.html").histograms(cells, ""), title=title, css="numbers")
