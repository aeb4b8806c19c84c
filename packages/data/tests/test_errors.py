import pytest

from weft.data import errors


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("s3://user:hunter2@bucket/key", "hunter2"),
        ("https://host/a?X-Amz-Signature=hunter2&x=1", "hunter2"),
        ("https://host/a?sig=hunter2", "hunter2"),
        ("{'token': 'hunter2', 'anon': False}", "hunter2"),
        ("secret_access_key=hunter2", "hunter2"),
        ("api_key: hunter2", "hunter2"),
    ],
    ids=["user", "signature", "sig", "mapping", "aws", "colon"],
)
def test_secrets_are_redacted(text, secret):
    assert secret not in errors.redact(text)
    assert "***" in errors.redact(text)


@pytest.mark.parametrize("text", ["/data/keys/a.zip", "s3://bucket/monkey=1.png", "question_id=4 is missing"])
def test_ordinary_text_stays(text):
    assert errors.redact(text) == text


def test_near_matches_ignore_case_and_punctuation():
    assert errors.near_matches("Easy-VQA", ["easy_vqa", "nlvr"]) == ["easy_vqa"]


@pytest.mark.parametrize(("given", "known"), [("val", "dev"), ("validation", "val"), ("valid", "validation")])
def test_usual_split_names_are_recognised(given, known):
    assert errors.near_matches(given, ["train", known])[0] == known


def test_an_unknown_name_lists_what_exists_and_the_next_step():
    error = errors.unknown_name("colour", "grene", ["green", "red"], "Choose one.")
    assert str(error) == "Unknown colour: 'grene'. Did you mean 'green'? Known: green, red. Choose one."
    assert isinstance(error, LookupError)
    assert isinstance(error, errors.WeftDataError)


def test_an_unknown_name_among_none_says_so():
    assert "Known: none." in str(errors.unknown_name("split", "x", []))
