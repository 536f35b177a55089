"""Headless Chromium, driven over a pipe: what a page shows, and what a user's hands do to it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
from base64 import b64decode
from itertools import count
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--disable-dev-shm-usage', '--remote-debugging-pipe')
PATIENCE = 60  # seconds


class Browser:
    """A browser with one tab; ``events`` are what the tab reported, in order.

    Args:
        profile: A fresh folder for what browsers keep.
    """

    def __init__(self, profile: Path) -> None:
        (its_input, self.output), (self.input, its_output) = (
            [high(end) for end in os.pipe()] for _ in range(2))
        # Chromium listens on descriptor 3 and answers on 4
        self.process = subprocess.Popen(
            ['bash', '-c', f'exec "$@" 3<&{its_input} 4>&{its_output}', 'bash', CHROMIUM, *FLAGS,
             f'--user-data-dir={profile}'],
            pass_fds=(its_input, its_output), stderr=subprocess.DEVNULL)
        os.close(its_input)
        os.close(its_output)
        self.numbers = count(1)
        self.buffer = b''
        self.events: list[dict] = []
        self.session: str | None = None
        tab = self.send('Target.createTarget', url='about:blank')['targetId']
        self.session = self.send('Target.attachToTarget', targetId=tab, flatten=True)['sessionId']
        for domain in ('Page', 'Network', 'Runtime', 'Log'):
            self.send(f'{domain}.enable')

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self.output)
        os.close(self.input)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def send(self, method: str, **parameters: Any) -> dict:
        """Run a command of the DevTools protocol and return its result."""
        number = next(self.numbers)
        message = {'id': number, 'method': method, 'params': parameters}
        if self.session:
            message['sessionId'] = self.session
        content = json.dumps(message).encode() + b'\0'
        while content:
            content = content[os.write(self.output, content):]
        while True:
            answer = self.receive()
            if answer.get('id') == number:
                assert 'error' not in answer, answer['error']
                return answer['result']
            self.events.append(answer)

    def receive(self) -> dict:
        while b'\0' not in self.buffer:
            assert select.select([self.input], [], [], PATIENCE)[0], 'the browser does not answer'
            chunk = os.read(self.input, 1 << 16)
            assert chunk, 'the browser ended'
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b'\0')
        return json.loads(message)

    def open(self, page: Path, width: int = 1200, height: int = 800, dark: bool = False) -> None:
        """Show a page and wait until it has loaded."""
        self.send('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.send('Emulation.setEmulatedMedia', features=[
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])
        self.events.clear()
        self.send('Page.navigate', url=page.as_uri())
        while not any(event['method'] == 'Page.loadEventFired' for event in self.events):
            self.events.append(self.receive())
        self.evaluate('Promise.all([...document.images].map((image) => image.decode()))')

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited."""
        answer = self.send('Runtime.evaluate', expression=expression, awaitPromise=True,
                           returnByValue=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key (8: with Shift)."""
        text = {'text': key} if len(key) == 1 else {}
        self.send('Input.dispatchKeyEvent', type='keyDown', key=key, modifiers=modifiers, **text)
        self.send('Input.dispatchKeyEvent', type='keyUp', key=key, modifiers=modifiers)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Move the mouse from one point (x, y) to another with its left button down."""
        middle = [(a + b) / 2 for a, b in zip(start, end)]
        steps = (('mousePressed', start), ('mouseMoved', middle), ('mouseMoved', end),
                 ('mouseReleased', end))
        for kind, (x, y) in steps:
            self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', buttons=1,
                      clickCount=1)

    def touch(self, *moments: list[tuple[float, float]]) -> None:
        """Put fingers down at the first points (x, y), move them on, and lift them."""
        for kind, points in zip(['touchStart', *['touchMove'] * len(moments)], moments):
            self.send('Input.dispatchTouchEvent', type=kind, touchPoints=[
                {'x': x, 'y': y, 'id': finger} for finger, (x, y) in enumerate(points)])
        self.send('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])

    def screenshot(self) -> bytes:
        """Return what is seen, as a PNG."""
        return b64decode(self.send('Page.captureScreenshot')['data'])


def high(descriptor: int) -> int:
    """Return a copy of a descriptor that is none of the first ten, which a shell redirects."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy
