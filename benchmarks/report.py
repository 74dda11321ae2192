"""Fill docs/performance.md from what the benchmarks wrote with ``--json``.

    python benchmarks/report.py FOLDER [--page docs/performance.md]

FOLDER holds ``NAME.json`` of each script. On the page, what lies between ``<!-- NAME -->`` and ``<!-- /NAME -->``
becomes that script's tables; a name of which there is no file stays as it is.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any


def section(result: dict[str, Any]) -> str:
    """Return the tables of one script as Markdown."""
    parts = [
        f"{result['settings']}.",
        table(["goal", "measured", "wanted", ""], [goal["cells"] for goal in result["goals"]]),
        table(result["columns"], result["rows"]),
        *result["notes"],
        f"*{result['at']}, {result['machine']}*",
    ]
    return "\n\n".join(parts)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def filled(page: str, results: dict[str, dict[str, Any]]) -> str:
    """Return *page* with the sections of *results* in their places.

    Raises:
        ValueError: The page has no place for one of them.
    """
    for name, result in results.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        body = section(result)
        page, count = place.subn(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", page)
        if count != 1:
            raise ValueError(f"The page has {count} places for {name}.")
    return page


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    args = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in sorted(args.folder.glob("*.json"))}
    args.page.write_text(filled(args.page.read_text(), results))
    missed = [goal["what"] for result in results.values() for goal in result["goals"] if not goal["is_reached"]]
    print(f"{args.page}: {len(results)} tables; not reached: {'; '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
