"""Credentials are cut out of what is written and printed; everything else stays as it was."""

import pytest

from weft.data.errors import redact
from weft.data.sources.credentials import password_of, without_credentials, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://bob:geheim@host:5000", "http://bob:***@host:5000"),
        ("http://bob:ge@heim@host", "http://bob:***@host"),
        ("postgresql+psycopg://weft:geheim@h/runs", "postgresql+psycopg://weft:***@h/runs"),
        ("https://hf_abcdefghijklmnopqrstuvwxyz@hub.co/x", "https://***@hub.co/x"),
        ("https://bob@host/x", "https://bob@host/x"),
        ("s3://bucket/a.zip?X-Amz-Signature=geheim&part=2", "s3://bucket/a.zip?X-Amz-Signature=***&part=2"),
        ("https://a.blob.net/x?sv=1&sig=geheim", "https://a.blob.net/x?sv=1&sig=***"),
        ("https://h/x?access_token=geheim", "https://h/x?access_token=***"),
        ("cannot reach 'http://bob:geheim@h', try again", "cannot reach 'http://bob:***@h', try again"),
        ("http://$WEFT_USER:${WEFT_PW}@h?token=$WEFT_T", "http://$WEFT_USER:${WEFT_PW}@h?token=$WEFT_T"),
        ("tokenizer: this key must be one", "tokenizer: this key must be one"),
        ("key=value, training.max_text_tokens=3", "key=value, training.max_text_tokens=3"),
        ("https://host/a@b?width=3", "https://host/a@b?width=3"),
    ],
)
def test_addresses_keep_everything_but_credentials(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert "geheim" not in redact(text)


def test_options_lose_what_is_secret_by_name_at_any_depth() -> None:
    options = {
        "storage_options": {
            "key": "AKIA",
            "secret": "geheim",
            "client_kwargs": {"headers": {"Authorization": "Bearer geheim"}, "endpoint_url": "http://a:b@h"},
            "token": "$WEFT_TOKEN",
            "anon": False,
        },
        "fields": {"image_key": "jpg", "tokens": "words"},
        "languages": ["de", "https://u:geheim@h"],
        "password": None,
    }
    assert without_credentials(options) == {
        "storage_options": {
            "key": "***",
            "secret": "***",
            "client_kwargs": {"headers": {"Authorization": "***"}, "endpoint_url": "http://a:***@h"},
            "token": "$WEFT_TOKEN",
            "anon": False,
        },
        "fields": {"image_key": "jpg", "tokens": "words"},
        "languages": ["de", "https://u:***@h"],
        "password": None,
    }


def test_a_password_is_found_where_there_is_one() -> None:
    assert password_of("http://bob:geheim@host") == "geheim"
    assert password_of("http://bob:***@host") is None
    assert password_of("http://host:5000/a@b") is None
