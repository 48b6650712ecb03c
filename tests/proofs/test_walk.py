"""The walk finds every gate and policy of the package, and what each one owes."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest

import siguard
from siguard.guard.plan import Plan
from siguard.guard.policy import POLICIES
from siguard.guard.shape import Shape
from siguard.mpc.gate import Cost, composed, gate, gate_info
from siguard.proofsim.ideal import IDEALS
from siguard.proofsim.patching import replaced
from siguard.proofsim.walk import gates_of, gates_of_the_package, policy_modules

SOURCE = Path(siguard.__file__).parent


def declared_in_the_source() -> set[str]:
    """module.function of every ``@gate(...)`` in protocol code, read from the text."""
    found = set()
    for package in ("mpc", "guard", "nn"):
        for path in (SOURCE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.AsyncFunctionDef) and any(map(_is_gate, node.decorator_list)):
                    found.add(f"{path.stem}.{node.name}")
    return found


def _is_gate(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "gate"


class TestGates:
    def test_every_declaration_in_the_source_is_found_once(self) -> None:
        names = [one.name for one in gates_of_the_package()]
        assert len(set(names)) == len(names)
        assert set(names) == declared_in_the_source()

    def test_no_gate_lives_outside_protocol_code(self) -> None:
        found = {one.coroutine for one in gates_of_the_package()}
        for key, module in list(sys.modules.items()):
            if key.partition(".")[0] == "siguard" and not key.startswith("siguard.proofsim"):
                declared = {member for member in vars(module).values() if gate_info(member) is not None}
                assert declared <= found, key

    def test_each_has_a_cost_a_simulator_and_stands_for_itself(self) -> None:
        for one in gates_of_the_package():
            assert inspect.iscoroutinefunction(one.coroutine), one.name
            assert callable(one.info.cost), one.name
            assert callable(one.info.simulator), one.name
            assert one.current is one.coroutine, one.name
            assert one.name.endswith(f".{one.info.name}")
            assert one.coroutine.__doc__, one.name

    def test_a_simulator_takes_the_arguments_of_its_gate(self) -> None:
        for one in gates_of_the_package():
            gate_takes = inspect.signature(one.coroutine).parameters
            simulator_takes = inspect.signature(one.info.simulator)
            arguments = {name: object() for name in gate_takes}
            simulator_takes.bind(object(), *arguments.values())
            required = [n for n, p in gate_takes.items() if p.default is inspect.Parameter.empty]
            simulator_takes.bind(object(), *(arguments[name] for name in required))

    def test_each_is_primitive_or_composed(self) -> None:
        """A primitive gate has a functionality; the others leave it to the gates in them."""
        primitive = {one.name for one in gates_of_the_package() if one.info.simulator is not composed}
        assert primitive == set(IDEALS)

    def test_current_follows_a_patch(self) -> None:
        one = gates_of_the_package()[0]

        async def instead() -> None: ...

        with replaced(one.coroutine, instead):
            assert one.current is instead
        assert one.current is one.coroutine

    @pytest.mark.parametrize(
        "definition",
        [
            "class Holder:\n    @declared\n    async def method(self): ...\n",
            "def make():\n    @declared\n    async def inner(): ...\n    return inner\nfound = make()\n",
        ],
    )
    def test_a_gate_that_could_not_be_replaced_is_refused(
        self, definition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = made_package(tmp_path, monkeypatch, definition)
        with pytest.raises(TypeError, match=r"(method|inner) is no function of the module itself"):
            list(gates_of(sys.modules[package]))

    def test_a_gate_of_a_package_itself_and_of_a_package_in_it_are_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "@declared\nasync def found(): ...\n"
        package = made_package(
            tmp_path, monkeypatch, text + "alias = found\nfrom siguard.mpc.arithmetic import dot\n"
        )
        inner = tmp_path / package / "inner"
        inner.mkdir()
        (inner / "__init__.py").write_text("")
        (inner / "module.py").write_text(HEAD + text)
        names = list(dict.fromkeys(one.name for one in gates_of(sys.modules[package])))
        assert names == [f"{package}.found", "module.found"]


class TestPolicies:
    def test_every_policy_is_a_module_and_every_module_a_policy(self) -> None:
        modules = policy_modules()
        assert set(modules) == set(POLICIES)
        files = {path.stem for path in (SOURCE / "guard" / "policies").glob("*.py")} - {"__init__"}
        assert files == set(modules)

    def test_each_is_what_its_module_defines(self) -> None:
        for name, module in policy_modules().items():
            policy = POLICIES[name]
            assert policy.protect is module.protect
            assert policy.cost is module.cost
            assert inspect.iscoroutinefunction(policy.protect)

    def test_each_has_a_cost(self) -> None:
        for name, policy in POLICIES.items():
            cost = policy.cost(Shape(2, (3, 2, 1), (4, 4), Plan()), siguard.GuardConfig(policy=name))
            assert isinstance(cost, Cost)
            assert cost.rounds > 0, name


HEAD = """from siguard.mpc.gate import Cost, composed, gate
declared = gate(cost=lambda: Cost(), simulator=composed)
"""


def made_package(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """A package with this text, imported."""
    name = f"made_{abs(hash(text))}"
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(HEAD + text)
    monkeypatch.syspath_prepend(str(folder))
    __import__(name)
    return name


def test_a_declaration_changes_nothing_else() -> None:
    async def coroutine() -> None: ...

    assert gate(cost=lambda: Cost(), simulator=composed)(coroutine) is coroutine
