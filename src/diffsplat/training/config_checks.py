"""Refusing impossible values of a training configuration."""

from diffsplat.errors import InvalidInputError


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Refuse the value of an option unless a condition holds.

    Raises:
        ValueError: naming the option, its value and what was expected.
    """
    if not condition:
        raise InvalidInputError(f"{name} is {value}, expected {expected}")
