"""Opening a page as one reader of the report would: window, colour scheme, with or without JavaScript."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@dataclass(kw_only=True)
class Visit:
    """An open page, and everything that it said and asked for."""

    page: "Page"
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path) -> "Page":
        self.page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        return self.page


def visit(browser: "Browser", **options: Any) -> Visit:
    """Return a fresh page in a context of its own."""
    return Visit(page=browser.new_context(**options).new_page())
