"""Records of runs: what counts as another configuration."""

from diffsplat.training.config_record import changed_fields


def test_options_that_are_off_change_no_record_of_an_earlier_version() -> None:
    before = {"source": {"batch_size": 4}}
    assert changed_fields(before, {"source": {"batch_size": 4, "balance_nouns": False}, "ids": None}) == {}
    on = {"source": {"batch_size": 4, "balance_nouns": True}}
    assert changed_fields(before, on) == {"source.balance_nouns": (None, True)}
    off = {"source": {"batch_size": 4, "balance_nouns": False}}
    assert changed_fields(on, off) == {"source.balance_nouns": (True, False)}


def test_how_data_is_read_changes_no_training() -> None:
    before = {"trainer": {"workers": None, "prefetch": 2}, "folders": {"data_cache_gb": 20.0}}
    after = {"trainer": {"workers": 8, "prefetch": 4}, "folders": {"data_cache_gb": 500.0}}
    assert changed_fields(before, after) == {}
