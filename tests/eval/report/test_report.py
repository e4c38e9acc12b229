"""The page is whole, loads nothing, escapes what it is given, and draws numbers where they belong."""

import base64
import errno
import io
import re

import numpy as np
import pytest
from PIL import Image

from eval.pages import Balance
from pilot.eval.report import charts, pictures
from pilot.eval.report.report import Report, caption_runs, subtitle_keyframes


def frames(n: int = 7) -> list[np.ndarray]:
    return [np.full((8, 12, 3), 30 * k, dtype=np.uint8) for k in range(n)]


@pytest.fixture
def report() -> Report:
    rng = np.random.default_rng(0)
    report = Report("Tidy <up>", subtitle="with `code`")
    report.section("Acting & learning", "intro")
    report.highlights([("83 %", "success", "n = 200")])
    words = ["pick up the cup"] * 4 + ["put it in the sink"] * 3
    report.video(frames(), words, title="put the cup in the sink", success=True, outcome="7 steps")
    report.filmstrip(frames(), words, title="strip", success=False, outcome="dropped it")
    report.success_table(
        [
            {"suite": "one move", "model": "policy", "successes": 8, "n": 10, "extra": {"wrong object": "4 %"}},
            {"suite": "one move", "model": "blank", "successes": 0, "n": 10},
        ]
    )
    report.section("Inside")
    report.losses({"flow": (range(100), np.exp(-np.arange(100) / 30))}, title="loss")
    report.attention(frames()[3], rng.random((4, 4)), caption="where")
    report.flow(rng.normal(size=(11, 8, 3)), ["x", "y", "z"])
    report.table(["what", "n"], [["a", 1], ["b", 20_000]])
    report.timings([("train", 185.0), ("eval", 2.25)])
    report.text("One **bold** paragraph.\n\nAnother, with <tags>.")
    return report


def test_page_is_well_formed_and_self_contained(report, tmp_path):
    path = report.save(tmp_path / "new" / "report.html")
    page = path.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(page)
    assert not parser.open
    assert not re.search(r"https?://|<script|<link|@import|src=\"(?!data:)", page)
    assert page.count("<section") == 2 and 'href="#part2"' in page
    assert "prefers-color-scheme: dark" in page and "prefers-reduced-motion" in page and "viewport" in page
    assert len(page) < 200_000


def test_text_is_escaped(report):
    page = report.render()
    assert "Tidy &lt;up&gt;" in page and "<up>" not in page and "&lt;tags&gt;" in page
    assert "Acting &amp; learning" in page and "<code>code</code>" in page and "<b>bold</b>" in page


def test_every_picture_and_chart_has_words_for_those_who_do_not_see_it(report):
    page = report.render()
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]*>", page))
    assert all(re.search(r'aria-label="[^"]+"', tag) for tag in re.findall(r'<[^>]*role="img"[^>]*>', page))
    assert 'aria-label="80%, 95 % interval 49% to 94%"' in page
    assert "loss over step: flow from 1 to" in page


def test_success_table_draws_the_interval_it_prints(report):
    page = report.render()
    assert '<i style="left:49.0%;width:45.3%"></i><b style="left:80.0%"></b>' in page
    assert "49% – 94%" in page and "0% – 28%" in page and 'data-name="wrong object">4 %<' in page


def test_subtitles_cover_the_film_without_gap_or_overlap():
    captions = ["a"] * 3 + ["b"] * 2 + ["a"] * 5
    assert caption_runs(captions) == [("a", 0, 3), ("b", 3, 2), ("a", 5, 5)]
    shown = re.findall(r"([\d.]+)%,([\d.]+)%\{opacity:1\}", subtitle_keyframes("f", captions))
    spans = [(float(a), float(b)) for a, b in shown]
    assert [round(a) for a, _ in spans] == [0, 30, 50] and [round(b) for _, b in spans] == [30, 50, 100]


def test_silence_is_shown_as_silence():
    report = Report("t")
    report.filmstrip(frames(2), ["", "pick up the cup"], title="strip")
    page = report.render()
    assert 'class="silent">says nothing</q>' in page and ">pick up the cup</q>" in page


def test_sprite_holds_the_frames_in_order_and_rests_on_the_last():
    sheet, columns, rows = pictures.sprite(frames(7), hold=3)
    cells = [sheet[r * 8, c * 12, 0] for r in range(rows) for c in range(columns)]
    assert cells[:7] == [30 * k for k in range(7)]
    assert len(cells) >= 10 and set(cells[7:]) == {180}


def test_drawn_pictures_survive_exactly():
    picture = np.random.default_rng(0).integers(0, 4, size=(9, 16, 1), dtype=np.uint8).repeat(3, 2) * 80
    data = base64.b64decode(pictures.data_uri(picture).split(",")[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), picture)


def test_a_film_with_more_detail_than_webp_has_room_for_is_shown_at_a_lower_quality():
    noise = np.random.default_rng(0).integers(0, 256, (4200, 4200, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="encoding error"):
        Image.fromarray(noise).save(io.BytesIO(), "WEBP", quality=90, method=1)
    shown = Image.open(io.BytesIO(pictures.encode_webp(noise, lossless=False)))
    assert shown.size == (4200, 4200)


def test_attention_glows_where_the_weights_are():
    weights = np.zeros((4, 4))
    weights[3, 0] = 1.0
    _, glowing = pictures.attention_overlay(np.full((16, 16, 3), 128, dtype=np.uint8), weights, size=64)
    assert glowing[-8:, :8].mean() > 2 * glowing[:8, -8:].mean()


def test_save_is_all_or_nothing(report, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old one")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="disk is full"):
        report.save(path)
    assert path.read_text() == "the old one" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.42, "0.4 s"), (52, "52 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")]
)
def test_durations_read_well(seconds, words):
    assert charts.duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1.5, "1.5"), (12_000, "12\u202f000"), (0.0341, "0.0341"), (3e-5, "3e-05")]
)
def test_numbers_read_well(value, text):
    assert charts.number(value) == text


def test_axis_places_values_and_round_ticks():
    axis = charts.Axis(low=0.0, high=10.0)
    assert axis(2.5) == 0.25 and axis.ticks() == [0, 2, 4, 6, 8, 10]
    log = charts.Axis(low=0.1, high=1000.0, log=True)
    assert float(log(10.0)) == pytest.approx(0.5) and 100.0 in log.ticks() and 1e4 not in log.ticks()


def test_curves_skip_what_is_not_finite_and_keep_their_ends():
    page = charts.line_chart({"a": ([0, 1, 2], [1.0, float("nan"), 3.0])}, x_label="x", y_label="y")
    assert "a from 1 to 3" in page and "nan" not in page and "(1 left out)" in page
    page = charts.line_chart({"a": ([0, 1, 2], [0.0, 2.0, 3.0])}, x_label="x", y_label="y", log=True)
    assert "a from 2 to 3" in page and "(1 left out)" in page
    x, y = charts.thin_out(np.arange(5000.0), np.arange(5000.0))
    assert len(x) <= charts.MAX_POINTS and x[0] == 0 and y[-1] == 4999


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda r: r.losses({}, title="t"), "nothing to draw"),
        (lambda r: r.losses({"a": ([1], [0.0])}, title="t"), "above 0, which a log axis needs"),
        (lambda r: r.losses({"a": ([1, 2], [1.0])}, title="t"), "as many x as y"),
        (lambda r: r.video(frames(2), ["a"], title="t"), "2 frames and 1 captions"),
        (lambda r: r.video([frames()[0], frames()[0][:4]], ["a", "b"], title="t"), "differ in shape"),
        (lambda r: r.filmstrip([np.zeros((4, 4, 3))], ["a"], title="t"), "uint8"),
        (lambda r: r.flow(np.zeros((11, 8, 3)), ["x"]), r"flow needs x \[steps\+1 ah 1\] for dims"),
        (lambda r: r.success_table([]), "at least one row"),
        (lambda r: r.attention(frames()[0], -np.ones((2, 2)), caption=""), "not negative"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(Report("t"))
