from bhvit_seg.training.config import load_config
from bhvit_seg.training.runner import ResumingRunner


def test_runners_of_one_second_share_nothing(tiny_config, tmp_path):
    hubs = []
    for name in ('one', 'other', 'third'):
        cfg = load_config(tiny_config())
        cfg.work_dir = str(tmp_path / name)
        runner = ResumingRunner.from_cfg(cfg)
        hubs.append(runner.message_hub)
        runner.logger.info(f'this is {name}')
        log, = (tmp_path / name).glob('*/*.log')
        assert f'this is {name}' in log.read_text()
    assert len(set(map(id, hubs))) == 3
