"""One page of a report that a browser shows without a network."""

from lit_pi.report.page.write import write_page

__all__ = ["write_page"]
