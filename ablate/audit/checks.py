"""The audit's checks. Each returns findings: what is wrong, in which shape, in one sentence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ablate.audit.probe import LOGGED, TABLE, Episodes, Lab, named, unnamed
from ablate.data import streams
from ablate.models.layouts import Layout

FAINT = 1e-13  # of the largest derivative: below this an undeclared one is rounding


def declared(layout: Layout, context: int) -> dict[str, set[int]]:
    """Lags of every field that the levels of history and condition say are seen.

    Stated from the names of a history's parts and from what each condition says of itself, and not from the
    layout's columns, which are what is audited. Lag 0 is the present; its action is the one to be predicted, its
    reward comes after.
    """
    history = layout.history.split("+")
    past = set(range(1, context))
    lags = {
        "observation": {0} | (past if "states" in history else set()),
        "action": past if "actions" in history else set(),
        "reward": past if "rewards" in history else set(),
    }
    for name, condition in layout.conditions.items():
        stays = condition.stays(layout.past) and not condition.stands
        lags[name] = {0} | (past if stays else set())
    if layout.timesteps:
        lags[TABLE] = {0} | past
    return lags


def required(lab: Lab) -> dict[str, set[int]]:
    """The declared lags that must have an influence: those that the model says it reaches.

    A condition that slides out of the window, or stands behind the present, need not have any.
    """
    layout = lab.agent.layout
    lost = {name for name, each in layout.conditions.items() if each.stands in ("start", "behind")}
    return {
        name: {lag for lag in lags if lag < lab.reach and name not in lab.silent | lost}
        for name, lags in declared(layout, lab.context).items()
    }


def allowed(lab: Lab, shape: str) -> dict[str, set[int]]:
    """The lags that may have an influence: the declared ones, and with a carried state all before."""
    lags = declared(lab.agent.layout, lab.context)
    if shape == "training" or lab.agent.state == "re-encoded":
        return lags
    past = {lag for lag in lab.lags if lag > 0}
    observed = {0} | (past if "states" in lab.agent.layout.history.split("+") else set())
    return lags | {
        name: observed if name == "observation" else which | past
        for name, which in lags.items()
        if which
    }


def influence(lab: Lab, shape: str, alone: bool) -> np.ndarray:
    """Influence of each logged quantity on the output, (fields, times, lags); zero for none.

    The relative change under a perturbation, else, where that is lost in rounding, the derivative.
    NaN where the quantity does not exist.
    """
    changed = lab.perturbed(shape, alone)
    # With a leak along the batch a derivative over several windows would show that leak.
    slope = changed * 0.0 if alone else lab.gradient(shape)
    if lab.agent.layout.timesteps:
        # An index that is looked up in a table has no derivative; only perturbing it tells.
        time = lab.fields.index(TABLE)
        slope[time] = np.where(slope[time] == 0.0, np.nan, slope[time])
    free = allowed(lab, shape)
    noise = np.array([[0.0 if lag in free[f] else 1.0 for lag in lab.lags] for f in lab.fields])
    noise = noise[:, None] * FAINT * np.nan_to_num(slope).max(initial=0.0)
    faint = np.where(slope > noise, np.minimum(slope, lab.tolerance), 0.0)
    clear = np.nan_to_num(changed) > lab.tolerance
    found = np.where(clear, changed, np.nan_to_num(faint))
    return np.where(np.isnan(changed) & np.isnan(slope), np.nan, found)


def receptive_field(lab: Lab, shape: str, found: np.ndarray) -> list[str]:
    """None from the future, beyond the context or from what is hidden; some at declared lags."""
    layout, context = lab.agent.layout, lab.context
    wanted, free = required(lab), allowed(lab, shape)
    wrong: dict[str, list[str]] = {
        kind: []
        for kind in ("future", "beyond-context", "undeclared", "condition-ignored", "blind")
    }
    for place, field in enumerate(lab.fields):
        lags: dict[str, list[int]] = {kind: [] for kind in wrong}
        for column, lag in enumerate(lab.lags):
            values = found[place, :, column]
            values = values[~np.isnan(values)]
            if lag in wanted[field]:
                # Wherever the input exists it must matter: a short window is no excuse.
                if (values == 0).any():
                    lags["blind"].append(lag)
            elif lag in free[field] or not (values > 0).any():
                continue
            elif lag < 0 or (lag == 0 and field in ("action", "reward")):
                lags["future"].append(lag)
            else:
                lags["beyond-context" if lag >= context else "undeclared"].append(lag)
        if field not in LOGGED and 0 in lags["blind"]:
            lags["condition-ignored"], lags["blind"] = lags["blind"], []
        for kind, which in lags.items():
            if which:
                wrong[kind].append(f"{field} at {_lags(which)}")
    levels = f"history '{layout.history}' with condition '{layout.condition}'"
    sentence = {
        "future": "the output depends on {}: that is still to come.",
        "beyond-context": f"the output depends on {{}}; the context is {context}.",
        "undeclared": f"the output depends on {{}}, which {levels} does not show.",
        "condition-ignored": f"no influence of {{}}; the condition is '{layout.condition}'.",
        "blind": f"no influence of {{}}; {levels} and context {context} declare it.",
    }
    return [
        f"{kind} ({shape}): " + sentence[kind].format(", ".join(fields))
        for kind, fields in wrong.items()
        if fields
    ]


def batch(lab: Lab, shape: str) -> list[str]:
    """A window, or an episode, gives the same output alone and among others, whatever they hold."""
    steps = lab.base.steps
    mixed = lab.draw(3, steps, "batch")
    others = mixed.with_episode(1, lab.draw(3, steps, "others"))
    if shape == "training":
        # The audited windows stand between others, since a leak may run in either direction.
        pairs = [(0, steps - 1)]
        for t in lab.times:
            pairs += [(1, t), (2, min(t + 1, steps - 1)), (0, t)]
        mine = [place for place, (episode, _) in enumerate(pairs) if episode == 1]
        together = lab.train(mixed, pairs)[:, mine]
        altered = lab.train(others, pairs)[:, mine]
        alone = lab.train(mixed, [pairs[place] for place in mine], alone=True)
        what = "a window depends on the other windows of its batch"
    else:
        together, altered = (lab.act(e, lab.times[-1] + 1)[:, 1] for e in (mixed, others))
        alone = lab.act(mixed.only(1), lab.times[-1] + 1)[:, 0]
        what = "an episode depends on the other episodes of its batch"
    if not bool(torch.isfinite(together).all()):
        return [f"not-finite ({shape}): the output of a fresh model is not finite."]
    if lab.change(together, altered) > lab.tolerance:
        return [f"batch ({shape}): the output for {what}."]
    if lab.change(together, alone) > 100 * lab.tolerance:
        return [f"batch ({shape}): the output is not the same alone as in a batch."]
    return []


def padding(lab: Lab) -> list[str]:
    """What lies right of a short window's target changes nothing."""
    if lab.context == 1:
        return []
    lengths, features = _windows(lab, lab.context - 1)
    _, junk = _windows(lab, lab.context - 1, "junk")
    mask = torch.arange(lab.agent.context, device=lab.device) < lengths[..., None]  # (S, B, K)
    dirty = torch.where(mask[..., None], features, junk)
    clean = torch.where(mask[..., None], features, torch.zeros_like(features))
    stack = lab.mode("training")
    findings = []
    with torch.no_grad():
        first, second = (stack(tokens, lengths) for tokens in (clean, dirty))
        if lab.change(first, second) > lab.tolerance:
            findings.append("padding (training): the content of the padding changes the output.")
        first, second = (stack(tokens, mask, method="everywhere") for tokens in (clean, dirty))
        if lab.change(first[mask], second[mask]) > lab.tolerance:
            findings.append(
                "padding (all positions): the content of the padding changes the output."
            )
    return findings


def positions(lab: Lab) -> list[str]:
    """Trained on all positions, each sees what the window that ends there would have shown."""
    context, stack = lab.agent.context, lab.mode("training")
    _, features = _windows(lab, context + 1)
    features = features[:, :1].expand(-1, context + 1, -1, -1).clone()  # (S, K + 1, K, F)
    _, fresh = _windows(lab, context + 1, "junk")
    index = torch.arange(context, device=lab.device)
    features[:, index + 1, index] = fresh[:, index + 1, index]  # copy j + 1 has position j altered
    mask = torch.ones(features.shape[:3], dtype=torch.bool, device=lab.device)
    lengths = (index + 1).expand(lab.size, -1)
    with torch.no_grad():
        every = stack(features, mask, method="everywhere")  # (S, K + 1, K, P)
        ends = stack(features[:, :1].expand(-1, context, -1, -1), lengths)  # (S, K, P)
    findings = []
    later = index[:, None] > index  # altered position j, output position i: j > i
    before = every[:, :1].expand(-1, context, -1, -1)
    if context > 1 and lab.change(before[:, later], every[:, 1:][:, later]) > lab.tolerance:
        findings.append(
            "future (all positions): a position of a window depends on later positions."
        )
    elif lab.change(ends, every[:, 0]) > 100 * lab.tolerance:
        findings.append(
            "paths-differ (all positions): a position's output is not that of the window that ends "
            "there."
        )
    return findings


def carried_state(lab: Lab) -> list[str]:
    """The mixer's step with carried state equals its window path within a window.

    A mixer that says it `slides` has to go on doing so after it.
    """
    context, stack = lab.agent.context, lab.mode("acting")
    steps = 2 * context + 2 if stack.slides else context
    generator = streams.stream("audit", 0, "tokens/step")
    shape = (lab.size, 2, steps, lab.agent.layout.features)
    tokens = torch.from_numpy(generator.normal(size=shape)).to(lab.device, lab.dtype)
    stepped, windows, lengths = [], [], []
    with torch.no_grad():
        state = stack.start(2, tokens)
        for t in range(steps):
            params, state = stack(tokens[:, :, t], state, method="step")
            stepped.append(params)
            length = min(t + 1, context)
            window = torch.zeros_like(tokens[:, :, :1]).repeat(1, 1, context, 1)
            window[:, :, :length] = tokens[:, :, t + 1 - length : t + 1]
            windows.append(window)
            lengths.append(torch.full((lab.size, 2), length, device=lab.device))
        # (S, steps * 2, ...): all windows in one call
        expected = stack(torch.cat(windows, 1), torch.cat(lengths, 1))
    difference = lab.change(expected, torch.cat(stepped, 1))
    if difference <= 100 * lab.tolerance:
        return []
    return [
        f"paths-differ (step): `step` with carried state does not give what the window gives "
        f"(largest difference {difference:.1g} of the output's spread)."
    ]


def shapes_agree(lab: Lab) -> list[str]:
    """The same history gives the same output in training shape and in acting shape.

    A state that is carried on does so within the context only.
    """
    beyond = min(lab.context, 16) + 6 if lab.agent.state == "re-encoded" else 0
    steps = lab.context + beyond
    episodes = lab.draw(2, steps, "long")
    pairs = [(episode, t) for episode in range(2) for t in range(steps)]
    trained = lab.train(episodes, pairs).view(lab.size, 2, steps, -1)
    acted = lab.act(episodes, steps)
    for t in range(steps):
        difference = lab.change(trained[:, :, t], acted[:, :, t])
        if difference > 100 * lab.tolerance:
            return [
                f"acting-differs (acting): on the same history the output at timestep {t} is not "
                f"that of training (difference {difference:.1g} of the output's spread)."
            ]
    return []


def replicas(lab: Lab) -> list[str]:
    """No replica of a stack sees another's inputs or parameters."""
    if lab.size == 1:
        return []
    findings = []
    episodes, others = (lab.draw(2, lab.base.steps, name) for name in ("batch", "others"))
    times = [lab.times[0], lab.times[-1]]
    rows = torch.tensor(times, device=lab.device).expand(lab.size, -1)
    elsewhere = rows.clone()
    elsewhere[1:] += lab.base.steps  # the later replicas read the second episode
    data = lab.stored(episodes)
    lab.mode("training")
    outputs = lab.agent.predict(data, rows)
    with torch.no_grad():
        if lab.change(outputs[0], lab.agent.predict(data, elsewhere)[0]) > lab.tolerance:
            findings.append(_replica("training", "windows"))
        raw, other = lab.raw(episodes), lab.raw(others)
        both = zip(named(raw).items(), named(other).values(), strict=True)
        mixed = unnamed({f: _from_second(mine, its) for (f, mine), its in both})
        first, second = (lab.act_on(fields, lab.times[-1] + 1)[0] for fields in (raw, mixed))
        if lab.change(first, second) > lab.tolerance:
            findings.append(_replica("acting", "episodes"))
    leaves = [p for p in lab.agent.stack.parameters() if p.requires_grad]
    grads = torch.autograd.grad(outputs[0].sum(), leaves, allow_unused=True)
    if any(grad is not None and bool(grad[1:].any()) for grad in grads):
        findings.append(_replica("training", "parameters"))
    return findings


def stacking(alone: Lab, stacked: Lab) -> list[str]:
    """The first replica of a stack gives what the same policy gives alone, in both shapes."""
    steps = alone.base.steps
    episodes: Episodes = alone.draw(2, steps, "batch")
    pairs = [(episode, t) for episode in range(2) for t in alone.times]
    findings = []
    for shape in ("training", "acting"):
        if shape == "training":
            first, second = (lab.train(episodes, pairs)[0] for lab in (alone, stacked))
        else:
            first, second = (lab.act(episodes, alone.times[-1] + 1)[0] for lab in (alone, stacked))
        if alone.change(first, second) > 100 * alone.tolerance:
            findings.append(
                f"replicas ({shape}): a policy gives another output in a stack than by itself."
            )
    return findings


def _windows(lab: Lab, count: int, name: str = "tokens") -> tuple[Tensor, Tensor]:
    """lengths 1, 2, ... (S, count) and random tokens (S, count, K, F)."""
    generator = streams.stream("audit", 0, f"{name}/{count}")
    shape = (lab.size, count, lab.agent.context, lab.agent.layout.features)
    tokens = torch.from_numpy(generator.normal(size=shape)).to(lab.device, lab.dtype)
    lengths = torch.arange(1, count + 1, device=lab.device).expand(lab.size, -1)
    return lengths, tokens


def _from_second(first: Tensor, second: Tensor) -> Tensor:
    """`first` (S, ...) with every replica after the first taken from `second`."""
    return torch.cat([first[:1], second[1:]])


def _replica(shape: str, what: str) -> str:
    return f"replicas ({shape}): the output of one replica depends on another's {what}."


def _lags(lags: list[int]) -> str:
    """`lag 3`, `lags 1-4`, `lags 1-4 and 7`; negative ones one by one."""
    runs: list[list[int]] = []
    for lag in lags:
        if runs and 0 < lag == runs[-1][-1] + 1:
            runs[-1].append(lag)
        else:
            runs.append([lag])
    text = " and ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
    return ("lag " if len(lags) == 1 else "lags ") + text
