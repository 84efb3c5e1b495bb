"""Section on a ladder: its engines, what was certified, and what else would do.

In: what `ladder.json` says. Out: a section for `bundle_content`, nothing for a bundle without a ladder.
"""

from exporter.records import LadderRecord, kept_by
from exporter.report import number_text as show
from exporter.report.content import Paragraph, Section, Table, section


def ladder_sections(record: LadderRecord | None) -> tuple[Section, ...]:
    """The engines, cheapest first, with the images that each answers."""
    if record is None:
        return ()
    of = record.certificate
    table = Table(
        caption=f"Engines of the ladder, over {of.images} images of {of.data}",
        headings=("engine", "images answered", "GMACs", "differs alone", "images/s alone"),
        rows=tuple(
            (
                rung.name,
                show.percent(100 * rung.share),
                show.gmacs(rung.gmacs),
                f"{rung.disagreements} (at most {show.percent(100 * rung.bound)})",
                show.per_second(rung.images_per_s),
            )
            for rung in record.rungs
        ),
    )
    same = "" if of.cosine is None else f", with a cosine of {of.cosine:g} or more to its vector,"
    certified = (
        f"With {100 * of.confidence:g} % confidence the answer is the dense model's{same} on at least "
        f"{show.percent(100 * (1 - of.bound))} of images like these ({of.disagreements} of {of.images} differ). An "
        f"answer is kept from a {kept_by(record.router)} of {record.threshold:.4f} on."
    )
    return (section("Ladder", Paragraph(text=certified), table, Paragraph(text=_costs(record))),)


def _costs(record: LadderRecord) -> str:
    """What the ladder costs, and the two that it has to beat."""
    parts = [
        f"Expected multiply-accumulates: {show.percent(100 * record.macs)} of dense",
        "no engine alone agrees as much"
        if record.single is None or record.single_macs is None
        else f"the best single engine, {record.single}, {show.percent(100 * record.single_macs)}",
        "routing by file size cannot be certified"
        if record.by_size is None
        else f"routed by file size {show.percent(100 * record.by_size.macs)}",
    ]
    if record.timing is not None:
        speedup = record.timing.speedup
        parts.append(
            f"measured {show.times(speedup.value)} {record.rungs[-1].name} "
            f"({show.times_interval(speedup.interval)})"
        )
    return "; ".join(parts) + "."
