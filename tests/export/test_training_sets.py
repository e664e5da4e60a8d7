"""Training sets: which rows votes make, which they must not, and that each says where it comes from."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from exported import SETS, jsonl, provenance, rows
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Retrieval
from rag_flywheel.errors import InputError
from rag_flywheel.export.graded import split_of
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.rank.raters import FILE_NAME, RaterWeight, load_raters, save_raters
from rag_flywheel.records import ImportedVote, TrainingSet, Verdict
from rag_flywheel.store.passages import query_digest

TEXTS = {
    "reset": "open settings and press reset to get a new password",
    "secret": "the account page changes the login secret password",
    "refund": "refunds are paid within thirty days",
    "cats": "kittens sleep most of the day",
}


@pytest.fixture
def desk(fw: Flywheel) -> Flywheel:
    fw.add([Passage(id_, text, "Policy" if id_ == "refund" else "") for id_, text in TEXTS.items()])
    return fw


def words(id_: str) -> str:
    return f"Policy {TEXTS[id_]}" if id_ == "refund" else TEXTS[id_]


def vote(
    fw: Flywheel, query: str, verdicts: dict[tuple[str | None, str], Verdict], **named: Any
) -> Retrieval:
    shown = fw.retrieve(query, k=20, **named)
    for (user, passage), verdict in verdicts.items():
        fw.feedback(shown.id, passage, verdict, user_id=user, **named)
    return shown


def made(fw: Flywheel, kind: TrainingSet, folder: Path, **options: Any) -> list[tuple[Any, ...]]:
    """The values of the rows of a new set, in the order of the columns."""
    fw.export.training_set(kind, folder, **options)
    return [tuple(row.values()) for row in rows(folder)]


def above(shown: Retrieval, passage: str) -> list[str]:
    ids = [hit.passage_id for hit in shown.hits]
    return ids[: ids.index(passage)]


def test_what_stood_above_the_answer_and_was_not_liked_is_a_hard_negative(
    desk: Flywheel, tmp_path: Path
) -> None:
    shown = vote(desk, "new password", {})
    liked, *_, last = (hit.passage_id for hit in shown.hits)
    desk.feedback(shown.id, last, "helpful", user_id="ann")
    desk.feedback(shown.id, liked, "helpful", user_id="bob")
    desk.feedback(shown.id, liked, "harmful", user_id="cid")  # about even: neither right nor wrong
    passed = [i for i in above(shown, last) if i != liked]
    assert made(desk, "triplets", tmp_path / "t") == [
        ("new password", words(last), words(wrong)) for wrong in passed
    ]
    where = provenance(tmp_path / "t")
    assert [(w["passage_ids"], w["source"]) for w in where] == [
        ([last, wrong], "shown_above") for wrong in passed
    ]
    assert all(w["retrieval_ids"] == [shown.id] and w["people"] == 1 for w in where)


def test_what_votes_call_harmful_comes_before_what_was_passed_over(
    desk: Flywheel, tmp_path: Path
) -> None:
    shown = vote(desk, "new password", {})
    *higher, answer, low = [hit.passage_id for hit in shown.hits]
    for user in ("ann", "bob"):
        desk.feedback(shown.id, answer, "helpful", user_id=user)
        desk.feedback(shown.id, low, "harmful", user_id=user)
    found = made(desk, "triplets", tmp_path / "t", most_negatives=2)
    assert found == [("new password", words(answer), words(wrong)) for wrong in (low, higher[0])]
    assert [w["source"] for w in provenance(tmp_path / "t")] == ["voted_harmful", "shown_above"]
    assert [w["people"] for w in provenance(tmp_path / "t")] == [2, 2]
    labeled = made(desk, "labeled-pairs", tmp_path / "l")
    assert labeled == [
        ("new password", words(answer), 1),
        ("new password", words(low), 0),
        *(("new password", words(wrong), 0) for wrong in higher),
    ]
    assert made(desk, "pairs", tmp_path / "p") == [("new password", words(answer))]
    assert made(desk, "preferences", tmp_path / "f") == [
        ("new password", words(answer), words(low))
    ]


def test_one_question_in_many_spellings_is_one_row_in_the_first_of_them(
    desk: Flywheel, tmp_path: Path
) -> None:
    for n, query in enumerate(["Wie geht’s?", "  wie   GEHT’S", "ｗｉｅ geht’s!?", "WIE GEHT’S."]):
        vote(desk, query, {(f"u{n}", "reset"): "helpful", (f"u{n}", "cats"): "harmful"})
    assert made(desk, "pairs", tmp_path / "p") == [("Wie geht’s?", words("reset"))]
    (where,) = provenance(tmp_path / "p")
    assert where["people"] == 4 and len(where["retrieval_ids"]) == 4
    assert made(desk, "pairs", tmp_path / "q", min_people=4) == [("Wie geht’s?", words("reset"))]
    assert made(desk, "pairs", tmp_path / "r", min_people=5) == []


def test_passages_under_many_ids_or_with_the_same_words_are_one(
    desk: Flywheel, tmp_path: Path
) -> None:
    desk.add([Passage("copy", TEXTS["reset"]), Passage("shout", f"  {TEXTS['reset'].upper()}!")])
    shown = vote(desk, "password", {("bob", "cats"): "helpful"})
    (either,) = {"copy", "reset", "shout"} & {hit.passage_id for hit in shown.hits}
    desk.feedback(shown.id, either, "helpful", user_id="ann")
    pairs = made(desk, "pairs", tmp_path / "p")
    assert len({text.strip(" !").lower() for _, text in pairs}) == len(pairs) == 2
    negatives = {
        negative.strip(" !").lower() for _, _, negative in made(desk, "triplets", tmp_path / "t")
    }
    assert TEXTS["reset"] not in negatives


def test_no_row_is_of_a_text_that_was_removed_or_reworded(desk: Flywheel, tmp_path: Path) -> None:
    shown = vote(
        desk,
        "password",
        {("ann", "reset"): "helpful", ("ann", "secret"): "helpful", ("ann", "cats"): "harmful"},
    )
    desk.answer(str(shown.id), "From the reset page.")
    desk.answer_feedback(shown.id, "helpful", cited=["reset"], user_id="ann")
    desk.answer_feedback(shown.id, "helpful", cited=["reset"], user_id="bob")
    desk.correct(shown.id, text="a better answer", user_id="ann")
    (note,) = (i for i in desk.review.items() if not i.passage_id)
    became = desk.review.accept(note.id)
    assert made(desk, "kto", tmp_path / "k") and made(desk, "dpo", tmp_path / "d")
    desk.remove(["reset", str(became)])
    desk.add([Passage("cats", "quite another text about dogs")])
    for kind in SETS:
        report = desk.export.training_set(kind, tmp_path / kind)  # type: ignore[arg-type]
        text = "".join(p.read_text() for p in (tmp_path / kind).rglob("*.jsonl"))
        assert TEXTS["reset"] not in text and TEXTS["cats"] not in text, kind
        assert "From the reset" not in text.replace('"response": "From the reset page."', ""), kind
        assert any("no more" in why for why in report.left_out), kind
    assert rows(tmp_path / "pairs") == [{"anchor": "password", "positive": words("secret")}]
    assert rows(tmp_path / "kto") == rows(tmp_path / "dpo") == []


def weigh(fw: Flywheel, weights: dict[str, float]) -> None:
    """Let the live version weigh these users so."""
    version = fw.status().version
    assert version is not None
    folder = Path(fw.status().path) / "versions" / version
    raters = {str(fw.hashed_user(u)): RaterWeight(w, 0.5) for u, w in weights.items()}
    save_raters(load_raters(folder) | raters, folder)
    assert (folder / FILE_NAME).exists()


@pytest.mark.parametrize("how", ["weight", "little weight", "trust", "muted", "few"])
@pytest.mark.parametrize("kind", [k for k in SETS if k != "dpo"])
def test_votes_that_are_not_believed_make_no_row(
    kind: TrainingSet, how: str, tmp_path: Path
) -> None:
    """A hundred votes of one who is not believed; of the others nothing."""
    config = Config(encoder="", memory_min_users=2 if how == "few" else 1)
    trust = 0.0 if how == "trust" else 1.0
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config, trust=trust) as fw:
        fw.add([Passage(id_, text) for id_, text in TEXTS.items()])
        shown = vote(fw, "password", {("eve", "reset"): "helpful", ("eve", "cats"): "harmful"})
        fw.answer(str(shown.id), "an answer")
        fw.answer_feedback(shown.id, "helpful", user_id="eve")
        if how == "few":
            assert made(fw, kind, tmp_path / "one") == []
            vote(fw, "password", {("ann", "reset"): "helpful"})
            fw.answer_feedback(shown.id, "helpful", user_id="ann")
            assert made(fw, kind, tmp_path / "two")
            return
        if how == "muted":
            assert made(fw, kind, tmp_path / "heard")
            fw.mute("eve")
        fw.refresh()
        if "weight" in how:
            weigh(fw, {"eve": 0.0 if how == "weight" else 0.3})
        assert made(fw, kind, tmp_path / "none") == []


def test_verdicts_of_language_models_alone_make_no_row(desk: Flywheel, tmp_path: Path) -> None:
    shown = vote(desk, "password", {})
    judged = [
        ImportedVote(f"{n}-{p}", str(shown.id), verdict, p, kind="judge", user_id=f"model-{n}")
        for n in range(4)
        for p, verdict in (("reset", "helpful"), ("cats", "harmful"))
    ]
    assert desk.import_votes(judged).votes == {"judge": 8}
    judgments = {j.passage_id: j.helpful - j.harmful for j in desk.judgments()}
    assert judgments["reset"] > 0.5 and judgments["cats"] < -0.5  # more than half a vote
    assert made(desk, "labeled-pairs", tmp_path / "models") == []
    desk.feedback(shown.id, "reset", "helpful", user_id="ann")
    assert made(desk, "labeled-pairs", tmp_path / "ann") == [("password", words("reset"), 1)]
    assert [w["people"] for w in provenance(tmp_path / "ann")] == [1]


def test_a_text_that_a_liar_likes_is_no_negative_either(desk: Flywheel, tmp_path: Path) -> None:
    shown = vote(desk, "new password", {})
    first, *_, last = [hit.passage_id for hit in shown.hits]
    desk.feedback(shown.id, last, "helpful", user_id="ann")
    desk.feedback(shown.id, first, "helpful", user_id="eve")
    desk.refresh()
    weigh(desk, {"eve": 0.0})
    found = made(desk, "triplets", tmp_path / "t")
    assert found and words(first) not in {text for _, *texts in found for text in texts}


def test_what_is_known_for_certain_outweighs_votes(desk: Flywheel, tmp_path: Path) -> None:
    shown = vote(desk, "password", {("ann", "reset"): "helpful", ("ann", "cats"): "harmful"})
    desk.golden.add_answers([("password", "reset", 0), ("password", "cats", 1)])
    report = desk.export.training_set("labeled-pairs", tmp_path / "l")
    assert rows(tmp_path / "l") == []
    assert report.left_out == {"judgments that a known answer or a reviewer contradicts": 2}
    desk.feedback(shown.id, [h.passage_id for h in shown.hits][-1], "helpful", user_id="bob")
    texts = [text for _, *some in made(desk, "triplets", tmp_path / "t") for text in some]
    assert words("cats") not in texts[1::2]  # which is known to be right: no negative


def test_tenants_have_rows_of_their_own_and_none_where_they_disagree(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        texts = {"same": "the very same words", "own": "words of", "other": "kittens sleep"}
        for team in ("a", "b"):
            more = {"same": "", "own": f" {team}", "other": ""}
            fw.add(
                [
                    Passage(f"{team}-{n}", t + more[n], metadata={"team": team})
                    for n, t in texts.items()
                ]
            )
            verdict: Verdict = "helpful" if team == "a" else "harmful"
            vote(
                fw,
                "which words",
                {(f"u{team}", f"{team}-same"): verdict, (f"u{team}", f"{team}-own"): "helpful"},
                tenant=team,
            )
        for team in ("a", "b"):
            own = made(fw, "pairs", tmp_path / f"p{team}", tenant=team)
            assert ("which words", f"words of {team}") in own
            assert not any(text.endswith(" b" if team == "a" else " a") for _, text in own)
            assert {w["tenant"] for w in provenance(tmp_path / f"p{team}")} == {f'"{team}"'}
        report = fw.export.training_set("labeled-pairs", tmp_path / "all", all_tenants=True)
        found = rows(tmp_path / "all")
        assert report.left_out["texts on which tenants disagree"] == 1
        assert "the very same words" not in {row["passage"] for row in found}
        assert {r["passage"] for r in found if r["label"]} == {"words of a", "words of b"}
        wrong = [r for r in found if r["passage"] == "kittens sleep"]
        assert len(wrong) <= 1  # once, though both tenants have it
        with pytest.raises(InputError, match="no tenant is named"):
            fw.export.training_set("pairs", tmp_path / "none")


@pytest.fixture
def many(desk: Flywheel) -> Iterator[Flywheel]:
    for n in range(40):
        shown = vote(
            desk,
            f"question number {n}",
            {(f"u{n}", "reset"): "helpful", (f"u{n}", "cats"): "harmful"},
        )
        desk.answer(str(shown.id), f"answer {n}")
        desk.answer_feedback(shown.id, "helpful" if n % 2 else "harmful", user_id=f"u{n}")
    yield desk


def test_questions_are_in_the_splits_in_which_a_beir_folder_has_them(
    many: Flywheel, tmp_path: Path
) -> None:
    many.export.beir(tmp_path / "beir")
    expected = {
        query: name
        for name, split in read_beir(tmp_path / "beir").splits.items()
        for query in split.queries.values()
    }
    for kind, column in (("pairs", "anchor"), ("kto", "prompt"), ("evaluation", "user_input")):
        many.export.training_set(kind, tmp_path / kind)  # type: ignore[arg-type]
        found = {
            row[column]: split
            for split in ("train", "dev", "test")
            for row in jsonl(tmp_path / kind / f"{split}.jsonl")
        }
        assert found == expected
        assert all(split_of(query_digest(query)) == split for query, split in found.items())


def test_the_manifest_counts_and_names_the_content(many: Flywheel, tmp_path: Path) -> None:
    report = many.export.training_set("triplets", tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["version"] == report.version and re.fullmatch(
        "[0-9a-f]{16}", str(report.version)
    )
    assert manifest["columns"] == ["anchor", "positive", "negative"]
    assert {s: f["rows"] for s, f in manifest["splits"].items()} == report.written
    for split in manifest["splits"].values():
        for name, file in split["files"].items():
            data = (tmp_path / "a" / name).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["bytes"])
    assert manifest["last_event"] == max(v.number for v in many.votes(1))
    again = many.export.training_set("triplets", tmp_path / "b")
    assert again.version == report.version
    others = {
        many.export.training_set("pairs", tmp_path / "c").version,
        many.export.training_set("triplets", tmp_path / "d", most_negatives=1).version,
        report.version,
    }
    vote(many, "one more", {("u", "reset"): "helpful", ("u", "cats"): "harmful"})
    others.add(many.export.training_set("triplets", tmp_path / "e").version)
    assert len(others) == 4
    card = (tmp_path / "a" / "README.md").read_text()
    for split, n in report.written.items():
        assert f"| `{split}.jsonl` | {n} |" in card


@pytest.mark.parametrize("kind", SETS)
def test_the_same_rows_have_the_same_version_in_whatever_format(
    many: Flywheel, kind: TrainingSet, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    report = many.export.training_set(kind, tmp_path / "j")
    other = many.export.training_set(kind, tmp_path / "p", file_format="parquet")
    assert (other.version, other.written) == (report.version, report.written)
    for split, n in report.written.items():
        lines = jsonl(tmp_path / "j" / f"{split}.jsonl")
        found = parquet.read_table(tmp_path / "p" / f"{split}.parquet").to_pylist()
        assert found == lines and len(lines) == n
        where = parquet.read_table(tmp_path / "p" / "provenance" / f"{split}.parquet")
        assert where.num_rows == n


def test_every_row_has_a_line_of_provenance_whose_retrievals_say_so(
    many: Flywheel, tmp_path: Path
) -> None:
    votes = {(v.retrieval_id, v.passage_id): v for v in many.votes(1000)}
    many.export.training_set("pairs", tmp_path / "p")
    for row, where in zip(rows(tmp_path / "p"), provenance(tmp_path / "p"), strict=True):
        (retrieval,) = where["retrieval_ids"]
        assert many.retrieval(retrieval).query == row["anchor"]
        said = votes[retrieval, where["passage_ids"][0]]
        assert said.verdict == "helpful" and where["first"] == where["last"] == said.at
        assert where["question_id"] == query_digest(row["anchor"]).hex()


def test_answers_that_people_judged_are_rows_for_kto(desk: Flywheel, tmp_path: Path) -> None:
    first = vote(desk, "password", {})
    again = vote(desk, "Password?", {})
    for shown, answer in ((first, "Press reset."), (again, "Press reset.")):
        desk.answer(str(shown.id), answer)
        desk.answer_feedback(
            shown.id, "helpful", user_id="ann"
        )  # one voice, though she says it twice
    desk.answer_feedback(again.id, "harmful", user_id="bob")
    assert made(desk, "kto", tmp_path / "even") == []
    desk.answer_feedback(again.id, "retract", user_id="bob")
    desk.answer_feedback(first.id, "helpful", user_id="cid")
    other = vote(desk, "password", {})
    desk.answer(str(other.id), "Ask the cats.")
    desk.answer_feedback(other.id, "harmful", cited=[], user_id="dan")
    assert made(desk, "kto", tmp_path / "k") == [
        ("password", "Ask the cats.", False),
        ("password", "Press reset.", True),
    ]
    assert [w["people"] for w in provenance(tmp_path / "k")] == [1, 2]


def test_corrections_are_rows_for_dpo_once_they_were_accepted(
    desk: Flywheel, tmp_path: Path
) -> None:
    for n in range(4):
        shown = vote(desk, f"question {n}", {})
        if n != 3:
            desk.answer(str(shown.id), f"answer {n}")
        desk.correct(shown.id, text=f"better {n}", user_id="eve" if n == 2 else "ann")
    items = {i.text: i.id for i in desk.review.items() if not i.passage_id}
    desk.review.accept(items["better 0"], text="as the reviewer has it")
    desk.review.accept(items["better 3"])
    assert made(desk, "dpo", tmp_path / "d") == [
        ("question 0", "as the reviewer has it", "answer 0")
    ]
    assert [w["source"] for w in provenance(tmp_path / "d")] == ["reviewed"]
    desk.refresh()
    weigh(desk, {"eve": 0.2})
    found = made(desk, "dpo", tmp_path / "u", unreviewed=True)
    assert sorted(found) == [
        ("question 0", "as the reviewer has it", "answer 0"),
        ("question 1", "better 1", "answer 1"),
    ]
    desk.review.reject(items["better 1"])
    assert len(made(desk, "dpo", tmp_path / "r", unreviewed=True)) == 1


def test_evaluation_rows_say_what_was_found_and_what_should_have_been(
    desk: Flywheel, tmp_path: Path
) -> None:
    vote(desk, "password", {("ann", "reset"): "helpful"})
    shown = vote(desk, "password", {("bob", "secret"): "helpful"})
    desk.answer(str(shown.id), "Press reset.")
    desk.answer_feedback(shown.id, "helpful", user_id="ann")
    (row,) = made(desk, "evaluation", tmp_path / "e")
    newest = [hit.passage_id for hit in shown.hits]
    assert row == (
        "password",
        [words(i) for i in newest],
        newest,
        [words("reset"), words("secret")],
        ["reset", "secret"],
        "Press reset.",
        "Press reset.",
    )
    desk.correct(shown.id, text="Better press reset.", user_id="ann")
    (note,) = (i for i in desk.review.items() if not i.passage_id)
    desk.review.accept(note.id)
    assert made(desk, "evaluation", tmp_path / "f")[0][-1] == "Better press reset."


def test_votes_that_a_rollback_holds_back_are_not_in_it(desk: Flywheel, tmp_path: Path) -> None:
    vote(desk, "before", {("ann", "reset"): "helpful"})
    version = desk.refresh().version
    vote(desk, "after", {("ann", "reset"): "helpful"})
    desk.refresh()
    desk.rollback(version)
    assert made(desk, "pairs", tmp_path / "held") == [("before", words("reset"))]
    desk.release()
    assert len(made(desk, "pairs", tmp_path / "all")) == 2


def test_an_empty_set_has_one_empty_split(desk: Flywheel, tmp_path: Path) -> None:
    report = desk.export.training_set("pairs", tmp_path / "p")
    assert report.written == {"train": 0} and (tmp_path / "p" / "train.jsonl").read_bytes() == b""
    assert asdict(report)["left_out"] == {}
    for kind, file_format, words_ in (
        ("nothing", "jsonl", "kind is 'nothing'; expected one of pairs, triplets"),
        ("pairs", "csv", "file_format is 'csv'; expected one of jsonl, parquet"),
    ):
        with pytest.raises(InputError, match=words_):
            desk.export.training_set(kind, tmp_path / "x", file_format=file_format)  # type: ignore[arg-type]
    for name in ("min_people", "most_negatives"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            desk.export.training_set("pairs", tmp_path / "x", **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is not empty"):
        desk.export.training_set("pairs", tmp_path / "p")
