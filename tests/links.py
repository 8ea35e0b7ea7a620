"""Whether links between the pages lead somewhere: python3 tests/links.py"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parts(text):
    """Lines outside of code blocks."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line


def anchors(text):
    """The names that GitHub gives to headings."""
    found = set()
    for line in parts(text):
        if match := re.match(r"#+ (.*)", line):
            title = re.sub(r"[^\w\- ]", "", match[1].lower()).strip().replace(" ", "-")
            found.add(title)
    return found


def faults(page):
    text = page.read_text(encoding="utf-8")
    # Code in a line may look like a link.
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", "\n".join(parts(text)))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        led_to = (page.parent / path).resolve() if path else page
        if not led_to.exists():
            yield f"{page.relative_to(ROOT)}: {target} is not there"
        elif anchor and led_to.suffix == ".md" and anchor not in anchors(led_to.read_text(encoding="utf-8")):
            yield f"{page.relative_to(ROOT)}: {target} is no heading"


def main():
    names = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    pages = [ROOT / name for name in names.split("\0") if name]
    found = [fault for page in pages if page.exists() for fault in faults(page)]
    print("\n".join(found) or f"all links of {len(pages)} pages lead somewhere")
    return bool(found) or not pages


if __name__ == "__main__":
    sys.exit(main())
