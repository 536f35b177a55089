"""What the training benchmark compares, and that its figures are of the right things."""

from mmseg.registry import MODELS

from benchmarks.training import (
    TrainingStep,
    benchmark_training,
    format_results,
    full_precision_twin,
    main,
)
from bhvit_seg.models.layers import BinaryConv2d, BinaryLinear
from bhvit_seg.training.config import load_config

DEMO = 'configs/demo/bhvit-mini_segformer_1xb8-250_rs-lvf-224x224.py'
UPERNET = 'configs/bhvit/bhvit-tiny_upernet_1xb8-20k_rs-lvf-448x448.py'


def test_twin_has_no_binary_layer_and_the_same_tensors(repository):
    cfg = load_config(repository / UPERNET)
    TrainingStep(cfg, cfg.model, 1, (32, 32), 'cpu', False)  # sets the scope
    binary, twin = MODELS.build(cfg.model), MODELS.build(full_precision_twin(cfg.model))
    layers = [m for m in twin.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    assert layers and not any(layer.binary for layer in layers)
    missing = binary.state_dict().keys() - twin.state_dict().keys()
    assert all('.quantizer.' in name for name in missing)
    assert cfg.model.backbone.binary


def test_benchmark_measures_both(repository, sentence):
    results = benchmark_training(repository / DEMO, batch_size=2, size=(32, 32), iterations=2,
                                 threads=1)
    assert list(results) == ['binary', 'full precision']
    for figures in results.values():
        assert 0 < figures['train_ms'] <= figures['train_median_ms']
        assert 0 < figures['eval_ms'] <= figures['eval_median_ms']
        assert figures['train_peak_mb'] > 0
    table = format_results(results)
    assert len(table.splitlines()) == 4 and '| full precision |' in table
    part = repository / 'configs/_base_/default_runtime.py'
    assert 'lacks model or optim_wrapper' in sentence(main, part)
