"""Sources of weight 0: a run with one is the run without it."""

import json
from pathlib import Path

import pytest

from pilot.train.config import Source, TrainConfig
from pilot.train.setup import prepare
from pilot.train.sources import without_empty_sources
from train.toy import config, record

pytestmark = pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")


def of_sources(data: Path, *sources: Source) -> TrainConfig:
    return config(data, data={"sources": sources})


def test_a_source_of_weight_0_has_no_part_in_what_a_run_is_prepared_from(data, tmp_path):
    """Mixture, statistics and the run's config are those of a run without it, and its folder need not exist."""
    toy, gone = Source(path=str(data / "toy"), weight=1.0), Source(path=str(tmp_path / "nowhere"), weight=0.0)
    plain = prepare(of_sources(data, toy), tmp_path / "plain", resume=True, progress=False)
    setup = prepare(of_sources(data, toy, gone), tmp_path / "other", resume=True, progress=False)
    assert list(setup.loader.mixture.sources) == list(setup.held_out) == ["toy"]
    assert setup.loader.mixture.shares == plain.loader.mixture.shares
    stats, same = (json.loads((tmp_path / run / "norm_stats" / "homes.json").read_text()) for run in ("plain", "other"))
    assert stats == same
    kept = json.loads((tmp_path / "other" / "config.json").read_text())
    assert [source["weight"] for source in kept["data"]["sources"]] == [1.0]


def test_sources_without_a_weight_count_by_their_rows_beside_one_that_is_left_out(data, tmp_path):
    toy, more = Source(path=str(data / "toy")), Source(path=str(record(tmp_path / "more")))
    run = of_sources(data, toy, more, Source(path=str(tmp_path / "nowhere"), weight=0.0))
    assert without_empty_sources(run).data.sources == (toy, more)
    shares = prepare(run, tmp_path / "run", resume=True, progress=False).loader.mixture.shares
    assert {source for source, _ in shares} == {"toy", "more"}


def test_a_run_of_nothing_but_empty_sources_is_refused(data, tmp_path):
    run = of_sources(data, Source(path=str(data / "toy"), weight=0.0))
    with pytest.raises(ValueError, match="all sources of run 'toy' have weight 0"):
        prepare(run, tmp_path, resume=True, progress=False)
