import pytest

from weft.data.records import Caption, ImageQA, MediaRef, Record, Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.metric_fit import SCORED_TYPES, check_metric
from weft.eval.evaluate.scoring import METRICS

IMAGE = MediaRef.from_bytes(b"", "image")
QUESTIONS = [
    ImageQA(id=str(k), image=IMAGE, image_id="1", question="?", answers=("yes", "no")) for k in range(3)
]
CAPTIONS = [Caption(id=str(k), media=IMAGE, media_id=str(k), captions=("a red hat",)) for k in range(3)]
PAIRS = [
    Retrieval(id=str(k), media=IMAGE, media_id=str(k % 2), text=f"text {k}", text_id=str(k)) for k in range(3)
]


def test_every_metric_says_what_it_scores() -> None:
    assert SCORED_TYPES.keys() == METRICS.keys()


@pytest.mark.parametrize(
    ("records", "headline"),
    [(QUESTIONS, "accuracy"), (CAPTIONS, "CIDEr"), (CAPTIONS, "exact"), (PAIRS, "t2i_R@1")],
)
def test_a_metric_fits_its_records_and_has_its_headlines(records: list[Record], headline: str) -> None:
    metric = kind_of(records).metric
    check_metric(metric, records)
    check_metric(metric, records, headline)
    with pytest.raises(ScoreInputError, match=rf"`headline` must be one of .*{headline}.*, but is 'none'"):
        check_metric(metric, records, "none")


def test_a_metric_of_other_records_is_refused() -> None:
    with pytest.raises(ScoreInputError, match=r"'caption' scores 'caption'\. Take 'gqa' or 'vqa'"):
        check_metric("caption", QUESTIONS)


def test_records_of_a_derived_type_are_scored_as_their_base_is() -> None:
    class Restored(ImageQA):
        task = "restored"

    records = [Restored(id="1", image=IMAGE, image_id="1", question="?", answers=("yes",))]
    check_metric("gqa", records, "accuracy")
    with pytest.raises(ScoreInputError, match="records of type 'restored', but 'caption' scores"):
        check_metric("caption", records)


def test_hidden_answers_are_no_fault() -> None:
    check_metric("vqa", [ImageQA(id="1", image=IMAGE, image_id="1", question="?")], "anything")
