"""Flow files, names and the registry."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tests.vortex.flow.flows import QUICK_START, flow
from vortex.errors import FlowAdvice, FlowInitError, FlowLoadError, RegistryError
from vortex.flow import (
    build_vflow,
    get,
    has,
    list_keys,
    load_file,
    load_graph,
    load_source,
    register,
    trace_source,
    vFlow,
)


def written(path: Path, name: str, source: str = QUICK_START) -> Path:
    path.write_text(source.replace("custom_sparse_attention", name).replace('"tested"', f'"{name}"'))
    return path


def test_shipped_names() -> None:
    assert {"block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention"} <= set(
        list_keys()
    )
    assert has("block_sparse_attention")
    assert issubclass(get("block_sparse_attention"), vFlow)
    with pytest.raises(RegistryError, match="did you mean 'block_sparse_attention'"):
        get("blok_sparse_attention")


def test_the_same_file_twice_is_one_registration(tmp_path: Path) -> None:
    file = written(tmp_path / "a.py", "loaded_twice")
    assert load_file(file) == load_file(str(file)) == ("loaded_twice",)
    assert load_graph(file).hash == load_graph("loaded_twice").hash


def test_another_file_may_not_take_the_name(tmp_path: Path) -> None:
    first = written(tmp_path / "a.py", "taken")
    load_file(first)
    with pytest.raises(RegistryError, match=r"'taken' is already registered by .*a\.py"):
        load_file(written(tmp_path / "b.py", "taken"))
    with pytest.raises(RegistryError, match="already registered"):
        load_file(written(tmp_path / "c.py", "block_sparse_attention"))
    first.write_text(first.read_text() + "\n# edited\n")
    with pytest.raises(RegistryError, match="the file has changed since"):
        load_file(first)


def test_register_refuses_what_is_no_flow() -> None:
    with pytest.raises(RegistryError, match="needs a subclass of vFlow"):
        register("no_flow")(int)  # type: ignore[type-var]
    with pytest.raises(RegistryError, match="needs a name"):
        register("")
    source = flow() + '\n@register("tested")\nclass Again(vFlow):\n    pass\n'
    with pytest.raises(RegistryError, match="'tested' is already registered"):
        trace_source(source)


def test_a_file_that_fails_registers_nothing(tmp_path: Path) -> None:
    file = written(tmp_path / "half.py", "half_loaded", QUICK_START + "\nraise ValueError('late')\n")
    with pytest.raises(FlowLoadError, match=r"half\.py, line \d+: ValueError: late"):
        load_file(file)
    assert not has("half_loaded")


def test_several_flows_in_one_file(tmp_path: Path) -> None:
    second = QUICK_START[QUICK_START.index("@register") :].replace("custom_sparse", "second_of")
    file = written(tmp_path / "two.py", "first_of_two", QUICK_START + second)
    with pytest.raises(FlowLoadError, match=r"choose one, as .*two\.py:first_of_two"):
        load_graph(file)
    assert load_graph(f"{file}:second_of_attention").hash == load_graph(f"{file}:first_of_two").hash
    with pytest.raises(FlowLoadError, match="exactly one flow, not 2"):
        trace_source(file.read_text())


def test_files_without_flows(tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(FlowLoadError, match="registers no flow"):
        load_graph(tmp_path / "none.py")
    with pytest.raises(FlowLoadError, match="cannot read"):
        load_graph(tmp_path / "missing.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FlowLoadError, match="cannot read"):
        load_graph(tmp_path / "binary.py")


def test_build_vflow(tmp_path: Path) -> None:
    assert isinstance(build_vflow("block_sparse_attention"), vFlow)
    with pytest.raises(FlowLoadError, match=r"unknown flow 'nothing'.*block_sparse_attention"):
        build_vflow("nothing")
    with pytest.raises(FlowInitError, match="unexpected keyword argument 'x'"):
        build_vflow("block_sparse_attention", {"x": 1})
    file = written(
        tmp_path / "takes.py",
        "takes_arguments",
        flow().replace("def __init__(self)", "def __init__(self, scale=1.0)"),
    )
    assert build_vflow("takes_arguments", {"scale": 2.0}, file)
    file = written(tmp_path / "bad.py", "bad_init", flow(init="raise RuntimeError('no weights')"))
    with pytest.raises(FlowInitError, match=r"Tested.__init__ \(line 10\) raised RuntimeError: no weights"):
        build_vflow("bad_init", user_file=file)


def test_graphs_load_from_json(tmp_path: Path) -> None:
    graph = load_graph("gqa_quest_sparse_attention")
    (tmp_path / "graph.json").write_text(graph.to_json())
    assert load_graph(tmp_path / "graph.json") == graph
    assert json.loads(graph.to_json())["version"] == 1
    with pytest.raises(FlowLoadError, match="cannot read the graph"):
        load_graph(tmp_path / "none.json")


def test_load_source_does_not_touch_the_registry() -> None:
    before = list_keys()
    assert list(load_source(flow())) == ["tested"]
    assert list_keys() == before


def test_the_scope_of_a_candidate_is_its_own() -> None:
    import builtins

    scope = {name: value for name, value in vars(builtins).items() if name not in ("open", "eval", "exec")}
    assert trace_source(flow(), scope=scope).hash == trace_source(flow()).hash
    with pytest.raises(FlowLoadError, match="NameError: name 'open' is not defined"):
        trace_source(flow(head="open('x')"), scope=scope)


def test_advice(tmp_path: Path) -> None:
    fields = '{"c": (1, head_dim), "spare": (1, 1), "empty": (1, head_dim), "full": (1, head_dim)}'
    source = flow(
        fields=fields,
        cache="C.Max()(cache['k'], cache['full'], loc=loc, ctx=ctx)",
        indexer="s = Max()(Max(dim=2)(GeMM()(q, cache['k'], ctx=ctx), ctx=ctx), ctx=ctx)",
        end="c = Add()(cache['c'], cache['empty'], ctx=ctx)\n"
        "        topK()(Add()(s, GeMM()(Mean()(q, ctx=ctx), c, ctx=ctx), ctx=ctx), o, ctx=ctx)",
    )
    with pytest.warns(FlowAdvice) as caught:
        load_graph(written(tmp_path / "advised.py", "advised", source))
    said = " ".join(str(warning.message) for warning in caught)
    for part in (
        "'spare' is neither",
        "'empty' is never written",
        "'full' is written and never read",
        "reads all of 'k'",
    ):
        assert part in said
    assert len(caught) == 4


def test_two_classes_of_one_name_in_an_imported_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = "@register('{0}')\nclass {1}(vFlow):\n    pass\n"
    head = "from vortex_torch.flow import register, vFlow\n"
    (tmp_path / "twice_named.py").write_text(head + one.format("twice", "A") + one.format("twice", "B"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RegistryError, match="'twice' is already registered"):
        importlib.import_module("twice_named")
