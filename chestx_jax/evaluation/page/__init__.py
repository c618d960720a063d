"""A page to look at: tables, plots and cases in one HTML file that asks nothing of the network.

`render(title, tables, plots, cases) -> str` knows nothing of tasks or scores; `page.cases` and `page.scores`
make its parts from judged predictions.
"""

from chestx_jax.evaluation.page.parts import Cell, Evidence, Item, PageError, Picture, Plot, Span, Table, Text
from chestx_jax.evaluation.page.render import render

__all__ = ["Cell", "Evidence", "Item", "PageError", "Picture", "Plot", "Span", "Table", "Text", "render"]
