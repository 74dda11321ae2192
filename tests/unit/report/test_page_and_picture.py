"""The page opens without a network and trusts no name; the picture is drawn without a browser."""

import dataclasses
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from test_chain import both
from test_summary import at

from spotproof import SpecError
from spotproof.report import Curve, Mark, Piece, Point, build_page, chain_of, write_image
from spotproof.report.picture import colours_of, draw_curve, labels_of

EVIL = "<script>alert(1)</script>"


def piece(job: str, attempt: int, first: int, last: int, *, is_lost: bool = False) -> Piece:
    points = tuple(Point(step=step, value=1 / step, at=at(step)) for step in range(first, last + 1))
    return Piece(job_name=job, attempt=attempt, is_lost=is_lost, points=points)


CURVE = Curve(
    metric="train_loss",
    source="hand",
    pieces=(
        piece("five-epochs", 0, 1, 30),
        piece("five-epochs", 0, 30, 40, is_lost=True),
        piece("two-more", 0, 30, 80),
    ),
    marks=(Mark(step=40, kind="reclaimed", job_name="five-epochs", attempt=0),),
)


def test_the_page_has_it_all():
    """The curve, the totals, each job's figures and attempts; not a byte from elsewhere."""
    page = build_page(chain_of(both()), CURVE)
    for part in ("All together", "five-epochs: managed spot, Stopped", "two-more: on demand", "0.085 USD", "31-80"):
        assert part in page
    own = page.replace(get_plotlyjs(), "")
    assert len(own) < len(page) / 10
    for outside in ("src=", "href=", "@import", "url("):
        assert outside not in own


def test_names_are_escaped():
    """Those of jobs, metrics, and reasons of failure."""
    jobs = [dataclasses.replace(job, job_name=EVIL, failure_reason=EVIL) for job in both()]
    curve = dataclasses.replace(CURVE, metric=EVIL, source=EVIL, pieces=(piece(EVIL, 0, 1, 3),))
    page = build_page(chain_of(jobs), curve)
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_page_without_a_curve_says_why():
    """And does not carry the drawing library."""
    page = build_page(chain_of(both()[:1]), None, no_curve="No curve: nobody logged one.")
    assert "No curve: nobody logged one." in page
    assert len(page) < 20_000


@pytest.mark.parametrize(("name", "begin"), [("loss.png", b"\x89PNG"), ("loss.SVG", b"<?xml"), ("loss.pdf", b"%PDF")])
def test_the_picture(tmp_path: Path, name: str, begin: bytes):
    """In the form that its name says."""
    pytest.importorskip("matplotlib")
    write_image(CURVE, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_what_is_drawn():
    """Each piece is a line: the lost one faint and in its job's colour; the second job begins where the first ended."""
    pytest.importorskip("matplotlib")
    (axes,) = draw_curve(CURVE).axes
    first, lost, second, mark = axes.get_lines()
    assert lost.get_color() == first.get_color() == colours_of(CURVE)["five-epochs", 0]
    assert second.get_color() != first.get_color()
    assert (first.get_alpha(), lost.get_alpha()) == (1.0, 0.3)
    assert first.get_xdata()[-1] == second.get_xdata()[0] == 30
    assert list(mark.get_xdata()) == [40, 40]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["five-epochs", "lost, and computed again", "two-more", "reclaimed"]
    assert axes.get_ylabel() == "train_loss"


def test_labels_of_a_single_job_are_its_attempts():
    """Its name says nothing there."""
    curve = dataclasses.replace(CURVE, pieces=(piece("job", 0, 1, 2), piece("job", 1, 2, 3)))
    assert list(labels_of(curve).values()) == ["attempt 0", "attempt 1"]


def test_bad_places_are_refused(tmp_path: Path):
    """Before anything is drawn, or with the reason."""
    with pytest.raises(SpecError, match=r"--image loss\.bmp: \.bmp is no form of a picture"):
        write_image(CURVE, Path("loss.bmp"))
    pytest.importorskip("matplotlib")
    with pytest.raises(SpecError, match=r"can't be written \(No such file or directory\)"):
        write_image(CURVE, tmp_path / "no" / "loss.png")
