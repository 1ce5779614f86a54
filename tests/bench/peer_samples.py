"""Tiny made-up checkouts that have the files of public repositories."""

from __future__ import annotations

from pathlib import Path

GYM = {
    "gym/decision_transformer/models/decision_transformer.py": '''
        import transformers
        from transformers.models.gpt2.configuration_gpt2 import GPT2Config
        from transformers.file_utils import ModelOutput, add_start_docstrings
        from transformers.modeling_utils import Conv1D, PreTrainedModel
        from transformers.utils import logging
        from dataclasses import dataclass
        import torch, wandb, gym

        logger = logging.get_logger(__name__)

        @dataclass
        class Output(ModelOutput):
            loss: torch.Tensor = None

        @add_start_docstrings("text", "more")
        class GPT2(PreTrainedModel):
            def __init__(self, config):
                super().__init__(config)
                self.layer = Conv1D(config.n_embd, config.n_embd)
                self.init_weights()

            def _init_weights(self, module):
                pass

        class DecisionTransformer(torch.nn.Module):
            def __init__(self, state_dim, act_dim, hidden_size, max_length, max_ep_len, **kwargs):
                super().__init__()
                config = transformers.GPT2Config(n_embd=hidden_size, **kwargs)
                assert config.n_layer == 3 and config.embd_pdrop == 0.1 and config.n_ctx == 1024
                self.enter = torch.nn.Linear(state_dim, hidden_size)
                self.body = GPT2(config)
                self.leave = torch.nn.Linear(hidden_size, act_dim)

            def forward(self, states, actions, rewards, returns, timesteps, attention_mask=None):
                assert returns.shape == states.shape[:2] + (1,) and timesteps.max() < 1000
                return None, self.leave(self.body.layer(self.enter(states))), None
    ''',
    "gym/decision_transformer/training/seq_trainer.py": '''
        class SequenceTrainer:
            def __init__(self, model, optimizer, batch_size, get_batch, loss_fn):
                self.__dict__.update(locals())

            def train_step(self):
                states, actions, _, _, returns, time, mask = self.get_batch(self.batch_size)
                found = self.model(states, actions, None, returns[:, :-1], time, attention_mask=mask)[1]
                loss = self.loss_fn(None, found, None, None, actions, None)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                return loss.item()
    ''',
}  # fmt: skip
CORL = {
    "algorithms/offline/dt.py": '''
        from dataclasses import dataclass
        from typing import Optional
        import d4rl, gym, pyrallis, torch, wandb
        from tqdm.auto import tqdm, trange

        @dataclass
        class TrainConfig:
            embedding_dim: int = 8
            seq_len: int = 3
            episode_len: int = 1000
            num_layers: int = 1
            num_heads: int = 1
            attention_dropout: float = 0.1
            residual_dropout: float = 0.1
            embedding_dropout: float = 0.1
            max_action: float = 1.0
            learning_rate: float = 1e-4
            betas: tuple = (0.9, 0.999)
            weight_decay: float = 1e-4
            clip_grad: Optional[float] = 0.25
            batch_size: int = 4

        def wrap(env: gym.Env, other: Optional[gym.Env] = None) -> gym.Env:
            return env

        class DecisionTransformer(torch.nn.Module):
            def __init__(self, state_dim, action_dim, embedding_dim, seq_len, episode_len, **options):
                super().__init__()
                self.layer = torch.nn.Linear(state_dim, action_dim)

            def forward(self, states, actions, returns_to_go, time_steps, padding_mask):
                assert returns_to_go.shape == time_steps.shape == padding_mask.shape
                assert not padding_mask.any()
                return self.layer(states)

        @pyrallis.wrap()
        def train(config: TrainConfig):
            pass
    ''',
}  # fmt: skip
TRAJECTORY = {
    "trajectory/__init__.py": "",
    "trajectory/models/__init__.py": "",
    "trajectory/models/transformers.py": '''
        import torch
        from .ein import WIDTH

        class GPT(torch.nn.Module):
            def __init__(self, config):
                super().__init__()
                self.block_size = config.block_size
                assert config.transition_dim == 16
                self.table = torch.nn.Embedding(config.vocab_size + 1, WIDTH)

            def configure_optimizers(self, config):
                return torch.optim.AdamW(self.parameters(), config.learning_rate, config.betas)

            def forward(self, idx, targets=None, mask=None):
                assert idx.shape == targets.shape == mask.shape == (256, self.block_size)
                assert self.block_size == 159
                return None, (self.table(idx).square().sum(-1) * mask).mean()
    ''',
    "trajectory/models/ein.py": "WIDTH = 2",
}  # fmt: skip
PLANNER = TRAJECTORY | {
    "trajectory/search/__init__.py": "from .core import *",
    "trajectory/search/core.py": '''
        import torch
        from .. import utils

        ASKED = []

        def beam_plan(model, value_fn, x, n_steps, beam_width, n_expand, observation_dim, action_dim,
                      discount=0.99, max_context_transitions=None, k_obs=None, k_act=None, k_rew=1,
                      cdf_obs=None, cdf_act=None, cdf_rew=None, verbose=True, previous_actions=None):
            assert not verbose and (observation_dim, action_dim, k_obs, cdf_act) == (11, 3, 1, 0.6)
            assert value_fn(torch.ones(beam_width, 2, 101) / 101).shape == (beam_width,)
            ASKED.append((x.shape[1], n_steps, max_context_transitions, model.block_size))
            return ASKED
    ''',
    "trajectory/utils/__init__.py": """
        from .setup import Parser
        from .rendering import Renderer
    """,
    "trajectory/utils/setup.py": """
        import collections
        import git
        from tap import Tap

        class Parser(Tap):
            epoch: str = "latest"

        class Config(collections.Mapping):
            pass
    """,
    "trajectory/utils/rendering.py": """
        import gym, mujoco_py, skvideo.io
        from .arrays import to_torch

        class Renderer:
            old = 1 is "a literal"
    """,
    "trajectory/utils/arrays.py": """
        import torch
        DEVICE = "cuda:0"

        def to_torch(x):
            return torch.tensor(x, device=DEVICE)
    """,
    "trajectory/utils/discretization.py": """
        import torch
        from .arrays import to_torch

        class QuantileDiscretizer:
            def __init__(self, data, N):
                assert data.shape[1] == 16 and N == 100
                print("tested")

            def value_fn(self, probs, percentile):
                assert percentile == "mean"
                return to_torch(probs[:, 0].sum(-1).numpy())
    """,
}  # fmt: skip


def checkout(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").split("\n")
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    return folder
