from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from evaluators.ruler import SourceError, Sources, generate, qa
from evaluators.ruler.documents import hotpotqa, squad


def documents(text: str) -> list[str]:
    parts = re.split(r"\nDocument \d+:\n", text.split("\n\nQuestion:")[0])
    numbers = [int(n) for n in re.findall(r"\nDocument (\d+):\n", text)]
    assert numbers == list(range(1, len(numbers) + 1))
    return [part.split("\n\nAnswer the question")[0].strip() for part in parts[1:]]


def test_squad_questions(squad_file: Path, tokenizer: Any) -> None:
    data = squad(str(squad_file))
    assert len(data.questions) == 24  # the impossible ones are left out
    assert len(data.pool) == 24
    assert data.questions[8].answers == ("1712", "in 1712")
    assert len(data.questions[8].near) == 5
    for prompt in generate("qa_1", 2048, tokenizer, 6, 2, Sources(squad=str(squad_file))):
        shown = documents(prompt.text)
        gold = [text for text in shown if prompt.answers[0] in text]
        question = re.search(r"Question: When was (bridge \d of town \d) opened\? Answer:$", prompt.text)
        assert question is not None
        assert len(gold) == 1
        assert question[1] in gold[0]
        assert prompt.text.count("Reply with the answer alone") == 2
        assert prompt.metric == "part"


def test_hotpot_questions_keep_every_gold_paragraph(hotpot_file: Path, tokenizer: Any) -> None:
    data = hotpotqa(str(hotpot_file))
    assert [len(q.gold) for q in data.questions] == [2] * 12
    assert len(data.pool) == 60
    orders = set()
    for prompt in generate("qa_2", 1024, tokenizer, 8, 2, Sources(hotpotqa=str(hotpot_file))):
        shown = documents(prompt.text)
        number = re.search(r"Which number has river (\d+)\?", prompt.text)
        assert number is not None
        for title in ("River", "Valley"):
            assert len([text for text in shown if text.startswith(f"{title} {number[1]}\n")]) == 1
        orders.add(next(i for i, text in enumerate(shown) if text.startswith(f"River {number[1]}\n")))
        assert len(shown) == len(set(shown))
    assert len(orders) > 3  # gold is anywhere among the others


def test_a_questions_own_distractors_come_first_and_then_any_others(hotpot_file: Path) -> None:
    data = hotpotqa(str(hotpot_file))
    question = data.questions[0]
    for seed in range(5):
        few = qa.distractors(random.Random(seed), 2, question, data)
        assert len(set(few)) == 2
        assert set(few) < set(question.near)
        many = qa.distractors(random.Random(seed), 40, question, data)
        assert set(many[:3]) == set(question.near)
        assert len(set(many)) == 40
        assert not set(many) & set(question.gold)


def test_small_data_is_repeated_to_fill_a_length(hotpot_file: Path, tokenizer: Any) -> None:
    prompt = generate("qa_2", 8192, tokenizer, 1, 0, Sources(hotpotqa=str(hotpot_file)))[0]
    assert len(prompt.ids) > 8000
    shown = documents(prompt.text)
    assert len(shown) > 60
    assert len([text for text in shown if text.startswith(("River", "Valley"))]) > 2
    number = re.search(r"Which number has river (\d+)\?", prompt.text)
    assert number is not None
    assert len([text for text in shown if text.startswith(f"River {number[1]}\n")]) == 1


def test_data_of_a_single_question_ends(tmp_path: Path, tokenizer: Any) -> None:
    row = {"question": "q?", "answer": "a", "context": [["A", ["a"]]], "supporting_facts": [["A", 0]]}
    path = tmp_path / "one.json"
    path.write_text(json.dumps([row]))
    prompt = generate("qa_2", 1024, tokenizer, 1, 0, Sources(hotpotqa=str(path)))[0]
    assert documents(prompt.text) == ["A\na"]


def test_essays_run_from_their_beginning_and_begin_anew_at_the_end(essay_file: Path, tokenizer: Any) -> None:
    sources = Sources(essay=str(essay_file))
    for length in (1024, 8192):
        for prompt in generate("niah_single_2", length, tokenizer, 3, 0, sources):
            body = prompt.text.split("\n")[1]
            numbers = [
                int(n) for n in re.findall(r"Startup number (\d+) grew – it “surprised” everyone!", body)
            ]
            assert numbers == [i % 60 for i in range(len(numbers))]
            assert len(numbers) > (5 if length == 1024 else 60)
            assert prompt.text.count(prompt.answers[0]) == 1


def test_essays_from_a_folder_and_from_the_json_of_the_benchmark(tmp_path: Path) -> None:
    sentences = [f"Sentence {i} is here." for i in range(50)]
    (tmp_path / "b.txt").write_text(" ".join(sentences[25:]))
    (tmp_path / "a.txt").write_text("\n\n".join(sentences[:25]))
    (tmp_path / "notes.md").write_text("No essay.")
    assert Sources(essay=str(tmp_path)).haystack().sentences == tuple(sentences)
    whole = tmp_path / "PaulGrahamEssays.json"
    whole.write_text(json.dumps({"text": " ".join(sentences)}))
    assert Sources(essay=str(whole)).haystack().sentences == tuple(sentences)
    whole.write_text("[1]")
    with pytest.raises(SourceError, match="one object with the key 'text'"):
        Sources(essay=str(whole)).haystack()


def test_errors_name_the_source_and_what_to_give(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(SourceError, match=r"qa_1 needs its data: give Sources\(squad="):
        generate("qa_1", 1024, tokenizer, 1, 0)
    with pytest.raises(SourceError, match=r"qa_2 needs its data: give Sources\(hotpotqa="):
        generate("qa_2", 1024, tokenizer, 1, 0)
    for missing in (str(tmp_path / "none.json"), "none.json", "./none"):
        with pytest.raises(SourceError, match=r"none(\.json)?: no such file or folder"):
            Sources(squad=missing).documents("qa_1")
        with pytest.raises(SourceError, match="no such file or folder"):
            Sources(essay=missing).haystack()
    path = tmp_path / "wrong.json"
    for text in ("{", "[]", '{"data": [{"title": "t"}]}', '{"data": 3}'):
        path.write_text(text)
        with pytest.raises(SourceError, match=r"wrong\.json: not in the published form of SQuAD v2"):
            squad(str(path))
    for text in ("{", '{"a": 1}', '[{"context": []}]', "3"):
        path.write_text(text)
        with pytest.raises(SourceError, match=r"wrong\.json: not in the published form of HotpotQA"):
            hotpotqa(str(path))
    path.write_text("[]")
    with pytest.raises(SourceError, match="no question with an answer"):
        hotpotqa(str(path))
    path.write_text(json.dumps({"data": []}))
    with pytest.raises(SourceError, match="no question with an answer"):
        squad(str(path))
    short = tmp_path / "short.txt"
    short.write_text("One. Two. Three.")
    with pytest.raises(SourceError, match=r"short\.txt: 3 sentences; an essay haystack needs 40"):
        Sources(essay=str(short)).haystack()


def test_a_folder_that_datasets_reads_serves_as_hub_data(
    tmp_path: Path, hotpot_file: Path, tokenizer: Any
) -> None:
    import datasets

    rows = json.loads(hotpot_file.read_text())
    table = [
        {
            "question": row["question"],
            "answer": row["answer"],
            "context": {"title": [c[0] for c in row["context"]], "sentences": [c[1] for c in row["context"]]},
            "supporting_facts": {"title": [f[0] for f in row["supporting_facts"]], "sent_id": [1, 0]},
        }
        for row in rows
    ]
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_list(table).to_parquet(tmp_path / "data" / "validation.parquet")
    assert hotpotqa(str(tmp_path)) == hotpotqa(str(hotpot_file))


def test_the_version_changes_with_the_contents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "essay.txt"
    path.write_text("A text.")
    sources = Sources(essay=str(path))
    before = sources.version
    assert before == sources.version
    path.write_text("B text.")
    assert sources.version not in (before, Sources().version)
    assert Sources(essay="someone/essays").version != Sources(squad="someone/essays").version
