"""What is in a page, as a browser would read it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

FETCHING = {
    "src",
    "srcset",
    "href",
    "xlink:href",
    "data",
    "poster",
    "action",
    "formaction",
    "background",
    "ping",
    "manifest",
}
ASKING = re.compile(r"fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon|new Image")
SILENT = {"script", "style", "title"}


class Page(HTMLParser):
    """Elements with their attributes, and the text that is read."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.inside, self.code = [], [], [], {"script": [], "style": []}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in SILENT:
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if self.inside and self.inside[-1] in self.code:
            self.code[self.inside[-1]].append(data)
        elif not self.inside:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def policy(self):
        (found,) = [a["content"] for tag, a in self.elements if a.get("http-equiv") == "Content-Security-Policy"]
        return dict(part.strip().split(" ", 1) for part in found.split(";"))

    def fetched(self):
        """Everything that would make a browser ask for something: only links within the page do not."""
        found = [
            f"{tag} {name}={value}"
            for tag, attributes in self.elements
            for name, value in attributes.items()
            if name in FETCHING and not (tag == "a" and (value or "").startswith("#"))
        ]
        styles = [*self.code["style"], *(a["style"] for _, a in self.elements if a.get("style"))]
        found += [
            f"style {hit}" for style in styles for hit in re.findall(r"url\([^)]*\)|@import[^;]*|image-set\(", style)
        ]
        found += [f"{tag}" for tag, a in self.elements if tag in {"base", "iframe", "object", "embed", "link", "img"}]
        found += [f"refresh {a}" for tag, a in self.elements if tag == "meta" and a.get("http-equiv") == "refresh"]
        return found + [f"script {hit}" for script in self.code["script"] for hit in ASKING.findall(script)]


def hash_of(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
