import functools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import bhvit_seg.models  # noqa: F401
from benchmarks.training import full_precision_twin
from bhvit_seg.errors import UserError
from bhvit_seg.evaluation.complexity import SHIFT_TAPS, STENCIL_TAPS, count_complexity
from bhvit_seg.models.backbones import BHViT
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear
from bhvit_seg.models.mlp import ShiftBranches
from bhvit_seg.native.export import fold_segmentor

TINY = 'bhvit/bhvit-tiny_segformer_1xb4-3k_rs-lvf-224x224.py'


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def build(repository):
    @functools.lru_cache
    def segmentor(name: str, twin: bool = False) -> nn.Module:
        model = Config.fromfile(str(repository / 'configs' / name)).model
        return MODELS.build(full_precision_twin(model) if twin else model).eval()

    return segmentor


def profiled(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates that torch's own profiler sees."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *size))
    operations = counter.get_total_flops()
    assert operations % 2 == 0
    return operations // 2


def shift_surplus(model: nn.Module, size: tuple[int, int]) -> int:
    """What torch multiplies by the zeros of the 5×5 kernels whose cross has nine taps."""
    elements = []
    handles = [layer.register_forward_hook(lambda _, args, out: elements.append(out.numel()))
               for layer in model.modules() if isinstance(layer, ShiftBranches)]
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))
    for handle in handles:
        handle.remove()
    return sum(elements) * (STENCIL_TAPS - SHIFT_TAPS)


@pytest.mark.parametrize('arch, millions', [('tiny', 13.2), ('small', 22.1)])
def test_backbone_has_the_paper_s_parameters(arch, millions):
    model = BHViT(arch, out_indices=(3,))
    total = count_complexity(model, (64, 64)).total
    assert total.ops == total.flops + total.bops / 64
    count = total.binary_parameters + total.float_parameters
    assert count == sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize('name', [
    'bhvit/bhvit-tiny_binary-ds_upernet_1xb8-20k_rs-lvf-448x448.py',
    'baselines/segformer-b0_1xb4-3k_rs-lvf-224x224.py',
    'baselines/efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224.py'])
def test_twin_agrees_with_the_profiler(build, name, size=(75, 50)):
    model = build(name, twin=True)
    counted = count_complexity(model, size)
    assert counted.total.flops == profiled(model, size) - shift_surplus(model, size)
    assert not counted.total.bops and not counted.unknown and not counted.total.binary_parameters


def test_binary_network_does_the_products_of_its_twin_with_the_bits_of_the_packed_file(build):
    binary, twin = (count_complexity(build(TINY, twin), (64, 64)) for twin in (False, True))
    attention = sum(layer.bops for layer in binary.layers if layer.kind == 'MSMHA')
    total = binary.total
    # Three boolean matrices instead of one real one: of four products two are in excess.
    assert attention > 0
    assert total.flops + total.bops - attention // 2 == twin.total.flops
    tensors = fold_segmentor(build(TINY))
    words = sum(array.nbytes for name, array in tensors.items() if name.endswith('.bits'))
    bits = [layer for layer in binary.layers if layer.binary_parameters]
    assert sum(layer.bytes - 4 * layer.float_parameters for layer in bits) == words
    assert 0.99 < total.binary_parameters / (8 * words) < 1
    # The file folds norms, shifts and scales; the rest is as many floats.
    rest = sum(4 * array.size for name, array in tensors.items() if not name.endswith('.bits'))
    assert total.bytes - words == pytest.approx(rest, rel=0.06)


def test_layers_by_themselves():
    waiting = BinaryLinear(64, 32)
    waiting.binarize_weights = False
    total = count_complexity(
        nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(2), waiting), (16, 16)).total
    assert (total.flops, total.bops, total.binary_parameters) == (3 * 64 * 32, 0, 0)

    grouped, transposed = count_complexity(nn.Sequential(
        BinaryConv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)), (10, 12), 4).layers
    assert grouped.bops == 5 * 6 * 8 * (4 // 2) * 9
    assert (grouped.binary_parameters, grouped.float_parameters) == (8 * 2 * 9, 8 + 4)
    assert transposed.flops == 5 * 6 * 8 * (6 // 2) * 4

    # Rows of bits end with a word.
    first, second = count_complexity(
        nn.Sequential(BinaryConv2d(4, 8, 3), BinaryConv2d(8, 2, 2)), (8, 8), 4).layers
    assert first.bytes == 8 * 8 + 4 * (8 + 4)  # 36 bits a row
    assert second.bytes == 2 * 4 + 4 * (2 + 8)  # 32 bits a row


class Gram(nn.Module):
    def forward(self, x):
        return x @ x.transpose(2, 3)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x * self.factor


class Projected(Scaled):
    def forward(self, x):
        return x[0, 0] @ self.factor


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = x.flatten(0, 1)
        return self.attention(x, x[:, :5], x[:, :5], need_weights=False)[0]


@pytest.mark.parametrize('layer, products, unknown', [
    (Gram(), 3 * 8**3, []), (Scaled(), 0, []),
    (Projected(), 0, ['1 (Projected)']),
    (Attention(), 3 * (2 * 8 * 64 + 2 * 5 * 64 + 2 * 8 * 5 * 8), [])])
def test_layers_of_any_type_are_counted_or_named(layer, products, unknown):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), layer).eval()
    complexity = count_complexity(model, (8, 8))
    assert complexity.unknown == unknown
    assert complexity.layers[0].flops == 8 * 8 * 9
    assert complexity.total.flops == 8 * 8 * 9 + products


def test_image_that_does_not_fit():
    with pytest.raises(UserError, match='channels'):
        count_complexity(BHViT('tiny'), (64, 64), in_channels=4)
    with pytest.raises(UserError, match=r'no image of 2×2 pixels \(height × width\)'):
        count_complexity(nn.Conv2d(3, 3, 5), (2, 2))
