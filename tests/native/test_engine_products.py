"""Integer products of the engine against those of the simulated network, layer by layer."""

import numpy as np
import pytest
import torch
from native.segmentors import build_segmentor

from bhvit_seg.models.backbones.bhvit import ARCHITECTURES
from bhvit_seg.models.decode_heads import BinaryConvModule
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear
from bhvit_seg.models.quantizers import binarize_activation
from bhvit_seg.models.token_mixers import MSGDC
from bhvit_seg.native.export import fold_segmentor
from bhvit_seg.native.file_format import pack_bits

TINY = dict(arch=ARCHITECTURES['tiny'], head_channels=128)


def record_products(model, image, monkeypatch):
    """Run a model; return the ±1 inputs and the products of each binary layer.

    Products are taken where all ways into a layer meet: what a caller adds to them, or does with
    the bits before, is left out.
    """
    records = {}
    convolve, multiply = BinaryConv2d.convolve, BinaryLinear.multiply

    def recording_convolve(layer, x, bias):
        product = convolve(layer, x, None)
        if layer.input_bias is not None:
            x = binarize_activation(x.permute(0, 2, 3, 1), layer.input_bias).permute(0, 3, 1, 2)
        records[layer] = x[0].permute(1, 2, 0), product[0].permute(1, 2, 0)
        return product if bias is None else product + bias[:, None, None]

    def recording_multiply(layer, x):
        product = multiply(layer, x)
        records[layer] = x[None], product[None]
        return product

    monkeypatch.setattr(BinaryConv2d, 'convolve', recording_convolve)
    monkeypatch.setattr(BinaryLinear, 'multiply', recording_multiply)
    with torch.no_grad():
        model(image)
    return records


def stored_bits(model):
    """Return the name of each binary layer's bits in the file, and which of several they are."""
    names = {}
    for s, stage in enumerate(model.backbone.stages):
        for b, block in enumerate(stage):
            mixer, prefix = block.token_mixer, f'stage{s}.block{b}'
            if isinstance(mixer, MSGDC):
                for d, conv in enumerate(mixer.convs):
                    names[conv] = f'{prefix}.mixer.bits', d
            else:
                for part in ('query', 'key', 'value', 'output'):
                    names[getattr(mixer, part).linear] = f'{prefix}.mixer.{part}.bits', ...
            names[block.mlp.fc1] = f'{prefix}.mlp.fc1.bits', ...
            names[block.mlp.fc2] = f'{prefix}.mlp.fc2.bits', ...
    for i, downsampling in enumerate(model.backbone.downsamplings):
        if isinstance(downsampling.conv, BinaryConv2d):
            names[downsampling.conv] = f'down{i}.bits', ...
    head = model.decode_head
    if hasattr(head, 'fusion_conv'):
        modules = {'fusion': head.fusion_conv,
                   **{f'conv{i}': conv for i, conv in enumerate(head.convs)}}
    else:
        modules = {'bottleneck': head.bottleneck, 'fpn_bottleneck': head.fpn_bottleneck,
                   **{f'psp{k}': branch[1] for k, branch in enumerate(head.psp_modules)},
                   **{f'lateral{i}': conv for i, conv in enumerate(head.lateral_convs)},
                   **{f'fpn{i}': conv for i, conv in enumerate(head.fpn_convs)}}
    names.update({module.conv: (f'head.{name}.bits', ...) for name, module in modules.items()
                  if isinstance(module, BinaryConvModule)})
    return names


def engine_products(engine, isa, layer, x, weights):
    """Return the engine's products for ±1 inputs ``(H, W, C)``."""
    kernel, dilation, groups = 1, 1, 1
    if isinstance(layer, BinaryConv2d):
        kernel, dilation, groups = layer.kernel_size[0], layer.dilation[0], layer.groups
    if kernel == 2:  # patches in the order (ky, kx, channel) are the inputs of a 1×1 product
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).permute(0, 2, 1, 3, 4).flatten(2)
        kernel = 1
    assert (x.abs() == 1).all()
    return engine.convolve(isa, pack_bits(x.numpy() > 0), weights, kernel, dilation, groups)


@pytest.mark.parametrize('size, options', [
    ((60, 44), dict()),
    ((64, 96), dict(backbone=dict(downsampling='binary'))),
    ((64, 64), dict(head='BinaryUPerHead', backbone=dict(downsampling='binary', window_size=4))),
    ((64, 64), TINY),
], ids=['full-precision', 'binary', 'uper', 'tiny'])
def test_products_of_every_layer_are_those_of_the_simulated_network(
        size, options, engine, monkeypatch):
    model = build_segmentor(**options).double()
    tensors, names = fold_segmentor(model), stored_bits(model)
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    records = record_products(model, image, monkeypatch)
    layers = {module for part in (model.backbone, model.decode_head) for module in part.modules()
              if isinstance(module, (BinaryConv2d, BinaryLinear))}
    assert layers and layers == set(records) == set(names)
    # the serial kernels go bit by bit: enough for small networks
    isas = [isa for isa in engine.instruction_sets() if isa != 'serial' or options is not TINY]
    for layer, (x, product) in records.items():
        name, part = names[layer]
        expected = product / layer.weight.detach().flatten(1).abs().mean(1)
        assert (expected - expected.round()).abs().max() < 1e-6
        weights = np.ascontiguousarray(tensors[name][part])
        for isa in isas or ['serial']:
            result = engine_products(engine, isa, layer, x, weights)
            assert np.array_equal(result, expected.round().numpy()), (name, isa)


@pytest.mark.parametrize('activations, weights, options', [
    ((4, 5, 1), (8, 2), dict()),
    ((4, 5, 1), (8, 1), dict(kernel=2)),
    ((4, 5, 1), (8, 1), dict(dilation=0)),
    ((4, 5, 1), (8, 1), dict(groups=0)),
    ((4, 5, 1), (12, 1), dict()),
    ((4, 5, 3), (8, 7), dict(kernel=3, groups=4)),
    ((4, 5), (8, 1), dict()),
    ((0, 5, 1), (8, 1), dict()),
])
def test_products_of_sizes_that_do_not_fit_are_refused(activations, weights, options, engine):
    with pytest.raises(engine.Error, match='convolve'):
        engine.convolve('serial', np.zeros(activations, np.uint32), np.zeros(weights, np.uint32),
                        **options)
