"""The layers that are trained faster on a CPU compute what PyTorch's own do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_cnn import randomness
from era_cnn.models import layers
from era_cnn.models.build import Network, build_from_config, count_params
from tests.conftest import GREY_EXPERIMENTS, config_of

CPU = torch.device("cpu")


def activations(channels: int, *, mean: float = 0.5, std: float = 1.0, size: int = 33) -> Tensor:
    """(32, channels, size, size), channels last."""
    generator = torch.Generator().manual_seed(channels)
    images = torch.randn(32, channels, size, size, generator=generator) * std + mean
    return images.contiguous(memory_format=torch.channels_last)


def pair(channels: int) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """Ours and PyTorch's, with the same weights."""
    ours, theirs = layers.BatchNorm2d(channels), nn.BatchNorm2d(channels)
    with torch.no_grad():
        ours.weight.copy_(torch.linspace(-1, 2, channels))
        ours.bias.copy_(torch.linspace(-3, 1, channels))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def through(norm: nn.Module, images: Tensor, slopes: Tensor) -> dict[str, Tensor]:
    """The output, the gradients and the buffers after one batch."""
    images = images.detach().requires_grad_()
    output = norm(images)
    output.backward(slopes)
    gradients = {name: parameter.grad for name, parameter in norm.named_parameters()}
    return {"output": output.detach(), "images": images.grad, **gradients, **dict(norm.named_buffers())}


@pytest.mark.parametrize("channels", [1, 8, 12, 16])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 1.0), (100.0, 1.0), (0.0, 1e-4)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_batch_norm_is_as_close_to_the_exact_values_as_pytorchs(channels, mean, std, memory_format) -> None:
    images = activations(channels, mean=mean, std=std).contiguous(memory_format=memory_format)
    slopes = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = pair(channels)
    exact = through(pair(channels)[1].double(), images.double(), slopes.double())
    found, usual = through(ours, images, slopes), through(theirs, images, slopes)
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        scale = value.double().abs().max() + 1e-30
        error, usual_error = ((each[name] - value).abs().max() / scale for each in (found, usual))
        one_pass = 1e-8 * (mean / std) ** 2  # what E[x²] - E[x]² loses, which grows with the mean
        assert error <= 20 * usual_error + 1e-5 + one_pass, name
        assert found[name].dtype == usual[name].dtype


def test_constant_activations_make_no_variance_and_no_nan() -> None:
    images = torch.full((32, 8, 33, 33), 0.1).contiguous(memory_format=torch.channels_last)
    found = through(pair(8)[0], images, torch.ones_like(images))
    assert all(value.isfinite().all() for value in found.values())


def test_batch_norm_keeps_the_layout() -> None:
    images = activations(8).requires_grad_()
    output = layers.BatchNorm2d(8)(images)
    output.sum().backward()
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert images.grad.is_contiguous(memory_format=torch.channels_last)


LAYOUTS = {
    "cut from a batch": lambda images: torch.cat([images, images])[32:],
    "every second one": lambda images: images.repeat_interleave(2, 0)[::2],
    "cut from wider ones": lambda images: F.pad(images, (1, 1))[..., 1:-1],
    "transposed": lambda images: images.transpose(2, 3).clone(memory_format=torch.channels_last).transpose(2, 3),
    "planes": lambda images: images.contiguous(),
}


@pytest.mark.parametrize("is_slope", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_has_the_same_bits_wherever_its_values_lie(layout: str, is_slope: bool) -> None:
    images, slopes = activations(8), activations(8, mean=-1.0)
    moved = [LAYOUTS[layout](each) if is_slope == number else each for number, each in enumerate((images, slopes))]
    assert all(map(torch.equal, moved, (images, slopes)))
    found, usual = through(pair(8)[0], *moved), through(pair(8)[0], images, slopes)
    assert all(torch.equal(found[name], value) for name, value in usual.items())


def test_batch_norm_takes_a_gradient_that_repeats_one_value() -> None:
    images = activations(8)
    found = through(pair(8)[0], images, torch.ones(1).expand(images.shape))
    usual = through(pair(8)[0], images, torch.ones_like(images))
    assert all(torch.equal(found[name], value) for name, value in usual.items())


class Stopped(torch.autograd.Function):
    """Passes no gradient on."""

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> None:
        return None


@pytest.mark.parametrize("kind", [layers.BatchNorm2d, layers.GhostBatchNorm2d])
def test_batch_norm_takes_a_gradient_that_is_none(kind: type[layers.BatchNorm2d]) -> None:
    norm, images = kind(8), activations(8).requires_grad_()
    Stopped.apply(norm(images)).sum().backward()
    assert all(not gradient.any() for gradient in (images.grad, norm.weight.grad, norm.bias.grad))


def test_batch_norm_stays_on_the_device_of_its_images() -> None:
    norm, images = layers.BatchNorm2d(8), activations(8)
    usual = norm(images)
    with torch.device("meta"):
        assert torch.equal(norm(images), usual)


def test_batch_norm_calls_few_operators() -> None:
    """Of so small a network's step, starting them is a good part; PyTorch counts those within others, too."""
    norm, images = layers.BatchNorm2d(8), activations(8).requires_grad_()

    def step() -> None:
        norm.zero_grad()
        norm(images).sum().backward()

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        step()
    calls = [event.name for event in profiled.events() if event.name.startswith("aten::")]
    assert 60 < len(calls) < 150, len(calls)
    assert calls.count("aten::_to_copy") <= 16, "a division by a whole number converts it, for example"


@pytest.mark.parametrize(
    "images",
    [activations(8).bfloat16(), activations(8).double()],
    ids=["bf16", "double"],
)
def test_other_precisions_are_left_to_pytorch(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers._BatchNorm, "apply", lambda *arguments: pytest.fail("not PyTorch's own"))
    layers.BatchNorm2d(images.shape[1], dtype=torch.float64 if images.dtype == torch.float64 else None)(images)


def test_in_evaluation_batch_norm_is_pytorchs() -> None:
    ours, theirs = pair(8)
    images = activations(8)
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("splits", [1, 3, 40])
@pytest.mark.parametrize("images", [activations(8), activations(8, size=1), activations(8).double()[:7]])
def test_ghost_batch_norm_is_pytorchs_on_each_part(splits: int, images: Tensor) -> None:
    if splits > len(images) / 2 and images.shape[-1] == 1:
        return  # one value for each channel
    ours, theirs = (
        layers.GhostBatchNorm2d(8, dtype=images.dtype),
        [nn.BatchNorm2d(8, dtype=images.dtype) for _ in range(splits)],
    )
    ours.splits = splits
    parts = images.tensor_split(min(splits, len(images)))
    expected = torch.cat([norm(part) for norm, part in zip(theirs, parts, strict=False)])
    torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        average = torch.stack([getattr(norm, name) for norm in theirs[: len(parts)]]).mean(0)
        torch.testing.assert_close(getattr(ours, name), average, rtol=1e-4, atol=1e-5)
    assert ours.num_batches_tracked == 1
    evaluated = ours.eval()(images)
    torch.testing.assert_close(
        evaluated, nn.functional.batch_norm(images, ours.running_mean, ours.running_var, eps=1e-5)
    )


def test_the_gradient_of_ghost_batch_norm_stays_within_a_part() -> None:
    images = activations(4).requires_grad_()
    layers.GhostBatchNorm2d(4)(images)[:16].square().sum().backward()
    assert images.grad[:16].abs().sum() > 0
    assert images.grad[16:].abs().sum() == 0


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_is_pytorchs_own_with_its_gradient(mode: str) -> None:
    ours, theirs = layers.Conv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 5, padding=2, padding_mode=mode)
    ours.padding_mode = mode
    theirs.load_state_dict(ours.state_dict())
    found, expected = (
        torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in "ab"
    )
    ours(found).square().sum().backward()
    theirs(expected).square().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert torch.equal(layers.pad_side(found, 1, 3, 3, mode=mode), nn.functional.pad(found, (1, 3, 0, 0), mode=mode))


def dropout(p: float, *position: int) -> layers.Dropout:
    """A layer as `fit` leaves it before a step."""
    stream = randomness.Stream()
    stream.begin(randomness.key(1, "dropout", *position))
    layer = layers.Dropout(p)
    layers.hand_out(stream, layer)
    return layer


def dropped(p: float, shape: tuple[int, ...], *position: int) -> Tensor:
    """Where dropout zeroes ones, as booleans."""
    return dropout(p, *position)(torch.ones(shape)) == 0


@pytest.mark.parametrize("p", [0.0001, 0.1, 0.25, 0.5, 0.9])
def test_dropout_has_its_rate(p: float) -> None:
    count = 2**24
    rate = dropped(p, (16, 16, 256, 256), 1).double().mean().item()
    assert abs(rate - round(p * 2**16) / 2**16) < 4.5 * (p * (1 - p) / count) ** 0.5  # 1 in 150,000 by chance


def test_dropout_keeps_the_mean_and_passes_the_gradient_of_what_it_keeps() -> None:
    images = activations(8).requires_grad_()
    output = dropout(0.1, 1)(images)
    slopes = torch.randn(output.shape)
    output.backward(slopes)
    scale = 2**16 / (2**16 - round(0.1 * 2**16))
    kept = output != 0
    torch.testing.assert_close(output, images * kept * scale)
    torch.testing.assert_close(images.grad, slopes * kept * scale)


def test_dropout_of_nearly_all_still_keeps_some() -> None:
    output = dropout(1 - 1e-9, 1)(torch.ones(64, 1, 128, 128))
    assert output.isfinite().all()
    assert set(output.unique().tolist()) <= {0.0, 65536.0}


@pytest.mark.parametrize("other", [(1, 2), (2, 1), (1, 1, 1)])
def test_masks_of_other_positions_are_independent(other: tuple[int, ...]) -> None:
    one, two = (dropped(0.5, (64, 8, 32, 32), *position).double().flatten() - 0.5 for position in ((1, 1), other))
    correlation = (one * two).mean().item() / 0.25
    assert abs(correlation) < 4.5 / len(one) ** 0.5


def test_masks_of_layers_and_of_neighbours_are_independent() -> None:
    layer = dropout(0.5, 1, 1)
    first, second = ((layer(torch.ones(64, 8, 32, 32)) == 0).double() - 0.5 for _ in range(2))
    pairs = {
        "layers": (first, second),
        "images": (first[:-1], first[1:]),
        "channels": (first[:, :-1], first[:, 1:]),
        "rows": (first[:, :, :-1], first[:, :, 1:]),
        "columns": (first[..., :-1], first[..., 1:]),
    }
    for name, (one, two) in pairs.items():
        assert abs((one * two).mean().item() / 0.25) < 4.5 / one.numel() ** 0.5, name


def test_a_mask_depends_on_its_position_and_on_nothing_else() -> None:
    torch.set_num_threads(1)
    first = dropped(0.3, (64, 12, 26, 26), 1, 2)
    torch.set_num_threads(2)
    torch.rand(1000)  # another use of PyTorch's generator
    assert torch.equal(first, dropped(0.3, (64, 12, 26, 26), 1, 2))
    assert not torch.equal(first, dropped(0.3, (64, 12, 26, 26), 1, 3))


def test_dropout_keeps_type_and_layout_and_rests_in_evaluation() -> None:
    images = activations(8)
    assert dropout(0.5)(images).is_contiguous(memory_format=torch.channels_last)
    assert dropout(0.5)(images.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(dropout(0.5).eval()(images), images)


@pytest.mark.parametrize("has_stream", [True, False])
def test_dropout_of_channels_zeroes_whole_ones_at_its_rate(has_stream: bool) -> None:
    layer = dropout(0.25, 1) if has_stream else layers.Dropout(0.25)
    layer.channels = True
    output = layer(torch.ones(512, 32, 3, 4))
    first = output[:, :, :1, :1]
    assert torch.equal(output, first.expand_as(output))
    assert first.unique().tolist() == pytest.approx([0.0, 4 / 3])
    rate = (first == 0).double().mean().item()
    assert abs(rate - 0.25) < 4.5 * (0.25 * 0.75 / first.numel()) ** 0.5
    images = torch.randn(4, 3, 2, 2)
    assert torch.equal(layer.eval()(images), images)


def test_dropout_without_a_stream_is_pytorchs() -> None:
    images = activations(8)
    torch.manual_seed(1)
    ours = layers.Dropout(0.3)(images)
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout(0.3)(images))


def test_all_layers_of_a_network_draw_from_the_stream_that_it_was_handed_last() -> None:
    network, first, second = (
        build_from_config(config_of("experiment=model_3")),
        randomness.Stream(),
        randomness.Stream(),
    )
    for stream in (first, second):
        layers.hand_out(stream, network)
        streams = [module.stream for module in network.modules() if isinstance(module, layers.Dropout)]
        assert len(streams) == 5
        assert all(each is stream for each in streams)


def plain(network: Network) -> Network:
    """The same network of PyTorch's own layers, nothing in place, in its usual layout."""
    network = network.to(memory_format=torch.contiguous_format)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                module.register_module(name, nn.BatchNorm2d(child.num_features))
            elif isinstance(child, nn.ReLU):
                module.register_module(name, nn.ReLU())
    return network


def step_errors(overrides: Sequence[str], images: Tensor) -> dict[str, tuple[float, float]]:
    """How far logits and gradients are from those in double precision: of our layers, and of PyTorch's own."""
    fast, usual, exact = (build_from_config(config_of(*overrides)) for _ in range(3))
    fast, usual, exact = fast.to(memory_format=torch.channels_last), plain(usual), plain(exact).double()
    found = {}
    for name, network in (("fast", fast), ("usual", usual), ("exact", exact)):
        logits = network(images.to(next(network.parameters()).dtype))
        logits.square().mean().backward()
        gradients = {each: parameter.grad.double() for each, parameter in network.named_parameters()}
        found[name] = {"logits": logits.detach().double(), **gradients}
    return {
        name: tuple(float((found[each][name] - value).norm() / (value.norm() + 1e-12)) for each in ("fast", "usual"))
        for name, value in found["exact"].items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("experiment", GREY_EXPERIMENTS)
def test_a_step_is_as_close_to_the_exact_one_as_that_of_pytorchs_own_layers(experiment: str) -> None:
    """At best of a few batches: now and then a rounding error makes another pixel pass a ReLU or win a maximum."""
    config = config_of(f"experiment={experiment}")
    overrides = (f"experiment={experiment}", *(["model.dropout=0"] if config.model.dropout else []))
    is_large = count_params(build_from_config(config)) > 1_000_000
    size = (4 if is_large else 64, *config.info.shape)
    worst = []
    for seed in range(1, 5):
        errors = step_errors(overrides, torch.randn(size, generator=torch.Generator().manual_seed(seed)))
        worst.append(max(error / (10 * usual + 1e-5) for error, usual in errors.values()))
        if worst[-1] < 1:
            return
    raise AssertionError(f"{worst} times what may be")


@pytest.mark.parametrize("experiment", GREY_EXPERIMENTS)
def test_activations_lie_channels_last_throughout(experiment: str) -> None:
    config = config_of(f"experiment={experiment}")
    network = build_from_config(config).to(memory_format=torch.channels_last)
    others = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.is_contiguous(memory_format=torch.channels_last):
            others.append(module)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.ReLU | nn.Dropout | nn.MaxPool2d):
            module.register_forward_hook(look)
    network(torch.randn(4, *config.info.shape))
    assert not others
