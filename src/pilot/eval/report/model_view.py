"""What a model sees of a frame: resized pictures, the prompt as tokens, the chunk as action tokens, and what is lost.

All of it by the pipeline that training and policies use.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pilot.data.action_chunks import whole_chunks
from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.language import to_sample
from pilot.data.layout import Kind
from pilot.data.pipeline import Pipeline, Row
from pilot.eval.report import data_charts, pictures
from pilot.eval.report.charts import number
from pilot.eval.report.report import Report
from pilot.models.bundle import load_bundle
from pilot.models.pi import pi05
from pilot.robots import load_adapter
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.prompts import ACTION_END, ACTION_START, FORMATS
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot, Sample

FIT_CHUNKS = 4000
SCALE = 10.0


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A pipeline, and in words whose it is."""

    pipeline: Pipeline
    loc_stride: int
    whose: str

    @property
    def robot(self) -> Robot:
        return self.pipeline.robot

    @property
    def action_horizon(self) -> int:
        return self.pipeline.model.action_horizon

    @classmethod
    def of_checkpoint(cls, path: str | Path) -> "ModelView":
        """As the policy at `path` sees it."""
        bundle = load_bundle(path, weights=False)
        words = f"As the policy in `{path}` sees it: its sizes, statistics and tokenizers."
        return cls(pipeline=bundle.pipeline, loc_stride=bundle.loc_stride, whose=words)

    @classmethod
    def of_data(cls, dataset: EpisodeDataset, robot: Robot, stats: dict[str, NormStats]) -> "ModelView":
        """As π0.5 would see it after training on this set alone."""
        config = pi05(
            action_horizon=dataset.action_horizon,
            action_dim=max(32, robot.state_dim, robot.action_dim),
            max_tokens=1000,
        )
        adapter, text = load_adapter(robot), TextTokenizer()
        pipeline = Pipeline(
            robot, config, norm_stats=stats, text=text, action_tokenizer=fitted(dataset, robot, stats), adapter=adapter
        )
        words = (
            "As π0.5 would see it: its picture size, statistics of this set, action tokens fitted to this set, and for "
            "words the small tokenizer that ships with pilot. `--checkpoint` shows what your own policy sees."
        )
        return cls(pipeline=pipeline, loc_stride=1, whose=words)

    def chunks(self, dataset: EpisodeDataset) -> np.ndarray:
        """Normalised chunks of the set, [n ah ad]; none where no episode is long enough."""
        try:
            return whole_chunks(
                [dataset], self.robot, stats=self.pipeline.norm_stats["actions"], norm=self.pipeline.model.norm,
                adapter=self.pipeline.adapter,
            )[:FIT_CHUNKS]  # fmt: skip
        except ValueError:
            return np.zeros((0, dataset.action_horizon, self.robot.action_dim), np.float32)


def fitted(dataset: EpisodeDataset, robot: Robot, stats: dict[str, NormStats]) -> FastTokenizer | None:
    """FAST fitted to the set, if it has whole chunks."""
    try:
        chunks = whole_chunks([dataset], robot, stats=stats["actions"], adapter=load_adapter(robot))
    except ValueError:
        return None
    return FastTokenizer.fit(chunks[:FIT_CHUNKS], vocab_size=1024, scale=SCALE)


def add_model_view(report: Report, dataset: EpisodeDataset, view: ModelView, *, rows: Sequence[int]) -> None:
    """A section of the page: frames `rows` as the model gets them, and what action tokens cost over the set."""
    report.section("What the model sees", view.whose)
    for i in rows:
        episode = dataset.episodes[int(dataset.episode_of[i])]
        title = f"Episode {episode.index}, frame {i - episode.start}"
        try:
            frame = dataset.frame(i)
        except (ValueError, OSError) as error:
            report.figure(f'<p class="note">{html.escape(str(error))}</p>', title=title, css="seen")
            continue
        frame["images"] = {name: image for name, image in frame["images"].items() if name in view.robot.cameras}
        sample = to_sample(frame, rng=np.random.default_rng(0), loc_stride=view.loc_stride, utterance_share=0.0)
        report.figure(seen(view, sample), title=title, css="seen")
    add_token_costs(report, dataset, view)


def seen(view: ModelView, sample: Sample) -> str:
    if FORMATS[view.pipeline.model.prompt].target is None:
        sample = replace(sample, subtask=None)  # acts on its prompt alone
    row = view.pipeline.encode(sample)
    pairs = []
    for camera, image in sample.images.items():
        slot = view.robot.slot(camera)
        if slot is None:
            pairs.append(picture(image, f"{camera}: the model does not see it"))
            continue
        name = camera if slot == camera else f"{camera}, as {slot}"
        pairs.append(picture(image, f"{camera} as recorded, {size_of(image)}"))
        pairs.append(picture(row.images[slot], f"{name} as seen, {size_of(row.images[slot])}"))
    pieces = row_pieces(view.pipeline, row)
    counts = {kind: sum(1 for _, k in pieces if k == kind) for kind in ("prefix", "text", "fast")}
    legend = "".join(
        f'<li><i class="{kind}"></i>{words} <b>{counts[kind]}</b></li>'
        for kind, words in (("prefix", "read: prompt and state"), ("text", "said: subtask"), ("fast", "said: actions"))
        if counts[kind]
    )
    text = f'<ul class="legend kinds">{legend}</ul>{data_charts.tokens(pieces)}'
    return f'<div class="views">{"".join(pairs)}</div>{text}{chunk_and_tokens(view.pipeline, sample)}'


def picture(image: np.ndarray, caption: str) -> str:
    grain = "pixelated" if image.shape[0] <= 96 else "auto"
    return (
        f'<figure style="--grain:{grain}"><img src="{pictures.data_uri(image)}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def size_of(image: np.ndarray) -> str:
    """Width × height, which stay on one line."""
    return f"{image.shape[1]}\u00a0×\u00a0{image.shape[0]}"


def row_pieces(pipeline: Pipeline, row: Row) -> list[tuple[str, str]]:
    """Each token of a row as (what it says, kind)."""
    kinds = {int(Kind.PREFIX): "prefix", int(Kind.TEXT): "text", int(Kind.FAST): "fast"}
    first = row.kinds.index(int(Kind.FAST)) if int(Kind.FAST) in row.kinds else len(row.tokens)
    start = first + len(pipeline.text.encode(ACTION_START))
    stop = len(row.tokens) - len(pipeline.text.encode(ACTION_END, add_eos=True))
    top = pipeline.model.vocab_size - 1 - pipeline.model.fast_offset
    return [
        (str(top - token) if start <= place < stop else pipeline.text.piece(token), kinds[kind])
        for place, (token, kind) in enumerate(zip(row.tokens, row.kinds))
    ]


def chunk_and_tokens(pipeline: Pipeline, sample: Sample) -> str:
    """The normalised chunk, and what is left of it when it has been said in tokens."""
    if pipeline.action_tokenizer is None or (sample.action_is_pad is not None and sample.action_is_pad.any()):
        return ""
    chunk = pipeline.normalized_actions(sample)
    ids = pipeline.action_tokenizer.encode(chunk)
    decoded = pipeline.action_tokenizer.decode(ids, *chunk.shape).actions
    if decoded is None:
        return '<p class="note">The tokens of this chunk cannot be decoded again.</p>'
    note = (
        f'<p class="axis">the chunk as the model learns it, {len(chunk)} steps in −1 to 1, and (thin) what its '
        f"{len(ids)} action tokens say</p>"
    )
    return note + data_charts.chunk(chunk, decoded, pipeline.robot.action_names)


def add_token_costs(report: Report, dataset: EpisodeDataset, view: ModelView) -> None:
    chunks, tokenizer = view.chunks(dataset), view.pipeline.action_tokenizer
    if tokenizer is None or not len(chunks):
        report.text("No action tokens: no episode has a whole chunk, or this model takes none.")
        return
    ids = tokenizer.encode_batch(chunks)
    lengths = np.array([len(one) for one in ids])
    decoded = [tokenizer.decode(one, *chunk.shape).actions for one, chunk in zip(ids, chunks)]
    errors = np.stack([np.abs(said - chunk) for said, chunk in zip(decoded, chunks) if said is not None])
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
    report.figure(f'<div class="histograms wide-bars">{cell}</div>', title=title, css="numbers")
