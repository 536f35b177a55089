"""Time and memory of the backbone against the plain implementation that tests compare it with.

``PYTHONPATH=tests python -m benchmarks.against_plain --arch small --batch 2``. Calls of the two are
interleaved in one process. On a CPU they are measured in processor time, which depends less on
other processes than wall-clock time does, and peak memory in separate processes. The plain
implementation takes sides that are multiples of 224.
"""

from __future__ import annotations

import argparse
import time

import torch
from mmseg.registry import MODELS
from plain_bhvit import PlainBHViT, published_manifest

import bhvit_seg.models  # noqa: F401
from benchmarks.training import peak_memory
from bhvit_seg.models.backbones.bhvit import ARCHITECTURES, convert_checkpoint

WARM_UP = 1


def make_steps(arch, args):
    """Return ``{name: step}``; a step is a function of whether to train."""
    sizes, size, cuda = ARCHITECTURES[arch], args.size, args.device.startswith('cuda')
    torch.manual_seed(0)
    state = {}
    manifest = published_manifest(*(sizes[k] for k in (
        'depths', 'channels', 'mlp_channels', 'num_heads')), base=size // 4)
    for name, shape in manifest.items():
        state[name] = 0.1 * torch.randn(shape)
        if name.endswith(('running_var', 'norm.weight', 'alpha', 'init_state')):
            state[name] = state[name].abs() + 0.5
    image = torch.randn(args.batch, 3, size, size, device=args.device)
    ours = MODELS.build(dict(type='BHViT', arch=arch, output_norm=False, drop_path_rate=0.,
                             pretrain_img_size=size))
    ours.load_state_dict(convert_checkpoint(state))
    ours.to(args.device)
    leaves = {n: t.to(args.device).requires_grad_(t.dim() > 0 and 'running' not in n)
              for n, t in state.items()}

    def run(network, train, *arguments):
        with torch.set_grad_enabled(train):
            with torch.autocast('cuda' if cuda else 'cpu', enabled=args.amp):
                outputs = network(image, *arguments)
            if train:
                sum(out.float().mean() for out in outputs).backward()
        if cuda:
            torch.cuda.synchronize()

    def plain_step(train):
        plain = PlainBHViT(leaves, sizes['num_heads'], train=train)
        run(plain, train, sizes['depths'])

    def ours_step(train):
        run(ours.train(train), train)

    return {'plain': plain_step, 'bhvit_seg': ours_step}


def training_step(name, arch, args):
    """What :func:`benchmarks.training.peak_memory` measures."""
    torch.set_num_threads(1)
    make_steps(arch, args)[name](True)


def compare(arch, args):
    clock = time.perf_counter if args.device.startswith('cuda') else time.process_time
    steps = make_steps(arch, args)
    print(f'BHViT-{arch}, batch {args.batch}, {args.size}×{args.size}, '
          f'{args.device}{", mixed precision" * args.amp}')
    for train in (True, False):
        best = dict.fromkeys(steps, float('inf'))
        for i in range(WARM_UP + args.repeats):
            for name, step in steps.items():
                start = clock()
                step(train)
                if i >= WARM_UP:
                    best[name] = min(best[name], clock() - start)
        print('training step' if train else 'evaluation', *(
            f'{name} {1e3 * seconds:.0f} ms' for name, seconds in best.items()),
            f'ratio {best["plain"] / best["bhvit_seg"]:.2f}')
    del steps, step
    for name in ('plain', 'bhvit_seg'):
        peak = peak_memory(args.device, training_step, name, arch, args) / 2**20
        print(f'peak memory of a training step, {name}: {peak:.0f} MiB', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', nargs='+', default=['small'], choices=ARCHITECTURES)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    args = parser.parse_args()
    torch.set_num_threads(1)
    for arch in args.arch:
        compare(arch, args)


if __name__ == '__main__':
    main()
