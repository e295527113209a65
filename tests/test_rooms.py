"""Imports run one way through the whole source, those inside functions counted too, and those spare weight alone."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
# What takes long to import, or is not in the base install.
HEAVY = frozenset(("torch", "timm", "torchvision", "safetensors", "openvino", "onnx", "onnxruntime", "zarr"))
# `lamella --help` is instant and `lamella doctor` tells what is broken: neither imports what it may not need.
AT_CALL = ("lamella.cli", "lamella.doctor")

Graph = Mapping[str, set[str]]


class Imports:
    """What each module under a folder imports: on import, inside functions, and for types only."""

    def __init__(self, source: Path) -> None:
        paths = {_name_module(path.relative_to(source)): path for path in sorted(source.rglob("*.py"))}
        self.modules = frozenset(paths)
        self.at_top: dict[str, set[str]] = {}
        self.later: dict[str, set[str]] = {}
        self.types: dict[str, set[str]] = {}
        for module, path in paths.items():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.at_top[module], self.later[module], self.types[module] = set(), set(), set()
            for name, kind in self._read(tree, self.at_top):
                kind[module].add(name)

    def everything(self) -> Graph:
        """Return the modules of the source that each imports in any way, itself left out."""
        return {
            module: ((self.at_top[module] | self.later[module] | self.types[module]) & self.modules) - {module}
            for module in self.modules
        }

    def heavy_behind(self, module: str) -> frozenset[str]:
        """Return the heavy packages that importing a module imports."""
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += self.at_top.get(name, ())
        return frozenset(name.partition(".")[0] for name in seen) & HEAVY

    def _read(self, node: ast.AST, kind: dict[str, set[str]]) -> Iterator[tuple[str, dict[str, set[str]]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, kind) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.module is not None
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield (inner if inner in self.modules else child.module), kind
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._read(child, self.later)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from self._read(child, self.types)
            else:
                yield from self._read(child, kind)


def _name_module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_circles(graph: Graph) -> list[set[str]]:
    """Return the sets of modules of which each leads to all others."""
    reach = {module: _reach(graph, module) for module in graph}
    circles: list[set[str]] = []
    for module in graph:
        circle = {other for other in reach[module] if module in reach[other]}
        if circle and circle not in circles:
            circles.append(circle)
    return circles


def _reach(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    return seen


@pytest.fixture(scope="module")
def imports() -> Imports:
    return Imports(SOURCE)


def test_no_module_leads_back_to_itself(imports: Imports) -> None:
    assert len(imports.modules) > 200
    assert find_circles(imports.everything()) == []


def test_an_import_inside_a_function_spares_weight(imports: Imports) -> None:
    # OpenVINO is imported on import of this module, by a function that leaves its telemetry out.
    imports.at_top["lamella.encoders.runtime.openvino_runtime"].add("openvino")
    pointless = [
        f"{module} imports {later} inside a function, which brings in nothing heavy that is not here already"
        for module in sorted(imports.modules)
        if not module.startswith(AT_CALL) and module != "lamella.__main__"  # signals are heeded before it imports
        for later in sorted(imports.later[module] & imports.modules)
        if not imports.heavy_behind(later) - imports.heavy_behind(module)
    ]
    assert pointless == []


@pytest.mark.parametrize(
    "text",
    ["import room.b", "def f():\n    from room import b", "if TYPE_CHECKING:\n    from room.b import B"],
    ids=["on import", "in a function", "for types"],
)
def test_a_circle_is_found_however_it_is_closed(tmp_path: Path, text: str) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "a.py").write_text(text, encoding="utf-8")
    (room / "b.py").write_text("from room.c import C", encoding="utf-8")
    (room / "c.py").write_text("import room.a", encoding="utf-8")
    (room / "d.py").write_text("import room.a", encoding="utf-8")
    assert find_circles(Imports(tmp_path).everything()) == [{"room.a", "room.b", "room.c"}]


# Files of tests that hold a law of a whole room, or of several rooms; every other is named for the module it tests.
LAWS = frozenset(
    (
        "analysis/test_simulations",
        "studies/test_bags_study",
        "cli/test_defaults",
        "cli/test_foundations",
        "cli/test_image_option",
        "encoders/test_oracles",
        "features/test_foreign_bags",
        "features/test_foreign_writers",
        "features/test_lazy_bag",
        "features/test_misread_bags",
        "reports/draw/test_exports",
        "reports/page/test_in_chromium",
        "slide/test_damage",
        "slide/test_dicom",
        "slide/test_formats",
        "slide/test_kinds",
        "studies/test_budgets",
        "studies/test_edges",
        "studies/test_reading_axes",
        "test_benchmarks",
        "test_canvas",
        "test_docs",
        "test_faults",
        "test_gallery",
        "test_hostile",
        "test_hostile_files",
        "test_hostile_text",
        "test_laws",
        "test_mutants",
        "test_privacy",
        "test_resources",
        "test_rooms",
        "test_silence",
    )
)
CAMPAIGNS = frozenset(("fuzz", "kills", "machine", "old_folders"))  # programs of their own, with a cut as a test


def list_test_files(tests: Path) -> Iterator[str]:
    """List the files of tests, such as `slide/test_frame`, those of campaigns left out."""
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests).with_suffix("")
        if name.parts[0] not in CAMPAIGNS:
            yield name.as_posix()


def find_module(source: Path, test: str) -> Path | None:
    """Return the module, or room, that a file of tests is named for; None where there is none."""
    room, _, name = test.rpartition("/")
    module = source / room / name.removeprefix("test_")
    return next((path for path in (module.with_suffix(".py"), module) if path.exists()), None)


def test_a_file_of_tests_is_named_for_the_module_it_tests_or_is_a_law() -> None:
    tests, source = Path(__file__).parent, SOURCE / "lamella"
    named = {test: find_module(source, test) for test in list_test_files(tests)}
    assert {test for test, module in named.items() if module is None} == LAWS


def test_a_file_of_tests_can_be_read_at_one_sitting() -> None:
    tests = Path(__file__).parent
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in tests.rglob("*.py")}
    assert {str(path.relative_to(tests)): n for path, n in lengths.items() if n > 400} == {}
