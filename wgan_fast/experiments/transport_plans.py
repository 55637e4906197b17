"""A transport plan says how much mass moves from each position to each. Plans may have equal or different costs; the
earth mover's distance is the cost of the cheapest. Six boxes at 1, 1, 1, 2, 3, 3 that move to 7, 8, 9, 9, 10, 10 cost
42 by every plan, among them two from lecture notes: from 1, 1, 1, 2, 3, 3 to 7, 10, 10, 8, 9, 9 in this order, or to 7,
10, 10, 9, 8, 9. Where boxes lie among the places, plans differ, and linear programming finds the cheapest. Source:
Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, equation 1.

Moving a box costs the distance: the first one, from 1 to 7, costs 6. In the first arrangement every box moves to the
right, so every plan costs the sum of the places less the sum of the boxes. The exact solver is checked by brute force
over all 720 assignments of six boxes to six places: masses are whole, so one of the best plans is an assignment.
"""

import itertools

import torch
from matplotlib.axes import Axes
from torch import Tensor

from wgan_fast.distances import earth_movers_distance_1d, transport_plan
from wgan_fast.train.view.colours import BLACK, RED, SKY

from .claim import COLOURS, LINES, Finding, Number, Story, axes

STORY = Story(
    "A plan says what goes where; the distance is what the cheapest plan costs.",
    (
        r"\sum_y \, \gamma(x, y) = P_r(x), \quad \sum_x \, \gamma(x, y) = P_g(y)",
        r"W(P_r, P_g) = \min_{\gamma \in \Pi(P_r, P_g)} \quad \sum_{x, y} \; \gamma(x, y) \, |x - y|",
    ),
    "A plan of the first arrangement that costs other than 42; an assignment cheaper than the exact solver's plan.",
    ("wgan",),
    "Masses here are numbers of boxes: the distance of the distributions is the cost divided by six.",
)

BOXES, PLACES = torch.tensor([1.0, 1, 1, 2, 3, 3]), torch.tensor([7.0, 8, 9, 9, 10, 10])
MIXED_BOXES, MIXED_PLACES = torch.tensor([1.0, 1, 4, 6, 8, 9]), torch.tensor([2.0, 3, 3, 5, 7, 12])
#: The plans of the notes: the mass from 1, 2 and 3 (rows) to 7, 8, 9 and 10 (columns).
NOTES = torch.tensor([[[1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 2, 0]], [[1.0, 0, 0, 2], [0, 0, 1, 0], [0, 1, 1, 0]]])
ASSIGNMENTS = torch.tensor(list(itertools.permutations(range(6))))  # one per row: the place of each box


def costs(boxes: Tensor, places: Tensor) -> Tensor:
    """The cost of each of the 720 assignments."""
    return (boxes - places[ASSIGNMENTS]).abs().sum(1)


def exact(boxes: Tensor, places: Tensor) -> tuple[Tensor, float]:
    """The plan of linear programming and its cost; every box has mass 1."""
    plan, cost = transport_plan((boxes[:, None] - places).abs(), torch.ones(6), torch.ones(6))
    return plan, cost.item()


def by_place(values: Tensor, dim: int, positions: Tensor) -> tuple[Tensor, list[int]]:
    """The plan with boxes of equal position summed, and the positions."""
    where, index = positions.unique(return_inverse=True)
    shape = [*values.shape]
    shape[dim] = len(where)
    return torch.zeros(shape).index_add(dim, index, values), where.int().tolist()


def draw_flows(panel: Axes, boxes: Tensor, places: Tensor, assignment: Tensor, title: str) -> None:
    """The boxes in stacks below, their places above, and a line for each move."""
    for positions, base, step, colour in ((boxes, 0, -1, SKY), (places, 4, 1, "white")):
        stacks = positions.unique(return_counts=True)
        for position, count in zip(*(values.tolist() for values in stacks), strict=True):
            for level in range(count):
                panel.bar(position, step, 0.9, bottom=base + step * level, color=colour, edgecolor=BLACK)
    for i, j in enumerate(assignment.tolist()):
        nudge = 0.14 * (i - 2.5)  # so that lines with the same ends do not coincide
        panel.plot([boxes[i] + nudge, places[j] + nudge], [0, 4], color=COLOURS[i], linestyle=LINES[i % 4])
    panel.set(title=title, xlabel="position", xlim=(0, 13), ylim=(-3.4, 7.4), xticks=range(1, 13))
    panel.set_yticks([-0.5, 4.5], ["boxes", "places"])


def draw_table(panel: Axes, plan: Tensor, boxes: Tensor, places: Tensor, title: str) -> None:
    """The mass that goes from each position to each."""
    table, sources = by_place(plan, 0, boxes)
    table, targets = by_place(table, 1, places)
    panel.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=3, aspect="auto")
    for i, row in enumerate(table.tolist()):
        for j, mass in enumerate(row):
            panel.text(j, i, f"{mass:.0f}", ha="center", va="center", color=BLACK, alpha=1.0 if mass else 0.35)
    panel.set(title=title, xlabel="to position", ylabel="from position")
    panel.set_xticks(range(len(targets)), map(str, targets))
    panel.set_yticks(range(len(sources)), map(str, sources))


def run(seed: int, *, small: bool = False) -> Finding:
    """Compares plans, brute force and the exact solver on two arrangements, and on random ones."""
    in_order, reversed_order = torch.arange(6), torch.arange(5, -1, -1)
    moves = (BOXES - PLACES[in_order]).abs()
    all_costs, (_, exact_cost) = costs(BOXES, PLACES), exact(BOXES, PLACES)
    mixed_costs, (mixed_plan, mixed_cost) = costs(MIXED_BOXES, MIXED_PLACES), exact(MIXED_BOXES, MIXED_PLACES)
    excess = (MIXED_BOXES - MIXED_PLACES[reversed_order]).abs().sum().item() - mixed_costs.min().item()
    cheapest = ASSIGNMENTS[mixed_costs.argmin()]

    generator = torch.Generator().manual_seed(seed)
    errors = [0.0]
    for _ in range(3 if small else 20):
        boxes, places = torch.randint(1, 13, (2, 6), generator=generator).float()
        errors.append(abs(exact(boxes, places)[1] - costs(boxes, places).min().item()))
    (sources, stacks), (targets, room) = (x.unique(return_counts=True) for x in (BOXES, PLACES))
    notes_costs = (NOTES * (sources[:, None] - targets).abs()).sum((1, 2)).tolist()
    off = max((NOTES.sum(2) - stacks).abs().max().item(), (NOTES.sum(1) - room).abs().max().item())
    line = 6 * earth_movers_distance_1d(MIXED_BOXES, MIXED_PLACES).item()
    numbers = [
        Number("cost of the first box's move, from 1 to 7", moves[0].item(), 6),
        Number("cost of the plan in order", moves.sum().item(), 42),
        Number("cost of the plan in reverse", (BOXES - PLACES[reversed_order]).abs().sum().item(), 42),
        Number("notes: largest error of a marginal of either plan", off, 0),
        Number("notes: mass that either plan moves to 10", NOTES[:, :, 3].sum(1).min().item(), 2),
        Number("notes: cost of the first plan", notes_costs[0], 42),
        Number("notes: cost of the second plan", notes_costs[1], 42),
        Number("cheapest of 720 assignments", all_costs.min().item(), 42),
        Number("dearest of 720 assignments", all_costs.max().item(), 42),
        Number("the exact solver's cost", exact_cost, 42, 1e-5),
        Number("mixed: the reverse plan costs more than the cheapest, by", excess, 1, 0, ">="),
        Number("mixed: the exact solver's cost, against brute force", mixed_cost, mixed_costs.min().item(), 1e-5),
        Number("mixed: closed form on a line, against brute force", line, mixed_costs.min().item(), 1e-5),
        Number("random: largest error of the exact solver", max(errors), 0, 1e-5),
    ]

    figures, panels = axes(3, 2, width=4.4, height=3.6)
    draw_flows(panels[0], BOXES, PLACES, in_order, f"In order: cost {moves.sum():.0f}")
    draw_flows(panels[1], BOXES, PLACES, reversed_order, f"In reverse: cost {numbers[2].measured:.0f}, too")
    draw_table(panels[2], torch.eye(6)[reversed_order], BOXES, PLACES, "The reverse plan as a table: masses")
    draw_flows(panels[3], MIXED_BOXES, MIXED_PLACES, cheapest, f"Mixed: the cheapest plan costs {mixed_cost:.0f}")
    draw_table(panels[4], mixed_plan, MIXED_BOXES, MIXED_PLACES, "The exact solver's plan: masses")
    panels[5].bar(*(values.tolist() for values in mixed_costs.unique(return_counts=True)), color=SKY)
    panels[5].axvline(mixed_cost, color=RED, linestyle="--", label=f"exact solver: {mixed_cost:.0f}")
    panels[5].set(
        title="Mixed: costs of all 720 assignments",
        xlabel="cost (mass times distance)",
        ylabel="assignments",
        ylim=(0, 125),
    )
    panels[5].legend()
    return Finding(figures, numbers)
