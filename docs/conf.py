"""How the documentation is built: `nox -s docs`."""

from importlib.metadata import version as installed

project = "aiovbo"
author = "The aiovbo developers"
release = version = installed("aiovbo")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# In docstrings, single backticks are code, as in Markdown.
default_role = "code"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# The README refers to its own files; here they are text.
suppress_warnings = [
    "myst.xref_missing",
    # Several classes have a field called `type`, which is also the name of a builtin in signatures.
    "ref.python",
]

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["messages.css"]
html_title = f"aiovbo {release}"
html_copy_source = False
html_show_sphinx = False
