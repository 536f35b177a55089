"""Time and memory of the backbone against the plain implementation that tests compare it with.

``PYTHONPATH=tests python -m benchmarks.against_plain --arch small --batch 2``. Calls of the two are
interleaved in one process and measured in processor time, which depends less on other processes
than wall-clock time does; peak memory is measured in separate processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import torch
from mmseg.registry import MODELS
from plain_bhvit import PlainBHViT, published_manifest

import bhvit_seg.models  # noqa: F401
from benchmarks.training import highest_memory
from bhvit_seg.models.backbones.bhvit import ARCHITECTURES, convert_checkpoint

WARM_UP = 1


def make_steps(arch, batch, size):
    """Return ``{name: step}``; a step is a function of whether to train."""
    sizes = ARCHITECTURES[arch]
    torch.manual_seed(0)
    state = {}
    manifest = published_manifest(*(sizes[k] for k in (
        'depths', 'channels', 'mlp_channels', 'num_heads')), base=size // 4)
    for name, shape in manifest.items():
        state[name] = 0.1 * torch.randn(shape)
        if name.endswith(('running_var', 'norm.weight', 'alpha', 'init_state')):
            state[name] = state[name].abs() + 0.5
    image = torch.randn(batch, 3, size, size)
    ours = MODELS.build(dict(type='BHViT', arch=arch, output_norm=False, drop_path_rate=0.,
                             pretrain_img_size=size))
    ours.load_state_dict(convert_checkpoint(state))
    leaves = {n: t.requires_grad_(t.dim() > 0 and 'running' not in n) for n, t in state.items()}

    def run(outputs, train):
        if train:
            sum(out.mean() for out in outputs).backward()

    def plain_step(train):
        with torch.set_grad_enabled(train):
            run(PlainBHViT(leaves, sizes['num_heads'], train=train)(image, sizes['depths']), train)

    def ours_step(train):
        ours.train(train)
        with torch.set_grad_enabled(train):
            run(ours(image), train)

    return {'plain': plain_step, 'bhvit_seg': ours_step}


def peak_memory(name, arch, batch, size):
    """MiB that a training step adds to a fresh process."""
    torch.set_num_threads(1)
    step = make_steps(arch, batch, size)[name]
    before = highest_memory()
    step(True)
    return (highest_memory() - before) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', default='small', choices=ARCHITECTURES)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = make_steps(args.arch, args.batch, args.size)
    print(f'BHViT-{args.arch}, batch {args.batch}, {args.size}×{args.size}, one thread')
    for train in (True, False):
        best = dict.fromkeys(steps, float('inf'))
        for i in range(WARM_UP + args.repeats):
            for name, step in steps.items():
                start = time.process_time()
                step(train)
                if i >= WARM_UP:
                    best[name] = min(best[name], time.process_time() - start)
        print('training step' if train else 'evaluation', *(
            f'{name} {1e3 * seconds:.0f} ms' for name, seconds in best.items()),
            f'ratio {best["plain"] / best["bhvit_seg"]:.2f}')
    context = multiprocessing.get_context('spawn')
    for name in steps:
        with context.Pool(1) as pool:
            peak = pool.apply(peak_memory, (name, args.arch, args.batch, args.size))
        print(f'peak memory of a training step, {name}: {peak:.0f} MiB')


if __name__ == '__main__':
    main()
