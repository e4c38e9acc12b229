"""What is held out is never trained on, and how a run does on it is measured in the robot's own units."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from infer.policies import TOLD, observation
from pilot.data.formats.open_dataset import open_image_text
from pilot.data.formats.webdataset import WebDatasetRows
from pilot.data.formats.writer import encode_png
from pilot.data.loading.loader import FolderRowSource
from pilot.data.mixture import FileRowSource
from pilot.infer.policy import load_policy
from pilot.models.pi import pi0_fast, pi05
from pilot.train.config import Source, TrainConfig
from pilot.train.ema import swap_weights
from pilot.train.loop import Run, train
from pilot.train.metrics import read_metrics, read_notes
from pilot.train.setup import prepare
from pilot.train.validation import Validation, hold_out
from train import ranks
from train.toy import changed, config, record, record_web

pytestmark = pytest.mark.usefixtures("no_shape_checks")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    return record_web(tmp_path_factory.mktemp("data") / "web")


def mixed(data: Path, web: Path, **changes: object) -> TrainConfig:
    sources = (Source(path=str(data), weight=0.5), Source(path=str(web), kind="web", weight=0.5))
    return config(data, data={"sources": sources, "held_out": 0.34}, **changes)


def validation(config: TrainConfig, out: Path) -> tuple[Validation, Run]:
    setup = prepare(config, out, resume=True, progress=False)
    return Validation(config, setup.loader, setup.held_out), Run(config, setup, out)


def test_no_batch_holds_what_is_held_out(data, web, tmp_path):
    run = mixed(data, web)
    setup = prepare(run, tmp_path, resume=True, progress=False)
    held = {name: set(numbers.tolist()) for name, numbers in setup.held_out.items()}
    episodes = setup.loader.mixture.sources["toy"].dataset.episode_of
    assert len({episodes[i] for i in held["toy"]}) == 1 and len(held["toy"]) == 12, "one whole episode of three"
    assert len(held["web"]) == 2
    drawn = [draw for step in range(40) for draw in setup.loader.mixture.draw(step, run.batch_size)]
    assert {draw.source for draw in drawn} == {"toy", "web"}
    assert not [draw for draw in drawn if draw.index in held[draw.source]]


def test_the_seed_chooses_the_episodes(data, web, tmp_path):
    chosen = [
        prepare(mixed(data, web, seed=seed), tmp_path / str(i), resume=True, progress=False).held_out["web"].tolist()
        for i, seed in enumerate((0, 0, 1, 2, 3))
    ]
    assert chosen[0] == chosen[1] and len({tuple(rows) for rows in chosen}) > 1


def test_losses_and_errors_of_every_source(data, web, tmp_path):
    judge, run = validation(mixed(data, web, evaluation={"validate_every": 4, "validate_rows": 5}), tmp_path)
    found = judge.run(run.learner.model)
    assert set(found) == {
        "val/text/toy", "val/fast/toy", "val/flow/toy", "val/text/web",
        "val/action_mse/toy", "val/action_l1/toy", "val/action_l1/toy/gripper", "val/action_l1/toy/other",
    }  # fmt: skip
    assert all(np.isfinite(value) and value > 0 for value in found.values())
    assert judge.run(run.learner.model) == found, "the same rows and noise each time"
    assert run.learner.model.training


def test_a_policy_that_knows_the_answer_has_no_error(data, web, tmp_path, monkeypatch):
    judge, run = validation(mixed(data, web), tmp_path)
    recorded = []
    encode = judge._case

    def remembered(name: str, i: int):
        case = encode(name, i)
        if case.row.action_mask.any():
            recorded.append(torch.from_numpy(case.row.actions))
        return case

    monkeypatch.setattr(judge, "_case", remembered)
    model = run.learner.model
    monkeypatch.setattr(
        model, "sample_actions", lambda observation, **_: torch.stack(recorded[-observation.batch_size :])
    )
    found = judge.run(model)
    assert found["val/action_mse/toy"] == 0
    assert found["val/action_l1/toy"] < 1e-5
    monkeypatch.setattr(
        model, "sample_actions", lambda observation, **_: torch.stack(recorded[-observation.batch_size :]) + 0.5
    )
    assert judge.run(model)["val/action_mse/toy"] == pytest.approx(0.25)


def test_chunks_are_sampled_in_as_many_steps_as_the_model_asks_for(data, web, tmp_path, monkeypatch):
    judge, run = validation(mixed(data, web), tmp_path)
    model, asked = run.learner.model, []
    sample = model.sample_actions
    monkeypatch.setattr(type(model), "default_num_steps", 3)
    monkeypatch.setattr(
        model, "sample_actions", lambda *given, **more: asked.append(more["num_steps"]) or sample(*given, **more)
    )
    judge.run(model)
    assert set(asked) == {3}


def test_tars_are_still_read_one_after_the_other_and_fetched_ahead(tmp_path, web):
    for name in ("0.tar", "1.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            for number in range(3):
                for suffix, content in (("png", encode_png(np.zeros((8, 8, 3), np.uint8))), ("txt", b"a cup")):
                    entry = tarfile.TarInfo(f"{number}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    tars = WebDatasetRows(tmp_path)
    announced: list[list[Path]] = []
    tars.folder.is_local, tars.folder.prefetch = False, lambda files: announced.append(list(files))
    kept, held_out = hold_out(tars, name="tars", share=0.3, seed=0)
    assert len(kept) == 4 and len(held_out) == 2
    assert isinstance(kept, FileRowSource) and kept.files_of(np.array([0, 4])).tolist() == [0, 1]
    assert isinstance(kept, FolderRowSource) and not kept.folder.is_local
    kept.prefetch(4)
    assert announced == [[tmp_path / "1.tar"]]
    others, _ = hold_out(open_image_text(web), name="web", share=0.3, seed=0)
    assert not isinstance(others, FileRowSource | FolderRowSource)


def test_a_model_that_writes_its_actions_is_judged_by_its_losses(data, web, tmp_path):
    judge, run = validation(
        mixed(data, web, model=pi0_fast("debug", max_tokens=80), objective={"alpha": 0.0}), tmp_path
    )
    assert set(judge.run(run.learner.model)) == {"val/text/toy", "val/fast/toy", "val/text/web"}


def test_a_run_logs_what_it_finds_and_goes_on_as_if_it_had_not_looked(data, web, tmp_path):
    looking = mixed(data, web, steps=4, evaluation={"validate_every": 2, "validate_rows": 4})
    given: list[Path] = []

    def evaluate(policy: Path) -> dict[str, float]:
        given.append(policy)
        assert (policy / "model.safetensors").exists()
        return {"eval/toy/success": 0.5}

    train(changed(looking, evaluation={"every": 4}), out=tmp_path / "look", progress=False, evaluate=evaluate)
    train(changed(looking, evaluation={"validate_every": 0}), out=tmp_path / "blind", progress=False)
    notes = read_notes(tmp_path / "look")
    assert [note["step"] for note in notes] == [2, 4]
    assert "val/flow/toy" in notes[0] and "eval/toy/success" in notes[1]
    assert given == [tmp_path / "look" / "policy"]
    losses = [[r["loss/flow"] for r in read_metrics(tmp_path / name)] for name in ("look", "blind")]
    assert losses[0] == losses[1]


def test_the_average_is_tried_and_the_weights_come_back():
    model = torch.nn.Linear(2, 2)
    own, average = model.weight.detach().clone(), torch.ones(2, 2)
    with pytest.raises(RuntimeError), swap_weights(model, {"weight": average}):
        assert torch.equal(model.weight, torch.ones(2, 2))
        raise RuntimeError
    assert torch.equal(model.weight, own) and torch.equal(average, torch.ones(2, 2))


def test_what_cannot_be_held_out_is_said(data, web, tmp_path):
    with pytest.raises(ValueError, match="a share of episodes from 0"):
        prepare(changed(mixed(data, web), data={"held_out": 1.0}), tmp_path / "all", resume=True, progress=False)
    with pytest.raises(ValueError, match="validates and holds nothing out"):
        validation(config(data, evaluation={"validate_every": 2}), tmp_path / "none")


def judged(path: str, out: str) -> list[dict[str, float]]:
    """What a run notes, in each of two processes that share the model."""
    run = config(
        Path(path),
        steps=2,
        seed=1,
        data={"held_out": 0.34},
        evaluation={"validate_every": 1, "validate_rows": 4},
        parallel={"strategy": "fsdp"},
    )
    train(run, out=out, progress=False)
    return read_notes(Path(out))


def test_ranks_that_share_a_model_find_what_one_process_finds(data, tmp_path):
    shared = ranks.run(
        judged, ranks=2, folder=tmp_path / "meet", options={"path": str(data), "out": str(tmp_path / "two")}
    )
    alone = config(data, steps=2, seed=1, data={"held_out": 0.34}, evaluation={"validate_every": 1, "validate_rows": 4})
    train(alone, out=tmp_path / "one", progress=False)
    expected = read_notes(tmp_path / "one")
    assert shared[0] == shared[1] and [note["step"] for note in shared[0]] == [1, 2]
    for mine, theirs in zip(shared[0], expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


def test_a_run_that_learns_every_third_action_measures_them_all(data, tmp_path):
    """Steps have scales of their own, FAST is fitted to what the chunk holds, and the policy acts at every step."""
    model = pi05("debug", max_tokens=80, action_horizon=3, action_stride=3)
    evaluation = {"validate_every": 2, "validate_rows": 6}
    run = config(data, model=model, steps=2, data={"scale_steps": True, "held_out": 0.34}, evaluation=evaluation)
    policy = load_policy(train(run, out=tmp_path / "out", progress=False))
    errors = {n: v for n, v in read_notes(tmp_path / "out")[-1].items() if n.startswith("val/action_l1")}
    assert len(errors) == 3 and all(0 < value < 10 for value in errors.values())
    assert policy.bundle.norm_stats["actions"].step_std.shape == (3, 4)
    assert policy.infer(observation(subtask=TOLD))["actions"].shape == (9, 4)
