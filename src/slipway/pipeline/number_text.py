"""Format numbers for sentences."""

import unicodedata


def number(value: float) -> str:
    """Format a number with about four significant digits: `1,315`, `0.04213`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def about(value: float) -> str:
    """Format an estimate with two digits: `1,900`, `5.2`."""
    return f"{float(f'{value:.2g}'):,.4g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


def is_currency(unit: str) -> bool:
    """Return whether a unit has only currency symbols, such as `$`. Such a unit precedes the number."""
    return all(unicodedata.category(character) == "Sc" for character in unit)


def with_unit(value: float, unit: str) -> str:
    """Format a number with its unit: `-$635`, `8.9 bikes`. Without a unit, return only the number."""
    if is_currency(unit):
        return f"{'-' if value < 0 else ''}{unit}{number(abs(value))}"
    return f"{number(value)} {unit}"
