"""A picture that links to its file opens the file in the browser; by itself, Sphinx makes it a download."""

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx


def show(_app: Sphinx, tree: nodes.document, page: str) -> None:
    """Replace the downloads around pictures by links."""
    for node in list(tree.findall(download_reference)):
        if "filename" in node and node.next_node(nodes.image) is not None:
            address = "../" * page.count("/") + f"_downloads/{node['filename']}"
            node.replace_self(nodes.reference("", "", *node.children, refuri=address))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-resolved", show)
    return {"parallel_read_safe": True}
