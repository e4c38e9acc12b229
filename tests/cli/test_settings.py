"""Settings by name: `--set optim.lr=3e-4`."""

from dataclasses import dataclass, field, fields

import pytest

from pilot import configs
from pilot.cli.settings import override, show
from pilot.nn.configs import LoraConfig, LoraGroup
from pilot.train.config import InitFrom, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Optim:
    peak_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str = "nano"
    steps: int = 100
    ema: bool = True
    init_from: str | None = None
    stop_at: int | None = 50
    optim: Optim = field(default_factory=Optim)
    weights: dict[str, float] = field(default_factory=lambda: {"homes": 1.0})

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=7", Run(steps=7)),
        ("optim.peak_lr=3e-4", Run(optim=Optim(peak_lr=3e-4))),
        ("optim.peak_lr=1", Run(optim=Optim(peak_lr=1.0))),
        ("optim.betas=(0.8, 0.9)", Run(optim=Optim(betas=(0.8, 0.9)))),
        ("optim.betas=[0.8, 0.9]", Run(optim=Optim(betas=(0.8, 0.9)))),
        ("ema=false", Run(ema=False)),
        ("name=12", Run(name="12")),
        ("name=a=b", Run(name="a=b")),
        ("init_from=checkpoints/nano", Run(init_from="checkpoints/nano")),
        ("init_from=none", Run(init_from=None)),
        ("stop_at=none", Run(stop_at=None)),
        ("weights.homes=2.5", Run(weights={"homes": 2.5})),
    ],
)
def test_settings_by_name(assignment, expected):
    result = override(Run(), [assignment])
    assert result == expected
    assert type(result.optim.peak_lr) is float


def test_sources_are_set_by_the_names_of_their_folders():
    run = configs.get("nano_stage1")
    changed = override(run, ["data.sources.web.weight=0.5", "data.sources.web.path=/elsewhere/pictures"])
    assert changed.data.sources[:-1] == run.data.sources[:-1]
    assert (changed.data.sources[-1].path, changed.data.sources[-1].weight) == ("/elsewhere/pictures", 0.5)
    with pytest.raises(ValueError, match="unknown setting 'l2_singel'; did you mean 'l2_single'"):
        override(run, ["data.sources.l2_singel.weight=0.5"])
    with pytest.raises(ValueError, match=r"'sources' is a group: set sources\.FIELD"):
        override(run, ["data.sources=x"])


def test_cameras_of_a_source_are_named():
    run = override(configs.get("nano_stage1"), ["data.sources.l1_single.cameras.observation.top=room"])
    named = override(run, ["data.sources.l1_single.cameras.side=wrist"])
    assert named.data.sources[0].cameras == {"observation.top": "room", "side": "wrist"}
    with pytest.raises(ValueError, match=r"'cameras' is a group: set cameras\.FIELD"):
        override(run, ["data.sources.l1_single.cameras=room"])


def test_a_setting_of_a_few_words_is_one_of_them():
    model = configs.get("debug").model
    assert override(model, ["state_input=none"]).state_input == "none"
    with pytest.raises(ValueError, match="unknown value of 'prompt' 'pi'; did you mean 'pi0'"):
        override(model, ["prompt=pi"])


def test_a_group_that_may_be_none_comes_and_goes():
    run = configs.get("debug")
    assert override(run, ["lora=true"]).lora == LoraConfig()
    changed = override(run, ["lora.language.rank=4", "lora.rank_stabilized=true"]).lora
    assert changed == LoraConfig(language=LoraGroup(rank=4, alpha=16.0), rank_stabilized=True)
    assert override(run, ["lora.expert.rank=4", "lora=none"]).lora is None
    with pytest.raises(ValueError, match="unknown setting 'langauge'; did you mean 'language'"):
        override(run, ["lora.langauge.rank=4"])


def test_words_in_a_row_need_no_quotes():
    run = configs.get("debug")
    assert override(run, ["freeze=vision, language"]).freeze == ("vision", "language")
    assert override(run, ["freeze=()"]).freeze == ()


def test_later_settings_win_and_the_original_stays():
    run = Run()
    assert override(run, ["steps=2", "steps=3", "optim.peak_lr=0.1"]).steps == 3
    assert run == Run()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepz=7", "unknown setting 'stepz'; did you mean 'steps'?"),
        ("optim.peek_lr=1", "did you mean 'peak_lr'?"),
        ("weights.home=1", "did you mean 'homes'?"),
        ("steps", "takes FIELD=VALUE, got 'steps'"),
        ("steps=many", "must be of type int, such as 100; got 'many'"),
        ("steps=1.5", "must be of type int, such as 100; got '1.5'"),
        ("ema=1", "must be of type bool, such as True; got '1'"),
        ("steps=none", "must be of type int, such as 100; got 'none'"),
        ("optim.peak_lr=none", "must be of type float, such as 0.001; got 'none'"),
        ("optim.betas=none", "must be of type tuple, such as (0.9, 0.95); got 'none'"),
        ("ema=none", "must be of type bool, such as True; got 'none'"),
        ("name=none", "must be of type str, such as 'nano'; got 'none'"),
        ("weights.homes=none", "must be of type float, such as 1.0; got 'none'"),
        ("optim=1", "is a group: set optim.FIELD=VALUE"),
        ("steps.x=1", "is a single value"),
        ("steps=0", "steps must be at least 1"),
    ],
)
def test_wrong_settings_say_what_is_right(assignment, message):
    with pytest.raises(ValueError) as error:
        override(Run(), [assignment])
    assert message in str(error.value)


def test_old_names_of_settings_are_read_and_answered_with_the_new_one():
    run = configs.get("nano_stage1")
    with pytest.warns(UserWarning, match=r"the setting sources\.web\.weight is now data\.sources\.web\.weight"):
        assert override(run, ["sources.web.weight=0.5"]).data.sources[-1].weight == 0.5
    with pytest.warns(UserWarning, match=r"the setting parallel is now parallel\.strategy"):
        assert override(run, ["parallel=fsdp"]).parallel.strategy == "fsdp"
    with pytest.warns(UserWarning, match="init_from=weights:there is now init_from=there init_from.kind=weights"):
        started = override(run, ["init_from=weights:there"])
    assert started.init_from == InitFrom("there", kind="weights")


@pytest.mark.parametrize("old", TrainConfig.OLD_NAMES)
def test_an_old_name_leads_to_a_field_that_there_is(old):
    group, name = TrainConfig.OLD_NAMES[old].split(".")
    assert name in {field.name for field in fields(getattr(configs.get("nano_stage1"), group))}


def test_where_a_run_starts_is_set_by_a_path_and_its_kind():
    run = configs.get("debug")
    assert override(run, ["init_from=hf://desk/pi"]).init_from == InitFrom("hf://desk/pi")
    changes = ["init_from=base", "init_from.kind=paligemma", "init_from.fresh=expert"]
    assert override(run, changes).init_from == InitFrom("base", kind="paligemma", fresh=("expert",))
    assert override(run, ["init_from=base", "init_from=none"]).init_from is None
    with pytest.raises(ValueError, match="'init_from' is none; first set init_from=VALUE"):
        override(run, ["init_from.kind=paligemma"])
    with pytest.raises(ValueError, match="unknown value of 'kind' 'paligema'; did you mean 'paligemma'"):
        override(run, ["init_from=base", "init_from.kind=paligema"])


def test_all_settings_are_shown_and_those_that_are_not_the_default_are_marked():
    run = override(configs.get("debug"), ["optim.peak_lr=0.5", "init_from=base", "lora=true"])
    lines = [line.split() for line in show(run).splitlines()]
    assert ["*", "optim.peak_lr", "=", "0.5", "(default:", "0.001)"] in lines
    assert ["optim.final_lr", "=", "1e-05"] in lines and ["robot", "=", "homes"] in lines
    assert ["*", "init_from.path", "=", "base", "(default:", "none)"] in lines
    assert ["*", "lora.language.rank", "=", "16", "(default:", "none)"] in lines
    assert ["data.sources.single.path", "=", "data/debug/single"] in lines


def test_what_is_shown_can_be_set():
    run = configs.get("pi05_libero_lora")
    shown = [line[2:].split(" = ") for line in show(run).splitlines()]
    values = {path.strip(): value.partition("   (default")[0] for path, value in shown}
    free = {path: value for path, value in values.items() if value not in ("()", "{}", "none")}
    assert override(run, [f"{path}={value}" for path, value in free.items()]) == run
