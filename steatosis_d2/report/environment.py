"""What all pages are rendered with."""

import jinja2

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("steatosis_d2.report"),
    autoescape=True,  # file names are the user's, and may hold anything
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
