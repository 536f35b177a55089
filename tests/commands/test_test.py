import json

import numpy as np
import pytest
import torch
from PIL import Image

from bhvit_seg.evaluation.metric import PerClassMetric
from bhvit_seg.evaluation.scores import class_table
from bhvit_seg.evaluation.test import test as run_test
from bhvit_seg.models.weights import load_checkpoint_safely
from bhvit_seg.training.train import train


@pytest.fixture
def main(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tool('tools/test.py')


def test_scores_agree_with_the_predictions_written(trained, tiny_data, main, tmp_path, capsys):
    main([*map(str, trained), '--work-dir', str(tmp_path / 'w'), '--out', str(tmp_path / 'out')])
    table = capsys.readouterr().out.splitlines()[-7:]
    assert [line.split()[0] for line in table if line and line[0].isalpha()] == [
        'background', 'road', 'mean', 'pixel']
    assert table[0].split() == ['IoU', 'F1', 'Precision', 'Recall']
    result = json.loads((tmp_path / 'w' / 'test_iter_4.json').read_text())
    labels = sorted((tiny_data / 'annotations' / 'val').iterdir())
    assert len(labels) == 3
    confusion = np.zeros((256, 256))
    for path in labels:
        np.add.at(confusion, (np.asarray(Image.open(path)),
                              np.asarray(Image.open(tmp_path / 'out' / path.name))), 1)
    confusion = confusion[:2, :2]
    hits, sums = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    for name, iou, f1 in zip(('background', 'road'), hits / (sums - hits), 2 * hits / sums):
        assert result['classes'][name]['IoU'] == pytest.approx(100 * iou)
        assert result['classes'][name]['F1'] == pytest.approx(100 * f1)
    assert result['summary']['mIoU'] == pytest.approx(100 * (hits / (sums - hits)).mean())


def test_mirrored_and_scaled_images_are_averaged(trained, tmp_path):
    config, checkpoint = trained
    result = run_test(config, checkpoint, work_dir=tmp_path, tta=True)
    assert (tmp_path / 'test_iter_4_tta.json').is_file() and result['tta'] is True
    own = ("dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[[dict("
           "type='Resize', scale_factor=1.0, keep_ratio=True)], [dict(type='LoadAnnotations')], "
           "[dict(type='PackSegInputs')]])")
    alone = tmp_path / 'alone.py'
    alone.write_text(config.read_text() + f'tta_pipeline = [{own}]\n')
    single = run_test(alone, checkpoint, work_dir=tmp_path / 'alone', tta=True)
    plain = run_test(config, checkpoint, work_dir=tmp_path / 'plain')
    assert single['classes'] == plain['classes']


def test_predictions_keep_folders_and_annotation_ids(tmp_path):
    metric = PerClassMetric(label_dir=str(tmp_path / 'out'), image_dir='/data/images')
    metric.dataset_meta = {'classes': ('a', 'b'), 'palette': [[1, 2, 3], [4, 5, 6]]}
    label = torch.tensor([[0, 1]])
    for path in ('/data/images/north/tile.jpg', '/data/images/south/tile.jpg'):
        metric.process({}, [{
            'pred_sem_seg': {'data': label}, 'gt_sem_seg': {'data': label}, 'img_path': path,
            'reduce_zero_label': True}])
    for folder in ('north', 'south'):
        written = Image.open(tmp_path / 'out' / folder / 'tile.png')
        assert np.asarray(written).tolist() == [[1, 2]]
        assert written.getpalette()[3:9] == [1, 2, 3, 4, 5, 6]


def test_validation_and_test_agree(tiny_config, tmp_path):
    """Also where a class is never predicted, and by whatever the config names the metric."""
    config = tiny_config('train_cfg.update(max_iters=1, val_interval=1)',
                         'optim_wrapper.update(optimizer=dict(type="SGD", lr=0.0))',
                         "val_evaluator.update(type='mmseg.IoUMetric', iou_metrics=['mFscore'])",
                         "model['decode_head']['num_classes'] = 4",
                         "metainfo.update(classes=('a', 'b', 'c', 'd'), palette=[[0, 0, 0]] * 4)")
    hub = train(config, work_dir=tmp_path).message_hub
    result = run_test(config, tmp_path / 'iter_1.pth', work_dir=tmp_path / 'w')
    for name, score in result['summary'].items():
        assert hub.get_scalar(f'val/{name}').current() == pytest.approx(score, nan_ok=True)
    assert list(tmp_path.glob('best_mIoU_iter_1.pth'))
    scores = [scores['F1'] for scores in result['classes'].values()]
    assert 0 in scores  # a class that is labelled and never predicted
    assert result['summary']['mFscore'] == pytest.approx(
        np.mean([score for score in scores if score is not None]))


def test_absent_and_unpredicted_classes():
    metric = PerClassMetric()
    metric.dataset_meta = {'classes': ('a', 'b', 'c')}
    metric.process({}, [{'pred_sem_seg': {'data': torch.zeros(2, 2)},
                         'gt_sem_seg': {'data': torch.tensor([[0, 0], [1, 255]])}}])
    summary = metric.compute_metrics(metric.results)
    assert metric.classes['b']['F1'] == 0 and np.isnan(metric.classes['c']['IoU'])
    assert summary['mIoU'] == pytest.approx((200 / 3 + 0) / 2)
    assert summary['aAcc'] == pytest.approx(200 / 3)
    assert '-' in class_table({'c': {'IoU': None}}, {**summary, 'mAcc': None})


def test_area_of_a_large_set_is_counted_exactly():
    metric = PerClassMetric()
    metric.dataset_meta = {'classes': ('a',)}
    areas = torch.tensor([2.**24 - 1])
    summary = metric.compute_metrics([(areas - 1, areas, areas, areas)] * 64)
    assert metric.classes['a']['IoU'] == 100 * (2**24 - 2) / (2**24 - 1)
    assert summary['aAcc'] == metric.classes['a']['IoU']


@pytest.mark.parametrize('change, words', [
    ({'decode_head.conv_seg.weight': torch.ones(5, 4, 1, 1)},
     'of another shape: decode_head.conv_seg.weight'),
    ({'decode_head.conv_seg.bias': None}, 'missing: decode_head.conv_seg.bias'),
    ({'backbone.extra': torch.ones(1)}, 'not in the model: backbone.extra'),
])
def test_checkpoint_of_another_model(change, words, trained, tmp_path, main, sentence):
    config, checkpoint = trained
    weights = {**load_checkpoint_safely(checkpoint)['state_dict'], **change}
    torch.save({'state_dict': {name: value for name, value in weights.items()
                               if value is not None}}, tmp_path / 'other.pth')
    assert words in sentence(main, config, tmp_path / 'other.pth')


def test_bad_input_is_one_sentence(trained, main, sentence):
    assert 'no checkpoint at nowhere.pth' in sentence(main, trained[0], 'nowhere.pth')
    assert '--out' in sentence(main, *trained, '--out', '/dev/null/x')
