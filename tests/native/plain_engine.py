"""A packed model run by its formulas, one after the other, in NumPy: the oracle of the engine.

It knows the tensors of the file and nothing of torch: products of bits are products of ±1, and
everything else is computed in the floating-point type that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bhvit_seg.native.file_format import unpack_bits

_erf = np.vectorize(math.erf, otypes=[np.float64])


class PlainEngine:
    """Runs the tensors of a packed model.

    Args:
        tensors: By name, of a file or fresh from folding.
        dtype: float64 or float32.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], dtype: type = np.float64) -> None:
        self.dtype = np.dtype(dtype)
        self.tensors = {name: array if array.dtype.kind in 'ui' else array.astype(dtype)
                        for name, array in tensors.items()}
        numbers = [int(number) for number in tensors['architecture']]
        self.in_channels = numbers[0]
        self.depths, self.channels, self.mlp_channels, self.heads = (
            numbers[at:at + 4] for at in (1, 5, 9, 13))
        (self.window_size, self.binary_downsampling, self.head_kind, self.head_channels,
         self.classes, self.align_corners) = numbers[17:]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Map an image ``(H, W, C)`` to logits ``(classes, ⌈H/4⌉, ⌈W/4⌉)``."""
        maps = self.backbone(image)
        x = (self.segformer_head if self.head_kind == 0 else self.uper_head)(maps)
        weight = self['head.classifier.weight']
        return (x @ weight.T + self['head.classifier.bias']).transpose(2, 0, 1)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Map an image ``(H, W, C)`` to labels ``(H, W)``."""
        logits = self.logits(image).transpose(1, 2, 0)
        return self.upsample(logits, image.shape[:2]).argmax(2).astype(np.uint8)

    # ------------------------------------------------------------------------- shared steps

    def bits(self, x: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return np.where(x + bias >= 0, 1.0, -1.0)

    def weight(self, name: str, inputs: int) -> np.ndarray:
        return unpack_bits(self[name], inputs).astype(np.float64)

    def linear(self, bits: np.ndarray, name: str) -> np.ndarray:
        """±1 ``(..., inputs)`` to dot products ``(..., outputs)``."""
        return (bits @ self.weight(name, bits.shape[-1]).T).astype(self.dtype)

    def convolve(self, bits: np.ndarray, weight: np.ndarray, kernel: int, dilation: int = 1,
                 groups: int = 1) -> np.ndarray:
        """±1 map ``(H, W, C)`` and weights ``(outputs, taps · C / groups)``, zeros outside."""
        border = dilation * (kernel // 2)
        padded = np.pad(bits, ((border, border), (border, border), (0, 0)))
        height, width, channels = bits.shape
        taps = np.stack([
            padded[ky * dilation:ky * dilation + height, kx * dilation:kx * dilation + width]
            for ky in range(kernel) for kx in range(kernel)], 2)
        group, outputs = channels // groups, len(weight) // groups
        parts = []
        for g in range(groups):
            inputs = taps[..., g * group:(g + 1) * group].reshape(height, width, -1)
            parts.append(inputs @ weight[g * outputs:(g + 1) * outputs].T)
        return np.concatenate(parts, 2).astype(self.dtype)

    @staticmethod
    def prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, slope * x)

    def sizes(self, source: int, target: int) -> np.ndarray:
        """Where each of ``target`` points lies among ``source`` points."""
        at = np.arange(target, dtype=self.dtype)
        if self.align_corners:
            return at * self.dtype.type((source - 1) / (target - 1) if target > 1 else 0)
        return np.maximum((at + self.dtype.type(0.5)) * self.dtype.type(source / target)
                          - self.dtype.type(0.5), 0)

    def upsample(self, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Stretch a map ``(H, W, C)`` bilinearly to ``size``."""
        for axis in (0, 1):
            at = self.sizes(x.shape[axis], size[axis])
            low = at.astype(int)
            high = np.minimum(low + 1, x.shape[axis] - 1)
            share = np.expand_dims(at - low, (1, 2) if axis == 0 else (0, 2))
            x = (1 - share) * x.take(low, axis) + share * x.take(high, axis)
        return x

    def position(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        """The embedding ``(H, W, C)``, resized bicubically with a = −0.75."""
        x = self[name].transpose(1, 2, 0)
        for axis in (0, 1):
            source, target = x.shape[axis], shape[axis]
            if x.shape[:2] == tuple(shape):
                break
            at = (np.arange(target) + 0.5) * (source / target) - 0.5
            low = np.floor(at).astype(int)
            matrix = np.zeros((target, source))
            for tap in range(-1, 3):
                away = np.abs(at - (low + tap))
                share = np.where(away <= 1, 1.25 * away**3 - 2.25 * away**2 + 1,
                                 -0.75 * (away**3 - 5 * away**2 + 8 * away - 4))
                np.add.at(matrix, (np.arange(target), np.clip(low + tap, 0, source - 1)), share)
            x = np.moveaxis(np.tensordot(matrix.astype(self.dtype), x, (1, axis)), 0, axis)
        return x

    # ----------------------------------------------------------------------------- backbone

    def backbone(self, image: np.ndarray) -> list[np.ndarray]:
        """Return the four maps ``(H, W, C)``."""
        x, maps = self.stem(image), []
        for s, depth in enumerate(self.depths):
            for b in range(depth):
                name = f'stage{s}.block{b}'
                x = (self.msgdc if s < 2 else self.msmha)(x, f'{name}.mixer', self.heads[s])
                x = self.mlp(x, f'{name}.mlp')
            maps.append(x * self[f'out{s}.scale'] + self[f'out{s}.bias'])
            if s < 3:
                x = self.downsample(x, f'down{s}')
        return maps

    def stem(self, image: np.ndarray) -> np.ndarray:
        x = (image.astype(self.dtype) - self['preprocess.mean']) / self['preprocess.std']
        x = np.pad(x, ((0, -x.shape[0] % 4), (0, -x.shape[1] % 4), (0, 0)))
        height, width = x.shape[0] // 4, x.shape[1] // 4
        patches = x.reshape(height, 4, width, 4, -1).swapaxes(1, 2).reshape(height, width, -1)
        weight = self['stem.weight']
        x = patches @ weight.reshape(len(weight), -1).T + self['stem.bias']
        x = (x * 0.5 * (1 + _erf(x * math.sqrt(0.5)))).astype(self.dtype)
        return x + self.position('stem.position', x.shape[:2])

    def downsample(self, x: np.ndarray, name: str) -> np.ndarray:
        normed = x * self[f'{name}.in_scale'] + self[f'{name}.in_bias']
        height, width, channels = normed.shape

        def patches(maps: np.ndarray) -> np.ndarray:
            maps = np.pad(maps, ((0, height % 2), (0, width % 2), (0, 0)))
            rows, cols = maps.shape[0] // 2, maps.shape[1] // 2
            return maps.reshape(rows, 2, cols, 2, -1).swapaxes(1, 2).reshape(rows, cols, -1)

        if not self.binary_downsampling:
            weight = self[f'{name}.weight']
            out = patches(normed) @ weight.reshape(len(weight), -1).T + self[f'{name}.bias']
        else:
            bits = patches(self.bits(normed, self[f'{name}.input_bias']))
            dot = bits @ self.weight(f'{name}.bits', bits.shape[2]).T
            counts = patches(np.ones((height, width, 1), self.dtype)).sum(2, keepdims=True)
            pooled = patches(normed).reshape(*dot.shape[:2], 4, channels).sum(2) / counts
            pooled = np.tile(pooled, dot.shape[2] // channels)
            out = self[f'{name}.scale'] * dot.astype(self.dtype) + self[f'{name}.bias'] + pooled
            out = self.prelu(out, self[f'{name}.slope']) + self[f'{name}.shift']
        return out + self.position(f'{name}.position', out.shape[:2])

    def msgdc(self, x: np.ndarray, name: str, _: int) -> np.ndarray:
        channels = x.shape[2]
        bits = self.bits(x * self[f'{name}.in_scale'], self[f'{name}.in_bias'])
        weight = self.weight(f'{name}.bits', 9 * channels // 4)
        total = 0
        for d, dilation in enumerate((1, 3, 5)):
            dot = self.convolve(bits, weight[d], 3, dilation, groups=4)
            out = self[f'{name}.scale'][d] * dot + self[f'{name}.bias'][d]
            total = total + self.prelu(out, self[f'{name}.slope'][d])
        return x + self[f'{name}.out_scale'] * total + self[f'{name}.out_bias']

    def pool(self, normed: np.ndarray, balance: np.ndarray) -> np.ndarray:
        """One token ``(rows, cols, C)`` for each window."""
        height, width, channels = normed.shape
        size = self.window_size
        rows, cols = -(-height // size), -(-width // size)
        pooled = np.empty((rows, cols, channels), self.dtype)
        for r in range(rows):
            for c in range(cols):
                top, left = r * size - size // 2, c * size - size // 2
                field = normed[max(top, 0):top + size, max(left, 0):left + size]
                mean = field.sum((0, 1)) / self.dtype.type(size * size)
                pooled[r, c] = mean + balance * (field.max((0, 1)) - mean)
        return pooled

    def projection(self, x: np.ndarray, name: str) -> np.ndarray:
        dot = self.linear(self.bits(x, self[f'{name}.input_bias']), f'{name}.bits')
        out = self[f'{name}.scale'] * dot + self[f'{name}.bias'] + x
        return self.prelu(out, self[f'{name}.slope'])

    def attend(self, tokens: np.ndarray, name: str, heads: int) -> np.ndarray:
        """Window and pooled tokens ``(T, C)`` to their context."""
        mean = tokens.mean(1, keepdims=True)
        variance = ((tokens - mean)**2).mean(1, keepdims=True)
        tokens = (tokens - mean) / np.sqrt(variance + self[f'{name}.norm_eps'])
        tokens = tokens * self[f'{name}.norm_weight'] + self[f'{name}.norm_bias']
        y, bits = {}, {}
        for part in ('query', 'key', 'value'):
            y[part] = self.projection(tokens, f'{name}.{part}')
            flat = self.bits(y[part], self[f'{name}.{part}.bit_bias'])
            bits[part] = flat.reshape(len(tokens), heads, -1).swapaxes(0, 1)
        width = bits['query'].shape[2]
        scores = (bits['query'] @ bits['key'].swapaxes(1, 2)).astype(self.dtype)
        scores = scores * self.dtype.type(1 / math.sqrt(width))
        scores = np.exp(scores - scores.max(2, keepdims=True))
        softmax = scores / scores.sum(2, keepdims=True)
        alpha, zero_point = (self[f'{name}.{n}'][:, None, None] for n in ('alpha', 'zero_point'))
        levels = np.clip(np.rint(3 * softmax / alpha + zero_point), 0, 3)
        sums = (levels.astype(np.float64) @ bits['value']).swapaxes(0, 1).reshape(len(tokens), -1)
        context = self[f'{name}.context_scale'] * sums.astype(self.dtype)
        context = context + self[f'{name}.context_bias'] + y['query'] + y['key'] + y['value']
        return self.prelu(context, self[f'{name}.context_slope'])

    def msmha(self, x: np.ndarray, name: str, heads: int) -> np.ndarray:
        normed = x * self[f'{name}.in_scale'] + self[f'{name}.in_bias']
        pooled = self.pool(normed, self[f'{name}.pool_balance'])
        height, width, channels = normed.shape
        size, (rows, cols) = self.window_size, pooled.shape[:2]
        windows, total = np.empty_like(normed), 0
        for r in range(rows):
            for c in range(cols):
                part = (slice(r * size, (r + 1) * size), slice(c * size, (c + 1) * size))
                window = normed[part]
                tokens = np.concatenate([window.reshape(-1, channels),
                                         pooled.reshape(-1, channels)])
                context = self.attend(tokens, name, heads)
                count = window.shape[0] * window.shape[1]
                windows[part] = context[:count].reshape(window.shape)
                total = total + context[count:]
        spread = (total / self.dtype.type(rows * cols)).reshape(rows, cols, channels)
        spread = spread.repeat(size, 0)[:height].repeat(size, 1)[:, :width]
        mixed = spread + self[f'{name}.window_balance'] * (windows - spread)
        out = self.projection(mixed + self[f'{name}.context_shift'], f'{name}.output')
        return (x + self[f'{name}.output.layer_scale'] * out
                + self[f'{name}.output.layer_bias'])

    def mlp(self, x: np.ndarray, name: str) -> np.ndarray:
        normed = x * self[f'{name}.in_scale'] + self[f'{name}.in_bias']
        dot = self.linear(self.bits(normed, self[f'{name}.fc1.input_bias']), f'{name}.fc1.bits')
        ratio = dot.shape[2] // x.shape[2]
        hidden = self[f'{name}.fc1.scale'] * dot + self[f'{name}.fc1.bias']
        hidden = self.prelu(hidden + np.tile(normed, ratio), self[f'{name}.fc1.slope'])
        bits = np.where(hidden >= self[f'{name}.fc1.threshold'], 1.0, -1.0)
        pooled = hidden.reshape(*x.shape, ratio).mean(3)
        out = self[f'{name}.fc2.scale'] * self.linear(bits, f'{name}.fc2.bits')
        out = self.prelu(out + self[f'{name}.fc2.bias'] + pooled, self[f'{name}.fc2.slope'])
        offsets = [(0, 0), (-1, 0), (1, 0), (-2, 0), (2, 0), (0, -1), (0, 1), (0, -2), (0, 2)]
        stencil = 0
        for tap, (dy, dx) in zip(self[f'{name}.taps'].T, offsets):
            stencil = stencil + tap * np.roll(x, (-dy, -dx), (0, 1))
        return stencil + self[f'{name}.layer_scale'] * out + self[f'{name}.layer_bias']

    # -------------------------------------------------------------------------------- heads

    def conv_module(self, x: np.ndarray, name: str, kernel: int = 1) -> np.ndarray:
        inputs = x.shape[2]
        bits = self.bits(x, self[f'{name}.input_bias'])
        dot = self.convolve(bits, self.weight(f'{name}.bits', kernel * kernel * inputs), kernel)
        outputs = dot.shape[2]
        shortcut = (np.tile(x, outputs // inputs) if outputs >= inputs
                    else x.reshape(*x.shape[:2], outputs, -1).mean(3))
        out = self[f'{name}.scale'] * dot + self[f'{name}.bias'] + shortcut
        return self.prelu(out, self[f'{name}.slope']) + self[f'{name}.shift']

    def segformer_head(self, maps: list[np.ndarray]) -> np.ndarray:
        parts = [self.upsample(self.conv_module(x, f'head.conv{i}'), maps[0].shape[:2])
                 for i, x in enumerate(maps)]
        return self.conv_module(np.concatenate(parts, 2), 'head.fusion')

    @staticmethod
    def average(x: np.ndarray, side: int) -> np.ndarray:
        """Adaptive mean: cells that begin rounded down and end rounded up."""
        out = np.empty((side, side, x.shape[2]), x.dtype)
        (height, width) = x.shape[:2]
        for i in range(side):
            for j in range(side):
                out[i, j] = x[i * height // side:-(-(i + 1) * height // side),
                              j * width // side:-(-(j + 1) * width // side)].mean((0, 1))
        return out

    def uper_head(self, maps: list[np.ndarray]) -> np.ndarray:
        top = maps[3]
        parts = [top]
        for k, side in enumerate(self['head.pool_scales']):
            pooled = self.conv_module(self.average(top, int(side)), f'head.psp{k}')
            parts.append(self.upsample(pooled, top.shape[:2]))
        laterals = [self.conv_module(maps[i], f'head.lateral{i}') for i in range(3)]
        laterals.append(self.conv_module(np.concatenate(parts, 2), 'head.bottleneck', 3))
        for i in (2, 1, 0):
            laterals[i] = laterals[i] + self.upsample(laterals[i + 1], laterals[i].shape[:2])
        outs = [self.conv_module(laterals[i], f'head.fpn{i}', 3) for i in range(3)]
        outs.append(laterals[3])
        outs = [self.upsample(out, maps[0].shape[:2]) for out in outs]
        return self.conv_module(np.concatenate(outs, 2), 'head.fpn_bottleneck', 3)
