"""Prompts have exactly the tokens asked for, differ where they must, and follow from their seed."""

import pytest

from moebench.prompts import text_prompts

CORPUS = list(range(1000, 1500))
KINDS = ("text", "random", "identical")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (4, 7), (64, 128), (1, 500)])
def test_number_and_length_are_exact(kind, batch, length):
    made = text_prompts.make(kind, CORPUS, 300, batch, length, seed=3)
    assert [len(p) for p in made] == [length] * batch
    assert all(0 <= token < 300 if kind == "random" else token in CORPUS for p in made for token in p)


def test_text_is_windows_of_the_corpus_at_different_places():
    made = text_prompts.make("text", CORPUS, 0, 100, 9, seed=1)
    assert all(p == list(range(p[0], p[0] + 9)) for p in made)
    assert len({p[0] for p in made}) == 100


def test_identical_is_one_such_window():
    made = text_prompts.make("identical", CORPUS, 0, 8, 9, seed=1)
    assert made == [made[0]] * 8 and made[0] == list(range(made[0][0], made[0][0] + 9))


def test_random_draws_from_the_whole_vocabulary():
    drawn = {token for p in text_prompts.make("random", [], 20, 50, 20, seed=1) for token in p}
    assert drawn == set(range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_gives_the_prompts(kind):
    made = [text_prompts.make(kind, CORPUS, 300, 4, 16, seed) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_a_corpus_that_is_too_short_says_so():
    assert len(text_prompts.make("text", CORPUS, 0, 10, 491, seed=0)) == 10
    with pytest.raises(ValueError, match=r"500 tokens .*11 prompts of 491"):
        text_prompts.make("text", CORPUS, 0, 11, 491, seed=0)
    assert len(text_prompts.make("identical", CORPUS, 0, 11, 500, seed=0)) == 11
    with pytest.raises(ValueError, match="too short for 1 prompts of 501"):
        text_prompts.make("identical", CORPUS, 0, 1, 501, seed=0)


def test_models_with_the_same_tokenizer_share_the_tokenized_corpus(tmp_path):
    keys = []
    for name, text in (("a", "{}"), ("b", "{}"), ("c", "{ }"), ("d", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "tokenizer.json").write_text(text)
        keys.append(text_prompts.tokenizer_key(tmp_path / name))
    assert keys[0] == keys[1] and len(set(keys)) == 3
