"""Acting with trajectory models: by search, or slot by slot by likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ablate.data.catalogue import OptimalValues
from ablate.errors import UserError
from ablate.models.assembly import Model
from ablate.models.layouts import Fields, Layout
from ablate.models.nets import Nets
from ablate.plan.imagine import Imagination, Imaginations, imagine
from ablate.plan.options import PlanOptions, check_fits, window_cap
from ablate.plan.search import ActionValue, Plan, search

SEEDS = 2**31 - 1


class TrajectoryAgent:
    """S models of one shape that act; what a rollout asks of an agent.

    They search as `options` say. With the objective `direct` they take each action slot's most likely bin, or draw
    it where noise is given, after at most `options.executed` timesteps; keys and values are carried from one
    timestep to the next while the window is unbroken, and the window is encoded again where it slides.

    layout: what a rollout reads of it is which conditions to show. optimal: Q* of the data's process, see
    `DataSpec.optimal_values`; None where it isn't known.

    Raises UserError where the models can't be searched so.

    Attributes:
        first: what each model planned at the first timestep of the episodes that were started last.
    """

    noise_dim = 1  # the seed of a timestep's draws
    noise_device = torch.device("cpu")  # where generators are seeded

    def __init__(
        self,
        models: Sequence[Model | Nets],
        layout: Layout,
        options: PlanOptions,
        optimal: OptimalValues | None = None,
    ) -> None:
        if options.objective != "direct":
            check_fits(models[0].spec, options)
            if options.value == "critic" and models[0].critic is None:
                raise UserError(
                    "plan.value: critic needs a model that was trained with one (settings.critic)."
                )
            if options.value == "exact" and optimal is None:
                raise UserError(
                    "plan.value: exact needs data of a process whose Q* is known and whose state is shown."
                )
        self.models = list(models)
        self.layout, self.options, self.optimal = layout, options, optimal
        self.first: list[Plan] = []

    @property
    def size(self) -> int:
        """S."""
        return len(self.models)

    @property
    def device(self) -> torch.device:
        """Where fields are to lie."""
        return self.models[0].head.mean.device

    def eval(self) -> TrajectoryAgent:
        """Switch dropout off."""
        for model in self.models:
            model.eval()
        return self

    def start(self, batch: int) -> TrajectoryActor:
        """`batch` fresh episodes of each model."""
        self.first = []
        return TrajectoryActor(self, batch)


class TrajectoryActor:
    """Episodes in progress, (S, E) of them, all at the same timestep."""

    def __init__(self, agent: TrajectoryAgent, batch: int) -> None:
        self.agent, self.batch = agent, batch
        self.timestep = 0
        spec = agent.models[0].spec
        self.context = torch.zeros(agent.size, batch, 0, spec.slots, device=agent.device)
        self.observation = torch.zeros(agent.size, batch, spec.observation_dim, device=agent.device)
        self.planned = torch.zeros(agent.size, batch, 0, spec.action_dim, device=agent.device)
        self.prefix = [name for name, _ in spec.prefix]
        self.told: list[Tensor] = []  # (S, E, P) at each timestep of the window
        self.running: list[Imagination | Imaginations | None] = [None] * agent.size
        self.positions = 0  # token positions computed

    @torch.no_grad()
    def act(self, raw: Fields, noise: Tensor | None) -> Tensor:
        """Fields of the present timestep (S, E, ...) -> actions (S, E, M).

        noise: (S, E, 1) uniform numbers in [0, 1), one seed an episode; None: likelihood takes the most
        likely, and a search draws from fixed seeds.
        """
        options = self.agent.options
        if self.timestep:
            told = [
                self.observation,
                raw.action,
                raw.reward[..., None],
                torch.zeros_like(raw.reward[..., None]),
            ]
            row = torch.cat(told, -1)[:, :, None]
            self.context = torch.cat([self.context, row], 2)
            self.context = self.context[:, :, max(0, self.context.shape[2] - options.executed) :]
        self.observation = raw.observation
        if self.prefix:
            shown = [raw.told[name].to(self.context.dtype) for name in self.prefix]
            self.told.append(torch.cat(shown, -1))  # (S, E, P)
            self.told = self.told[-self.context.shape[2] - 1 :]
        if options.objective == "direct":
            chosen = torch.stack([self._likeliest(s, raw, noise) for s in range(self.agent.size)])
        else:
            if self.timestep % options.plan_freq == 0:
                plans = [self._plan(s, raw, noise) for s in range(self.agent.size)]
                self.planned = torch.stack(plans)  # (S, E, H, M)
            chosen = self.planned[:, :, self.timestep % options.plan_freq]
        self.timestep += 1
        return chosen.clamp(-1.0, 1.0)

    def _plan(self, s: int, raw: Fields, noise: Tensor | None) -> Tensor:
        model, options = self.agent.models[s], self.agent.options
        spec = model.spec
        draws = None
        if options.scored:
            shape = (options.horizon, options.beam * options.n_expand, spec.slots)
            draws = self._draws(s, noise, shape)
        told = self._prefix(s)
        plan = search(
            model, self.context[s], raw.observation[s], options, draws, told, self._value(model)
        )
        self.positions += plan.positions
        if self.timestep == 0:
            self.agent.first.append(plan)
        return plan.actions(spec.observation_dim, spec.action_dim)

    def _value(self, model: Model | Nets) -> ActionValue | None:
        """What a search asks in place of the value tokens, if anything."""
        options, optimal = self.agent.options, self.agent.optimal
        if options.value == "tokens" or options.objective != "return":
            return None
        if options.value == "critic":
            critic: ActionValue | None = model.critic
            return critic

        def exact(states: Tensor, actions: Tensor, step: int) -> Tensor:
            assert optimal is not None
            seen, done = states.flatten(0, 1).cpu().numpy(), actions.flatten(0, 1).cpu().numpy()
            found = optimal(seen, done, self.timestep + step, options.discount)
            return torch.from_numpy(found).to(states).view(states.shape[:2])

        return exact

    def _likeliest(self, s: int, raw: Fields, noise: Tensor | None) -> Tensor:
        """Actions (E, M) drawn slot by slot, or the most likely."""
        model, options = self.agent.models[s], self.agent.options
        spec = model.spec
        n = spec.observation_dim
        running = self.running[s]
        if running is None or not options.executed:
            cap = window_cap(spec, options)
            running = imagine(model, self.context[s], raw.observation[s], cap, self._prefix(s))
            self.running[s] = running
        else:
            # reward and, never read, value of the last timestep
            ended = self.context[s][:, -1, spec.slots - 2 :]
            running.tell(torch.cat([ended, raw.observation[s]], -1)[:, None])
        draws = None if noise is None else self._draws(s, noise, (spec.action_dim,))
        drawn = []
        for number in range(spec.action_dim):
            params = running.parameters()
            uniform = params[..., 0] if draws is None else draws[:, None, number]
            # an action can't be to stop
            likeliest = 1 if draws is None else None
            symbols = running.heads.draw(params, n + number, uniform, likeliest, None, ends=False)
            running.push(symbols)
            drawn.append(symbols[:, 0])
        return running.raw(torch.stack(drawn, -1), n)

    def _prefix(self, s: int) -> Tensor | None:
        """What the model is told first, raw (E, P): as the window's first timestep had it."""
        return self.told[0][s] if self.told else None

    def _draws(self, s: int, noise: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """Uniform numbers (E, *shape), each episode's from its own seed."""
        seeds = [self.timestep] * self.batch
        if noise is not None:
            seeds = (noise[s, :, 0].double() * SEEDS).long().tolist()
        made = []
        generator = torch.Generator()
        for seed in seeds:
            generator.manual_seed(seed)
            made.append(torch.rand(shape, generator=generator))
        return torch.stack(made).to(self.agent.device)
