"""Where the benchmarks print: as wide as the terminal, or wide enough for their tables in a file."""

import sys

from rich.console import Console

_WIDTH_IN_A_FILE = 160

console = Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE)
