"""The installed SDK through the trial of `python -m tests.clients`, which runs all others, too."""

from pathlib import Path

from tests.clients.catalogue import INSTALLED
from tests.clients.stage import Stage
from tests.clients.task import EXPECTED
from tests.clients.trial import tried
from tests.harness import Api, Books, Simulator, running


async def test_the_installed_sdk(
    story_environment: dict[str, str], simulator: Simulator, books: Books, run_folder: Path, worker: str
) -> None:
    log = run_folder / f"clients-{worker}.log"
    settings = {**story_environment, "LOG_LEVEL": "info", "HANGUP_WAIT_S": "2"}
    with running(Api(settings, log)) as api:
        result = await tried(Stage(api, simulator), books, INSTALLED)
    assert result.faults == {}, result.output
    assert result.scenarios.keys() == EXPECTED.keys()
