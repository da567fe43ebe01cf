"""The rules of ARCHITECTURE.md, as far as a machine can hold us to them."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from farthing_core.errors import FarthingError
from farthing_runtime.catalog import CATALOG

ROOT = Path(__file__).parent.parent.parent
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
PACKAGES = [service / f"farthing_{service.name}" for service in SERVICES]
SAME_IN_EVERY_SERVICE = {"__init__.py", "app.py", "settings.py", "servicer.py", "status.py"}
OUTSIDE_WORLD = ("grpc", "farthing", "google", "asyncpg", "redis", "aiohttp", "sqlalchemy", "onnxruntime", "aiosmtplib")
ADAPTERS = {
    "app.py": "wires",
    "servicer.py": "translates RPCs",
    "status.py": "maps errors to statuses",
    "peers.py": "calls other services",
    "messages.py": "translates messages",
    "receipts.py": "translates messages",
    "exchange.py": "speaks to model providers over HTTP",
    "http.py": "speaks HTTP",
    "smtp.py": "speaks SMTP",
    "minilm.py": "runs the embedding model",
}
LINES_MAX = 340
FUNCTION_LINES_MAX = 60
BANNED_NAMES = ("utils", "helpers", "manager", "common", "base")


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", pattern], cwd=ROOT, capture_output=True, text=True
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def own_code() -> list[Path]:
    return [path for path in tracked("*.py") if "libs/protos" not in str(path)]


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_every_service_is_in_the_catalog_and_the_other_way_round() -> None:
    assert {service.name for service in SERVICES} == set(CATALOG)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_service_has_the_same_file_names(package: Path) -> None:
    missing = SAME_IN_EVERY_SERVICE - {path.name for path in package.iterdir()}
    assert not missing
    assert (package.parent / "README.md").is_file()
    target = CATALOG[package.parent.name]
    assert bool(target.schema) == (package.parent / "migrations" / "env.py").is_file()
    assert bool(target.schema) <= (package / "store" / "__init__.py").is_file()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_migrations_follow_one_another_in_the_order_of_their_numbers(package: Path) -> None:
    before = None
    for path in sorted((package.parent / "migrations" / "versions").glob("*.py")):
        text = path.read_text()
        (revision,) = re.findall(r'^revision = "(.*)"', text, re.MULTILINE)
        (down,) = re.findall(r"^down_revision = (.*)", text, re.MULTILINE)
        assert (path.name.split("_", 1)[0], down.strip('"')) == (revision, str(before)), path.name
        before = revision


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_domain_files_know_nothing_of_the_outside_world(package: Path) -> None:
    for path in package.rglob("*.py"):
        if path.name in ADAPTERS or path.parent.name in ("store", "migrations", "edge"):
            continue
        outside = {name for name in imports_of(path) if name.split(".")[0] in OUTSIDE_WORLD}
        assert not outside, f"{path.relative_to(ROOT)} imports {', '.join(sorted(outside))}"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_domain_error_stands_in_its_services_table(package: Path) -> None:
    import importlib

    table = importlib.import_module(f"{package.name}.status").STATUS_TABLE
    for path in package.rglob("*.py"):
        if "migrations" in path.parts:
            continue
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        for value in vars(module).values():
            own = isinstance(value, type) and issubclass(value, FarthingError) and value.__module__ == name
            if own and not value.__name__.startswith("_"):
                known = (
                    any(kind in table for kind in value.__mro__) or hasattr(value, "passed_on") or value.__name__ == "Refused"
                )
                assert known, f"{name}.{value.__name__} stands in no status table"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_packages_docstring_is_a_few_sentences_and_no_code(package: Path) -> None:
    tree = ast.parse((package / "__init__.py").read_text())
    assert len(tree.body) == 1
    docstring = ast.get_docstring(tree)
    assert docstring is not None
    assert docstring.count(".") >= 2


def test_only_settings_read_the_environment() -> None:
    allowed = {"settings.py", "conftest.py"}
    for path in own_code():
        if (
            "tests" in path.parts
            or "evals" in path.parts
            or path.name in allowed
            or "cli" in path.parts
            or "demo" in path.parts
        ):
            continue
        text = path.read_text()
        reads = re.search(r"os\.(environ|getenv)", text)
        assert not reads or "api_key_env" in text, f"{path.relative_to(ROOT)} reads the environment"


def test_files_and_functions_stay_readable() -> None:
    for path in own_code():
        if "tests" in path.relative_to(ROOT).parts:
            continue
        text = path.read_text()
        assert text.count("\n") <= LINES_MAX, f"{path.relative_to(ROOT)} has {text.count(chr(10))} lines"
        if "migrations" in path.parts:
            continue  # a migration is one list of statements
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= FUNCTION_LINES_MAX, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def test_no_file_has_a_name_that_says_nothing() -> None:
    for path in own_code():
        assert path.stem not in BANNED_NAMES, path


def test_nothing_is_left_to_do_and_no_machine_shows_through() -> None:
    loose = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
    places = re.compile(r"(^|[^A-Za-z0-9_.])/(wo" r"rk|fa" r"rm|ro" r"ot)/")
    hosts = re.compile("|".join(["py" r"pi\.org", "python" r"hosted\.org", r"registry\.npm" "js", r"deb\.deb" r"ian\.org"]))
    for path in tracked("*"):
        if path.suffix in {".png", ".onnx"} or "third_party" in path.parts:
            continue
        text = path.read_text(errors="replace")
        for pattern in (places, hosts):
            assert not pattern.search(text), f"{path.relative_to(ROOT)} names {pattern.search(text).group()}"  # type: ignore[union-attr]
        if path.suffix == ".py":
            assert not loose.search(text), path.relative_to(ROOT)


def test_locks_name_no_addresses() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text(), path
    assert not (ROOT / "uv.lock").exists() or "uv.lock" in (ROOT / ".gitignore").read_text()


def test_importing_a_package_does_nothing_heavy() -> None:
    code = "import sys, farthing_runtime.cli; print(' '.join(m for m in ('onnxruntime','opendp','alembic','pyarrow') if m in sys.modules))"
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
