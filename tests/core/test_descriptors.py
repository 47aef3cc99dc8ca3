"""The number of client connections that the limit of file descriptors leaves room for."""

import pytest

from core.descriptors import connections_that_fit, require_enough
from core.settings import Settings, SettingsError


def test_no_more_connections_are_taken_than_there_are_descriptors() -> None:
    settings = Settings(_env_file=None, client_max_connections=2000, upstream_max_connections=1000)
    few = connections_that_fit(settings, 1024)
    assert connections_that_fit(settings, 1_000_000) == 2000
    assert 400 < few <= 1024 - few
    assert connections_that_fit(settings, 256) > 50
    with pytest.raises(SettingsError, match="the limit of open files is 255; at least 256 are required"):
        require_enough(255)
