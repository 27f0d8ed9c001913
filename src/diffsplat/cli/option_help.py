"""How command-line options are parsed, and how their help looks."""

from typing import Annotated, Any

from tyro.conf import DisallowNone, FlagCreatePairsOff, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

CONFIG = (DisallowNone,)
"""Of every subcommand: an option that may be absent is left out, rather than given as ``None``."""
RULES = ConstructorRegistry()
"""How values are read and shown; to be entered while a command line is parsed."""

Flag = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
"""An option without a value."""


def option(metavar: str, hint: str = "", aliases: tuple[str, ...] = ()) -> Any:
    """An option whose default is nothing."""
    return arg(metavar=metavar, help_behavior_hint=hint, aliases=aliases or None)


OUTPUT_ALIASES = ("-o", "--out")
"""Of ``--output``, which commands that write folders and reports call ``--out``."""


@RULES.primitive_rule
def _absent(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[None] | None:
    """Default values of None are shown as "none"; as a choice they are ruled out by :data:`CONFIG`."""
    if info.type is not type(None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="",
        instance_from_str=lambda _: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda _: ["none"],
    )
