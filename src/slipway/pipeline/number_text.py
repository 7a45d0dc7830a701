"""Format numbers for sentences."""


def number(value: float) -> str:
    """Format a number with about four significant digits: `1,315`, `0.04213`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def about(value: float) -> str:
    """Format an estimate with two digits: `1,900`, `5.2`."""
    return f"{float(f'{value:.2g}'):,.4g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"
