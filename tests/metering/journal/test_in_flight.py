"""The list of the requests that this process runs."""

from core.ids import uuid7
from metering.journal.in_flight import InFlight
from metering.journal.recorder import UsageRecorder


def test_a_request_is_listed_from_enter_to_leave() -> None:
    in_flight, first, second = InFlight(), uuid7(), uuid7()
    recorder = UsageRecorder(0, 0)
    in_flight.enter(first)
    in_flight.record(second, recorder)  # Postgres may admit without an enter of ours
    assert (first in in_flight, second in in_flight, uuid7() in in_flight, len(in_flight)) == (True, True, False, 2)
    for request_id, known in in_flight:  # the list may change during the loop
        assert known is (recorder if request_id == second else None)
        in_flight.leave(request_id)
    in_flight.leave(first)
    assert (first in in_flight, len(in_flight)) == (False, 0)
