"""Sphinx: `make docs`. Nothing is fetched: formulas become MathML, which browsers show by themselves."""

import importlib.metadata
import re

from docutils.nodes import Element, SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = "wgan_fast"
author = "the wgan_fast developers"
release = version = importlib.metadata.version("wgan_fast")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_title = f"wgan_fast {version}"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
myst_fence_as_directive = ["math"]  # as GitHub shows formulas
myst_enable_extensions = ["html_image"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False


# docutils sets the index of an accented letter below the letter, and stretches a norm's bars differently.
_ACCENT = re.compile(
    r"<munderover>(\s*<m[in]>[^<]*</m[in]>)(.*?)(<mo stretchy=\"false\">[^<]*</mo>\s*)</munderover>", re.DOTALL
)
_BAR = re.compile(r"<mo(?: class=\"math\w+\")?>(?=[‖|]</mo>)")


def _mathml(source: str, block: bool) -> str:
    mathml = _ACCENT.sub(r"<msub><mover accent=\"true\">\1\3</mover>\2</msub>", tex2mathml(source, as_block=block))
    return _BAR.sub('<mo stretchy="false">', mathml)


def _visit_math(translator: HTML5Translator, node: Element, block: bool = False) -> None:
    source = node.astext()
    if block and (r"\\" in source or "&" in source):
        source = rf"\begin{{aligned}}{source}\end{{aligned}}"
    translator.body.append(_mathml(source, block))
    raise SkipNode


def _visit_display(translator: HTML5Translator, node: Element) -> None:
    _visit_math(translator, node, block=True)


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_display, None))


html_math_renderer = "mathml"
