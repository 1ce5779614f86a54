"""Refusals are one readable line: where, what was found, what is allowed."""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate.errors import UserError, public, unknown


def test_a_near_name_is_suggested() -> None:
    error = unknown("mixer", "grru", ["gru", "lstm"])
    assert isinstance(error, UserError)
    assert str(error) == "mixer: 'grru' is not known; allowed: gru, lstm. Did you mean 'gru'?"


def test_a_far_one_is_not() -> None:
    assert str(unknown("mixer", "zzz", ["gru", "lstm"])) == (
        "mixer: 'zzz' is not known; allowed: gru, lstm."
    )


def test_any_value_can_be_refused() -> None:
    assert str(unknown("context", 4, (1, 5, 20))) == (
        "context: '4' is not known; allowed: 1, 5, 20."
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://host/x.git?access_token=SECRET", "https://host/x.git"),
        ("https://me:SECRET@host:8080/x.git", "https://host:8080/x.git"),
        ("https://SECRET@host/@scope/x.git", "https://host/@scope/x.git"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("mongo://u:SEC/RET@h:27017/db?authSource=SECRET#SECRET", "mongo://h:27017/db"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3DSECRET", "mssql+pyodbc:///"),
        ("mysql://h/db;password=SECRET", "mysql://h/db"),
        ("git@github.com:owner/x.git", "git@github.com:owner/x.git"),
        ("/srv/x.git", "/srv/x.git"),
        ("can't reach 'postgresql://u:p@ss:SECRET@h/db?a=SECRET' (timeout?)",
         "can't reach 'postgresql://h/db' (timeout?)"),
        ("http://[SECRET@bad", "http://bad"),
        ("", ""),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert public(address) == shown


_PLAIN = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=8)
_SECRET = st.text(string.ascii_letters + "!$%&*+,:=@~^", max_size=12).map(
    lambda text: f"S3CR{text}T0K"
)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(_PLAIN, _PLAIN, _SECRET, _SECRET, st.booleans(), st.sampled_from("?#;"))
def test_no_secret_of_an_address_is_shown(
    host: str, path: str, password: str, query: str, named: bool, mark: str
) -> None:
    user = "name:" if named else ""
    address = f"https://{user}{password}@{host}/{path}{mark}token={query}"
    assert public(address) == f"https://{host}/{path}"
    assert "S3CR" not in public(f"observer {address}: refused ({address}), again.")
