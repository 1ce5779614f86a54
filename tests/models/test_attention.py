"""Attention's options: heads, activation, positions, sliding windows, long windows, dropout."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from ablate.errors import UserError
from ablate.models import attention
from ablate.models.attention import Attention, Block, attend, band, rotate, scored_pairs, turns
from ablate.models.mixer import Mixer, set_stacked

WIDTH, BATCH = 12, 2


def make(context: int, layers: int = 2, dropout: float = 0.0, **options: Any) -> Attention:
    torch.manual_seed(3)
    made = Attention(WIDTH, context, layers, dropout, **options).double().eval()
    for parameter in made.parameters():  # larger, so that what is seen shows
        parameter.data.mul_(2.0)
    return made


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def full(mixer: Mixer, x: torch.Tensor) -> torch.Tensor:
    return mixer(x, torch.ones(x.shape[:2], dtype=torch.bool))


def walk(mixer: Mixer, x: torch.Tensor) -> torch.Tensor:
    state, outputs = mixer.start(len(x), x), []
    for row in x.unbind(1):
        out, state = mixer.step(row, state)
        outputs.append(out)
    return torch.stack(outputs, 1)


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """The definition, position by position."""
    out = torch.zeros_like(q)
    for i in range(q.shape[-2]):
        first = max(0, i - window + 1) if window else 0
        scores = k[..., first : i + 1, :] @ q[..., i, :, None] / q.shape[-1] ** 0.5
        out[..., i, :] = (scores.softmax(-2) * v[..., first : i + 1, :]).sum(-2)
    return out


OPTIONS = [
    dict(zip(("heads", "activation", "positions", "window"), values, strict=True))
    for values in itertools.product((1, 3), ("gelu", "relu"), ("learned", "rotary", "none"), (0, 3))
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_every_option_steps_as_its_window_and_reads_targets_alike(options: dict[str, Any]) -> None:
    mixer = make(8, **options)
    x = draw(BATCH, 8, WIDTH)
    expected = full(mixer, x)
    torch.testing.assert_close(walk(mixer, x), expected, rtol=0, atol=1e-12)
    lengths = torch.tensor([3, 8])
    ends = torch.stack([expected[0, 2], expected[1, 7]])
    torch.testing.assert_close(mixer.last(x, lengths), ends, rtol=0, atol=1e-12)
    set_stacked(mixer, True)
    torch.testing.assert_close(full(mixer, x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixer.last(x, lengths), ends, rtol=0, atol=1e-12)
    assert mixer.flops() == Mixer.flops(mixer)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("options", [*OPTIONS, {"unseen": (2, 4)}], ids=str)
def test_what_is_read_is_what_all_positions_give(options: dict[str, Any], stacked: bool) -> None:
    mixer = make(9, **options)
    set_stacked(mixer, stacked)
    x, mask = draw(BATCH, 8, WIDTH), torch.ones(BATCH, 8, dtype=torch.bool)
    parameters = list(mixer.parameters())
    for first, step in ((0, 1), (1, 3), (2, 4), (0, 8)):
        found = mixer.every(x, mask, first, step)
        whole = Mixer.every(mixer, x, mask, first, step)
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
        grads = [torch.autograd.grad(y.square().sum(), parameters) for y in (found, whole)]
        torch.testing.assert_close(*grads, rtol=0, atol=1e-9)


def test_the_defaults_are_learned_positions_one_head_and_gelu() -> None:
    torch.manual_seed(0)
    plain = Attention(WIDTH, 5, 2).state_dict()
    torch.manual_seed(0)
    options = {"heads": 1, "activation": "gelu", "positions": "learned", "window": 0}
    named = Attention(WIDTH, 5, 2, **options).state_dict()
    assert list(plain) == list(named)
    assert next(iter(plain)) == "positions"
    assert all(torch.equal(plain[name], named[name]) for name in plain)


def test_without_learned_positions_there_is_no_table_of_them() -> None:
    for positions in ("rotary", "none"):
        mixer = make(5, positions=positions)
        assert "positions" not in mixer.state_dict()
        assert mixer.extends
    assert not make(5).extends


@torch.no_grad()
def test_one_block_of_heads_is_pytorchs_multi_head_attention() -> None:
    block = Block(WIDTH, heads=3).double().eval()
    other = torch.nn.MultiheadAttention(WIDTH, 3, batch_first=True).double().eval()
    other.in_proj_weight.copy_(block.qkv.weight)
    other.in_proj_bias.copy_(block.qkv.bias)
    other.out_proj.load_state_dict(block.out.state_dict())
    x = draw(BATCH, 6, WIDTH)
    normed = block.attention_norm(x)
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    expected = block._mlp(x + other(normed, normed, normed, attn_mask=hidden)[0])
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_rotary_products_depend_on_the_difference_of_positions_only() -> None:
    q, k = draw(2, 7)
    for size in (7, 6):
        for i, j, shift in ((0, 0, 5), (9, 4, 100), (3, 800, 16_000)):
            found = []
            for more in (0, shift):
                index = torch.tensor([i + more, j + more])
                cos, sin = turns(index, size, torch.float64)
                turned = [
                    rotate(x[:size], (c, s)) for x, c, s in zip((q, k), cos, sin, strict=True)
                ]
                found.append(turned[0] @ turned[1])
            torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)
    index = torch.tensor([2])
    turned = rotate(q[None, :2], turns(index, 2, torch.float64))
    angle = torch.tensor(2.0, dtype=torch.float64)  # one pair: the plain rotation by the index
    matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    torch.testing.assert_close(turned[0], matrix @ q[:2])


@torch.no_grad()
def test_rotary_windows_are_invariant_to_a_shift_and_learned_ones_are_not() -> None:
    """Tokens that nobody sees any more, put before, change nothing but the index."""
    for positions, same in (("rotary", True), ("none", True), ("learned", False)):
        mixer = make(12, positions=positions, window=3)
        x = draw(BATCH, 7, WIDTH)
        before = torch.cat([draw(BATCH, 5, WIDTH, seed=1), x], 1)
        late = full(mixer, before)[:, 5 + 4 :]  # 2 layers of 3 see 5 tokens
        difference = (full(mixer, x)[:, 4:] - late).abs().max()
        assert (float(difference) < 1e-11) == same, positions


@torch.no_grad()
def test_rotary_attention_knows_order_and_none_knows_no_order_of_the_past_in_one_block() -> None:
    x = draw(BATCH, 6, WIDTH)
    shuffled = x[:, [3, 0, 4, 1, 2, 5]]
    lengths = torch.tensor([6, 6])
    for positions, same in (("rotary", False), ("none", True)):
        mixer = make(6, layers=1, positions=positions)
        difference = (mixer.last(x, lengths) - mixer.last(shuffled, lengths)).abs().max()
        assert (float(difference) < 1e-12) == same


@pytest.mark.parametrize("window", [0, 1, 5, 300])
@pytest.mark.parametrize("dropping", [False, True])
def test_long_windows_in_blocks_are_the_definition(
    window: int, dropping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are their gradients; on the way with dropout as well, here of a probability of ~0."""
    monkeypatch.setattr(attention, "SHORT", 10)
    monkeypatch.setattr(attention, "QUERIES", 7)
    parts = [draw(2, 2, 25, 4, seed=seed).requires_grad_() for seed in range(3)]
    found = attend(*parts, window=window, dropout=1e-9 if dropping else 0.0)
    expected = dense(*parts, window=window)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8 if dropping else 1e-12)
    weights = draw(*found.shape, seed=9)
    ours = torch.autograd.grad((found * weights).sum(), parts)
    theirs = torch.autograd.grad((expected * weights).sum(), parts)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7 if dropping else 1e-11)


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_replicas_of_long_windows_join_one_call_and_keep_their_gradients(
    window: int, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SHORT", 10)
    monkeypatch.setattr(attention, "QUERIES", 8)
    blocks = [Block(WIDTH, 2, dropout, window=window).double() for _ in range(3)]
    parameters, buffers = stack_module_state(blocks)
    base = Block(WIDTH, 2, dropout, window=window).double()
    set_stacked(base, True)
    x = draw(3, BATCH, 21, WIDTH)

    def one(p: Any, b: Any, inputs: torch.Tensor) -> torch.Tensor:
        return functional_call(base, (p, b), (inputs,))

    mode = base.train() if dropout else base.eval()
    torch.manual_seed(1)
    together = vmap(one, randomness="different")(parameters, buffers, x)
    assert mode is base
    if dropout:
        torch.manual_seed(1)
        again = vmap(one, randomness="different")(parameters, buffers, x)
        assert torch.equal(together, again)
        x = x[:1].expand(3, -1, -1, -1)
        shared = {name: values[:1].expand_as(values) for name, values in parameters.items()}
        masks = vmap(one, randomness="different")(shared, buffers, x)
        assert (masks[0] - masks[1]).abs().max() > 1e-3  # each replica drops its own
        together.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())
        return
    together.square().sum().backward()
    for place, block in enumerate(blocks):
        alone = block.eval()(x[place])
        torch.testing.assert_close(together[place], alone, rtol=0, atol=1e-12)
        alone.square().sum().backward()
        for name, parameter in block.named_parameters():
            mine = parameters[name].grad[place]
            torch.testing.assert_close(mine, parameter.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("stacked", [False, True])
def test_what_nobody_reads_is_hidden_in_long_windows_too_without_all_scores_at_once(
    window: int, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block(WIDTH, 2, window=window).double()
    set_stacked(block, stacked)
    x, read = draw(BATCH, 21, WIDTH), torch.arange(21) % 4 != 2
    expected = block(x, read=read)
    changed = block(x + ~read[:, None] * 3.0, read=read)
    torch.testing.assert_close(changed[:, read], expected[:, read], rtol=0, atol=1e-12)
    assert (block(x)[:, 3:] - expected[:, 3:]).abs().amax(-1).min() > 1e-6
    monkeypatch.setattr(attention, "SHORT", 10)
    monkeypatch.setattr(attention, "QUERIES", 8)
    seen: list[int] = []
    kernel = attention.F.scaled_dot_product_attention

    def counting(q: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(q.shape[-2])
        return kernel(q, *args, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", counting)
    found = block(x, read=read)
    assert max(seen) <= 8
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(y.square().sum(), block.qkv.weight)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-10)


def test_dropout_of_a_long_window_is_drawn_alike_on_the_way_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the gradient would be that of other masks: compare with a finite difference."""
    monkeypatch.setattr(attention, "SHORT", 4)
    monkeypatch.setattr(attention, "QUERIES", 3)
    q, k, v = (draw(1, 1, 9, 4, seed=seed).requires_grad_() for seed in range(3))

    def value(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(4)
        return attend(q, k, v, dropout=0.5)

    assert torch.autograd.gradcheck(value, (q, k, v), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("positions", ["rotary", "none"])
@torch.no_grad()
def test_a_sliding_window_steps_on_and_forgets(positions: str) -> None:
    """Within its reach it equals the window re-encoded; keys beyond it are not kept."""
    mixer = make(7, window=4, positions=positions)  # 2 layers of 4 reach 7
    assert mixer.slides
    assert mixer.carries
    assert mixer.reach == 7
    x = draw(BATCH, 30, WIDTH)
    walked = walk(mixer, x)
    for end in range(1, 31):
        window = x[:, max(0, end - 7) : end]
        expected = mixer.last(window, torch.full((BATCH,), window.shape[1]))
        torch.testing.assert_close(walked[:, end - 1], expected, rtol=0, atol=1e-11)
    state = mixer.start(BATCH, x)
    for row in x.unbind(1):
        _, state = mixer.step(row, state)
    assert state[0].shape[-2] == 3


def test_a_window_wider_than_the_context_reaches_all_of_it_and_may_carry_more() -> None:
    mixer = make(6, window=4, positions="rotary")
    assert mixer.reach == 6
    assert mixer.carries
    assert not mixer.slides
    assert make(9, window=4).reach == 7
    assert not make(9, window=4).carries  # learned positions end with the context
    assert make(9).reach == 9


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UserError, match=r"model.activation: 'selu' is not known"):
        make(4, activation="selu")
    with pytest.raises(UserError, match=r"model.positions: 'rotery' is not known.*rotary"):
        make(4, positions="rotery")
    with pytest.raises(UserError, match=r"model.heads: width 12 is not divisible by 5 heads"):
        make(4, heads=5)


def test_work_with_a_window_grows_linearly() -> None:
    assert scored_pairs(500, 20) == 500**2  # short: one matrix
    pairs = [scored_pairs(length, 20) for length in (4096, 8192, 16384)]
    assert pairs[1] / pairs[0] == pytest.approx(2, rel=0.01)
    assert pairs[2] / pairs[1] == pytest.approx(2, rel=0.01)
    assert scored_pairs(1024, 0) == 1024**2


def test_a_band_is_as_wide_as_its_window() -> None:
    seen = band(3, 5, 2, torch.device("cpu"))
    assert seen.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert band(2, 3, 0, torch.device("cpu")).int().tolist() == [[1, 1, 0], [1, 1, 1]]
