"""What is written or printed holds no credentials: not in addresses, and not in options."""

import re
from collections.abc import Mapping
from typing import Any

from weft.data.errors import redact

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>`|]+")
_PASSWORD = re.compile(r"(?P<front>://[^:/@\s]*):(?P<password>[^/\s]*)@")
_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}")
_SECRET_NAME = re.compile(
    r"(?i)key|auth|authorization|cookie|(.*[_-])?(secret|token|password|passwd|passphrase|signature|credentials?"
    r"|connection_?string|sas|(access|account|api|secret|private|shared|encryption|session|storage)[_-]?key)"
)
CUT = "***"
"""Stands where a credential was."""


def without_secrets(text: str) -> str:
    """Return a text with the credentials cut out of every address in it; other words stay as they are.

    A user name without a password stays, and so does a password that is the name of an environment variable.

    >>> without_secrets("see http://bob:pw@host/a?sig=abc&part=2, with key=value")
    'see http://bob:***@host/a?sig=***&part=2, with key=value'
    >>> without_secrets("postgresql://weft:$WEFT_PASSWORD@host/runs")
    'postgresql://weft:$WEFT_PASSWORD@host/runs'
    """
    return _ADDRESS.sub(lambda found: _cut(found.group()), text)


def without_credentials(value: Any) -> Any:
    """Return plain data with the credentials cut out: in addresses, and under names such as `token` and `secret`.

    >>> without_credentials({"root": "s3://b/x", "storage_options": {"key": "A", "secret": "B"}})
    {'root': 's3://b/x', 'storage_options': {'key': '***', 'secret': '***'}}
    """
    if isinstance(value, Mapping):
        return {name: _of_name(name, part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_credentials(part) for part in value]
    return without_secrets(value) if isinstance(value, str) else value


def password_of(address: str) -> str | None:
    """Return the password that an address such as `postgresql://weft:secret@host/runs` holds, or None."""
    found = _PASSWORD.search(address)
    return found["password"] if found and found["password"] not in ("", CUT) else None


def _of_name(name: Any, part: Any) -> Any:
    secret = isinstance(name, str) and _SECRET_NAME.fullmatch(name)
    if secret and isinstance(part, str) and part and not _VARIABLE.fullmatch(part):
        return CUT
    return without_credentials(part)


def _cut(address: str) -> str:
    found = _PASSWORD.search(address)
    if found is None:
        # What stands alone before the @ is a user's name or, as for hub tokens, the whole secret: only names stay.
        return _query_cut(re.sub(r"://(?=[^/@\s]{20,}@)[^/@\s]+@", f"://{CUT}@", address))
    if not _VARIABLE.fullmatch(found["password"]):
        address = f"{address[: found.end('front')]}:{CUT}@{address[found.end() :]}"
    return _query_cut(address)


def _query_cut(address: str) -> str:
    front, mark, query = address.partition("?")
    return front + mark + "&".join(_pair_cut(pair) for pair in query.split("&")) if mark else address


def _pair_cut(pair: str) -> str:
    name, sign, value = pair.partition("=")
    return pair if _VARIABLE.fullmatch(value) or not sign else redact(f"{name}={value}")
