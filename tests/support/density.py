"""Figures of how densely the code is written and how its modules hang together.

    python -m tests.support.density

`tests/test_density.py` holds the limits.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("deita_tasks", "flows")
ALL_CODE = (*PACKAGES, "deployments", "benchmarks", "fitting", "tests")

LAYOUT_TOKENS = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.COMMENT,
}
ANY_MAPPING = re.compile(r"\b(?:dict|Mapping)\[str, Any\]")

# Participles, pronouns and adverbs: a stranger can neither guess what such a name holds nor grep
# for it.
PRONOUN_WORDS = """
    again asked chosen come done found given gone held here how it known left_ made many meant much
    needed needs of one other another put said seen shown so taken them there these those told used
    wanted what when where which who why
"""
PRONOUNS = frozenset(PRONOUN_WORDS.split())

Graph = Mapping[str, set[str]]


class Function(NamedTuple):
    """Where a function is defined and how many lines it takes, docstring included."""

    place: str
    name: str
    lines: int


class Density(NamedTuple):
    """Tokens of code and lines of code; neither counts comments and blank lines."""

    tokens: int
    lines: int

    @property
    def tokens_per_line(self) -> float:
        """Tokens per line; a file without code has none."""
        if self.lines == 0:
            return 0.0
        return self.tokens / self.lines


PRAGMA = re.compile(r"\s*# (type: ignore|noqa|fmt:).*$")


def python_files(folder: str) -> list[Path]:
    """Return every module under `folder`, a path below the project's root."""
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def syntax_tree(path: Path) -> ast.Module:
    """Parse a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def place_of(path: Path, line: int) -> str:
    """Name a line as editors and linters do: flows/select.py:12."""
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


# ---- density


def density_of(path: Path) -> Density:
    """Count the tokens and the lines of code of one file."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    code = [token for token in tokens if token.type not in LAYOUT_TOKENS]
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    code_lines = [line for line in lines if line and not line.startswith("#")]
    return Density(len(code), len(code_lines))


def mean_density(folder: str) -> float:
    """Return all tokens of a folder's files, divided by all their lines of code."""
    densities = [density_of(path) for path in python_files(folder)]
    tokens = sum(density.tokens for density in densities)
    lines = sum(density.lines for density in densities)
    return Density(tokens, lines).tokens_per_line


def median_density(folder: str) -> float:
    """Return the median over a folder's files of their tokens per line of code."""
    densities = [density_of(path) for path in python_files(folder)]
    return median(density.tokens_per_line for density in densities if density.lines)


def functions(folder: str) -> Iterator[Function]:
    """Yield every function and method of a folder, nested ones too."""
    for path in python_files(folder):
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                last_line = node.end_lineno or node.lineno
                lines = last_line - node.lineno + 1
                yield Function(place_of(path, node.lineno), node.name, lines)


def long_lines(folder: str, longest: int) -> Iterator[str]:
    """Yield the place of every line over `longest` characters; a pragma at its end is free."""
    for path in python_files(folder):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if len(PRAGMA.sub("", line)) > longest:
                yield place_of(path, number)


def nested_ternaries(folder: str) -> Iterator[str]:
    """Yield the place of every `a if b else c` that contains another one."""
    for path in python_files(folder):
        for node in ast.walk(syntax_tree(path)):
            if not isinstance(node, ast.IfExp):
                continue
            inner = [child for child in ast.walk(node) if isinstance(child, ast.IfExp)]
            if len(inner) > 1:  # the walk begins with the node itself
                yield place_of(path, node.lineno)


# ---- names and types


def bound_names(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each name that a module binds, with its line: variables, arguments, functions,
    classes, attributes.
    """
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def pronoun_names(folder: str) -> Iterator[str]:
    """Yield the place and the name of every binding whose name is one of PRONOUNS."""
    for path in python_files(folder):
        for name, line in bound_names(path):
            if name.strip("_") in PRONOUNS:
                yield f"{place_of(path, line)}: {name}"


def any_mappings(folder: str) -> int:
    """Count `dict[str, Any]` and `Mapping[str, Any]`."""
    texts = [path.read_text(encoding="utf-8") for path in python_files(folder)]
    return sum(len(ANY_MAPPING.findall(text)) for text in texts)


# ---- the house: rooms, floors, arrows


@cache
def modules() -> dict[str, Path]:
    """Return the modules of PACKAGES by dotted name; a package goes by its own name."""
    by_name = {}
    for folder in PACKAGES:
        for path in python_files(folder):
            parts = path.relative_to(ROOT).with_suffix("").parts
            by_name[".".join(parts).removesuffix(".__init__")] = path
    return by_name


def imported_modules(name: str) -> set[str]:
    """Return our modules that a module imports anywhere: in functions and for type checkers too."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported: set[str] = set()
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.update(_imported_from(node, package))
    return imported & set(modules())


def _imported_from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    parents = package.split(".")
    above = parents[: len(parents) - node.level + 1] if node.level else []
    base = ".".join([*above, *filter(None, [node.module])])
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in modules() else base


def room_of(module: str) -> str:
    """Return the room of a module: the package or loose module right under deita_tasks or flows."""
    return ".".join(module.split(".")[:2])


def room_imports() -> dict[str, set[str]]:
    """Return, for each room, the other rooms that it imports from."""
    imports: dict[str, set[str]] = {}
    for module in modules():
        room = room_of(module)
        others = {room_of(name) for name in imported_modules(module)}
        imports[room] = imports.get(room, set()) | others - {room}
    for package in PACKAGES:  # `from deita_tasks import storage` counts as storage alone
        imports.pop(package, None)
    return {room: others - set(PACKAGES) for room, others in imports.items()}


def longest_chain(imports: Graph) -> list[str]:
    """Return the longest chain of rooms that import one another, from the top down.

    Raises ValueError where rooms import one another in a circle.
    """
    chains: dict[str, list[str]] = {}
    open_rooms: list[str] = []

    def chain_from(room: str) -> list[str]:
        if room in open_rooms:
            raise ValueError(f"circle of imports: {' -> '.join([*open_rooms, room])}")
        if room not in chains:
            open_rooms.append(room)
            below = [chain_from(other) for other in sorted(imports[room])]
            chains[room] = [room, *max(below, key=len, default=[])]
            open_rooms.pop()
        return chains[room]

    return max((chain_from(room) for room in sorted(imports)), key=len)


def loose_modules() -> dict[str, list[str]]:
    """Return the modules that lie loose in PACKAGES and in every package that has packages."""
    loose: dict[str, list[str]] = {}
    for name, path in modules().items():
        if path.name != "__init__.py":
            continue
        if name in PACKAGES or list(path.parent.glob("*/__init__.py")):
            files = sorted(path.parent.glob("*.py"))
            loose[name] = [file.stem for file in files if not file.stem.startswith("__")]
    return loose


# ---- the report


def main() -> None:
    """Print every figure."""
    print("tokens per line of code: mean, median over the files")
    for folder in ALL_CODE:
        print(f"  {folder:<12} {mean_density(folder):5.2f} {median_density(folder):5.2f}")
    _print_places("functions over 45 lines", list(_long_functions(45)))
    _print_places("nested ternaries", _over_packages(nested_ternaries))
    pronouns = _over_packages(pronoun_names)
    bindings = sum(1 for path in modules().values() for _ in bound_names(path))
    print(f"pronoun names: {len(pronouns)} of {bindings} ({len(pronouns) / bindings:.1%})")
    mappings = {folder: any_mappings(folder) for folder in ALL_CODE}
    counts = ", ".join(f"{folder} {count}" for folder, count in mappings.items())
    print(f"dict[str, Any] and Mapping[str, Any]: {counts}")
    _print_house()


def _print_house() -> None:
    imports = room_imports()
    arrows = sum(len(others) for others in imports.values())
    print(f"rooms {len(imports)}, arrows {arrows}")
    try:
        chain = longest_chain(imports)
    except ValueError as error:
        print(error)
    else:
        print(f"floors {len(chain)}: {' -> '.join(chain)}")
    for package, names in loose_modules().items():
        print(f"  loose in {package}: {len(names)} ({', '.join(names)})")


def _over_packages(measure: Callable[[str], Iterator[str]]) -> list[str]:
    return [place for folder in PACKAGES for place in measure(folder)]


def _long_functions(most_lines: int) -> Iterator[str]:
    for folder in PACKAGES:
        for function in functions(folder):
            if function.lines > most_lines:
                yield f"{function.place}: {function.name}, {function.lines} lines"


def _print_places(title: str, places: list[str]) -> None:
    print(f"{title}: {len(places)}")
    for place in places:
        print(f"  {place}")


if __name__ == "__main__":
    main()
