"""`pilot data inspect` for pictures with questions: what is asked, what is answered, and where the boxes lie."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pilot.data.formats.image_text import ImageTextRows, decode_image
from pilot.data.formats.open_dataset import open_image_text
from pilot.data.tools.quality_checks import QualityIssue
from pilot.eval.report import pictures
from pilot.eval.report.inspect import Inspection
from pilot.eval.report.report import Report, grain
from pilot.eval.report.templates import macros
from pilot.tokenizers.text import split_box

SHOWN = 12  # pictures
COUNTED = 2000  # rows that are read for the tables
LISTED = 15  # lines of a table
BOX = (255, 60, 60)
LARGE = 256  # pixels high: smaller pictures are enlarged, so that a box can be seen


def inspect_web(path: str | Path, *, out: str | Path | None = None) -> Inspection:
    """Write the page about a set of pictures with questions, by default `inspect.html` in its folder.

    Raises:
        FileNotFoundError, ValueError: the set cannot be read.
    """
    path = Path(path)
    rows = open_image_text(path, skip_bad=True)
    counted = np.unique(np.linspace(0, len(rows) - 1, min(COUNTED, len(rows))).round().astype(int))
    pairs = [pair for i in counted for pair in rows.read(int(i))[1]]
    issues = find_issues(pairs)
    report = Report(path.resolve().name, subtitle=f"{len(rows)} rows: a picture, a question and an answer.")
    boxes = sum("<loc" in question + answer for question, answer in pairs) / len(pairs)
    report.highlights(
        [
            (str(len(rows)), "rows", f"{len(counted)} of them were read for this page"),
            (str(len({question for question, _ in pairs})), "different questions", ""),
            (f"{boxes:.0%}", "speak of a place", "as a box in the question or in the answer"),
        ]
    )
    report.section("What to look at first" if issues else "Nothing looks wrong")
    for issue in issues:
        report.text(f"**{issue.check}**: {issue.what}. {issue.remedy}.")
    add_pictures(report, rows)
    report.section("Words")
    for title, words in (("Questions", [q for q, _ in pairs]), ("Answers", [a for _, a in pairs])):
        common = Counter(plain(each) for each in words).most_common(LISTED)
        table = [(each, f"{count / len(pairs):.1%}") for each, count in common]
        report.table([title.lower(), "share"], table, title=f"{title}, the most frequent")
    where = path if path.is_dir() else path.parent
    page = report.save(out or where / "inspect.html")
    return Inspection(page=page, episodes=len(rows), issues=issues, skipped=len(rows.skipped))


def find_issues(pairs: Sequence[tuple[str, str]]) -> list[QualityIssue]:
    """Return what may be a mistake in questions and answers: empty ones, and a question that has one answer only."""
    issues = []
    if empty := sum(not question.strip() or not answer.strip() for question, answer in pairs):
        what = f"{empty} of {len(pairs)} rows have an empty question or answer"
        issues.append(QualityIssue(check="empty words", what=what, remedy="Leave these rows out"))
    answers: dict[str, Counter[str]] = {}
    for question, answer in pairs:
        answers.setdefault(question, Counter())[answer] += 1
    for question, counts in answers.items():
        (answer, count), total = counts.most_common(1)[0], counts.total()
        if total >= 50 and count > 0.98 * total:
            what = f"“{plain(question)}” is answered “{plain(answer)}” {count} times of {total}"
            remedy = "A model learns to say it without looking; add pictures where another answer is true"
            issues.append(QualityIssue(check="one answer", what=what, remedy=remedy))
    return issues


def add_pictures(report: Report, rows: ImageTextRows) -> None:
    """Add some rows, spread over the set, with their boxes drawn."""
    report.section("Pictures", "Rows from all over the set. A red frame is the box that the row speaks of.")
    shown = []
    for i in np.unique(np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)):
        content, ((question, answer), *_) = rows.read(int(i))
        picture = decode_image(content, where=f"{rows.path}, row {i}")
        drawn = draw_boxes(picture, question, answer)
        caption = f"{plain(question)} — {plain(answer)}"
        shown.append({"uri": pictures.data_uri(drawn), "grain": grain(picture), "caption": caption})
    report.add(macros("data.html").rows(shown))


def plain(text: str) -> str:
    """Return a text with its boxes as `[box]` in place of `<loc>` tokens."""
    return re.sub(r"(?:<loc\d{4}>\s*)+", "[box] ", text).strip()


def draw_boxes(picture: np.ndarray, *texts: str) -> np.ndarray:
    """Return a picture, enlarged if it is small, with the box at the beginning of each text drawn in."""
    scale = -(-LARGE // picture.shape[0]) if picture.shape[0] < LARGE else 1
    image = Image.fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1))
    for text in texts:
        box, _ = split_box(text[text.find("<loc") :] if "<loc" in text else text)
        if box is not None:
            y0, x0, y1, x1 = box
            corners = [x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height]
            ImageDraw.Draw(image).rectangle(corners, outline=BOX, width=2)
    return np.asarray(image)
