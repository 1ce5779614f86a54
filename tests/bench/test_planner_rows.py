"""The planner's benchmark measures what it says; how fast it is, no test asks."""

from ablate.bench.planner import CASES, HOPPER, hopper, lower_bound, seconds_of
from ablate.models.assembly import block
from ablate.plan.options import released_positions


def test_bounds_and_counts() -> None:
    assert lower_bound(HOPPER) == 91 + 15 * 256 * 4 + 14 * 128 * 12
    assert released_positions(hopper(HOPPER).spec, HOPPER)["cached"] == 151_627
    assert block(hopper(CASES[2][1]).spec) == 511
    small = HOPPER.model_copy(update={"horizon": 2, "beam": 3, "max_context_transitions": 2})
    seconds, plan = seconds_of(small, 1, 1)
    assert seconds > 0
    assert plan.positions <= released_positions(hopper(small).spec, small)["cached"]
    full = small.model_copy(update={"mode": "full"})
    assert seconds_of(full, 1, 1)[1].positions <= lower_bound(full)
