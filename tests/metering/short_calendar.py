"""A calendar whose days last less than a second, so that days and periods turn while a test runs. Pure."""

from datetime import date

from metering.quota.windows import Calendar, Window, WindowKind

_FIRST_YEAR = 2060
_MONTHS = 12


class ShortCalendar(Calendar):
    """Each month has the days 1 to `days`, each of `day_ms`; January 2060 begins at `base_ms`.

    Names are real ISO dates and months, and a day lies in the month that its name says, as everywhere else.
    """

    def __init__(self, base_ms: int, *, day_ms: int, days: int) -> None:
        super().__init__("UTC")
        self._base_ms = base_ms
        self.day_ms = day_ms
        self.month_ms = day_ms * days
        self._days = days

    def date_of(self, at_ms: int) -> date:
        """The date of a moment; moments before `base_ms` have one, too."""
        months, day = divmod(self._number(at_ms, self.day_ms), self._days)
        years, month = divmod(months, _MONTHS)
        return date(_FIRST_YEAR + years, 1 + month, 1 + day)

    def day(self, at_ms: int) -> Window:
        """The day of a moment."""
        return self._window(WindowKind.DAY, self.date_of(at_ms).isoformat(), at_ms, self.day_ms)

    def month(self, at_ms: int) -> Window:
        """The month of a moment."""
        return self._window(WindowKind.PERIOD, f"{self.date_of(at_ms):%Y-%m}", at_ms, self.month_ms)

    def _number(self, at_ms: int, length_ms: int) -> int:
        return (at_ms - self._base_ms) // length_ms

    def _window(self, kind: WindowKind, name: str, at_ms: int, length_ms: int) -> Window:
        starts_ms = self._base_ms + self._number(at_ms, length_ms) * length_ms
        return Window(kind, name, starts_ms, starts_ms + length_ms)
