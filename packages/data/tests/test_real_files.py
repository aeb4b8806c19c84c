"""Every file of the folder of real data is read by something, and what is in it is what is stated.

Counts are those of `SOURCES.md` beside the data; where it states none, what the file was found to hold by `wc -l`,
`unzip -l` or Python's `csv`, outside of weft.
"""

import fnmatch
import gzip
import json

import pytest

from weft.data import load_dataset
from weft.data.datasets.msrvtt import read_id_list
from weft.data.records.source import Source
from weft.data.sources.opening import open_store

NLVR, XGQA, VQA = "lil-lab+nlvr", "Adapter-Hub+xGQA", "timbmg+NLP1-2017-VQA"
HOW2, EXPERTS = "ych133+How2R-and-How2QA", "albanie+collaborative-experts"

# Files, what to load, and how many records they give.
LOADED = {
    f"{NLVR}/nlvr/dev/*": ("nlvr", NLVR, "dev", {}, 989),
    f"{NLVR}/nlvr/test/*": ("nlvr", NLVR, "test", {}, 990),
    f"{NLVR}/nlvr2/data/dev.json": ("nlvr2", NLVR, "dev", {"require_media": False}, 6_982),
    f"{NLVR}/nlvr2/data/balanced/balanced_dev.json": (
        "nlvr2",
        NLVR,
        "balanced_dev",
        {"require_media": False},
        2_300,
    ),
    "vzhou842+easy-VQA/easy_vqa/data/test/*": ("easy_vqa", "vzhou842+easy-VQA", "test", {}, 9_673),
    "vzhou842+easy-VQA/easy_vqa/data/train/*": ("easy_vqa", "vzhou842+easy-VQA", "train", {}, 38_575),
    "zalandoresearch+fashion-mnist/doc/img/*": (
        "fashion_mnist",
        "zalandoresearch+fashion-mnist",
        "sprite",
        {},
        900,
    ),
    f"{HOW2}/how2QA/*val*": ("how2qa", HOW2, "val", {"require_media": False}, 2_852),
    f"{HOW2}/how2QA/*test*": ("how2qa", HOW2, "test_public", {"require_media": False}, 2_937),
    f"{HOW2}/how2R/*": ("how2r", HOW2, "val", {"require_media": False}, 4_076),
    "jayleicn+TVRetrieval/data/*": ("tvr", "jayleicn+TVRetrieval", "val", {"require_media": False}, 10_895),
    "jayleicn+TVCaption/data/*": (
        "tvc",
        "jayleicn+TVCaption",
        "test_public",
        {"require_media": False},
        5_420,
    ),
}
LOADED |= {
    f"{XGQA}/data/few_shot/{name}.json": (
        "gqa",
        XGQA,
        "testdev_balanced",
        {"questions": f"data/few_shot/{name}.json", "require_media": False},
        count,
    )
    for name, count in {"en/dev": 1_422, "en/train_10": 317, "de/train_10": 317, "en/train_48": 1_490}.items()
}
LOADED |= {
    f"LisaAnne+LocalizingMoments/data/{split}_data.json": (
        "didemo",
        "LisaAnne+LocalizingMoments",
        split,
        {"unit": "description", "require_media": False},
        count,
    )
    for split, count in {"val": 4_180, "test": 4_021}.items()
}
LOADED |= {
    f"{VQA}/data/vqa_*_{name}.json.gz": (
        "vqav2",
        VQA,
        "train" if name == "train" else "val",
        {
            "questions": f"data/vqa_questions_{name}.json",
            "annotations": f"data/vqa_annotations_{name}.json",
            "require_media": False,
        },
        count,
    )
    for name, count in {"train": 48_061, "valid": 8_977, "test": 2_962}.items()
}
LOADED |= {
    "googlefonts+noto-emoji/[cp]*": ("noto_emoji", "googlefonts+noto-emoji", "train", {}, 2_782),
    "alexeygrigorev+clothing-dataset-small/*.zip": (
        "image_folder",
        "alexeygrigorev+clothing-dataset-small/images_short80.zip",
        "train",
        {},
        3_068,
    ),
}

ID_LISTS = {
    "didemo/train_list": 8_392,
    "didemo/val_list": 1_065,
    "didemo/test_list": 1_004,
    "msrvtt/train_list_full": 6_513,
    "msrvtt/val_list_full": 497,
    "msrvtt/test_list_full": 2_990,
    "msrvtt/train_list_jsfusion": 9_000,
    "msrvtt/val_list_jsfusion": 1_000,
    "msrvtt/train_list_miech": 6_656,
    "msrvtt/test_list_miech": 1_000,
    "msvd/train_list": 1_200,
    "msvd/val_list": 100,
    "msvd/test_list": 670,
}
# Read by tests of weft.eval or of media, or not data.
ELSEWHERE = (
    "golden/*",
    "jmhessel+clipscore/example/*",
    "Maluuba+nlg-eval/examples/*",
    "tylin+coco-caption/*.json",
    "jayleicn+*/standalone_eval/*",
    "pytorch+torchcodec/test/resources/nasa_13013.mp4",
)
NOT_DATA = (
    "SOURCES.md",
    "*/README.md",
    "*/LICENSE*",
    "*/license.txt",
    "*/AUTHORS",
    "*/DATASETS.md",
    "*/tar_include*.txt",
)
NO_LOADER = (
    "vzhou842+easy-VQA/easy_vqa/data/answers.txt",
    "muan+emojilib/dist/emoji-en-US.json",
    f"{NLVR}/nlvr2/util/annotated_dev_examples.txt",
)


def test_no_real_file_is_forgotten(realdata):
    lists = [f"{EXPERTS}/misc/datasets/{name}.txt" for name in ID_LISTS]
    known = [*LOADED, *lists, *ELSEWHERE, *NOT_DATA, *NO_LOADER]
    names = [path.relative_to(realdata).as_posix() for path in realdata.rglob("*") if path.is_file()]
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in known)] == []
    assert [pattern for pattern in known if not any(fnmatch.fnmatch(name, pattern) for name in names)] == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", LOADED)
def test_loaders_give_the_stated_number_of_records(realdata, pattern):
    name, root, split, options, count = LOADED[pattern]
    assert len(load_dataset(name, realdata / root, split, **options)) == count


@pytest.mark.parametrize("name", ID_LISTS)
def test_id_lists_have_the_stated_number_of_distinct_ids(realdata, name):
    source = Source("msrvtt", open_store(realdata / EXPERTS))
    ids = read_id_list(source, f"misc/datasets/{name}.txt")
    assert len(ids) == len(set(ids)) == ID_LISTS[name]


def test_the_annotated_examples_are_sentences_of_the_development_set(realdata):
    folder = realdata / NLVR / "nlvr2"
    blocks = (folder / "util/annotated_dev_examples.txt").read_text(encoding="utf-8").split("\n\n")
    examples = [block.strip().splitlines()[0] for block in blocks if block.strip()]
    records = load_dataset("nlvr2", realdata / NLVR, "dev", require_media=False)
    assert len(examples) == 800
    assert set(examples) <= {record.sentence.strip() for record in records}


def test_the_thirteen_answers_are_those_of_the_questions(realdata):
    answers = (realdata / "vzhou842+easy-VQA/easy_vqa/data/answers.txt").read_text(encoding="utf-8").split()
    records = load_dataset("easy_vqa", realdata / "vzhou842+easy-VQA", "test", require_media=False)
    assert len(answers) == 13
    assert {record.answers[0] for record in records} == set(answers)


def test_the_names_of_emoji_are_a_mapping_from_emoji_to_words(realdata):
    names = json.loads((realdata / "muan+emojilib/dist/emoji-en-US.json").read_text(encoding="utf-8"))
    assert len(names) == 1_906
    assert all(words and all(isinstance(word, str) for word in words) for words in names.values())


def test_the_golden_files_are_whole(realdata):
    for path in (realdata / "golden").iterdir():
        data = path.read_bytes()
        assert gzip.decompress(data) if path.suffix == ".gz" else json.loads(data)
