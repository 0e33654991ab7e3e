"""What a soak must show."""

FLAT = 0.05
"""By how much memory may grow from the first third to the last in a long run, as a share."""

NEARLY_FLAT = 0.1
"""The same in a short run, in which the warm-up is not over for everything."""

FEW_MEGABYTES = 0.5
"""By how much memory may grow whatever share that is: the store has only a few megabytes of data."""

STABLE = 0.5
"""By how much the median p99 of a second may grow; machines that run other programs need that much."""


def list_faults(result, *, is_long):
    """Return what was not as it must be; latencies are judged only in a long run."""
    most = FLAT if is_long else NEARLY_FLAT
    growth = {name: result.find_growth(name) for name in ("sidecar", "store", "descriptors", "p99")}
    faults = [
        f"{name} grew by {growth[name]:.1%}"
        for name in ("sidecar", "store")
        if growth[name] > most and result.find_difference(name) > FEW_MEGABYTES
    ]
    if abs(growth["descriptors"]) > FLAT:
        faults.append(f"descriptors changed by {growth['descriptors']:.1%}")
    if is_long and growth["p99"] > STABLE:
        faults.append(f"p99 grew by {growth['p99']:.0%}")
    faults += [f"unexpected answer: {unexpected}" for unexpected in result.unexpected[:5]]
    if not result.history["sound"]:
        faults += [f"history: {fault}" for fault in result.history["faults"][:5]]
    return faults
