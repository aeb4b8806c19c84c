import re
import subprocess
import sys
from pathlib import Path

import pytest

import weft.data.catalog as catalog
from weft.data import (
    Caption,
    DatasetSpec,
    InvalidArgumentError,
    MalformedRecordError,
    MediaRef,
    UnknownNameError,
    dataset_spec,
    list_datasets,
    load_dataset,
    record_class,
    register_dataset,
)
from weft.data.testing import image_bytes, write_tree


def spec(name="third_party", **changes):
    def read(source, split, *, count=2):
        for number in range(count):
            media = MediaRef.from_bytes(image_bytes())
            yield Caption(id=f"{number // changes.get('repeat', 1)}", media=media, media_id="m")

    values = {
        "record_type": "caption",
        "splits": ("train",),
        "summary": "s",
        "licence": "l",
        "needs_root": False,
    }
    values.update({key: value for key, value in changes.items() if key != "repeat"})
    return DatasetSpec(name=name, read=read, **values)


@pytest.fixture
def registry(monkeypatch):
    list_datasets()
    monkeypatch.setattr(catalog, "_registered", dict(catalog._registered))


def test_the_list_is_sorted_and_every_name_has_facts():
    names = list_datasets()
    assert names == sorted(names)
    for name in names:
        facts = dataset_spec(name)
        assert record_class(facts.record_type).record_type == facts.record_type
        assert facts.summary
        assert facts.licence
        assert facts.how_to_get or not facts.needs_root
        assert set(facts.expected) <= set(facts.splits)


def test_third_parties_register_and_load(registry):
    register_dataset(spec())
    records = load_dataset("third_party", count=3)
    assert len(records) == 3
    assert records[0].media_refs()[0].image().size == (12, 8)
    assert dataset_spec("third_party").options == {"count": 2}


def test_entry_points_are_found(monkeypatch):
    class Entry:
        def load(self):
            return spec("from_entry_point")

    monkeypatch.setattr(catalog, "_registered", {})
    monkeypatch.setattr(catalog, "_discovered", False)
    monkeypatch.setattr(catalog, "entry_points", lambda group: [Entry()] if group == "weft.datasets" else [])
    assert "from_entry_point" in list_datasets()


def test_a_taken_name_needs_consent(registry):
    register_dataset(spec())
    with pytest.raises(InvalidArgumentError, match="must be unique, but 'third_party' is taken"):
        register_dataset(spec())
    register_dataset(spec(), replace=True)


def test_an_unknown_record_type_is_refused(registry):
    with pytest.raises(
        UnknownNameError, match=r"record type of data set 'third_party': 'captoin'. Did you mean 'caption'"
    ):
        register_dataset(spec(record_type="captoin"))


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("easy-vqq", "train", {}, "Unknown data set: 'easy-vqq'. Did you mean 'easy_vqa'"),
        ("easy_vqa", "tset", {}, "Unknown split of easy_vqa: 'tset'. Did you mean 'test'"),
        (
            "nlvr",
            "dev",
            {"permutaton": 1},
            "Unknown option of nlvr: 'permutaton'. Did you mean 'permutation'",
        ),
    ],
)
def test_misspelt_names_are_refused_before_any_file_is_opened(name, split, options, message):
    with pytest.raises(UnknownNameError) as caught:
        load_dataset(name, "/nowhere", split, **options)
    assert message in str(caught.value)


def test_a_root_must_be_given():
    with pytest.raises(InvalidArgumentError, match=r"`root` must be given for data set 'nlvr'.*How to get"):
        load_dataset("nlvr", split="dev")


def test_an_id_that_comes_twice_is_refused(registry):
    register_dataset(spec(repeat=2))
    with pytest.raises(MalformedRecordError, match="'0' is that of records 0 and 1"):
        load_dataset("third_party")


def test_importing_loads_no_torch_and_no_loader():
    code = (
        "import sys, weft.data; heavy = {'torch', 'transformers', 'pyarrow', 'datasets', 'pandas'};"
        "assert not heavy & set(sys.modules); weft.data.list_datasets(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_records_can_be_selected_filtered_and_sliced(tmp_path):
    tree = {f"train/{name}/{n}.png": image_bytes() for name in ("cat", "dog") for n in range(3)}
    records = load_dataset("image_folder", write_tree(tmp_path, tree), "train")
    assert [record.label for record in records[1:5]] == [0, 0, 1, 1]
    assert records.select([5, 0])[0].id == "train/dog/2.png"
    assert len(records.filter(lambda record: record.label == 1)) == 3
    assert records.class_names == ["cat", "dog"]
    assert records.fingerprint() != records[1:].fingerprint()
    assert records.with_records([], split="none").split == "none"
    with pytest.raises(InvalidArgumentError, match=r"`indices` must lie in 0..5, but one is 6"):
        records.select([6])


def test_class_names_need_classes(registry):
    register_dataset(spec())
    with pytest.raises(InvalidArgumentError, match="needs records of type 'classify'"):
        load_dataset("third_party").class_names  # noqa: B018 - the property itself is under test


def test_every_registered_data_set_has_a_contract_test():
    folder = Path(__file__).parent
    tested = set()
    for path in folder.rglob("test_*.py"):
        text = path.read_text()
        if "DatasetContract" in text:
            tested.update(re.findall(r'^    name = "(\w+)"$', text, re.MULTILINE))
    assert set(list_datasets()) - {"scenes"} <= tested
