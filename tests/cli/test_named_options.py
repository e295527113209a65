"""What an error tells to pass can be passed: every option that a text of ours names is one of some command."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
OF_OTHERS = {
    "--tile", "--pyramid", "--compression", "--bigtiff",  # vips tiffsave
    "--no-deps", "--force-reinstall",  # pip
}  # fmt: skip
COMPOSED = {"tissue/region_files.py"}  # --include and --exclude, and their classes


def list_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string of a module, docstrings too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_option_that_a_text_names_is_documented() -> None:
    documents = [(ROOT / name).read_text(encoding="utf-8") for name in ("docs/cli.md", "README.md")]
    documented = {option for text in documents for option in OPTION.findall(text)}
    assert "--encoder" in documented
    unknown = [
        f"{path.relative_to(ROOT)}:{line} {option}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line, text in list_texts(path)
        for option in OPTION.findall(text)
        if option not in documented | OF_OTHERS
    ]
    assert unknown == []


def test_options_are_spelt_out() -> None:
    """A name put together from parts is not found by the test above."""
    composed = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if any(re.search(r"(?:^|\s)--$", text) for text in texts):
                composed.add(path.relative_to(ROOT / "src/lamella").as_posix())
    assert composed == COMPOSED
