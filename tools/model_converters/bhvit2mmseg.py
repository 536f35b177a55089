"""Turns a published BHViT checkpoint into one for mmseg: ``bhvit2mmseg.py SRC DST``."""

from __future__ import annotations

import argparse

from bhvit_seg.errors import command


@command
def main(argv: list[str] | None = None) -> None:
    from bhvit_seg.models.backbones.published import convert_file

    parser = argparse.ArgumentParser(
        description='Renames the tensors of a published BHViT classifier to those of the backbone '
                    "BHViT. Use the result with init_cfg=dict(type='Pretrained', checkpoint=DST).")
    parser.add_argument('src', help='checkpoint as the authors released it')
    parser.add_argument('dst', help='file to write')
    args = parser.parse_args(argv)
    converted = convert_file(args.src, args.dst)
    stages = sorted({name.split('.')[1] for name in converted if name.startswith('stages.')})
    depths = [len({name.split('.')[2] for name in converted if name.startswith(f'stages.{stage}.')})
              for stage in stages]
    kind = 'binary' if 'downsamplings.0.act.slope' in converted else 'full_precision'
    print(f'{args.dst}: {len(converted)} tensors of a BHViT with depths {depths} and '
          f'downsampling={kind!r}')


if __name__ == '__main__':
    main()
