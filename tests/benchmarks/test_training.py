"""What the training benchmark compares, and that its figures are of the right things."""


from benchmarks.training import (
    benchmark_training,
    format_results,
    main,
)

DEMO = 'configs/demo/bhvit-mini_segformer_1xb8-250_rs-lvf-224x224.py'
UPERNET = 'configs/bhvit/bhvit-tiny_upernet_1xb8-20k_rs-lvf-448x448.py'


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
