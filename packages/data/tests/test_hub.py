import unicodedata

import pytest

from weft.data.errors import InvalidArgumentError, MalformedRecordError, UnknownNameError
from weft.data.records.hub import load_hub_dataset
from weft.data.testing import image_bytes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    import datasets

    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "query": datasets.Value("string"),
            "answers": [datasets.Value("string")],
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    rows = {
        "picture": [{"bytes": image_bytes((k, 0, 0)), "path": None} for k in range(4)],
        "query": [f"q{k}" for k in range(4)],
        "answers": [["yes", "no"]] * 4,
        "kind": [0, 1, 1, 0],
    }
    path = tmp_path_factory.mktemp("hub") / "train.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return str(path)


def load(files, cache, **options):
    columns = {"image": "picture", "question": "query"}
    return load_hub_dataset(
        "parquet",
        "train",
        **{"record": "image_qa", "columns": columns, "data_files": files, "cache_dir": str(cache), **options},
    )


def test_columns_become_records_and_images_stay_encoded(files, tmp_path):
    records = load(files, tmp_path)
    assert len(records) == 4
    assert (records[2].question, records[2].answers) == ("q2", ("yes", "no"))
    assert records[3].image.image().getpixel((0, 0)) == (3, 0, 0)
    assert [record.id for record in records.records[1:3]] == ["1", "2"]


def test_class_labels_are_kept(files, tmp_path):
    records = load(files, tmp_path, record="classify", columns={"image": "picture", "label": "kind"})
    assert [record.label for record in records] == [0, 1, 1, 0]


def test_class_names_are_told_however_their_accents_are_composed(tmp_path):
    import datasets

    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    features = datasets.Features({"image": datasets.Image(), "class_name": datasets.Value("string")})
    rows = {"image": [{"bytes": image_bytes(), "path": None}], "class_name": [composed]}
    path = str(tmp_path / "train.parquet")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    (record,) = load(path, tmp_path, record="classify", columns={}, classes=["bar", apart])
    assert (record.label, record.class_name) == (1, composed)


def test_a_repository_needs_a_revision():
    with pytest.raises(InvalidArgumentError, match="`revision` must be given for 'some/set'"):
        load_hub_dataset("some/set", "train", record="image_qa", columns={})


@pytest.mark.parametrize("options", [{"record": "imageqa"}, {"columns": {"pitcure": "picture"}}])
def test_unknown_record_types_and_fields_are_refused(files, tmp_path, options):
    with pytest.raises(UnknownNameError, match="Known: "):
        load(files, tmp_path, **options)


def test_a_column_that_is_absent_is_named(files, tmp_path):
    records = load(files, tmp_path, columns={"image": "photo"})
    with pytest.raises(MalformedRecordError, match="must have the field `photo`"):
        records[0]
