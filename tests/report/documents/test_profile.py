"""The report of a profile leads with the share of the roofline."""

from modeldiff_jax.report import render
from tests.helpers import records


def test_the_headline_is_the_share_and_the_limit():
    assert "51 % of the roofline; the limit is float32" in render(records.profile(), "text")
    assert "no program was compiled" in render(records.ALL["profile-nothing"], "text")


def test_the_page_has_the_plot():
    assert render(records.profile(), "html").count("<svg") == 1
