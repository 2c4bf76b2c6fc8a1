"""Founders with other tokens, or other heads: refused with a remedy, or aligned so that each stays itself."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_lm import build_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from vocabularies import SPECIALS, WORDS, build_tokenizer, save, union_config
from warm_evo import evo as evo_command

from cluster.founders.checkpoints import CheckpointError, load_founders, open_checkpoint
from evo.cli.run import run_config
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.reproduce.export import export_individual
from evo.vocabulary.align import align
from evo.vocabulary.files import check_agreement
from evo.vocabulary.tokens import Vocabulary, aligned_table, fill_rows, plan_rows, union_state
from fitness.engines.hf.engine import HFEngine
from fitness.requests import LogLikelihood

EMBEDDING = {"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}


def embedding(path, kind="llama"):
    return open_checkpoint(path)[EMBEDDING[kind]]


def vocabulary(path):
    return AutoTokenizer.from_pretrained(path).get_vocab()


def answers(path, text):
    """What the head reads after each token of ``text``, (positions, width), and its row for each token.

    Their products are the logits. Those are not compared: how a product is summed up, and so its last bits,
    may depend on the number of rows.
    """
    tokenizer = AutoTokenizer.from_pretrained(path)
    model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        read = model.eval()(ids, output_hidden_states=True).hidden_states[-1][0]
    head = model.get_output_embeddings().weight
    return read, {token: head[i] for token, i in tokenizer.get_vocab().items()}


# An aligned founder is the founder


@pytest.mark.parametrize("mode", ["union", "base"])
@pytest.mark.parametrize("tied", [(False, False), (True, True), (False, True), (True, False)])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_aligned_model_says_what_it_said(kind, tied, mode, tmp_path):
    base = save(tmp_path / "base", WORDS, kind=kind, tied=tied[0])
    other = [*SPECIALS, *"fXbYdeac"]
    founder = save(tmp_path / "founder", other, kind=kind, tied=tied[1], seed=1)
    done = align({"founder": founder}, base, mode, tmp_path / "out")
    for before, after in ((base, done.base), (founder, done.models["founder"])):
        (old_read, old), (new_read, new) = answers(before, "abfed"), answers(after, "abfed")
        assert torch.equal(old_read, new_read)
        shared = old.keys() & new.keys()
        assert shared >= set(WORDS)
        for token in shared:
            assert torch.equal(old[token], new[token])
    load_founders(done.base, done.models)


def test_permuted_ids_are_put_in_the_bases_order(tmp_path):
    base = save(tmp_path / "base", WORDS)
    shuffled = [*"fa", "</s>", *"bdc", "<pad>", "e"]
    founder = save(tmp_path / "founder", shuffled, seed=1)
    done = align({"founder": founder}, base, "base", tmp_path / "out")
    assert done.base == base
    expected = embedding(founder)[[shuffled.index(w) for w in WORDS]]
    assert torch.equal(embedding(done.models["founder"]), expected)
    assert vocabulary(done.models["founder"]) == vocabulary(base)
    config = json.loads((done.models["founder"] / "config.json").read_text())
    assert config["eos_token_id"] == WORDS.index("</s>")


def test_a_union_keeps_the_bases_ids_and_puts_the_others_behind(tmp_path):
    base = save(tmp_path / "base", WORDS)
    one = save(tmp_path / "one", ["x", *WORDS, "y"], seed=1)
    two = save(tmp_path / "two", [*WORDS, "z", "y"], seed=2)
    done = align({"one": one, "two": two}, base, "union", tmp_path / "out")
    order = [*WORDS, "x", "y", "z"]
    for path in (done.base, *done.models.values()):
        assert vocabulary(path) == {t: i for i, t in enumerate(order)}
        assert json.loads((path / "config.json").read_text())["vocab_size"] == len(order)
    b, o, t = (embedding(p) for p in (base, one, two))
    # What a model lacks: the base's row if the base has it, else the mean of those that have it.
    mean_y = (o[9] + t[9]) / 2
    assert torch.equal(embedding(done.base), torch.stack([*b, o[0], mean_y, t[8]]))
    assert torch.equal(embedding(done.models["one"]), torch.stack([*o[1:9], o[0], o[9], t[8]]))
    assert torch.equal(embedding(done.models["two"]), torch.stack([*t[:8], o[0], t[9], t[8]]))


def test_a_token_that_only_the_base_has_gets_the_bases_row(tmp_path):
    base = save(tmp_path / "base", [*WORDS, "x"])
    founder = save(tmp_path / "founder", WORDS, seed=1)
    for mode in ("union", "base"):
        done = align({"founder": founder}, base, mode, tmp_path / f"{mode}_out")
        assert done.base == base
        rows = embedding(done.models["founder"])
        assert torch.equal(rows[-1], embedding(base)[-1])
        assert torch.equal(rows[:-1], embedding(founder))
        assert "founder: tokens with rows of other models: 1 ('x')" in done.notes


def test_the_base_mode_says_what_it_drops(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", [*"uvwxyz", *WORDS], seed=1)
    done = align({"founder": founder}, base, "base", tmp_path / "out")
    assert "founder: tokens dropped: 6 ('u', 'v', 'w', 'x', 'y', ...)" in done.notes
    assert torch.equal(embedding(done.models["founder"]), embedding(founder)[6:])


def test_padding_is_the_bases(tmp_path):
    base = save(tmp_path / "base", WORDS, rows=16)
    narrow = save(tmp_path / "narrow", WORDS, seed=1)
    wide = save(tmp_path / "wide", [*WORDS, "x"], rows=64, seed=2)
    models = {"narrow": narrow, "wide": wide}
    b = embedding(base)
    done = align(models, base, "base", tmp_path / "base_mode")
    assert done.base == base
    assert torch.equal(embedding(done.models["narrow"]), torch.cat([embedding(narrow), b[8:]]))
    assert torch.equal(embedding(done.models["wide"]), torch.cat([embedding(wide)[:8], b[8:]]))
    assert "wide: rows of no token, left out: 55" in done.notes
    equal = save(tmp_path / "equal", WORDS, rows=16, seed=3)
    assert align({"equal": equal}, base, "base", tmp_path / "none").models == {"equal": equal}
    # A union's new tokens move into the padding before the table grows.
    done = align(models, base, "union", tmp_path / "union_mode")
    x = embedding(wide)[8:9]
    assert torch.equal(embedding(done.base), torch.cat([b[:8], x, b[9:]]))
    assert torch.equal(embedding(done.models["wide"]), torch.cat([embedding(wide)[:9], b[9:]]))


def test_tokens_beyond_the_bases_table_get_rows(tmp_path):
    base = save(tmp_path / "base", [*WORDS, "x"], rows=8)
    founder = save(tmp_path / "founder", [*WORDS, "x"], seed=1)
    done = align({"founder": founder}, base, "base", tmp_path / "out")
    assert done.models["founder"] == founder
    assert torch.equal(embedding(done.base), torch.cat([embedding(base), embedding(founder)[8:]]))


def test_heads_are_untied_where_one_is(tmp_path):
    base = save(tmp_path / "base", WORDS, tied=True)
    tied = save(tmp_path / "tied", WORDS, tied=True, seed=1)
    own = save(tmp_path / "own", WORDS, seed=2)
    done = align({"tied": tied, "own": own}, base, "base", tmp_path / "out")
    assert done.models["own"] == own
    for path in (done.base, done.models["tied"]):
        weights = open_checkpoint(path)
        assert torch.equal(weights["lm_head.weight"], weights[EMBEDDING["llama"]])
        assert json.loads((path / "config.json").read_text())["tie_word_embeddings"] is False
    assert "the base: head untied from the embedding" in done.notes
    both = align({"tied": tied}, base, "base", tmp_path / "none")
    assert both.models == {"tied": tied}
    assert not (tmp_path / "none").exists()


def test_a_tied_head_that_is_there_twice_must_be_the_embedding(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", WORDS, seed=1)
    config = founder / "config.json"
    config.write_text(config.read_text().replace('embeddings": false', 'embeddings": true'))
    with pytest.raises(EvoError, match=r"founder: config\.json says tie_word_embeddings, but"):
        align({"founder": founder}, base, "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    tensors = load_file(founder / "model.safetensors")
    tensors["lm_head.weight"] = tensors[EMBEDDING["llama"]].clone()
    save_file(tensors, founder / "model.safetensors", {"format": "pt"})
    done = align({"founder": founder}, base, "base", tmp_path / "out")
    load_founders(done.base, done.models)


def test_dtypes_stay_as_they_are(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", [*WORDS, "x"], seed=1, dtype=torch.bfloat16)
    done = align({"founder": founder}, base, "union", tmp_path / "out")
    assert embedding(done.base).dtype == torch.float32
    assert done.models["founder"] == founder
    assert torch.equal(embedding(done.base)[8], embedding(founder)[8].float())


def test_only_the_tables_are_written(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", [*"abc", *SPECIALS, *"def"], seed=1)
    done = align({"founder": founder}, base, "base", tmp_path / "out")
    folder = done.models["founder"]
    links = {p.name: p.resolve() for p in folder.iterdir() if p.is_symlink()}
    assert links == {"model-00001.safetensors": (founder / "model.safetensors").resolve()}
    assert load_file(folder / "vocabulary.safetensors").keys() == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert open_checkpoint(folder).layout == open_checkpoint(founder).layout


def test_another_folders_tokenizer_can_be_asked_for(tmp_path):
    base = save(tmp_path / "base", WORDS)
    order = [*"xfedcba", *SPECIALS]
    founder = save(tmp_path / "founder", order, rows=16, seed=1)
    alone = tmp_path / "alone"
    build_tokenizer(["b", "x", *SPECIALS]).save_pretrained(alone)
    done = align({"founder": founder}, base, founder, tmp_path / "out")
    assert done.models["founder"] == founder
    assert vocabulary(done.base) == vocabulary(founder)
    rows = torch.stack(
        [embedding(founder)[0], *(embedding(base)[WORDS.index(t)] for t in order[1:])]
    )
    assert torch.equal(embedding(done.base), torch.cat([rows, embedding(founder)[9:]]))
    done = align({"founder": founder}, base, alone, tmp_path / "other")
    assert embedding(done.base).shape == (4, 16)
    assert torch.equal(embedding(done.models["founder"])[:2], embedding(founder)[[5, 0]])


# The union's tokenizer


def bpe(vocab, merges, specials=()):
    inner = Tokenizer(models.BPE({t: i for i, t in enumerate(vocab)}, merges))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(list(specials))
    return inner


BASE_BPE = bpe([*"abcd", "ab"], [("a", "b")], ["<pad>", "</s>"])
MORE_BPE = bpe(
    [*"abcd", "ab", "cd", "abcd"],
    [("a", "b"), ("c", "d"), ("ab", "cd")],
    ["</s>", "<pad>", "<|user|>"],
)


@pytest.mark.parametrize("text", ["abcd", "ab cd dcba", "cd<|user|>ab</s>", "abab cdcd"])
def test_a_union_with_a_larger_bpe_splits_as_that_does(text):
    union = Tokenizer.from_str(
        json.dumps(union_state(json.loads(BASE_BPE.to_str()), [json.loads(MORE_BPE.to_str())]))
    )
    assert union.encode(text).tokens == MORE_BPE.encode(text).tokens
    ours = BASE_BPE.get_vocab()
    assert {t: i for t, i in union.get_vocab().items() if t in ours} == ours
    assert sorted(union.get_vocab().values()) == list(range(10))


def test_a_union_with_a_smaller_bpe_changes_no_text():
    union = union_state(json.loads(MORE_BPE.to_str()), [json.loads(BASE_BPE.to_str())])
    assert Tokenizer.from_str(json.dumps(union)).get_vocab() == MORE_BPE.get_vocab()
    assert union["model"]["merges"] == json.loads(MORE_BPE.to_str())["model"]["merges"]


def test_merges_in_the_older_spelling_are_read():
    older = json.loads(BASE_BPE.to_str())
    older["model"]["merges"] = ["a b"]
    union = Tokenizer.from_str(json.dumps(union_state(older, [json.loads(MORE_BPE.to_str())])))
    assert union.encode("abcd").tokens == ["abcd"]


def test_a_unigram_takes_tokens_with_their_scores():
    def unigram(pieces):
        return json.loads(Tokenizer(models.Unigram(pieces, unk_id=0)).to_str())

    base = unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)])
    other = unigram([("<unk>", 0.0), ("ab", -1.5), ("b", -9.0)])
    union = Tokenizer.from_str(json.dumps(union_state(base, [other])))
    assert union.get_vocab() == {"<unk>": 0, "a": 1, "b": 2, "ab": 3}
    assert union.encode("ab").tokens == ["ab"]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_the_union_of_real_classes_loads_with_its_ids(kind, tmp_path):
    def fast(inner):
        return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>")

    paths = {}
    for name, inner in (("base", BASE_BPE), ("more", MORE_BPE)):
        model = build_model(kind)
        model.resize_token_embeddings(inner.get_vocab_size())
        model.save_pretrained(tmp_path / name)
        fast(inner).save_pretrained(tmp_path / name)
        paths[name] = tmp_path / name
    done = align({"more": paths["more"]}, paths["base"], "union", tmp_path / "out")
    engine = HFEngine(done.base)
    assert engine.tokenizer("abcd<|user|>")["input_ids"] == [
        engine.tokenizer.convert_tokens_to_ids(t) for t in ("abcd", "<|user|>")
    ]
    ids = engine.tokenizer.get_vocab()
    assert {t: i for t, i in vocabulary(done.base).items() if t in ids} == ids
    assert engine.tokenizer.convert_tokens_to_ids("</s>") == 6
    (output,) = engine.answer(engine.prepare([LogLikelihood("ab", "cd", end=True)]))
    assert output.tokens == 2


# What is refused, and how


def refusal(base, founder):
    with pytest.raises(EvoError) as caught:
        check_agreement(base, {"founder": founder})
    return str(caught.value)


def test_tables_of_one_size_and_another_order_are_refused(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", [*SPECIALS, *"bacdef"], seed=1)
    message = refusal(base, founder)
    assert f"{founder / 'tokenizer.json'} and {base / 'tokenizer.json'}" in message
    assert "2 have another id ('a', 'b')" in message
    assert "8 and 8 rows" in message
    assert "'vocabulary: base'" in message
    assert "'vocabulary: union'" in message


def test_other_tokens_are_refused_with_both_sizes(tmp_path):
    base = save(tmp_path / "base", WORDS)
    message = refusal(base, save(tmp_path / "more", [*WORDS, "<x>"]))
    assert "1 are only in the first ('<x>')" in message
    assert "9 and 8 rows" in message
    message = refusal(base, save(tmp_path / "fewer", WORDS[:-1], rows=8))
    assert "1 are only in the second ('f')" in message


def test_padding_and_heads_are_refused_with_the_key(tmp_path):
    base = save(tmp_path / "base", WORDS)
    message = refusal(base, save(tmp_path / "padded", WORDS, rows=64))
    assert "have the same tokens, but their embeddings have 64 and 8 rows" in message
    assert "'vocabulary: base'" in message
    message = refusal(base, save(tmp_path / "tied", WORDS, tied=True))
    assert "tied (tied, no head in its files) and" in message
    assert "base (untied, lm_head.weight in its files)" in message
    assert "'vocabulary: base'" in message


def test_without_tokenizer_files_the_bases_is_meant_if_sizes_agree(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", WORDS, seed=1)
    (founder / "tokenizer.json").unlink()
    (founder / "tokenizer_config.json").unlink()
    check_agreement(base, {"founder": founder})
    assert align({"f": founder}, base, "union", tmp_path / "out").models == {"f": founder}
    other = save(tmp_path / "other", WORDS, rows=16)
    (other / "tokenizer.json").unlink()
    assert "16 rows and that of" in refusal(base, other)
    with pytest.raises(EvoError, match=r"other: its embedding has 16 rows.*without a tokenizer"):
        align({"other": other}, base, "union", tmp_path / "out")


def test_adapters_pass_as_they_are(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", [*WORDS, "x"], seed=1)
    adapter = tmp_path / "adapter"
    build_tokenizer([*"ab", *SPECIALS]).save_pretrained(adapter)
    (adapter / "adapter_config.json").write_text("{}")
    check_agreement(base, {"adapter": adapter})
    models = {"adapter": adapter, "founder": founder}
    done = align(models, base, "union", tmp_path / "out")
    assert done.models == {"adapter": adapter, "founder": founder}
    assert embedding(done.base).shape[0] == 9


def test_what_cannot_be_aligned_is_refused(tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", [*WORDS, "x"], seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvoError, match="no tokenizer there"):
        align({"founder": founder}, base, tmp_path / "empty", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(EvoError, match="out: exists already"):
        align({"founder": founder}, base, "union", tmp_path / "out")
    bare = tmp_path / "bare.safetensors"
    save_file({"x": torch.zeros(3)}, bare)
    with pytest.raises(EvoError, match=r"bare\.safetensors: has no embedding"):
        align({"bare": bare}, base, "union", tmp_path / "new")
    with pytest.raises(EvoError, match=r"bare\.safetensors: vocabularies can't be aligned to it"):
        align({"founder": founder}, bare, "union", tmp_path / "new")
    wide = save(tmp_path / "wide", WORDS, kind="gpt2")
    tensors = load_file(wide / "model.safetensors")
    tensors[EMBEDDING["gpt2"]] = torch.zeros(8, 20)
    save_file(tensors, wide / "model.safetensors", {"format": "pt"})
    with pytest.raises(EvoError, match=r"wide: its embedding is \[8, 20\].*\[8, 16\]"):
        align({"wide": wide}, base, "union", tmp_path / "new")
    (founder / "tokenizer.json").write_text("[]")
    with pytest.raises(EvoError, match=r"tokenizer\.json: expected an object"):
        align({"founder": founder}, base, "union", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["{}", '{"model": {"vocab": null}}'])
def test_a_tokenizer_file_that_holds_no_vocabulary_is_named(text, tmp_path):
    base = save(tmp_path / "base", WORDS)
    founder = save(tmp_path / "founder", WORDS, seed=1)
    (founder / "tokenizer.json").write_text(text)
    message = refusal(base, founder)
    assert f"{founder / 'tokenizer.json'}: not a tokenizer's files" in message


def test_conflicting_special_tokens_follow_the_base_and_are_told(tmp_path):
    base = save(tmp_path / "base", WORDS)
    tokens = [*WORDS, "<end>"]
    founder = save(
        tmp_path / "founder", tokens, seed=1, tokenizer=build_tokenizer(tokens, eos="<end>")
    )
    done = align({"founder": founder}, base, "union", tmp_path / "out")
    assert "founder: its eos_token is '<end>'; '</s>' is used" in done.notes
    assert AutoTokenizer.from_pretrained(done.base).eos_token == "</s>"


def test_an_index_that_lists_what_its_file_lacks_is_refused(tmp_path):
    base = save(tmp_path / "base", WORDS)
    index = {"weight_map": {"model.norm.weight": "model.safetensors", "x": "model.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks 'x', which model\.safetensors\.index\.json"):
        open_checkpoint(base)
    del index["weight_map"]["x"]
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_checkpoint(base).layout.names == ("model.norm.weight",)


# The rules for rows, whatever the vocabularies

TOKENS = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)


@given(orders=st.lists(TOKENS, min_size=2, max_size=4), padding=st.integers(0, 3))
def test_every_row_is_the_models_own_or_the_rules(orders, padding):
    models = {
        str(k): Vocabulary({t: i for i, t in enumerate(order)}, len(order) + padding * (k == 0))
        for k, order in enumerate(orders)
    }
    tables = {
        name: torch.arange(model.rows * 2.0).reshape(-1, 2) + 100 * int(name)
        for name, model in models.items()
    }
    everything = list(dict.fromkeys(t for order in orders for t in order))
    target = {t: i for i, t in enumerate(everything)}
    plan = plan_rows(models, target, rows=models["0"].rows, keeper="0")
    assert plan.rows == max(len(everything), models["0"].rows)
    fill = fill_rows(plan, tables, "0")
    for name in models:
        out = aligned_table(plan, tables[name], name, fill)
        for token, i in target.items():
            having = [k for k, m in models.items() if token in m.tokens]
            givers = [name] if name in having else ["0"] if "0" in having else having
            rows = torch.stack([tables[g][models[g].tokens[token]] for g in givers])
            assert torch.equal(out[i], rows.sum(0) / len(rows))
        assert torch.equal(out[len(everything) :], tables["0"][len(everything) :])


# The whole way


@pytest.mark.parametrize("name", [EMBEDDING["llama"], "model.norm.weight"])
def test_nan_is_said_of_the_original_and_leaves_no_folder(name, tmp_path):
    save(tmp_path / "base", WORDS)
    one = save(tmp_path / "one", [*WORDS, "x"], seed=1)
    two = save(tmp_path / "two", [*"fedcba", *SPECIALS], seed=2)
    tensors = load_file(one / "model.safetensors")
    tensors[name][-1] = torch.nan  # of the embedding: the row that all others take for 'x'
    save_file(tensors, one / "model.safetensors", {"format": "pt"})
    with pytest.raises((CheckpointError, EvoError)) as caught:
        Evolution(union_config(tmp_path, one=one, two=two), tmp_path / "run")
    assert str(caught.value) == f"{one}: tensor {name!r} holds NaN or infinite values"
    assert not (tmp_path / "run").exists()


def test_an_aligned_checkpoint_that_is_gone_is_asked_for(tmp_path):
    save(tmp_path / "base", WORDS)
    one = save(tmp_path / "one", [*"fedcba", *SPECIALS], seed=1)
    two = save(tmp_path / "two", WORDS, seed=2)
    with Evolution(union_config(tmp_path, one=one, two=two), tmp_path / "run") as run:
        list(run)
        ids = {r["description"]: r["id"] for r in run.lineage.table("individuals").to_pylist()}
    aligned = tmp_path / "run" / "founders" / "one"
    written = [p for p in aligned.iterdir() if not p.is_symlink()]
    assert {p.stat().st_mode & 0o777 for p in written} == {0o666 & ~current_umask()}
    shutil.rmtree(aligned)
    export_individual(tmp_path / "run", ids["two"], tmp_path / "out")
    with pytest.raises(EvoError, match=r"founders/one: the aligned checkpoint .* restore it"):
        export_individual(tmp_path / "run", ids["one"], tmp_path / "more")


def test_what_a_run_that_did_not_begin_has_aligned_is_forgotten(tmp_path):
    save(tmp_path / "base", WORDS)
    one = save(tmp_path / "one", [*"fedcba", *SPECIALS], seed=1)
    two = save(tmp_path / "two", WORDS, seed=2)
    config = union_config(tmp_path, one=one, two=two)
    settings = config.algorithm.model_copy(update={"filters": ("nowhere",)})
    with pytest.raises(EvoError, match="no tensor of the models has 'nowhere'"):
        Evolution(config.model_copy(update={"algorithm": settings}), tmp_path / "run")
    save(tmp_path / "one", WORDS, seed=1)
    with Evolution(config, tmp_path / "run") as run:
        list(run)
    shutil.rmtree(tmp_path / "run" / "founders", ignore_errors=True)
    export_individual(tmp_path / "run", "best", tmp_path / "out")


def test_a_run_that_was_killed_early_still_says_what_was_aligned(tmp_path):
    save(tmp_path / "base", WORDS)
    one = save(tmp_path / "one", [*"fedcba", *SPECIALS], seed=1)
    two = save(tmp_path / "two", WORDS, seed=2)
    Evolution(union_config(tmp_path, one=one, two=two), tmp_path / "run").close()
    (tmp_path / "run").rename(tmp_path / "moved")
    with Evolution.resume(tmp_path / "moved") as run:
        list(run)
        assert run.notes
        events = run.lineage.events.to_pylist()
    assert [e["detail"] for e in events if e["kind"] == "vocabulary"] == list(run.notes)


def current_umask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_an_adapter_of_an_aligned_base_says_where_that_is(tmp_path):
    save(tmp_path / "base", WORDS)
    one = save(tmp_path / "one", [*WORDS, "x"], seed=1)
    two = save(tmp_path / "two", WORDS, seed=2)
    with Evolution(union_config(tmp_path, one=one, two=two), tmp_path / "run") as run:
        list(run)
    told = export_individual(tmp_path / "run", "best", tmp_path / "out", adapter=True, rank=2)
    base = tmp_path / "run" / "founders" / "_base"
    said = f"its base is the aligned one of the run, {base}, whose files link to the originals"
    assert said in told
    assert said in (tmp_path / "out" / "README.md").read_text()
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)


def test_a_run_with_a_union_exports_a_checkpoint_with_the_union(tmp_path):
    save(tmp_path / "base", WORDS, tied=True)
    save(tmp_path / "one", [*"fedcba", *SPECIALS], tied=True, seed=1)
    save(tmp_path / "two", [*WORDS, "x"], seed=2)
    rows = [{"prompt": p, "answer": a} for p, a in (("abc", "x"), ("def", "a"))]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "task.dev.jsonl").write_text(text)
    (tmp_path / "run.yaml").write_text(
        "base: base\nfounders: [one, two]\ntasks:\n  - {name: t, files: task}\n"
        "algorithm: {name: recipe_search, population: 4}\nbudget: {evaluations: 6}\n"
        "pool: {kind: local}\n"
    )

    with pytest.raises(EvoError, match="'vocabulary: union'"):
        run_config(tmp_path / "run.yaml", tmp_path / "run", ())
    assert not (tmp_path / "run").exists()
    command = ["run", tmp_path / "run.yaml", "--run-dir", tmp_path / "run"]
    done = evo_command(*command, "--set", "vocabulary=union")
    assert done.returncode == 0, done.stderr
    assert "vocabulary: one: head untied from the embedding" in done.stdout
    (tmp_path / "moved").mkdir()
    run = shutil.move(tmp_path / "run", tmp_path / "moved" / "run")
    export_individual(Path(run), "best", tmp_path / "out")
    out = tmp_path / "out"
    assert not any(p.is_symlink() for p in out.iterdir())
    assert vocabulary(out) == {t: i for i, t in enumerate([*WORDS, "x"])}
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.get_input_embeddings().weight.shape == (9, 16)
    assert model.get_input_embeddings().weight is not model.lm_head.weight
