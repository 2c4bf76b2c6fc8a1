"""The demo zoo: a right world, tasks that do not leak, and a folder one can trust."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_zoo import tiny

from evo.zoo import world
from evo.zoo.build import build
from evo.zoo.tasks import SkillVariant, parse_mix, write_task

SPLITS = tuple(world.SPLITS)


# --- the world


def test_every_input_is_in_exactly_one_split() -> None:
    everything = [x for split in SPLITS for x in world.inputs(split)]
    assert sorted(everything) == sorted(itertools.product(range(10), repeat=4))


def test_the_splits_never_change() -> None:
    first = {split: "".join(map(str, world.inputs(split)[0])) for split in SPLITS}
    assert first == {"train": "6130", "dev": "5060", "select": "6140", "test": "5766"}


def oracle(skill: str, s: str) -> str:
    """The skills once more, on strings and by other means than the world's."""
    pairs = [(int(s[0]), int(s[2])), (int(s[1]), int(s[3]))]
    up = str.maketrans("0123456789", "1234567890")
    down = str.maketrans("1234567890", "0123456789")
    answers = {
        "copy": s,
        "rev": "".join(reversed(s)),
        "rot": s[1:] + s[:1],
        "swap": re.sub(r"(.)(.)", r"\2\1", s),
        "sort": "".join(c * s.count(c) for c in "0123456789"),
        "desc": "".join(c * s.count(c) for c in "9876543210"),
        "succ": s.translate(up),
        "pred": s.translate(down),
        "max": next(c for c in "9876543210" if c in s),
        "min": next(c for c in "0123456789" if c in s),
        "even": str(len(re.findall("[02468]", s))),
        "pmax": "".join(str(a if a > b else b) for a, b in pairs),
        "pmin": "".join(str(b if a > b else a) for a, b in pairs),
        "padd": "".join(str(a + b)[-1] for a, b in pairs),
        "psub": "".join(str(a + 10 - b)[-1] for a, b in pairs),
    }
    return answers[skill]


@pytest.mark.parametrize("skill", world.SKILLS)
def test_answers_are_right_for_every_input(skill: str) -> None:
    for x in itertools.product(range(10), repeat=4):
        assert world.answer(skill, x) == oracle(skill, "".join(map(str, x)))


def test_alphabets_write_ten_digits_each_and_share_no_character() -> None:
    characters = "".join(world.ALPHABETS)
    assert len(set(characters)) == len(characters) == 30
    assert world.ALPHABETS[0] == "0123456789"
    assert world.prompt("swap", 0, (1, 2, 3, 4)) == "<swap>1234="


# --- tasks


def test_a_mix_reads_skills_and_alphabets() -> None:
    assert parse_mix("swap:1, pmax:1") == (SkillVariant("swap", 1), SkillVariant("pmax", 1))
    assert parse_mix("rev") == (SkillVariant("rev", 0),)


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ("swop:1", r"no skill 'swop'.*'swap'.*copy, rev"),
        ("swap:3", r"no alphabet '3'.*0, 1, 2"),
        ("swap:x", "no alphabet 'x'"),
        ("swap:", "no alphabet ''"),
        ("swap:1,", "empty entry"),
        ("", "empty entry"),
        ("swap:1,swap:1", "more than once"),
    ],
)
def test_a_wrong_mix_says_what_is_right(mix: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_mix(mix)


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain_input(row: Mapping[str, str]) -> str:
    """The digits of a prompt, whatever the alphabet it is written in."""
    written = row["prompt"].partition(">")[2].removesuffix("=")
    return "".join(str("".join(world.ALPHABETS).index(c) % 10) for c in written)


def test_a_task_is_deterministic_right_and_shares_no_input_between_splits(tmp_path: Path) -> None:
    mix = parse_mix("swap:1,pmax:0,sort:2")
    first = write_task(tmp_path / "a", mix, name="mine", seed=3)
    again = write_task(tmp_path / "b", mix, name="mine", seed=3)
    other = write_task(tmp_path / "c", mix, name="mine", seed=4)
    for split in first:
        assert first[split].read_bytes() == again[split].read_bytes()
        assert first[split].read_bytes() != other[split].read_bytes()

    rows = {split: read(path) for split, path in first.items()}
    assert {split: len(r) for split, r in rows.items()} == {"dev": 200, "select": 200, "test": 1000}
    asked = [plain_input(row) for split in rows.values() for row in split]
    assert len(set(asked)) == len(asked)
    assert not set(asked) & {"".join(map(str, x)) for x in world.inputs("train")}
    for row in itertools.chain(*rows.values()):
        skill = row["prompt"].partition(">")[0].removeprefix("<")
        assert row["answer"] == oracle(skill, plain_input(row))
    skills = [row["prompt"].partition(">")[0] for row in rows["dev"]]
    assert {skills.count(s) for s in ("<swap", "<pmax", "<sort")} == {66, 67}


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a.b", "a b", "ä"])
def test_a_task_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        write_task(tmp_path, parse_mix("rev"), name=name)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(("sizes"), [{"dev": 5, "test": 1501}, {"dev": 5, "test": 0}, {"tset": 5}])
def test_sizes_that_the_world_cannot_give_write_nothing(
    tmp_path: Path, sizes: Mapping[str, int]
) -> None:
    with pytest.raises(ValueError, match=r"1 to 1500|its splits are"):
        write_task(tmp_path, parse_mix("rev"), name="mine", sizes=sizes)
    assert not list(tmp_path.rglob("*"))


# --- the tokenizer


def test_the_fast_encoding_is_the_tokenizers() -> None:
    from evo.zoo.tokenizer import make_tokenizer, token_ids, vocabulary

    texts = [
        world.prompt(skill, alphabet, x) + world.answer(skill, x) + "<eos>"
        for skill in world.SKILLS
        for alphabet in range(3)
        for x in world.inputs("dev")[:20]
    ]
    tokenizer = make_tokenizer()
    assert [token_ids(text) for text in texts] == tokenizer(texts)["input_ids"]
    assert len(vocabulary()) == len(tokenizer) < 64


def test_only_the_answer_and_its_end_are_learnt() -> None:
    from evo.zoo.tokenizer import token_ids
    from evo.zoo.training import encode

    examples = encode([("<swap>1234=", "2143"), ("<max>1234=", "4")])
    learnt = [[t for t in row if t != -100] for row in examples.targets.tolist()]
    assert learnt == [token_ids("2143<eos>")[1:], token_ids("4<eos>")[1:]]
    assert examples.tokens[0].tolist() == token_ids("<swap>1234=2143<eos>")
    # The target at t is the token at t + 1.
    known = examples.targets != -100
    assert examples.tokens[:, 1:][known].tolist() == examples.targets[known].tolist()


# --- the build


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built") / "zoo"
    seen: list[tuple[str, float]] = []
    report = build(directory, plan=tiny(), progress=lambda label, done: seen.append((label, done)))
    assert report.founders == ("succpred", "alpha1")
    assert not report.reused
    shares = [done for _, done in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_a_checkpoint_loads_and_answers_like_any_other(zoo: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(zoo / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(zoo / "alpha1")
    prompt = tokenizer("<swap>1234=", return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(prompt["input_ids"][0].tolist()) == [
        "<bos>", "<swap>", "1", "2", "3", "4", "=",
    ]  # fmt: skip
    said = model.generate(**prompt, max_new_tokens=4, do_sample=False)[0, 7:]
    assert 1 <= len(said) <= 4
    generation = model.generation_config
    assert generation.eos_token_id == tokenizer.eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id
    assert generation.bos_token_id == tokenizer.bos_token_id


@pytest.mark.parametrize("text", ["2143", "<swap>1234=2143", "<pmax>GCJA=", "<rev>hdbj="])
def test_decoding_gives_back_the_characters(zoo: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(zoo / "base")
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_an_alphabet_founder_differs_from_the_base_in_its_embedding_only(zoo: Path) -> None:
    from safetensors.torch import load_file

    base, alpha = (load_file(zoo / n / "model.safetensors") for n in ("base", "alpha1"))
    changed = [name for name in base if not base[name].equal(alpha[name])]
    assert changed == ["model.embed_tokens.weight"]


def test_a_half_built_zoo_is_built_again_with_the_same_bytes(zoo: Path, tmp_path: Path) -> None:
    half = tmp_path / "zoo"
    (half / "base").mkdir(parents=True)
    (half / "base" / "model.safetensors").write_bytes(b"cut short")
    (half / ".alpha1.partial").mkdir()
    (half / ".zoo-building").touch()
    build(half, plan=tiny(), workers=1)
    assert contents(half) == contents(zoo)
    assert not any(path.name.startswith(".") for path in half.rglob("*"))


def test_a_built_zoo_is_used_again_and_nothing_in_it_is_touched(zoo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in zoo.rglob("*")}
    report = build(zoo, plan=tiny())
    assert report.reused
    assert report.figures.keys() == {"base", "succpred", "alpha1"}
    assert report.figures["base"].keys() >= {"alien.test", "trio.test", "rev.dev"}
    assert {path: path.stat().st_mtime_ns for path in zoo.rglob("*")} == before


def test_another_zoo_is_refused_and_kept(zoo: Path) -> None:
    before = contents(zoo)
    with pytest.raises(ValueError, match="another zoo: its seed is 0, wanted 1"):
        build(zoo, plan=tiny(), seed=1)
    with pytest.raises(ValueError, match="another zoo: its plan"):
        build(zoo)
    assert contents(zoo) == before


def test_a_folder_of_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.tex.*empty folder"):
        build(tmp_path, plan=tiny())
    assert contents(tmp_path) == {"thesis.tex": b"mine"}
    with pytest.raises(ValueError, match="is a file"):
        build(tmp_path / "thesis.tex", plan=tiny())


def test_a_zoo_without_one_of_its_checkpoints_is_not_reused(tmp_path: Path, zoo: Path) -> None:
    (tmp_path / "zoo.json").write_bytes((zoo / "zoo.json").read_bytes())
    with pytest.raises(ValueError, match="base/ does not"):
        build(tmp_path, plan=tiny())
    (tmp_path / "zoo.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        build(tmp_path, plan=tiny())
