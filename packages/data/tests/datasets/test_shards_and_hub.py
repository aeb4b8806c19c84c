import io
import json
from typing import ClassVar

import pytest

from weft.data import InvalidArgumentError, MissingFileError, load_dataset
from weft.data.shards.convert import convert
from weft.data.testing import DatasetContract, image_bytes, write_tree


def questions(tmp_path, split="train"):
    """Records of own files: two rows on one picture, one on another."""
    rows = [
        {"image": "a.png", "question": "what?", "answers": ["cat", "dog"]},
        {"image": "b.png", "question": "who?", "answers": ["fox"]},
        {"image": "a.png", "question": "é?", "answers": ["cat"]},
    ]
    files = {"a.png": image_bytes((9, 0, 0)), "b.png": image_bytes((0, 9, 0))}
    files[f"{split}.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    return load_dataset("table", write_tree(tmp_path, files), split, record="image_qa")


def shard_files(tmp_path, **options):
    """What a conversion of the questions writes, as a tree."""
    convert(questions(tmp_path / "own"), tmp_path / "shards", rows_per_shard=2, group_rows=1, **options)
    return {path.name: path.read_bytes() for path in sorted((tmp_path / "shards").iterdir())}


class TestShards(DatasetContract):
    name = "shards"
    count = 3

    @pytest.fixture(autouse=True)
    def _written(self, tmp_path_factory):
        self.tree = shard_files(tmp_path_factory.mktemp("written"))

    def files(self):
        return {f"train/{name}": data for name, data in self.tree.items()}

    def test_one_conversion_may_be_the_root(self, tmp_path):
        root = write_tree(tmp_path, self.tree)
        assert len(self.load(root)) == 3
        with pytest.raises(
            InvalidArgumentError, match=r"`split` must be that of the conversion in .* \('train'\)"
        ):
            self.load(root, split="test")


def test_converted_records_are_the_original_ones_and_media_are_read_when_asked_for(tmp_path):
    original = questions(tmp_path / "own")
    converted = load_dataset("shards", write_tree(tmp_path / "again", shard_files(tmp_path)), "train")
    for one, other in zip(original, converted, strict=True):
        assert (one.id, one.question, one.answers) == (other.id, other.question, other.answers)
        assert one.image.read() == other.image.read()
    places = [record.media_refs()[0].identity for record in converted]
    assert len(set(places)) == 3
    assert converted[2].image.uri.endswith("shard-00001.parquet:0")
    with pytest.raises(MissingFileError, match="must name a medium of"):
        converted[0].image.store.read("9/0/0/0/a.png")
    assert not converted[0].image.store.exists("0/0/0/5/a.png")


def test_media_beside_the_shards_are_found_by_their_paths(tmp_path):
    questions(tmp_path)
    convert(questions(tmp_path), tmp_path / "out", embed_media=False)
    for name in ("a.png", "b.png"):
        (tmp_path / "out" / name).write_bytes((tmp_path / name).read_bytes())
    records = load_dataset("shards", tmp_path / "out", "train")
    assert records[0].image.path == "a.png"
    assert records[1].image.image().getpixel((0, 0)) == (0, 9, 0)


class TestHub(DatasetContract):
    name = "hub"
    count = 2
    options: ClassVar = {"columns": {"image": "picture", "question": "query", "answers": "said"}}

    def files(self):
        import datasets

        rows = {
            "picture": [{"bytes": image_bytes((k, 0, 0)), "path": None} for k in range(2)],
            "query": ["what?", "who?"],
            "said": [["cat"], ["fox", "dog"]],
        }
        features = datasets.Features(
            picture=datasets.Image(), query=datasets.Value("string"), said=[datasets.Value("string")]
        )
        sink = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(sink)
        return {"data/train-00000-of-00001.parquet": sink.getvalue()}

    def test_zip_and_url_give_the_same_records(self, records, tmp_path):
        """An archive is no folder in the hub's format, and is refused."""
        with pytest.raises(InvalidArgumentError, match="`root` must be a local folder in the hub's format"):
            self.load("memory://nowhere")

    def test_an_empty_name_of_a_repository_is_none(self, tmp_path):
        root = write_tree(tmp_path, self.files())
        assert [record.question for record in self.load(root, repo="")] == ["what?", "who?"]
        with pytest.raises(InvalidArgumentError, match="`root` must be a local folder in the hub's format"):
            self.load("memory://nowhere", repo="")

    def test_rows_are_records(self, records):
        assert [record.question for record in records] == ["what?", "who?"]
        assert records[1].answers == ("fox", "dog")
        assert records[1].image.image().getpixel((0, 0)) == (1, 0, 0)

    def test_a_repository_needs_a_revision(self):
        with pytest.raises(InvalidArgumentError, match="`revision` must be given for 'org/name'"):
            self.load(None, repo="org/name")
