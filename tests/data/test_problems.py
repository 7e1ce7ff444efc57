import csv
import json
import os
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import ROOT
from datasets import Dataset
from pyarrow import parquet

from semcot.data import (
    COLUMNS,
    fingerprint,
    load_problems,
    masked,
    problems,
    shared_questions,
    split_validation,
    without,
)

DATA = Path(os.environ.get("SEMCOT_DATA_DIR", ROOT.parent / "shared" / "data"))
RECORDS = [
    {"question": " How many are 2 and 3? ", "reasoning": "2 + 3 = 5.", "condensed_reasoning": "2 + 3 = 5", "answer": 5},
    {"question": "Heads, is it?", "reasoning": "It is, yes.", "condensed_reasoning": "heads", "answer": "yes "},
]
LOADED = [
    {"question": "How many are 2 and 3?", "reasoning": "2 + 3 = 5.", "condensed_reasoning": "2 + 3 = 5", "answer": "5"},
    {"question": "Heads, is it?", "reasoning": "It is, yes.", "condensed_reasoning": "heads", "answer": "yes"},
]


def needs(name):
    return pytest.mark.skipif(not (DATA / name).exists(), reason=f"{DATA / name} is not there")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No test may reach the Hub; those that need it replace this."""
    monkeypatch.delenv("SEMCOT_DATA_DIR", raising=False)

    def unreachable(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr(problems, "load_dataset", unreachable)


def write(path, records):
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        Dataset.from_list(
            [{k: v if v is None else str(v) for k, v in record.items()} for record in records]
        ).to_parquet(path)
    return path


GSM8K = {
    "question": "How many?",
    "answer": "She has 48/2 = <<48/2=24>>24.\n24 * 50 = <<24*50=1200>>1200.\n#### 1,200",
}
CHOICES = [("A", "here"), ("B", "there")]
# The named data sets' records, as published and as on the Hub, and the problems in them.
PUBLISHED = [
    (
        "gsm8k",
        GSM8K,
        {
            "question": "How many?",
            "reasoning": "She has 48/2 = 24.\n24 * 50 = 1200.",
            "condensed_reasoning": "48 / 2 = 24, 24 * 50 = 1200",
            "answer": "1,200",
        },
    ),
    (
        "gsm8k with a reasoning of its own",
        {
            **GSM8K,
            "reasoning": "48/2 = <<48/2=24>>24, times 50.",
            "condensed_reasoning": "24 * 50 = <<24*50=1200>>1200",
        },
        {
            "question": "How many?",
            "reasoning": "48/2 = 24, times 50.",
            "condensed_reasoning": "24 * 50 = 1200",
            "answer": "1,200",
        },
    ),
    (
        "svamp",
        {"Body": "He has 8 bags. ", "Question": " How many?", "Equation": "( 8.0 - 3.0 )", "Answer": "5.0"},
        {"question": "He has 8 bags. How many?", "reasoning": "( 8.0 - 3.0 ) = 5", "answer": "5"},
    ),
    (
        "multiarith",
        {"iIndex": 3, "sQuestion": " How many? ", "lEquations": ["X=((64.0-36.0)/4.0)"], "lSolutions": [7.0]},
        {"question": "How many?", "reasoning": "((64.0-36.0)/4.0) = 7", "answer": "7"},
    ),
    ("multiarith on the Hub", {"question": " How many? ", "final_ans": "8"}, {"question": "How many?", "answer": "8"}),
    (
        "commonsense_qa",
        {
            "answerKey": "B",
            "id": "1",
            "question": {"stem": "Where?", "choices": [{"label": label, "text": text} for label, text in CHOICES]},
        },
        {"question": "Where?\nChoices:\nA. here\nB. there", "answer": "B"},
    ),
    (
        "commonsense_qa on the Hub",
        {"question": "Where?", "choices": {"label": ["A", "B"], "text": ["here", "there"]}, "answerKey": "B"},
        {"question": "Where?\nChoices:\nA. here\nB. there", "answer": "B"},
    ),
    (
        "coin_flip",
        {"inputs": "Q: A coin is heads up. al flips the coin. bo flips the coin.", "targets": "yes"},
        {"question": "Q: A coin is heads up. al flips the coin. bo flips the coin.", "answer": "yes"},
    ),
]
ALL_FORMATS = pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])


class TestFiles:
    @ALL_FORMATS
    def test_every_format_gives_the_same_problems(self, tmp_path, suffix):
        loaded = load_problems(write(tmp_path / f"own{suffix}", RECORDS))
        assert loaded.column_names == list(COLUMNS)
        assert loaded.to_list() == LOADED

    @ALL_FORMATS
    def test_query_is_taken_for_question_and_missing_reasoning_is_empty(self, tmp_path, suffix):
        file = write(tmp_path / f"own{suffix}", [{"query": "One and one?", "answer": "2", "full_answer": "Two."}])
        assert load_problems(str(file)).to_list() == [
            {"question": "One and one?", "reasoning": "", "condensed_reasoning": "", "answer": "2"}
        ]
        both = write(tmp_path / f"both{suffix}", [{"query": "SELECT 1", "question": "One and one?", "answer": "2"}])
        assert load_problems(both)["question"][:] == ["One and one?"]

    @ALL_FORMATS
    @pytest.mark.parametrize("column, value", [("answer", None), ("answer", "  "), ("question", "")])
    def test_a_record_without_question_or_answer_is_refused_with_its_place(self, tmp_path, suffix, column, value):
        file = write(tmp_path / f"own{suffix}", [*RECORDS, {**RECORDS[1], column: value}])
        place = {".json": "record 3", ".jsonl": "line 3", ".csv": "line 4", ".parquet": "row 3"}[suffix]
        with pytest.raises(ValueError, match=rf"own{suffix}, {place}: there is no {column}; fill it in or remove"):
            load_problems(file)

    @ALL_FORMATS
    def test_missing_column(self, tmp_path, suffix):
        file = write(tmp_path / f"own{suffix}", [{"question": "One and one?", "solution": "2"}])
        with pytest.raises(ValueError, match=r"there is no answer.*its columns: question, solution"):
            load_problems(file)

    def test_numbers_become_text(self, tmp_path):
        answers = [72, 72.0, -3, 0.5, 0, "72.0", "1,000"]
        file = write(tmp_path / "own.json", [{"question": "How many?", "answer": answer} for answer in answers])
        assert load_problems(file)["answer"][:] == ["72", "72", "-3", "0.5", "0", "72.0", "1,000"]

    @pytest.mark.parametrize(
        "dtype, answers, texts",
        [
            (pa.float64(), [0.4, 72.0, 0.1 + 0.2], ["0.4", "72", "0.30000000000000004"]),
            (pa.float32(), [0.4, 72.0, 33554436.0, -0.1], ["0.4", "72", "33554436", "-0.1"]),
            (pa.float16(), [0.4, 72.0, 65504.0], ["0.4", "72", "65504"]),
            (pa.decimal128(6, 2), [Decimal("7.50"), Decimal("72.00"), Decimal("-0.05")], ["7.5", "72", "-0.05"]),
            (pa.decimal128(6, 0), [Decimal("7200"), Decimal("0")], ["7200", "0"]),
            (pa.decimal128(38, 8), [Decimal(f"{10**29}.5"), Decimal("0.00000001")], [f"{10**29}.5", "0.00000001"]),
        ],
        ids=str,
    )
    def test_parquet_numbers_are_written_as_short_as_they_are_meant(self, tmp_path, dtype, answers, texts):
        columns = {"question": ["How many?"] * len(answers), "answer": pa.array(answers, dtype)}
        parquet.write_table(pa.table(columns), tmp_path / "own.parquet")
        assert load_problems(tmp_path / "own.parquet")["answer"][:] == texts

    def test_an_empty_number_is_no_answer(self, tmp_path):
        file = tmp_path / "own.parquet"
        for dtype, nothing in ((pa.float64(), float("nan")), (pa.float32(), float("nan")), (pa.float32(), None)):
            columns = {"question": ["How many?", "And?"], "answer": pa.array([1.0, nothing], dtype)}
            parquet.write_table(pa.table(columns), file)
            with pytest.raises(ValueError, match="row 2: there is no answer"):
                load_problems(file)

    def test_lines_in_quoted_csv_cells_count(self, tmp_path):
        file = tmp_path / "own.csv"
        file.write_text('question,answer\n"Which?\nA. this\nB. that",A\nWhat?,\n')
        with pytest.raises(ValueError, match="line 5: there is no answer"):
            load_problems(file)
        file.write_text('question,answer\nWhat?,A\n"Which?\nA. this\nB. that",\n')
        with pytest.raises(ValueError, match="line 3: there is no answer"):
            load_problems(file)

    def test_a_long_reasoning_in_a_csv_cell(self, tmp_path):
        file = write(tmp_path / "own.csv", [{"question": "What?", "reasoning": "so " * 100_000 + "on", "answer": "A"}])
        assert len(load_problems(file)["reasoning"][0]) == 300_002

    def test_byte_order_mark(self, tmp_path):
        file = tmp_path / "own.csv"
        file.write_text("question,answer\nWhat?,A\n", encoding="utf-8-sig")
        assert load_problems(file)["question"][:] == ["What?"]

    @pytest.mark.parametrize(
        "name, content, message",
        [
            ("own.json", '{"question": "What?", "answer": "A"}', r"own.json must hold a list of objects, not a dict"),
            ("own.json", '["What?"]', r"own.json, record 1: must be an object .*not a str"),
            ("own.json", '[{"question": "What?", "answer": true}]', r"answer must be text or a number, not True"),
            (
                "own.json",
                '[{"question": "What?", "answer": "\\ud800"}]',
                r"record 1: answer holds half a char.*'\\ud800'",
            ),
            (
                "own.jsonl",
                '{"question": "\\udfff?", "answer": "A"}',
                r"own.jsonl, line 1: question holds half a character",
            ),
            ("own.json", "[{", r"own.json is not JSON: .*line 1"),
            ("own.json", "[]", r"own.json holds no problem"),
            ("own.jsonl", '{"question": "What?", "answer": "A"}\n{"question"\n', r"own.jsonl, line 2, is not JSON"),
            ("own.csv", "question,answer\nWhat, then?,A\n", r"own.csv, line 2, has more cells than the header"),
            ("own.csv", 'question,answer\nWhat?,A\nHow?,"B\nWhy?,C\n', r"own.csv, the record at line 3: .*Quote"),
            ("own.csv", "", r"own.csv holds no problem"),
            ("own.parquet", "question", r"own.parquet is not Parquet"),
            ("own.txt", "What?", r"own.txt' is no known data set \(multiarith, .*\.json, \.jsonl, \.csv, \.parquet"),
        ],
    )
    def test_bad_files(self, tmp_path, name, content, message):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            load_problems(tmp_path / name)

    def test_not_utf_8(self, tmp_path):
        (tmp_path / "own.csv").write_bytes(b"question,answer\ncaf\xe9?,A\n")
        with pytest.raises(ValueError, match="own.csv is not UTF-8"):
            load_problems(tmp_path / "own.csv")

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file .*none.json"):
            load_problems(tmp_path / "none.json")

    @ALL_FORMATS
    def test_what_no_output_could_be_judged_by_is_refused_with_its_place(self, tmp_path, suffix):
        file = write(tmp_path / f"own{suffix}", [*RECORDS, {**RECORDS[0], "answer": "a few"}])
        place = {".json": "record 3", ".jsonl": "line 3", ".csv": "line 4", ".parquet": "row 3"}[suffix]
        with pytest.raises(ValueError, match=rf"own{suffix}, {place}: The gold answer 'a few' is neither a number"):
            load_problems(file)
        for answer in ("18.0", "1,000", "$5", "3/4", "(B)", "Yes."):
            load_problems(write(tmp_path / f"own{suffix}", [{**RECORDS[0], "answer": answer}]))

    @pytest.mark.parametrize("column", COLUMNS)
    def test_a_thought_s_place_in_a_text_is_refused(self, tmp_path, column):
        file = write(tmp_path / "own.jsonl", [RECORDS[0], {**RECORDS[1], column: "So <thought> it is"}])
        with pytest.raises(ValueError, match=f"own.jsonl, line 2: {column} holds <thought>, .*; take it out"):
            load_problems(file)

    @pytest.mark.parametrize("column", ["reasoning", "condensed_reasoning"])
    @pytest.mark.parametrize(
        "told", ["<thought>\n2 + 3 = 5.\n</thought>", "<thought>2 + 3</thought> = <thought>5.</thought>"]
    )
    def test_tags_around_a_reasoning_are_passed_over(self, tmp_path, column, told):
        file = write(tmp_path / "own.jsonl", [{**RECORDS[0], column: told}])
        assert load_problems(file)[column][:] == ["2 + 3 = 5."]

    @ALL_FORMATS
    @pytest.mark.parametrize("name, row, problem", PUBLISHED, ids=[name for name, *_ in PUBLISHED])
    def test_the_named_sets_own_records(self, tmp_path, suffix, name, row, problem):
        if suffix == ".csv" and any(not isinstance(value, str) for value in row.values()):
            return  # no cell holds a list
        file = tmp_path / f"own{suffix}"
        if suffix == ".parquet":
            Dataset.from_list([row]).to_parquet(file)
        else:
            write(file, [row])
        expected = {"reasoning": "", "condensed_reasoning": "", **problem}
        assert load_problems(file).to_list() == [expected]
        write(tmp_path / "completed.jsonl", [{**row, **expected}])  # as condense leaves it
        assert load_problems(tmp_path / "completed.jsonl").to_list() == [expected]

    def test_a_named_set_s_record_that_is_broken(self, tmp_path):
        row = {"Body": "He has 8. ", "Question": "How many?", "Equation": "8", "Answer": "eight"}
        with pytest.raises(ValueError, match="own.json, record 1: cannot be read as the data set's record .*'eight'"):
            load_problems(write(tmp_path / "own.json", [row]))

    def test_the_first_so_many(self, tmp_path):
        file = write(tmp_path / "own.json", RECORDS)
        assert load_problems(file, num_samples=1).to_list() == LOADED[:1]
        assert len(load_problems(file, num_samples=9)) == 2
        with pytest.raises(ValueError, match="num_samples is 0"):
            load_problems(file, num_samples=0)


class TestNames:
    def test_unknown_name(self):
        with pytest.raises(ValueError, match="'multi_arith' is no known data set .*multiarith.*synthetic_coin_flip"):
            load_problems("multi_arith")

    def test_unknown_split(self):
        with pytest.raises(ValueError, match="'test'.*train, eval"):
            load_problems("synthetic_arithmetic", "test")

    @pytest.mark.parametrize(
        "name",
        [
            "synthetic_arithmetic",
            "synthetic_shapes",
            "synthetic_variations",
            "synthetic_expressions",
            "synthetic_sums",
            "synthetic_coin_flip",
        ],
    )
    def test_synthetic(self, name):
        assert len(load_problems(name)) == 1000
        drawn = load_problems(name, num_samples=50, seed=2)
        assert drawn.column_names == list(COLUMNS) and len(drawn) == 50
        assert drawn.to_list() == load_problems(name, num_samples=50, seed=2).to_list()
        assert not shared_questions(drawn, load_problems(name, "eval", num_samples=50, seed=2))

    def test_a_size_behind_a_synthetic_set_s_name(self):
        for name, column, mark, counts in (
            ("synthetic_arithmetic:3", "condensed_reasoning", "=", {3}),
            ("synthetic_expressions:1-2", "condensed_reasoning", "=", {1, 2}),
            ("synthetic_coin_flip:2", "question", "the coin.", {2}),
            ("synthetic_coin_flip:3-4", "question", "the coin.", {3, 4}),
        ):
            assert {text.count(mark) for text in load_problems(name, num_samples=50)[column]} == counts
        with pytest.raises(ValueError, match="steps is"):
            load_problems("synthetic_arithmetic:4")
        with pytest.raises(ValueError, match="no known data set"):
            load_problems("gsm8k:2")

    def test_folder_of_data_sets(self, tmp_path, monkeypatch):
        (tmp_path / "svamp").mkdir()
        write(tmp_path / "svamp" / "train.json", RECORDS)
        monkeypatch.setenv("SEMCOT_DATA_DIR", str(tmp_path))
        assert load_problems("svamp").to_list() == LOADED
        assert load_problems("svamp", num_samples=1).to_list() == LOADED[:1]
        with pytest.raises(FileNotFoundError, match=r"svamp \(eval\).*there is no .*eval.json.*ChilleD/SVAMP.*offline"):
            load_problems("svamp", "eval")
        (tmp_path / "gsm8k").mkdir()
        write(tmp_path / "gsm8k" / "train.json", [{**RECORDS[0], "reasoning": "2 + 3 = <<2+3=5>>5."}])
        assert load_problems("gsm8k").to_list() == LOADED[:1]

    @pytest.mark.parametrize(
        ("annotations", "condensed"),
        [
            ("<<100-50-15=35>>", "100 - 50 = 50, 50 - 15 = 35"),
            ("<<$1,200/100=12>> <<12*25%=3>>", "1200 / 100 = 12, 12 * 25 = 300, 300 / 100 = 3"),
            ("<<12/60=0.2>> <<0.20*50=10.00>>", "12 / 60 = 0.2, 0.2 * 50 = 10"),
            ("<<7=7>> <<7x2=14>>", "7 * 2 = 14"),
            ("<<2+3=5>> <<10/3=3.33>>", ""),
            ("<<2+3=5>> <<a+3=5>>", ""),
            ("<<2+3=5>> <<5/0=0>>", ""),
            ("2 + 3 = 5", ""),
        ],
    )
    def test_annotations_are_the_condensed_reasoning_of_a_record_without_one(self, tmp_path, annotations, condensed):
        write(tmp_path / "own.json", [{"question": "How many?", "reasoning": annotations, "answer": "5"}])
        assert load_problems(tmp_path / "own.json")["condensed_reasoning"] == [condensed]

    def test_neither_folder_nor_hub(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gsm8k").mkdir()
        write(tmp_path / "gsm8k" / "train.json", RECORDS)  # in no folder that SEMCOT_DATA_DIR names
        with pytest.raises(FileNotFoundError, match="SEMCOT_DATA_DIR is not set.*openai/gsm8k.*Go online, or set"):
            load_problems("gsm8k")

    @pytest.mark.parametrize(
        "name, split, asked, form",
        [
            ("multiarith", "eval", ("ChilleD/MultiArith", None, "test"), "multiarith on the Hub"),
            ("gsm8k", "train", ("openai/gsm8k", "main", "train"), "gsm8k"),
            ("svamp", "train", ("ChilleD/SVAMP", None, "train"), "svamp"),
            ("commonsense_qa", "eval", ("tau/commonsense_qa", None, "validation"), "commonsense_qa on the Hub"),
            ("coin_flip", "train", ("skrishna/coin_flip", None, "train"), "coin_flip"),
        ],
    )
    def test_from_the_hub(self, monkeypatch, name, split, asked, form):
        calls = []
        row, problem = next(rest for title, *rest in PUBLISHED if title == form)

        def load_dataset(path, config, split):
            calls.append((path, config, split))
            return Dataset.from_list([row])

        monkeypatch.setattr(problems, "load_dataset", load_dataset)
        assert load_problems(name, split).to_list() == [{"reasoning": "", "condensed_reasoning": "", **problem}]
        assert calls == [asked]

    def test_coin_flips_from_the_hub_have_two_people_in_train_and_four_in_eval(self, monkeypatch):
        rows = [{"inputs": "Q: Heads. " + "al flips the coin. " * people, "targets": "yes"} for people in (1, 2, 3, 4)]
        monkeypatch.setattr(problems, "load_dataset", lambda *_, **__: Dataset.from_list(rows))
        for split, people in (("train", 2), ("eval", 4)):
            assert [q.count("flips") for q in load_problems("coin_flip", split)["question"]] == [people]
        del rows[3]
        with pytest.raises(ValueError, match="no problem with 4 people"):
            load_problems("coin_flip", "eval")


class TestSplits:
    def test_validation_by_template_shares_no_wording_with_training(self):
        rows = [
            {"question": f"{name} has {number} {thing}. How many?", "answer": str(number)}
            for thing in ("pens", "cups", "hats", "cars", "keys", "maps", "nuts", "eggs", "jars", "toys")
            for name, number in (("Amy", 3), ("Bob", 50), ("Zed", 7.5), ("Eve", 8), ("Ned", 1200))
        ]
        train, validation = split_validation(Dataset.from_list(rows), 0.2, seed=1, by_template=True)
        assert len(train) == 40 and len(validation) == 10
        assert not set(map(masked, train["question"])) & set(map(masked, validation["question"]))
        again = split_validation(Dataset.from_list(rows), 0.2, seed=2, by_template=True)[1]
        assert again.to_list() != validation.to_list()
        parted = {masked(question): part is validation for part in (train, validation) for question in part["question"]}
        again = split_validation(Dataset.from_list(rows[5:]), 0.2, seed=2, by_template=True, parted=parted)[1]
        assert set(again["question"]) == set(validation["question"]) - {row["question"] for row in rows[:5]}
        uneven = Dataset.from_list(rows[:5] * 20 + rows[5:10] * 5)
        with pytest.warns(UserWarning, match="125 problems have 2 templates, none of so few .* shares them with train"):
            train, validation = split_validation(uneven, 0.1, seed=0, by_template=True)
        assert len(validation) == 13 and set(map(masked, validation["question"])) <= set(map(masked, train["question"]))
        uneven = Dataset.from_list(rows[:5] * 20 + rows[5:])
        sizes = {len(split_validation(uneven, 0.1, seed=seed, by_template=True)[1]) for seed in range(5)}
        assert sizes == {15}, "a template that is too large is passed over"

    def test_validation_is_a_part_and_the_same_each_time(self):
        problems = load_problems("synthetic_coin_flip", num_samples=100)
        train, validation = split_validation(problems, 0.1, seed=3)
        assert (len(train), len(validation)) == (90, 10)
        assert set(train["question"]) | set(validation["question"]) == set(problems["question"])
        again = split_validation(problems, 0.1, seed=3)[1]
        assert validation.to_list() == again.to_list() != split_validation(problems, 0.1, seed=4)[1].to_list()

    @pytest.mark.parametrize("count, fraction", [(10, 0), (10, 1), (10, 5), (1, 0.1), (5, 0.9), (0, 0.1)])
    def test_both_parts_need_a_share(self, count, fraction):
        problems = load_problems("synthetic_coin_flip", num_samples=10).select(range(count))
        with pytest.raises(ValueError, match=f"^{count} problems cannot be parted .*_fraction {fraction}: .*more data"):
            split_validation(problems, fraction, seed=0)

    def test_two_problems_are_enough(self):
        parts = split_validation(load_problems("synthetic_coin_flip", num_samples=2), 0.1, seed=0)
        assert [len(part) for part in parts] == [1, 1]

    def test_overlap_ignores_case_and_white_space(self):
        train = Dataset.from_dict({"question": ["How  many are\nleft?", "What?", "who?"]})
        evaluation = Dataset.from_dict({"question": ["how many are left?", "WHO?", "When?"]})
        shared = shared_questions(train, evaluation)
        assert shared == {"how many are left?", "who?"}
        assert without(train, shared)["question"][:] == ["What?"]
        assert without(evaluation, ["WHEN? "])["question"][:] == ["how many are left?", "WHO?"]
        assert len(without(train, set())) == 3

    @pytest.mark.parametrize("column", COLUMNS)
    def test_a_fingerprint_is_of_every_column_and_of_the_order(self, column):
        problems = Dataset.from_list(LOADED)
        other = Dataset.from_list([LOADED[0], {**LOADED[1], column: "other"}])
        assert len({fingerprint(part) for part in (problems, other, problems.select([1, 0]))}) == 3


class TestRealFiles:
    @needs("multiarith/eval.json")
    def test_six_of_180_multiarith_evaluation_questions_stand_in_train(self, monkeypatch):
        monkeypatch.setenv("SEMCOT_DATA_DIR", str(DATA))
        train, evaluation = load_problems("multiarith"), load_problems("multiarith", "eval")
        assert (len(train), len(evaluation)) == (420, 180)
        shared = shared_questions(train, evaluation)
        assert sum(" ".join(question.lower().split()) in shared for question in evaluation["question"]) == 6
        assert not shared_questions(without(train, shared), evaluation)

    @needs("coin_flip/eval.json")
    def test_coin_flip_has_two_people_in_train_and_four_in_eval(self, monkeypatch):
        monkeypatch.setenv("SEMCOT_DATA_DIR", str(DATA))
        for split, people in problems.COIN_FLIP_PEOPLE.items():
            flips = load_problems("coin_flip", split)
            assert {question.count("the coin.") for question in flips["question"]} == {people}
            assert set(flips["answer"]) == {"yes", "no"}

    @needs("gsm8k_full/train.jsonl")
    def test_gsm8k_s_own_file(self):
        problems = load_problems(DATA / "gsm8k_full" / "train.jsonl")
        assert len(problems) == 7473 and problems["answer"][:3] == ["72", "10", "5"]
        assert all(problems["reasoning"]) and not any(re.search("<<|####", text) for text in problems["reasoning"])

    @pytest.mark.parametrize(
        "name", [pytest.param(name, marks=needs(f"{name}/train.json")) for name in ("gsm8k", "svamp", "commonsense_qa")]
    )
    def test_train_files(self, monkeypatch, name):
        monkeypatch.setenv("SEMCOT_DATA_DIR", str(DATA))
        problems = load_problems(name)
        assert len(problems) >= 700
        assert not any("<<" in reasoning for reasoning in problems["reasoning"])
