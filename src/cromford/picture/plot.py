"""What a client costs in a month, by the lifetime of its factory: a plan's plot."""

from collections.abc import Sequence
from typing import Final

from cromford import told
from cromford.picture.markup import Markup, element, joined, words
from cromford.picture.paper import (
    FONT,
    LINE,
    MARGIN,
    SMALL,
    WIDTH,
    line_of_text,
    paragraph,
    sheet,
    width_of,
)
from cromford.planning.idea import DAY_BLOCKS
from cromford.planning.plan import PlanDocument

HEIGHT: Final = 180  # Of the plot itself.
HEADROOM: Final = 0.08  # Of it, above the highest and below the lowest.
POINT: Final = 4
MSAT_PER_SAT: Final = told.MSAT_PER_SAT
TITLE: Final = "What a client costs in a month"


def cost_plot(plan: PlanDocument, *, prefix: str = "cost") -> str:
    """Return a plan's plot as SVG: cost over lifetime, the best one marked, a channel beside it.

    Args:
        plan: The plan.
        prefix: Of the names in it, where several pictures share a page.
    """
    return _CostPlot(plan).drawn(prefix)


class _CostPlot:
    def __init__(self, plan: PlanDocument) -> None:
        self._plan = plan
        self._best = (plan["best"]["active_blocks"], plan["best"]["cost_msat"])
        points = plan["lifetimes"]
        self._factory = [(point["active_blocks"], point["cost_msat"]) for point in points]
        self._channel = [(point["active_blocks"], point["channel_cost_msat"]) for point in points]
        # As high as the factory's: a channel of a short life is off the page, and no use to see.
        most = max(cost for _, cost in self._factory)
        least = min(cost for _, cost in (*self._factory, *self._channel, self._best))
        spread = max(most - least, 1)
        self._ends = (most, least)
        self._low, self._high = least - HEADROOM * spread, most + HEADROOM * spread
        self._left = MARGIN + width_of(self._sat(most), SMALL) + 4
        self._top = 0.0

    def drawn(self, prefix: str) -> str:
        head, y = self._head()
        self._top = y + 6
        bottom = self._top + HEIGHT
        below, height = self._legend(bottom + 2 * LINE + 8)
        best = self._in_days(self._best[0])
        return sheet(
            head,
            self._axes(bottom),
            self._clip(prefix),
            element(
                "g",
                self._curve(self._channel, "line dashed"),
                clip_path=f"url(#{prefix}-plot)",
            ),
            self._curve(self._factory, "curve"),
            self._marked(bottom),
            below,
            height=height + MARGIN,
            prefix=prefix,
            title=TITLE,
            description=f"{self._about()}: least at {best}, "
            f"{self._sat(self._best[1])} sat for each client and month.",
        )

    def _about(self) -> str:
        asked = self._plan["asked"]
        clients = told.counted(asked["n_clients"], "client")
        return (
            f"{clients}, {asked['feerate_sat_per_vb']:g} sat/vB, "
            f"{asked['capital_percent_per_year']:.2f} % a year for capital, "
            f"{asked['loss_percent_per_year']:g} % of clients lost a year"
        )

    def _head(self) -> tuple[Markup, float]:
        title, y = paragraph(f"{TITLE}, in sat", MARGIN, style="bold", font=FONT + 2)
        about, y = paragraph(self._about(), y, style="dim")
        return joined((title, about)), y

    def _x(self, active_blocks: float) -> float:
        first, last = self._factory[0][0], self._factory[-1][0]
        share = (active_blocks - first) / max(last - first, 1)
        return self._left + share * (WIDTH - MARGIN - self._left)

    def _y(self, cost_msat: float) -> float:
        return self._top + HEIGHT * (self._high - cost_msat) / (self._high - self._low)

    def _axes(self, bottom: float) -> Markup:
        right = float(WIDTH - MARGIN)
        lives = [life for life, _ in self._factory]
        labels = [
            line_of_text(
                self._sat(cost), self._left - 4, self._y(cost) + 4, font=SMALL, anchor="end"
            )
            for cost in self._ends
        ]
        labels += [
            line_of_text(self._in_days(life), x, bottom + LINE, font=SMALL, anchor=anchor)
            for life, x, anchor in ((lives[0], self._left, "start"), (lives[-1], right, "end"))
        ]
        return joined(
            (
                element(
                    "path",
                    d=f"M{self._left:.2f},{self._top:.2f} V{bottom:.2f} H{right:.2f}",
                    class_="line",
                ),
                *labels,
            )
        )

    def _clip(self, prefix: str) -> Markup:
        plot = element("rect", x=self._left, y=self._top, width=WIDTH - self._left, height=HEIGHT)
        return element("clipPath", plot, id=f"{prefix}-plot")

    def _curve(self, points: Sequence[tuple[int, int]], style: str) -> Markup:
        places = " ".join(f"{self._x(life):.2f},{self._y(cost):.2f}" for life, cost in points)
        return element("polyline", points=places, class_=style)

    def _marked(self, bottom: float) -> Markup:
        life, cost = self._best
        x, y = self._x(life), self._y(cost)
        label = f"best: {self._in_days(life)}"
        half = width_of(label, SMALL) / 2
        first, last = self._factory[0][0], self._factory[-1][0]
        ends = [width_of(self._in_days(end), SMALL) for end in (first, last)]
        # Below the ends of the axis, where it would lie upon one of them.
        is_free = self._left + ends[0] + half < x < WIDTH - MARGIN - ends[1] - half
        within = min(max(x, self._left + half), WIDTH - MARGIN - half)
        return joined(
            (
                element("path", d=f"M{x:.2f},{y:.2f} V{bottom:.2f}", class_="now dashed"),
                element(
                    "circle",
                    words("title", f"{label}, {self._sat(cost)} sat"),
                    cx=x,
                    cy=y,
                    r=POINT,
                    class_="point",
                ),
                line_of_text(
                    label,
                    within,
                    bottom + LINE * (1 if is_free else 2),
                    font=SMALL,
                    style="bold",
                    anchor="middle",
                ),
            )
        )

    def _legend(self, y: float) -> tuple[Markup, float]:
        best, as_long = self._plan["best"], self._plan["channel_as_long"]
        rows = (
            ("curve", "a factory of this active life, one after the other"),
            ("line dashed", "a plain channel that is closed after as long"),
        )
        drawn: list[Markup] = []
        for style, label in rows:
            drawn.append(element("path", d=f"M{MARGIN},{y + LINE - 7:.2f} h24", class_=style))
            part, y = paragraph(label, y, indent=30)
            drawn.append(part)
        told_best = (
            f"Least at {told.counted(best['active_blocks'], 'block')} "
            f"({self._in_days(best['active_blocks'])}): {self._sat(best['cost_msat'])} sat."
        )
        feerate = as_long["factory_is_less_from_sat_per_vb"]
        if feerate is not None:
            told_best += f" At {self._in_days(self._plan['asked']['active_blocks'])} it is less "
            told_best += "than such a channel"
            told_best += f" from {feerate:g} sat/vB on." if feerate else " at any feerate."
        part, y = paragraph(told_best, y + 2)
        return joined((*drawn, part)), y

    @staticmethod
    def _sat(amount_msat: float) -> str:
        return f"{amount_msat / MSAT_PER_SAT:,.0f}"

    @staticmethod
    def _in_days(active_blocks: float) -> str:
        return f"{active_blocks / DAY_BLOCKS:.0f} days"
