"""What a model sees of a frame: resized pictures, the prompt as tokens, the chunk as action tokens, and what is lost.

All of it by the pipeline that training and policies use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from markupsafe import Markup

from pilot.data.action_chunks import whole_chunks
from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.language import to_sample
from pilot.data.layout import Kind
from pilot.data.pipeline import Pipeline, Row
from pilot.eval.report import data_charts, pictures
from pilot.eval.report.charts import number
from pilot.eval.report.report import Report, grain
from pilot.eval.report.templates import macros
from pilot.models.bundle import load_bundle
from pilot.models.pi import pi05
from pilot.robots import load_adapter
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.prompts import ACTION_END, ACTION_START, FORMATS
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot, Sample

FIT_CHUNKS = 4000
SCALE = 10.0
PIECE_END = 12  # characters of a token's piece that are shown


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A pipeline, and in words whose it is."""

    pipeline: Pipeline
    loc_stride: int
    whose: str

    @property
    def robot(self) -> Robot:
        """The robot that the model acts for."""
        return self.pipeline.robot

    @property
    def action_horizon(self) -> int:
        """The control steps of a chunk."""
        return self.pipeline.model.chunk_steps

    @classmethod
    def of_checkpoint(cls, path: str | Path, *, robot: str = "") -> "ModelView":
        """Return the view of the policy at `path`: for the robot of this name if it knows it, else for its only one.

        Raises:
            ValueError: it has several robots, and not this one.
        """
        bundle = load_bundle(path, weights=False)
        pipeline = bundle.pipeline(robot if robot in bundle.robots else None)
        words = f"As the policy in `{path}` sees it: its sizes, statistics and tokenizers."
        return cls(pipeline=pipeline, loc_stride=bundle.loc_stride, whose=words)

    @classmethod
    def of_data(cls, dataset: EpisodeDataset, robot: Robot, stats: dict[str, NormStats]) -> "ModelView":
        """Return the view of a π0.5 that is trained on this set alone."""
        config = pi05(
            action_horizon=dataset.action_horizon,
            action_dim=max(32, robot.state_dim, robot.action_dim),
            max_tokens=1000,
        )
        adapter, text = load_adapter(robot), TextTokenizer()
        pipeline = Pipeline(
            robot,
            config,
            norm_stats=stats,
            text=text,
            action_tokenizer=fit_fast(dataset, robot, stats),
            adapter=adapter,
        )
        words = (
            "As π0.5 would see it: its picture size, statistics of this set, action tokens fitted to this set, and for "
            "words the small tokenizer that ships with pilot. `--checkpoint` shows what your own policy sees."
        )
        return cls(pipeline=pipeline, loc_stride=1, whose=words)

    def chunks(self, dataset: EpisodeDataset) -> np.ndarray:
        """Return normalised chunks of the set [n ah ad], none if no episode is long enough."""
        try:
            return whole_chunks(
                [dataset], self.robot, stats=self.pipeline.norm_stats["actions"], norm=self.pipeline.model.norm,
                stride=self.pipeline.model.action_stride, adapter=self.pipeline.adapter,
            )[:FIT_CHUNKS]  # fmt: skip
        except ValueError:
            return np.zeros((0, dataset.action_horizon, self.robot.action_dim), np.float32)


def fit_fast(dataset: EpisodeDataset, robot: Robot, stats: dict[str, NormStats]) -> FastTokenizer | None:
    """Fit FAST to the set; None if it has no whole chunks."""
    try:
        chunks = whole_chunks([dataset], robot, stats=stats["actions"], adapter=load_adapter(robot))
    except ValueError:
        return None
    return FastTokenizer.fit(chunks[:FIT_CHUNKS], vocab_size=1024, scale=SCALE)


def add_model_view(report: Report, dataset: EpisodeDataset, view: ModelView, *, rows: Sequence[int]) -> None:
    """Add a section with frames `rows` as the model gets them, and what action tokens cost over the set."""
    report.section("What the model sees", view.whose)
    for i in rows:
        episode = dataset.episodes[int(dataset.episode_of[i])]
        title = f"Episode {episode.index}, frame {i - episode.start}"
        try:
            frame = dataset.frame(i)
        except (ValueError, OSError) as error:
            report.figure(macros("data.html").note(str(error)), title=title, css="seen")
            continue
        frame["images"] = {name: image for name, image in frame["images"].items() if name in view.robot.cameras}
        sample = to_sample(frame, rng=np.random.default_rng(0), loc_stride=view.loc_stride, utterance_share=0.0)
        report.figure(draw_sample(view, sample), title=title, css="seen")
    add_token_costs(report, dataset, view)


def draw_sample(view: ModelView, sample: Sample) -> Markup:
    """Draw a sample as the model gets it: pictures before and after resizing, tokens, and the chunk."""
    if FORMATS[view.pipeline.model.prompt].target is None:
        sample = replace(sample, subtask=None)  # this model acts on its prompt alone
    row = view.pipeline.encode(sample)
    figures = []
    for camera, image in sample.images.items():
        slot = view.robot.slot(camera)
        if slot is None:
            figures.append(caption_picture(image, f"{camera}: the model does not see it"))
            continue
        name = camera if slot == camera else f"{camera}, as {slot}"
        figures.append(caption_picture(image, f"{camera} as recorded, {size_of(image)}"))
        figures.append(caption_picture(row.images[slot], f"{name} as seen, {size_of(row.images[slot])}"))
    tokens = [(visible(piece), kind) for piece, kind in row_pieces(view.pipeline, row)]
    kinds = [("prefix", "read: prompt and state"), ("text", "written: subtask"), ("fast", "written: actions")]
    legend = [(kind, words, sum(k == kind for _, k in tokens)) for kind, words in kinds]
    return macros("data.html").seen(figures, legend, tokens, chunk_and_tokens(view.pipeline, sample))


def caption_picture(image: np.ndarray, caption: str) -> dict[str, str]:
    """Return a picture as the page shows it."""
    return {"uri": pictures.data_uri(image), "caption": caption, "grain": grain(image)}


def visible(piece: str) -> str:
    """Return a token's piece with its spaces and line breaks visible, cut where it is long."""
    clean = piece.replace("▁", "·").replace("<0x0A>", "⏎").replace("\n", "⏎")
    return clean if len(clean) <= PIECE_END else clean[: PIECE_END - 1] + "…"


def size_of(image: np.ndarray) -> str:
    """Return width × height, kept on one line."""
    return f"{image.shape[1]}\u00a0×\u00a0{image.shape[0]}"


def row_pieces(pipeline: Pipeline, row: Row) -> list[tuple[str, str]]:
    """Return each token of a row as (its text, kind)."""
    kinds = {int(Kind.PREFIX): "prefix", int(Kind.TEXT): "text", int(Kind.FAST): "fast"}
    first = row.token_kinds.index(int(Kind.FAST)) if int(Kind.FAST) in row.token_kinds else len(row.tokens)
    start = first + len(pipeline.text.encode(ACTION_START))
    stop = len(row.tokens) - len(pipeline.text.encode(ACTION_END, add_eos=True))
    top = pipeline.model.vocab_size - 1 - pipeline.model.fast_offset
    return [
        (str(top - token) if start <= place < stop else pipeline.text.piece(token), kinds[kind])
        for place, (token, kind) in enumerate(zip(row.tokens, row.token_kinds))
    ]


def chunk_and_tokens(pipeline: Pipeline, sample: Sample) -> Markup:
    """Draw the normalised chunk, and what is left of it after it has been written as tokens."""
    if pipeline.action_tokenizer is None or (sample.action_is_pad is not None and sample.action_is_pad.any()):
        return Markup()
    chunk = pipeline.normalized_actions(sample)
    ids = pipeline.action_tokenizer.encode(chunk)
    decoded = pipeline.action_tokenizer.decode(ids, *chunk.shape).actions
    if decoded is None:
        return macros("data.html").note("The tokens of this chunk cannot be decoded again.")
    return data_charts.chunk(chunk, decoded, pipeline.robot.action_names, tokens=len(ids))


def add_token_costs(report: Report, dataset: EpisodeDataset, view: ModelView) -> None:
    """Add how many tokens chunks take, and what is lost by them."""
    chunks, tokenizer = view.chunks(dataset), view.pipeline.action_tokenizer
    if tokenizer is None or not len(chunks):
        report.text("No action tokens: no episode has a whole chunk, or this model takes none.")
        return
    ids = tokenizer.encode_batch(chunks)
    lengths = np.array([len(one) for one in ids])
    decoded = [tokenizer.decode(one, *chunk.shape).actions for one, chunk in zip(ids, chunks)]
    errors = np.stack([np.abs(back - chunk) for back, chunk in zip(decoded, chunks) if back is not None])
    values = chunks.shape[1] * chunks.shape[2] / lengths.mean()
    report.highlights(
        [
            (number(float(lengths.mean())), "action tokens per chunk", f"{values:.1f} numbers in each token"),
            (str(int(lengths.max())), "in the longest chunk", f"99 % have at most {np.quantile(lengths, 0.99):.0f}"),
            (
                number(float(np.sqrt((errors**2).mean()))),
                "lost by tokenising",
                "root mean square, of a range of −1 to 1",
            ),
        ]
    )
    cell = data_charts.histogram(
        lengths.astype(float), name="tokens per chunk", q01=float(np.quantile(lengths, 0.01)),
        q99=float(np.quantile(lengths, 0.99)), mean=float(lengths.mean()),
    )  # fmt: skip
    title = f"Action tokens per chunk, over {len(chunks)} chunks"
    report.figure(macros("data.html").histograms([cell], " wide-bars"), title=title, css="numbers")
