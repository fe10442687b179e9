"""GovReport: government reports and their summaries."""

from typing import Any, ClassVar, Literal

from lit_pi.data.corpora.corpus import Document, Dropped, Split
from lit_pi.data.corpora.readers import Reading, Record, Undecodable
from lit_pi.data.corpora.text_files import Files, TextFiles

HUB = "hf://datasets/ccdv/govreport-summarization@refs/convert/parquet/document"
BEFORE, AFTER = (
    "Read the following article and then summarize it.\n",
    "\nNow summarize the above article.\nSummary:",
)


class GovReport(TextFiles):
    """GovReport (Huang et al. 2021, arXiv 2104.02112), as Chen et al. 2023 use it (section 3.5).

    Records with `report` and `summary`, in Parquet or JSON lines. On the hub: ccdv/govreport-summarization.

    Args:
        train: Parquet or JSONL files in this format (see `TextFiles`); 17,517 reports on the hub.
        validation: likewise; 973 reports.
        test: likewise; 973 reports.
        learn: `report` makes the report a document; `summary` makes report and instruction its prompt, which is read
            but not learnt, and the summary its text.
    """

    bring: ClassVar[str] = (
        "bring the reports (Parquet or JSON lines with `report` and `summary`) and name the files in `train`, "
        "`validation` and `test`"
    )

    def __init__(
        self,
        train: Files | None = f"{HUB}/train/*.parquet",
        validation: Files | None = f"{HUB}/validation/*.parquet",
        test: Files | None = f"{HUB}/test/*.parquet",
        learn: Literal["report", "summary"] = "report",
    ) -> None:
        super().__init__(train, validation, test, text_field="report")
        self.learn = learn

    @property
    def name(self) -> str:
        """`gov_report`."""
        return "gov_report"

    def of_reports(self) -> "GovReport":
        """The same files, of which the report is the document."""
        return GovReport(self.files["train"], self.files["validation"], self.files["test"])

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """With what is learnt."""
        return super().fingerprint(split) | {"learn": self.learn}

    def _document(self, record: Record | Undecodable, source: str) -> Document | Dropped:
        document = super()._document(record, source)
        if self.learn == "report" or isinstance(document, Dropped):
            return document
        assert isinstance(record, Record)
        summary = " " + self._text(record, "summary").strip()
        return document._replace(prompt=f"{BEFORE}{document.text}{AFTER}", text=summary)

    @property
    def _reading(self) -> Reading:
        reading = super()._reading
        return reading._replace(fields=[*reading.fields, *(["summary"] if self.learn == "summary" else [])])
