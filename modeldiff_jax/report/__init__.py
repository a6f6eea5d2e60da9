"""Reports: records in forms that people or programs read. Imports neither JAX nor any model code."""

from modeldiff_jax.report.rendering import FORMATS as FORMATS
from modeldiff_jax.report.rendering import Format as Format
from modeldiff_jax.report.rendering import HtmlReport as HtmlReport
from modeldiff_jax.report.rendering import render as render
from modeldiff_jax.report.rendering import roofline_plot as roofline_plot
