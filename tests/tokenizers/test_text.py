"""Text, `<loc>` tokens and boxes; the shipped model keeps prompts short and loses nothing."""

import io
import random

import pytest
import sentencepiece
from contracts import gemma_like

from pilot.tokenizers import train_text
from pilot.tokenizers.text import NANO_MODEL, TextTokenizer, box_to_locs, loc_token, split_box

VOCABULARY = (
    "red green blue yellow purple orange cup bowl plate block ball bottle book hat dishes toys",
    "sink basket tray bin crate table put place move clear all the in into to and everything",
    "pick up it done grab take drop now what where how many objects are there is at colour caption detect yes no none",
)


@pytest.fixture(scope="module")
def nano():
    return TextTokenizer()


def test_special_ids_are_paligemmas(nano):
    assert (nano.pad_id, nano.eos_id, nano.bos_id) == (0, 1, 2)
    assert nano.encode("done", add_bos=True, add_eos=True) == [2, *nano.encode("done"), 1]
    assert nano.vocab_size < 1850


@pytest.mark.parametrize("word", [word for line in VOCABULARY for word in line.split()])
def test_every_word_is_one_token_with_and_without_a_space(nano, word):
    assert len(nano.encode(word)) == len(nano.encode(f" {word}")) == 1


def test_every_number_and_loc_is_one_token(nano):
    assert all(len(nano.encode(f" {n}")) == 1 for n in range(256))
    assert [nano.loc_id(n) for n in range(1024)] == [nano.encode(loc_token(n))[0] for n in range(1024)]
    assert [nano.piece(i) for i in nano.encode(", State: 1 22 0 255;\n")] == [
        ",▁State:",
        "▁1",
        "▁22",
        "▁0",
        "▁255",
        ";\n",
    ]


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("Task: put the red cup in the sink, State: 12 200 34 0 255;\nSubtask: ", 15),
        ("Task: put the purple bottle and the yellow ball in the tray, State: 1 2 3 0 0;\nSubtask: ", 19),
        ("<loc0123><loc0456><loc0200><loc0512>pick up the red cup;\n", 10),
        ("done;\n", 2),
        ("Question: is the red cup in the sink?\nAnswer: ", 10),
        ("Action: ", 1),
        ("<loc0123><loc0456><loc0200><loc0512> red cup, <loc0123><loc0456><loc0200><loc0512> sink", 12),
    ],
)
def test_prompts_are_short(nano, text, most):
    assert len(nano.encode(text)) <= most


def test_any_text_survives_the_round_trip(nano):
    rng = random.Random(0)
    texts = ["Héllo, Wörld! 12 345  x\ty\n\n<eos> 日本 🤖", " leading", "trailing ", "", "<loc9999>"]
    texts += ["".join(chr(rng.randrange(1, 0x800)) for _ in range(30)) for _ in range(200)]
    assert [nano.decode(nano.encode(text)) for text in texts] == texts


def test_control_tokens_cannot_be_typed(nano):
    assert nano.eos_id not in nano.encode("<eos>") and nano.bos_id not in nano.encode("<bos>")


def test_the_shipped_model_is_what_the_script_builds(nano):
    built = sentencepiece.SentencePieceProcessor(model_proto=train_text.build_nano_model())
    pieces = [built.id_to_piece(i) for i in range(built.vocab_size())]
    assert pieces == [nano._processor.id_to_piece(i) for i in range(nano.vocab_size)]


def test_a_word_list_that_outgrew_the_model_is_an_error(monkeypatch):
    monkeypatch.setattr(train_text, "LEARNED", 100)
    with pytest.raises(ValueError, match="raise LEARNED"):
        train_text.build_nano_model()


def test_missing_and_damaged_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nano\.model"):
        TextTokenizer(NANO_MODEL.with_name("nanoo.model"))
    (tmp_path / "bad.model").write_bytes(NANO_MODEL.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        TextTokenizer(tmp_path / "bad.model")


def test_ids_that_are_no_text_are_an_error(nano):
    with pytest.raises(ValueError, match="not text"):
        nano.decode([5, nano.vocab_size])


def test_boxes_become_locs_and_come_back():
    assert box_to_locs((0, 0.25, 0.5, 1)) == "<loc0000><loc0256><loc0512><loc1023>"
    assert split_box("<loc0000><loc0256><loc0512><loc1023>pick up the red cup")[0] == (0, 0.25, 0.5, 1)
    rng = random.Random(1)
    for _ in range(200):
        y0, y1 = sorted(rng.random() for _ in range(2))
        x0, x1 = sorted(rng.random() for _ in range(2))
        assert split_box(box_to_locs((y0, x0, y1, x1)))[0] == pytest.approx((y0, x0, y1, x1), abs=1.01 / 1024)


def test_a_stride_of_16_is_exact_on_64_pixels():
    edges = [n / 64 for n in range(65)]
    locs = {box_to_locs((edge, edge, 1, 1), stride=16)[:9] for edge in edges}
    assert locs == {loc_token(n) for n in [*range(0, 1024, 16), 1023]}
    assert all(split_box(box_to_locs((e, e, 1, 1), stride=16))[0] == (e, e, 1, 1) for e in edges)


@pytest.mark.parametrize("box", [(-0.1, 0, 1, 1), (0, 0, 1.1, 1), (0.5, 0, 0.4, 1), (0, 0.5, 1, 0.4), (0, 0, 1)])
def test_a_box_that_is_no_box_is_an_error(box):
    with pytest.raises(ValueError, match="box"):
        box_to_locs(box)


def test_nan_is_no_box():
    with pytest.raises(ValueError, match="every edge"):
        box_to_locs((0, 0, float("nan"), 1))


@pytest.mark.parametrize(
    "text",
    [
        "pick up the red cup",
        "<loc0001><loc0002><loc0003>red cup",
        "<loc0001><loc0002><loc0003><loc0004><loc0005>",
        "<loc0900><loc0002><loc0003><loc0004>",
        "<loc0001><loc0002><loc0003><loc1024>",
        " <loc0001><loc0002><loc0003><loc0004>",
        "",
    ],
)
def test_malformed_locs_are_no_box(text):
    assert split_box(text) == (None, text)


def test_split_box_gives_the_words():
    assert split_box("<loc0000><loc0000><loc0512><loc0512>done") == ((0, 0, 0.5, 0.5), "done")


@pytest.mark.parametrize("n", [-1, 1024])
def test_loc_bins_end(nano, n):
    with pytest.raises(ValueError, match="bin"):
        nano.loc_id(n)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return TextTokenizer(gemma_like.build(tmp_path_factory.mktemp("text") / "gemma.model"))


def test_a_model_of_paligemmas_kind_is_read(gemma):
    """`<loc>` and `<seg>` behind the words, as user-defined symbols."""
    first = gemma.loc_id(0)
    assert (gemma.pad_id, gemma.eos_id, gemma.bos_id) == (0, 1, 2)
    assert [gemma.loc_id(n) for n in range(1024)] == list(range(first, first + 1024))
    assert first + 1024 + 128 == gemma.vocab_size and gemma.token_id("<seg127>") == gemma.vocab_size - 1


def test_boxes_and_words_survive_beside_each_other_in_it(gemma):
    text = "<loc0000><loc0256><loc0512><loc1023>pick up the red cup, État 12;\n"
    ids = gemma.encode(text, add_bos=True, add_eos=True)
    assert ids[1:5] == [gemma.loc_id(n) for n in (0, 256, 512, 1023)] and ids[-1] == gemma.eos_id
    assert gemma.decode(ids) == text
    assert split_box(gemma.decode(ids))[0] == (0, 0.25, 0.5, 1)


@pytest.mark.parametrize("model", ["nano", "gemma"])
def test_words_are_what_is_neither_control_nor_place(model, request):
    text = request.getfixturevalue(model)
    words = set(text.word_ids.tolist())
    assert not words & {text.pad_id, text.eos_id, text.bos_id, *(text.loc_id(n) for n in range(1024))}
    assert set(text.encode("pick up the red cup é;\n")) <= words
    assert len(words) + 4 + 1024 + (128 if model == "gemma" else 0) == text.vocab_size


def test_a_model_without_bos_or_locs_says_so(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"] * 9), model_writer=model, vocab_size=30, model_type="bpe", byte_fallback=False,
        hard_vocab_limit=False, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "plain.model").write_bytes(model.getvalue())
    plain = TextTokenizer(tmp_path / "plain.model")
    assert plain.decode(plain.encode("a b")) == "a b"
    with pytest.raises(ValueError, match="no <bos>"):
        plain.encode("a", add_bos=True)
    with pytest.raises(ValueError, match="no piece '<loc0000>'"):
        plain.loc_id(0)
