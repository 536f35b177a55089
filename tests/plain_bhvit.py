"""BHViT once more, as plainly as the formulas read: the oracle of the fast backbone.

One function on a dict of tensors by their published names. Everything is written the long way:
maps are ``(B, C, H, W)``, tokens ``(B, N, C)``, straight-through gradients come from
``detach``, shifts from ``roll``, nothing is fused, folded or shared. It runs square inputs whose
maps the window divides, like the published networks. What the dict lacks is left out: shifts,
dilated convolutions, pooled tokens; without a quantizer attention has one boolean matrix.
"""

import math

import torch
import torch.nn.functional as F


def straight_through(value, surrogate):
    return value.detach() - surrogate.detach() + surrogate


def sign(x):
    return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))


def binary_activation(x):
    surrogate = torch.where(x >= 0, 2 * x - x * x, 2 * x + x * x)
    surrogate = torch.where(x >= 1, torch.ones_like(x), surrogate)
    surrogate = torch.where(x <= -1, -torch.ones_like(x), surrogate)
    return straight_through(sign(x), surrogate)


def binary_weight(w, rectify=False):
    dims = list(range(1, w.dim()))
    scale = w.abs().mean(dims, keepdim=True).detach()
    w = w - w.mean(dims, keepdim=True)
    bound = 1.0
    if rectify and w.dim() == 2:
        w = w / (torch.sqrt(w.var(dims, keepdim=True) + 1e-5) / 2 / math.sqrt(2))
        bound = (-w.abs().mean() * math.log(2 - 2 * 0.92)).item()
    return straight_through(scale * sign(w), w.clamp(-bound, bound))


class PlainBHViT:
    """Forward pass over a published state dict; a ``window`` of 0 is as large as the map."""

    def __init__(self, state, num_heads, norm='BN', rectify=False, train=False, binary=True,
                 window=7):
        self.s, self.num_heads, self.kind, self.rectify = state, num_heads, norm, rectify
        self.train, self.binary, self.window = train, binary, window

    def norm(self, name, x):
        """``x``: tokens ``(B, N, C)``."""
        if self.kind == 'LN':
            return F.layer_norm(x, x.shape[-1:], self.s[name + '.weight'], self.s[name + '.bias'],
                                1e-5)
        if self.train:
            mean, var = x.mean((0, 1)), x.var((0, 1), unbiased=False)
        else:
            mean, var = self.s[name + '.running_mean'], self.s[name + '.running_var']
        x = (x - mean) / torch.sqrt(var + 1e-5)
        return x * self.s[name + '.weight'] + self.s[name + '.bias']

    def act(self, x):
        return binary_activation(x) if self.binary else x

    def linear(self, name, x):
        w = self.s[name + '.weight']
        return x @ (binary_weight(w, self.rectify) if self.binary else w).t()

    def rprelu(self, name, x):
        x = x - self.s[name + '.move1']
        return torch.where(x > 0, x, x * self.s[name + '.prelu.weight']) + self.s[name + '.move2']

    def scale(self, name, x):
        return x * self.s[name + '.alpha'] + self.s[name + '.move']

    @staticmethod
    def tokens(x):
        return x.flatten(2).transpose(1, 2)

    @staticmethod
    def maps(x, size):
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)

    def msgdc(self, name, n, size):
        x = self.act(self.maps(n, size) + self.s[name + '.move.bias'])
        total = 0
        for i, dilation in enumerate((1, 3, 5), 1):
            if (w := self.s.get(f'{name}.cov{i}.weight')) is None:
                continue
            y = F.conv2d(F.pad(x, (dilation,) * 4), binary_weight(w) if self.binary else w,
                         self.s[f'{name}.cov{i}.bias'], dilation=dilation,
                         groups=x.shape[1] // w.shape[1])
            total = total + self.rprelu(f'{name}.act{i}', self.tokens(y))
        return self.norm(name + '.norm', total)

    def quantize(self, name, a):
        if not self.binary:
            return a
        if name + '.att_prob_clip' in self.s:
            c1, c2, c3 = (self.s[f'{name}.att_prob_clip{i}'] for i in ('', '2', '3'))
            u = a / c1
            top = u.max(-1, keepdim=True)[0]
            above7, above9 = (u > 0.7 * top).to(a.dtype), (u > 0.9 * top).to(a.dtype)
            levels = u.round().clamp(0, 1) - above7 + c2 * (above7 - above9) + c3 * above9
            slope = torch.where((u >= 0) & (u <= 1), 1 - u, torch.ones_like(u))
            # the released gradients are not those of the formula: a linear function that has them
            surrogate = ((levels * c1).detach() * a + (levels * slope).detach() * c1
                         + (c1 * (above7 - above9)).detach() * c2 + (c1 * above9).detach() * c3)
            return straight_through(c1 * levels, surrogate)
        x, keys = 3 * a, a.shape[-1]
        name += '.att_prob_quantizer'
        if name + '.alpha' not in self.s:
            return (binary_activation(keys * a - 1) + 1) / 2 / keys
        scale = a.shape[1] / math.sqrt(x.numel() * 3)
        alpha, z = (straight_through(p, p * scale)[:, None, None]
                    for p in (self.s[name + '.alpha'], self.s[name + '.zero_point']))
        t = x / alpha + z
        return straight_through(t.round(), t).clamp(0, 3) * alpha

    def msmha(self, name, n, size, heads):
        own, (height, width), k = name + '.attention', size, self.window or size[0]
        x = self.maps(n, size)
        batch, channels = x.shape[:2]
        h = x.unfold(2, k, k).unfold(3, k, k).permute(0, 2, 3, 4, 5, 1)
        h = h.reshape(batch, -1, k * k, channels)
        count = h.shape[1]
        if pools := own + '.parm' in self.s:
            a = self.s[own + '.token_FA.a1'].view(1, -1, 1, 1)
            pooled = a * F.max_pool2d(x, k, k, k // 2) + (1 - a) * F.avg_pool2d(x, k, k, k // 2)
            h = torch.cat([h, self.tokens(pooled)[:, None].expand(-1, count, -1, -1)], 2)
        h = h.flatten(0, 1)
        h = F.layer_norm(h, (channels,), self.s[own + '.token_FA.norm.weight'],
                         self.s[own + '.token_FA.norm.bias'], 1e-5)
        qkv, bits = [], []
        for letter, word in (('q', 'query'), ('k', 'key'), ('v', 'value')):
            y = self.linear(f'{own}.{word}', self.act(h + self.s[f'{own}.move{letter}']))
            y = self.rprelu(f'{own}.rprelu{letter}', self.norm(f'{own}.norm{letter}', y) + h)
            qkv.append(y)
            y = self.act(y + self.s[f'{own}.move{letter}2'])
            bits.append(y.view(*y.shape[:2], heads, -1).transpose(1, 2))
        scores = bits[0] @ bits[1].transpose(-1, -2) / math.sqrt(channels // heads)
        context = self.quantize(own, scores.softmax(-1)) @ bits[2]
        context = context.transpose(1, 2).flatten(2)
        context = self.rprelu(own + '.rprelu_context',
                              self.norm(own + '.norm_context', context) + sum(qkv))
        context = context.view(batch, count, -1, channels)
        grid = (height // k, width // k)
        low = context[:, :, :k * k].view(batch, *grid, k, k, channels)
        low = low.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)
        if pools:
            high = F.interpolate(self.maps(context[:, :, k * k:].mean(1), grid), size=size)
            p = self.s[own + '.parm']
            low = p * low + (1 - p) * high
        y = self.tokens(low)
        out = self.linear(name + '.output.dense', self.act(y + self.s[name + '.output.move']))
        out = self.rprelu(name + '.output.rprelu', self.norm(name + '.output.norm', out) + y)
        return self.scale(name + '.output.layerscale', out)

    def mlp(self, name, n):
        hidden, out = name + '.intermediate', name + '.output'
        ratio = self.s[hidden + '.dense.weight'].shape[0] // n.shape[-1]
        h = self.linear(hidden + '.dense', self.act(n + self.s[hidden + '.move']))
        h = self.norm(hidden + '.norm', h) + torch.cat([n] * ratio, -1)
        h = self.rprelu(hidden + '.rprelu', h)
        o = self.linear(out + '.dense', self.act(h + self.s[out + '.move']))
        pooled = F.avg_pool1d(h, ratio)
        o = self.rprelu(out + '.rprelu', self.norm(out + '.norm', o) + pooled)
        return self.scale(out + '.layerscale', o)

    def shifts(self, name, n, size):
        x, total = self.maps(n, size), 0
        if f'{name}.layerscale_h3.alpha' not in self.s:
            return total
        for offsets in ((-1, 0, 1), (-2, -1, 0, 1, 2)):
            s = len(offsets)
            for letter, dim in (('h', 2), ('w', 3)):
                y = sum(x.roll(d, dim) for d in offsets) / s
                total = total + self.scale(f'{name}.layerscale_{letter}{s}', self.tokens(y))
            d = s // 2
            a, b, c, e = x.chunk(4, 1)
            y = torch.cat([a.roll(d, 2), b.roll(-d, 2), c.roll(d, 3), e.roll(-d, 3)], 1)
            total = total + self.scale(f'{name}.layerscale_ch{s}', self.tokens(y))
        return total

    def block(self, name, x, heads):
        size = x.shape[2:]
        n = self.norm(name + '.layernorm_before', self.tokens(x))
        if name + '.GC.move.bias' in self.s:
            y = self.msgdc(name + '.GC', n, size)
        else:
            y = self.msmha(name + '.attention', n, size, heads)
        x = self.tokens(x) + y
        n = self.norm(name + '.layernorm_after', x)
        return self.maps(x + self.mlp(name, n) + self.shifts(name, n, size), size)

    def downsample(self, name, x):
        n = self.maps(self.norm(name + '.norm0', self.tokens(x)), x.shape[2:])
        w = self.s[name + '.proj.weight']
        if name + '.move' in self.s:
            y = F.conv2d(self.act(n + self.s[name + '.move']),
                         binary_weight(w) if self.binary else w, stride=2)
            pooled = F.avg_pool2d(n, 2)
            t = self.norm(name + '.norm', self.tokens(y)) + self.tokens(torch.cat([pooled] * 2, 1))
            t = self.rprelu(name + '.rprelu', t)
        else:
            y = F.conv2d(n, w, stride=2)
            t = self.norm(name + '.norm', self.tokens(y))
        return self.maps(t + self.s[name + '.position_embeddings'], y.shape[2:])

    def __call__(self, image, depths):
        stem = 'vit.embeddings.patch_embeddings'
        x = F.conv2d(image, self.s[stem + '.proj.weight'], self.s[stem + '.proj.bias'], stride=4)
        size = x.shape[2:]
        x = self.maps(F.gelu(self.norm(stem + '.norm', self.tokens(x))), size)
        x = x + self.s['vit.embeddings.position_embeddings']
        outputs, first = [], {'A': 0, 'B': 0}
        for stage, depth in enumerate(depths):
            part = 'A' if stage < 2 else 'B'
            for i in range(depth):
                x = self.block(f'vit.encoder.layer{part}.{first[part] + i}', x,
                               self.num_heads[stage])
            first[part] += depth
            outputs.append(x)
            if stage < 3:
                x = self.downsample(f'vit.encoder.patch_embed{stage + 1}', x)
        return outputs


def published_manifest(depths, channels, hidden, heads, norm='BN', attention='qd',
                       full_precision_downsampling=True, base=56):
    """Names and shapes of all tensors of a published checkpoint of these sizes."""
    shapes = {}

    def add(prefix, **leaves):
        shapes.update({f'{prefix}.{k}': v for k, v in leaves.items()})

    def add_norm(name, c):
        add(name, weight=[c], bias=[c])
        if norm == 'BN':
            add(name, running_mean=[c], running_var=[c], num_batches_tracked=[])

    def add_rprelu(name, c):
        shapes.update({f'{name}.{k}': [c] for k in ('move1', 'move2', 'prelu.weight')})

    def add_product(name, c, d):
        shapes.update({name + '.move': [c], name + '.dense.weight': [d, c]})
        add_norm(name + '.norm', d)
        add_rprelu(name + '.rprelu', d)

    c = channels[0]
    add('vit.embeddings', position_embeddings=[1, c, base, base])
    add('vit.embeddings.patch_embeddings.proj', weight=[c, 3, 4, 4], bias=[c])
    add_norm('vit.embeddings.patch_embeddings.norm', c)
    index = {'A': 0, 'B': 0}
    for stage, depth in enumerate(depths):
        c, h, part = channels[stage], hidden[stage], 'A' if stage < 2 else 'B'
        for _ in range(depth):
            name = f'vit.encoder.layer{part}.{index[part]}'
            index[part] += 1
            if part == 'A':
                add(name + '.GC.move', bias=[1, c, 1, 1])
                for i in '123':
                    add(f'{name}.GC.cov{i}', weight=[c, c // 4, 3, 3], bias=[c])
                    add_rprelu(f'{name}.GC.act{i}', c)
                add_norm(name + '.GC.norm', c)
            else:
                own = name + '.attention.attention'
                for letter, word in (('q', 'query'), ('k', 'key'), ('v', 'value')):
                    shapes.update({f'{own}.move{letter}': [c], f'{own}.move{letter}2': [c],
                                   f'{own}.{word}.weight': [c, c]})
                    add_norm(f'{own}.norm{letter}', c)
                    add_rprelu(f'{own}.rprelu{letter}', c)
                shapes.update({own + '.parm': [1, c, 1, 1], own + '.token_FA.a1': [1, 1, c]})
                add(own + '.token_FA.norm', weight=[c], bias=[c])
                if attention == 'qd':
                    add(own + '.att_prob_quantizer', alpha=[heads[stage]],
                        zero_point=[heads[stage]], init_state=[1])
                elif attention == 'gsb':
                    shapes.update({f'{own}.att_prob_clip{i}': [] for i in ('', '2', '3')})
                add_norm(own + '.norm_context', c)
                add_rprelu(own + '.rprelu_context', c)
                add_product(name + '.attention.output', c, c)
                add(name + '.attention.output.layerscale', alpha=[c], move=[c])
            add_product(name + '.intermediate', c, h)
            add_product(name + '.output', h, c)
            add(name + '.output.layerscale', alpha=[c], move=[c])
            for norm_name in ('layernorm_before', 'layernorm_after'):
                add_norm(f'{name}.{norm_name}', c)
            for branch in ('h3', 'w3', 'h5', 'w5', 'ch3', 'ch5'):
                add(f'{name}.layerscale_{branch}', alpha=[c], move=[c])
        if stage < 3:
            name, d = f'vit.encoder.patch_embed{stage + 1}', channels[stage + 1]
            side = base >> (stage + 1)
            add(name, **{'position_embeddings': [1, side * side, d], 'proj.weight': [d, c, 2, 2]})
            add_norm(name + '.norm0', c)
            add_norm(name + '.norm', d)
            if not full_precision_downsampling:
                shapes[name + '.move'] = [1, c, 1, 1]
                add_rprelu(name + '.rprelu', d)
    add_norm('vit.layernorm', channels[-1])
    return shapes


def random_state(manifest: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return published tensors in float64, of the magnitude that trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in manifest.items():
        value = 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith('running_var'):
            value = 0.5 + value.abs()
        elif name.endswith('att_prob_clip'):
            value = 0.02 + value.abs() / 5
        elif name.endswith(('clip2', 'clip3', 'att_prob_quantizer.alpha')):
            value = (1 if 'clip' in name else 0.1) + value.abs()
        elif name.endswith(('init_state', 'num_batches_tracked')):
            value = torch.ones_like(value)
        elif name.endswith(('norm.weight', 'norm0.weight', 'prelu.weight')):
            value = value + (0.25 if 'prelu' in name else 1)
        elif name.endswith('.weight') and value.dim() > 1:
            value = value * 10 / value[0].numel() ** 0.5
        state[name] = value
    return state


def randomize(model) -> dict[str, torch.Tensor]:
    """Let no parameter and statistic of a model be neutral; return copies that take gradients."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_(0, 0.3)
            elif name.endswith('running_var'):
                buffer.uniform_(0.5, 2)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[name].requires_grad_(parameter.requires_grad)
    return state


def assert_outputs_agree(ours, theirs, backward: bool = True) -> None:
    """Compare feature maps; ``backward`` propagates one random gradient through both."""
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    if backward:
        weights = [torch.randn(out.shape, dtype=out.dtype) for out in theirs]
        for outputs in (ours, theirs):
            sum((out * w).mean() for out, w in zip(outputs, weights)).backward()


def assert_gradients_agree(model, expected: dict, atol: float = 1e-10) -> None:
    """Compare the gradients of the parameters that ``expected`` names."""
    compared = 0
    for name, parameter in model.named_parameters():
        if name in expected and parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-7, atol=atol,
                                       msg=lambda m, n=name: f'{n}: {m}')
            compared += 1
    assert compared > 40
