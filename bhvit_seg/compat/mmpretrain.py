"""mmpretrain for configs of classifiers; if it does not import, the error says what to type."""

import bhvit_seg.compat.openmmlab  # noqa: F401
from bhvit_seg.compat.openmmlab import StackError, import_quietly
from bhvit_seg.errors import first_line
from bhvit_seg.extras import install_line, missing_package

try:
    # These register its models, data sets and metrics.
    import_quietly('mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation')
except ModuleNotFoundError as error:
    raise StackError(
        f'configs of classifiers need mmpretrain: {missing_package(error.name)}') from error
except (ImportError, AssertionError, AttributeError, OSError, RuntimeError) as error:
    # mmpretrain asserts versions of mmcv and mmengine.
    raise StackError(f'mmpretrain is installed but does not import ({first_line(error)}): '
                     f'{install_line("pretrain")} installs what fits') from error
