"""GovReport: government reports and their summaries."""

from typing import Any, ClassVar, Literal

from lit_pi.data.corpora.corpus import Document, Dropped, FirstTokens, Split
from lit_pi.data.corpora.readers import Reading, Record, Undecodable
from lit_pi.data.corpora.text_files import Files, TextFiles
from lit_pi.errors import UserError
from lit_pi.ranges import Count, in_range

REPOSITORY = "hf://datasets/ccdv/govreport-summarization@refs/convert/parquet/document"
BEFORE, AFTER = (
    "Read the following article and then summarize it.\n",
    "\nNow summarize the above article.\nSummary:",
)


def report_of(document: Document) -> str:
    """The report in a prompt."""
    return document.prompt.removeprefix(BEFORE).removesuffix(AFTER)


class GovReportCorpus(TextFiles):
    """GovReport (Huang et al. 2021, arXiv 2104.02112), as Chen et al. 2023 use it (section 3.5).

    Records with `report` and `summary`, in Parquet or JSON lines. On the hub: ccdv/govreport-summarization.

    Args:
        train: Parquet or JSONL files to train on (see `TextFiles`); 17,517 reports on the hub.
        validation: files of the `validation` split; 973 reports on the hub.
        test: files of the `test` split; 973 reports on the hub.
        learn: `report` makes the report a document; `summary` makes report and instruction its prompt, which is read
            but not learnt, and the summary its text.
        max_report_tokens: keep only so many first tokens of each report (15,000 in the paper); None keeps all.
        max_summary_tokens: keep only so many first tokens of each summary that is learnt (1,000 in the paper); None
            keeps all.

    Raises:
        UserError: a limit is less than 1, or there is one on summaries that are not learnt.
    """

    bring: ClassVar[str] = (
        "bring the reports (Parquet or JSON lines with `report` and `summary`) and name the files in `train`, "
        "`validation` and `test`"
    )

    @in_range
    def __init__(
        self,
        train: Files | None = f"{REPOSITORY}/train/*.parquet",
        validation: Files | None = f"{REPOSITORY}/validation/*.parquet",
        test: Files | None = f"{REPOSITORY}/test/*.parquet",
        learn: Literal["report", "summary"] = "report",
        max_report_tokens: Count | None = None,
        max_summary_tokens: Count | None = None,
    ) -> None:
        super().__init__(train, validation, test, text_field="report")
        if max_summary_tokens is not None and learn == "report":
            raise UserError(
                "max_summary_tokens of GovReportCorpus limits summaries: set learn: summary, or leave it out"
            )
        self.learn = learn
        self.max_report_tokens = max_report_tokens
        self.max_summary_tokens = max_summary_tokens

    @property
    def name(self) -> str:
        """`gov_report`."""
        return "gov_report"

    def of_reports(self) -> "GovReportCorpus":
        """A corpus of the same files in which each report is a document."""
        return GovReportCorpus(self.files["train"], self.files["validation"], self.files["test"])

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """The files' fingerprint, with what is learnt and the limits."""
        limits = {"max_report_tokens": self.max_report_tokens, "max_summary_tokens": self.max_summary_tokens}
        return super().fingerprint(split) | {"learn": self.learn, **limits}

    def limited(self, documents: list[Document], first_tokens: FirstTokens) -> list[Document]:
        """Reports and summaries cut to their first tokens; a report's instruction stays whole."""
        if self.max_report_tokens is not None:
            reports = [document.text if self.learn == "report" else report_of(document) for document in documents]
            cut = zip(documents, reports, first_tokens(reports, self.max_report_tokens), strict=True)
            documents = [document if new == old else self._with(document, new) for document, old, new in cut]
        if self.max_summary_tokens is not None:
            summaries = first_tokens([document.text for document in documents], self.max_summary_tokens)
            documents = [
                document if new == document.text else document._replace(text=new, cut=(*document.cut, "summary"))
                for document, new in zip(documents, summaries, strict=True)
            ]
        return documents

    def _with(self, document: Document, report: str) -> Document:
        """A document whose report was cut."""
        if self.learn == "report":
            return document._replace(text=report, cut=("report",))
        return document._replace(prompt=f"{BEFORE}{report}{AFTER}", cut=("report",))

    def _document(self, record: Record | Undecodable, source: str) -> Document | Dropped:
        document = super()._document(record, source)
        if self.learn == "report" or isinstance(document, Dropped):
            return document
        assert isinstance(record, Record)
        summary = " " + self._text(record, "summary").strip()
        return document._replace(prompt=f"{BEFORE}{document.text}{AFTER}", text=summary)

    @property
    def reading(self) -> Reading:
        """The report, and the summary where it is learnt."""
        reading = super().reading
        return reading._replace(fields=[*reading.fields, *(["summary"] if self.learn == "summary" else [])])
