"""
MkDocs hook: the README and the other documents of the repository become pages of the site, too.

In the repository, documents link to each other by their paths. On the site, docs/ is the root. So
each link is turned into the one that leads to the same document there; what is no page of the
site, a script for instance, becomes plain text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).resolve().parents[1]
# Path in the repository -> path on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "configs/README.md": "networks.md",
    "datasets/README.md": "data.md",
    "steatosis_d2/model_zoo/weights/liver_starter.md": "card_liver.md",
    "steatosis_d2/model_zoo/weights/nucleus_starter.md": "card_nucleus.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s:]+)\)")


def on_files(files, config):
    """Add the documents that lie outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links between documents into links between pages."""
    source = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turn(link):
        image, text, target = link.groups()
        path, _, anchor = target.partition("#")
        if not path:
            return link.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page_path = PAGES.get(path, path.removeprefix("docs/"))
        if path not in PAGES and not path.startswith("docs/"):
            return text
        return f"{image}[{text}]({page_path}{'#' + anchor if anchor else ''})"

    return LINK.sub(turn, markdown)
