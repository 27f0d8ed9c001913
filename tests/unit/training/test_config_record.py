"""Records of runs: what counts as another configuration."""

import json
from pathlib import Path

import pytest

from diffsplat.errors import InvalidInputError
from diffsplat.training.config_record import changed_fields, write_record


def test_options_that_are_off_change_no_record_of_an_earlier_version() -> None:
    before = {"source": {"batch_size": 4}}
    assert changed_fields(before, {"source": {"batch_size": 4, "balance_nouns": False}, "ids": None}) == {}
    on = {"source": {"batch_size": 4, "balance_nouns": True}}
    assert changed_fields(before, on) == {"source.balance_nouns": (None, True)}
    off = {"source": {"batch_size": 4, "balance_nouns": False}}
    assert changed_fields(on, off) == {"source.balance_nouns": (True, False)}
    assert changed_fields({"source": {}}, {"source": {"latent_space": "sd", "cached_rings": None}}) == {}
    assert changed_fields({"ema": {}}, {"ema": {"precision": "fp32"}}) == {}
    assert changed_fields({"ema": {}}, {"ema": {"precision": "bf16"}}) == {"ema.precision": (None, "bf16")}


def test_how_data_is_read_changes_no_training() -> None:
    before = {"trainer": {"workers": None, "prefetch": 2}, "folders": {"data_cache_gb": 20.0}}
    after = {"trainer": {"workers": 8, "prefetch": 4}, "folders": {"data_cache_gb": 500.0}}
    assert changed_fields(before, after) == {}


def test_folders_may_move_and_the_record_keeps_where_they_were(tmp_path: Path) -> None:
    before = {"folders": {"reconstructor": "a", "start_from": "b"}, "networks": {"reconstructor": "0123"}}
    write_record(tmp_path, before)
    after = {**before, "folders": {"reconstructor": "c", "start_from": None}}
    write_record(tmp_path, after, resumed_at=5)
    assert json.loads((tmp_path / "config.json").read_text()) == after
    (change,) = json.loads((tmp_path / "config_changes.json").read_text())["changes"]
    moved = {"folders.reconstructor": "a", "folders.start_from": "b"}
    assert change == {"from_step": 5, "before": moved}


def test_other_weights_of_a_network_are_a_change(tmp_path: Path) -> None:
    write_record(tmp_path, {"networks": {"reconstructor": "0123"}})
    with pytest.raises(InvalidInputError, match=r"networks\.reconstructor was '0123' and is '4567'"):
        write_record(tmp_path, {"networks": {"reconstructor": "4567"}}, resumed_at=5)


def test_a_record_of_an_earlier_version_lacks_digests(tmp_path: Path) -> None:
    write_record(tmp_path, {"steps": 7})
    write_record(tmp_path, {"steps": 7, "networks": {"reconstructor": "0123"}}, resumed_at=5)
    assert not (tmp_path / "config_changes.json").exists()
