"""Lists of objects: their files, and which objects they mean."""

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa

from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.object_id_lists import is_named, named, read_ids
from diffsplat.errors import InvalidInputError
from support.object_shards import write_shards

NAMES = ["gobjaverse/0/10", "gobjaverse/0/1", "kaykit/chair.glb", "kaykit/chair.glb#red", "gobjaverse/7/10#x"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"gobjaverse/0/10"}, [0]),
        ({"0/10"}, [0]),
        ({"10"}, [0, 4]),
        ({"1", "chair.glb"}, [1, 2, 3]),
        ({"0", "gobjaverse", "red", "chair"}, []),
    ],
)
def test_objects_are_meant_by_their_name_without_source_or_by_its_last_part(
    ids: set[str], expected: list[int]
):
    found = named(pa.chunked_array([NAMES[:2], NAMES[2:]]), ids)
    assert found.nonzero()[0].tolist() == expected
    assert [is_named(name.split("#")[0], ids) for name in NAMES] == found.tolist()


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '["0/1", "0/2"]'), ("a.txt", "0/1\n\n0/2\n"), ("a.csv", '0/1,"a chair, red"\n"0/2",a mug\n')],
)
def test_kinds_of_files(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    assert read_ids(path) == {"0/1", "0/2"}


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", '{"0/1": 3}'), ("a.json", "[1]"), ("a.json", "["), ("a.txt", "\n")]
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=name):
        read_ids(tmp_path / name)


def test_a_data_set_of_some_objects(tmp_path: Path):
    folder = write_shards(tmp_path, 2, 5)
    dataset = ObjectDataset(folder, split="all", ids={"0/3", "0/7", "0/99"})
    assert [row.object_id for row in dataset.rows] == ["gobjaverse/0/3", "gobjaverse/0/7"]
    with pytest.raises(InvalidInputError, match=r"no object of split 'test' in .* among the 1 requested"):
        ObjectDataset(folder, split="test", ids={"0/3"})
