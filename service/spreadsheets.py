"""Texts in CSV files that people open with a spreadsheet."""

_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """Return a text that no spreadsheet works out: with a quote before it where it would begin a formula.

    Source: OWASP, CSV Injection.
    """
    return f"'{text}" if text.startswith(_STARTS_A_FORMULA) else text
