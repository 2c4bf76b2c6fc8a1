"""Fixtures of tests of whole runs."""

import pytest


@pytest.fixture(scope="module")
def founders(tmp_path_factory):
    """A folder for the toy founders of a module's tests."""
    return tmp_path_factory.mktemp("founders")
