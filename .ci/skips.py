"""Fail where a JUnit report shows a skipped test, or no test at all."""

import sys
import xml.etree.ElementTree as ET


def skipped_tests(report: str) -> tuple[int, list[str]]:
    """The number of tests in a JUnit file, and a line for each that was skipped."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    skipped = []
    for case in cases:
        reason = case.find("skipped")
        if reason is not None:
            skipped.append(f"{case.get('classname')}::{case.get('name')}: {reason.get('message')}")
    return len(cases), skipped


def main() -> int:
    count, skipped = skipped_tests(sys.argv[1])
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    if not count:
        print("no test ran", file=sys.stderr)
    print(f"{count} tests, {len(skipped)} skipped")
    return 1 if skipped or not count else 0


if __name__ == "__main__":
    sys.exit(main())
