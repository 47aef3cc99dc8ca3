"""Shapes read from a row: each field from the attribute of its name, or of its `validation_alias`."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Row(BaseModel):
    """The shape of a row."""

    model_config = ConfigDict(from_attributes=True, validate_by_name=True)

    @classmethod
    def of(cls, row: Any) -> Self:
        """The shape of a row."""
        return cls.model_validate(row, from_attributes=True)

    @classmethod
    def completed(cls, row: Any, **more: object) -> Self:
        """The shape of a row, and of values that are none of its attributes."""
        return cls.model_validate(_Completed(row, more), from_attributes=True)


class _Completed:
    def __init__(self, row: Any, more: dict[str, object]) -> None:
        self.__dict__.update(more)
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)
