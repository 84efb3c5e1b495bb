"""Reports: one self-contained HTML file, and Markdown for pull requests.

In: a bundle with what was written beside its engines, or a sweep's folder. Out: a `Report`.
"""

from exporter.report.report import HTML_FILE, MARKDOWN_FILE, MERGES_FILE, Report, report_bundle, report_sweep

__all__ = ["HTML_FILE", "MARKDOWN_FILE", "MERGES_FILE", "Report", "report_bundle", "report_sweep"]
