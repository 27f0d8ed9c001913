"""How options look in the help of the command line."""

from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, arg

Flag = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
"""An option without a value."""


def option(metavar: str, hint: str = "", alias: str | None = None) -> Any:
    """An option whose default is nothing."""
    return arg(metavar=metavar, help_behavior_hint=hint, aliases=[alias] if alias else None)
