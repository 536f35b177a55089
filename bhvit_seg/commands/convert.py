"""``bhvit-seg convert``: converts a published BHViT checkpoint."""

import argparse

DESCRIPTION = (
    'Renames the tensors of a published BHViT classifier to those of the backbone BHViT. A config '
    "takes the result with init_cfg=dict(type='Pretrained', checkpoint='DST') in its backbone.")
EXAMPLES = ('bhvit-seg convert released.pth bhvit-small.pth',)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('src', metavar='SRC', help='checkpoint as the authors released it')
    parser.add_argument('dst', metavar='DST', help='file to write')


def run(args: argparse.Namespace) -> None:
    from bhvit_seg.models.backbones.published import convert_file

    converted = convert_file(args.src, args.dst)
    stages = sorted({name.split('.')[1] for name in converted if name.startswith('stages.')})
    depths = [len({name.split('.')[2] for name in converted if name.startswith(f'stages.{stage}.')})
              for stage in stages]
    kind = 'binary' if 'downsamplings.0.act.slope' in converted else 'full_precision'
    print(f'{args.dst}: {len(converted)} tensors of a BHViT with depths {depths} and '
          f'downsampling={kind!r}')
