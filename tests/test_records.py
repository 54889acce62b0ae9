"""What holds for the results that took longer than a chapter may."""

import pytest

from genlib import records

NAMES = sorted(path.stem for path in records.FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_each_record_says_where_and_when_it_was_made(name):
    environment = records.load(name)["environment"]
    assert environment["date"].startswith("20")
    assert environment["hardware"]["cores"] >= 1


def test_an_unknown_record_is_refused_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="describe"):
        records.load("nothing")


def test_what_is_saved_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    records.save("mine", {"rows": {"日落": [0.5]}})
    assert records.load("mine")["rows"] == {"日落": [0.5]}
    assert "environment" in records.load("mine")
