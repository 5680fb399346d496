"""How the documentation is built: `nox -s docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

project = "aiovbo"
author = "The aiovbo developers"
release = version = installed("aiovbo")

sys.path.insert(0, str(Path(__file__).with_name("_sphinx")))

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "reference",
    "built_pages",
    "pictures",
    "llms",
]
exclude_patterns = ["_build"]
# In docstrings, single backticks are code, as in Markdown.
default_role = "code"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = [
    # Several classes have a field called `type`, which is also the name of a builtin in signatures.
    "ref.python",
]

# Small inventories of our own, as text: the build needs no network. The build warns of names that they lack.
intersphinx_mapping = {
    name: (url, f"_inventories/{name}.inv")
    for name, url in {
        "python": "https://docs.python.org/3",
        "aiohttp": "https://docs.aiohttp.org/en/stable",
        "attrs": "https://www.attrs.org/en/stable",
        "yarl": "https://yarl.aio-libs.org/en/stable",
    }.items()
}

nitpicky = True
nitpick_ignore_regex = [
    # Type variables, and private types that callers only pass on.
    (r"py:.*", r"(aiovbo\..*\.)?_?[A-Z]"),
    (r"py:.*", r"aiovbo\.(_|testing\._).*"),
    (r"py:.*", r"aiovbo\.errors\.\w+"),
    # Of extras, whose inventories are not kept here.
    (r"py:.*", r"(prometheus_client|opentelemetry|distributed|psycopg|psycopg_pool)\..*"),
]

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["messages.css"]
html_title = f"aiovbo {release}"
html_copy_source = False
html_show_copyright = html_show_sphinx = False
# The README's widest line of code is to be read without scrolling.
html_theme_options = {f"{scheme}_css_variables": {"code-font-size": "0.75em"} for scheme in ("light", "dark")}
