"""What the detail of every audit event is made of: no model has a field that could hold free text."""

from __future__ import annotations

import re
from datetime import date, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints

from service.audit.events import AuditEvent

_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$"
_CODE: Final = StringConstraints(pattern=_PATTERN)
#: A name that the code itself gives (an error's code, say): no spaces, no capitals, 64 characters at most.
Code = Annotated[str, _CODE]

_PLAIN: Final = (int, bool, UUID, date, datetime, NoneType)
_CONTAINERS: Final = (list, tuple, dict, Union, UnionType)

#: The model of each event.
DETAIL_OF: Final[dict[AuditEvent, type[Detail]]] = {}


class Detail(BaseModel):
    """The root of all details. A list of ids over the bound of a row goes into `parts` rows, of which this is `part`.

    Raises:
        TypeError: when a class declares a field that could hold text that is not a code of ours.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    event: ClassVar[AuditEvent]

    part: int | None = None
    parts: int | None = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Check the fields and enter the model in `DETAIL_OF`."""
        hints = get_type_hints(cls, include_extras=True)
        for name in cls.model_fields:
            if not holds_no_text(hints[name]):
                raise TypeError(f"{cls.__name__}.{name}: {hints[name]} could hold content; use a number, id or code")
        if DETAIL_OF.setdefault(cls.event, cls).__qualname__ != cls.__qualname__:
            raise TypeError(f"{cls.event} has two detail models: {DETAIL_OF[cls.event].__name__} and {cls.__name__}")

    def document(self) -> dict[str, Any]:
        """Return the detail as JSON, what is not set left out."""
        return self.model_dump(mode="json", exclude_none=True)


def is_code(text: str) -> bool:
    """Tell whether a text may stand where a code does."""
    return re.fullmatch(_PATTERN, text) is not None


def holds_no_text(kind: Any) -> bool:
    """Tell whether values of a type can hold nothing but numbers, ids, times and codes."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *marks = get_args(kind)
        return _CODE in marks if inner is str else holds_no_text(inner)
    if origin is Literal:
        return True
    if origin in _CONTAINERS:
        return all(holds_no_text(one) for one in get_args(kind) if one is not Ellipsis)
    return isinstance(kind, type) and (kind in _PLAIN or issubclass(kind, StrEnum))
