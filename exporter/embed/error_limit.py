"""How many images may fail before a run stops."""

from dataclasses import dataclass

from exporter.embed.parquet import Footer
from exporter.errors import GateError, UsageError, quoted


@dataclass(frozen=True, kw_only=True)
class ErrorLimit:
    """A number of images, or a share of them.

    Attributes:
        text: as it was given.
        count: images; None where it is a share.
        share: of all images, 0 to 1; None where it is a number.
    """

    text: str
    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> "ErrorLimit":
        """Read `25` or `1%`.

        Raises:
            UsageError: neither of the two.
        """
        try:
            if text.endswith("%"):
                share = float(text.removesuffix("%")) / 100
                if 0 <= share <= 1:
                    return cls(text=text, share=share)
            elif int(text) >= 0:
                return cls(text=text, count=int(text))
        except ValueError:
            pass
        raise UsageError(
            f"max-errors: expected a number of images such as 25, or a share such as 1%, got {quoted(text)}"
        )

    def check(self, errors: int, rows: int, latest: Footer) -> None:
        """Whether there are no more errors than there may be.

        Args:
            errors: so far.
            rows: in all, of which they are.
            latest: of the shards with errors.

        Raises:
            GateError: there are more.
        """
        most = int(rows * self.share) if self.share is not None else self.count
        assert most is not None
        if errors > most:
            raise GateError(
                f"data: {errors} of {rows} images cannot be embedded, more than --max-errors {self.text} allows; "
                f"one of them: {latest.first_error}; finished shards stay, and the same command goes on with a larger "
                "--max-errors"
            )
