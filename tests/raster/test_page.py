import io
import json
import math
import re
import shutil
import subprocess
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from raster.rasters import NODATA, PALETTE, write_map, write_raster
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from bhvit_seg.raster.opening import open_raster
from bhvit_seg.raster.page import (
    facts,
    pixel_size,
    proportions,
    write_page,
)

UTM = {'crs': 'EPSG:32631', 'transform': Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
MAP_TOLERANCE, IMAGE_TOLERANCE = 2, 8


class Page(HTMLParser):
    """A page's elements, by id, and its text."""

    def __init__(self, path) -> None:
        super().__init__()
        self.source = path.read_text(encoding='utf-8')
        self.elements, self.all, self.texts = {}, [], []
        self.feed(self.source)
        self.text = ' '.join(' '.join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.all.append((tag, attributes))
        if 'id' in attributes:
            self.elements[attributes['id']] = attributes

    def handle_data(self, data):
        self.texts.append(data)

    def picture(self, name):
        kind, content = re.fullmatch(r'data:image/(\w+);base64,(.*)',
                                     self.elements[name]['src']).groups()
        image = Image.open(io.BytesIO(b64decode(content)))
        assert image.format.lower() == kind
        return image


@pytest.fixture
def scene(tmp_path):
    """A green image of 40 x 60 pixels; its map is red and blue in halves, without data below."""
    pixels = np.zeros((3, 40, 60), np.uint8)
    pixels[1] = 160
    ids = np.zeros((40, 60))
    ids[:, 30:] = 2
    ids[30:] = NODATA
    return (write_raster(tmp_path / 'image.tif', pixels, **UTM),
            write_map(tmp_path / 'labels.tif', ids, **UTM), tmp_path / 'labels.html')


def test_page_holds_its_pictures_and_nothing_else(scene):
    image, labels, out = scene
    write_page(image, labels, out, 'Fields')
    page = Page(out)
    for tag, attributes in page.all:
        assert tag not in ('iframe', 'object', 'embed', 'base')
        for name in ('src', 'href', 'srcset', 'action', 'data'):
            assert attributes.get(name, 'data:').startswith('data:')
    assert not re.search(r'https?:|//[a-z]|@import|fetch\(|XMLHttpRequest', page.source)
    assert len(re.findall(r'url\(', page.source)) == 1  # of the mask, which is in the page
    policy = next(attributes['content'] for tag, attributes in page.all
                  if attributes.get('http-equiv') == 'Content-Security-Policy')
    assert "default-src 'none'" in policy

    shown = page.picture('map')
    assert shown.mode == 'P'
    shown = np.asarray(shown.convert('RGBA'))
    assert (shown[:30, :30] == (*PALETTE[0], 255)).all()
    assert (shown[:30, 30:] == (*PALETTE[2], 255)).all()
    assert not shown[30:, :, 3].any()
    # Classes that are absent are listed last.
    assert re.findall(r'<b>(.*?)</b>', page.source) == [
        'ground', 'water', 'road', 'No data, of all pixels']
    assert '<li class=absent>' in page.source
    pixels = np.asarray(page.picture('image')).astype(int)
    assert np.abs(pixels - (0, 160, 0)).max() < 4
    assert 'mask' not in page.elements
    assert {entry.name for entry in out.parent.iterdir()} == {
        'image.tif', 'labels.tif', 'labels.html'}


def test_shares_are_of_all_pixels_however_small_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 2, NODATA], (517, 601), p=[0.7, 0.2, 0.1])
    ids[300, 300] = 1
    image = write_raster(tmp_path / 'image.tif', np.zeros((3, 517, 601), np.uint8))
    labels = write_map(tmp_path / 'labels.tif', ids, tiled=True, blockxsize=256, blockysize=256)
    write_page(image, labels, tmp_path / 'page.html', 'x', max_side=32)
    page = Page(tmp_path / 'page.html')
    assert max(page.picture('map').size) == 32 == max(page.picture('image').size)
    values = [float(attributes['value']) for tag, attributes in page.all if tag == 'data']
    counts = np.bincount(ids.astype(int).ravel(), minlength=256)
    valid = ids.size - counts[NODATA]
    expected = [counts[0] / valid, counts[2] / valid, 1 / valid, counts[NODATA] / ids.size]
    assert values == pytest.approx(expected, abs=1e-6)
    assert '< 0.1 %' in page.text and 'Shown at 32 × 28 pixels' in page.text


def test_what_is_written_is_text(tmp_path):
    names = ('<script>alert(1)</script>', '"&quot;', '{{image}}')
    image = write_raster(tmp_path / 'image.tif', np.zeros((3, 9, 9), np.uint8))
    labels = write_map(tmp_path / 'labels.tif', np.arange(81).reshape(9, 9) % 4, names)
    write_page(image, labels, tmp_path / 'page.html', '<b>{{map}}</b> \\1')
    page = Page(tmp_path / 'page.html')
    assert all(name in page.text for name in (*names, 'class 3', '<b>{{map}}</b> \\1'))
    assert [tag for tag, _ in page.all].count('script') == 1


def place_of(tmp_path, size=(40, 60), **profile):
    path = write_raster(tmp_path / 'place.tif', np.zeros((1, *size), np.uint8), **profile)
    with open_raster(path) as dataset:
        return dict(facts(dataset)), pixel_size(dataset), proportions(dataset)


def test_facts_of_a_map_projection(tmp_path):
    said, ground, shown = place_of(tmp_path, **UTM)
    assert said == {
        'Size': '60 × 40 pixels', 'Coordinate system': 'WGS 84 / UTM zone 31N · EPSG:32631',
        'Pixel': '0.5 × 0.5 m', 'West–east': '500000.00 to 500030.00',
        'South–north': '4999980.00 to 5000000.00'}
    # the scale on the zone's central meridian
    assert ground == pytest.approx((0.5 / 0.9996, 0.5 / 0.9996), rel=1e-6)
    assert shown == pytest.approx((60, 40), rel=1e-6)


def test_geographic_pixels_are_shown_as_they_lie(tmp_path):
    said, ground, shown = place_of(tmp_path, crs='EPSG:4326',
                                   transform=Affine(1e-5, 0, 179.9997, 0, -1e-5, 60.0002))
    assert said['Pixel'] == '1e-05 × 1e-05 °'
    assert said['West–east'] == '179.999700 to 180.000300'
    assert shown[0] / shown[1] == pytest.approx(60 / 40 * 0.5, rel=0.01)
    assert ground[0] == pytest.approx(0.558, rel=0.002)


@pytest.mark.parametrize('degrees', [20, -110])
def test_rotated_raster(tmp_path, degrees):
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    transform = Affine(2 * cosine, sine, 500_000, 2 * sine, -cosine, 5_000_000)
    said, _, shown = place_of(tmp_path, crs='EPSG:32631', transform=transform)
    assert said['Pixel'] == '2 × 1 m'
    assert shown == pytest.approx((120, 40), rel=1e-6)


def test_places_that_are_not_on_earth_s_maps(tmp_path):
    assert place_of(tmp_path) == (
        {'Size': '60 × 40 pixels', 'Coordinates': 'none'}, None, (60, 40))
    for crs, system in ((None, 'not declared'), ('LOCAL_CS["site",UNIT["metre",1]]', 'site')):
        said, ground, shown = place_of(tmp_path, crs=crs, transform=Affine(2, 0, 7, 0, -1, 9))
        assert said['Coordinate system'] == system
        assert (ground, shown) == (None, (120, 40))


CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
                None)
# A page in a frame of its size, and what a user's hands do to it. ACTIONS call `say` with what
# they find.
HOST = '''<!doctype html>
<style>iframe { position: fixed; left: 0; top: 0; border: 0; width: WIDTHpx; height: 800px }</style>
<iframe></iframe><script>
const frame = document.querySelector('iframe'), found = []
frame.onload = () => {
  const page = frame.contentWindow, doc = page.document
  const [stage, divider, map] = ['stage', 'divider', 'map'].map((id) => doc.getElementById(id))
  for (const image of doc.images) image.decoding = 'sync'
  page.onerror = (message) => found.push(message)
  page.Element.prototype.setPointerCapture = () => {}  // of pointers that hands move
  const press = (key, shiftKey = false) => doc.activeElement.dispatchEvent(
    new page.KeyboardEvent('keydown', { key, shiftKey, bubbles: true }))
  const point = (kind, [clientX, clientY], pointerId = 1) => (kind === 'down'
    ? doc.elementFromPoint(clientX, clientY) : stage).dispatchEvent(
    new page.PointerEvent('pointer' + kind, { clientX, clientY, pointerId, bubbles: true }))
  const drag = (start, end) => {
    point('down', start)
    stage.dispatchEvent(new page.MouseEvent('mousedown'))
    point('move', end)
    point('up', end)
  }
  const box = (part) => {
    const { left, top, width, height } = part.getBoundingClientRect()
    return [left, top, width, height]
  }
  const say = (value) => found.push(value)
  ACTIONS
  const asked = page.performance.getEntriesByType('resource').map((entry) => entry.name)
  document.documentElement.dataset.found = JSON.stringify(
    [...found, box(map), asked.every((name) => name.startsWith('data:'))])
}
frame.srcdoc = PAGE
</script>'''


@pytest.fixture
def browse(tmp_path):
    """A function that opens a page in Chromium, does something, and returns what it said and a
    function of the colour that is then seen at a point of the map (0..1 of its width and height).
    """
    if not CHROMIUM:
        pytest.skip('there is no Chromium to open the page with')

    def run(path, actions='', width=1200):
        page = json.dumps(path.read_text(encoding='utf-8')).replace('</', r'<\/')
        host, picture = tmp_path / 'host.html', tmp_path / 'seen.png'
        host.write_text(HOST.replace('WIDTH', str(width)).replace('ACTIONS', actions)
                        .replace('PAGE', page), encoding='utf-8')
        told = subprocess.run(
            [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--no-first-run', f'--user-data-dir={tmp_path / "profile"}', '--hide-scrollbars',
             '--window-size=1200,800', '--virtual-time-budget=5000', f'--screenshot={picture}',
             '--dump-dom', host.as_uri()], capture_output=True, encoding='utf-8', check=True)
        *found, (left, top, wide, high), quiet = json.loads(unescape(
            re.search('data-found="(.*?)"', told.stdout)[1]))
        assert quiet, 'something was asked of a network'
        seen = np.asarray(Image.open(picture).convert('RGB')).astype(int)
        return found, lambda across, down: seen[int(top + down * high), int(left + across * wide)]

    return run


def looks(seen, expected, tolerance=MAP_TOLERANCE):
    return np.abs(seen - expected).max() <= tolerance


@pytest.fixture
def page(scene):
    write_page(*scene, 'Fields')
    return scene[2]


KEYS = {'ArrowRight': 52, 'ArrowUp': 54, 'ArrowLeft': 52, 'ArrowDown': 50, 'PageUp': 60,
        'PageDown': 50, 'End': 100, 'Home': 0}


def test_keys_move_the_divider(page, browse):
    found, _ = browse(page, f'''
        divider.focus()
        say([50, ...box(divider)])
        for (const key of {list(KEYS)}) {{
          press(key)
          say([Number(divider.getAttribute('aria-valuenow')), ...box(divider)])
        }}
        say(stage.clientWidth)
        say(divider.getAttribute('role') + divider.getAttribute('aria-valuetext'))''')
    *moves, stage, words = found
    assert [move[0] for move in moves] == [50, *KEYS.values()]
    for share, left, _, width, _ in moves:
        assert 100 * (left + width / 2) / stage == pytest.approx(share, abs=0.2)
    assert words.startswith('slider') and 'left of 0 %' in words


def test_image_is_left_and_map_right_of_the_divider(page, browse):
    green = (0, 160, 0)
    _, seen = browse(page)
    assert looks(seen(0.25, 0.2), green, IMAGE_TOLERANCE) and looks(seen(0.75, 0.2), PALETTE[2])
    _, seen = browse(page, "divider.focus(); press('Home')")
    assert looks(seen(0.25, 0.2), PALETTE[0])
    # The image is not seen through the map, not even where that has no data.
    assert not looks(seen(0.25, 0.9), green, 60)
    _, seen = browse(page, "divider.focus(); press('End')")
    assert looks(seen(0.75, 0.2), green, IMAGE_TOLERANCE)
    found, seen = browse(page, '''
        divider.focus()
        press('Home')
        const opacity = doc.getElementById('opacity')
        opacity.value = 50
        opacity.dispatchEvent(new page.Event('input'))
        say(doc.querySelector('output').textContent)''')
    assert found == ['50 %']
    assert looks(seen(0.25, 0.2), (np.array(green) + PALETTE[0]) / 2, IMAGE_TOLERANCE)


@pytest.mark.parametrize('width', [1200, 390])
def test_pointers_move_the_divider(page, browse, width):
    found, _ = browse(page, '''
        const wide = stage.clientWidth, share = () => say(divider.getAttribute('aria-valuenow'))
        say(doc.documentElement.scrollWidth <= page.innerWidth)
        drag([0.5 * wide, 250], [0.8 * wide, 240])
        share()
        // Away from the divider, too; it moves as far as the pointer, and keys go on from there.
        drag([0.6 * wide, 100], [0.2 * wide, 100])
        share()
        press('ArrowLeft')
        share()
        drag([0.5 * wide, 250], [2 * wide, 250])
        share()''', width)
    assert found[0] is True
    assert list(map(int, found[1:])) == pytest.approx([80, 40, 38, 100], abs=1)


def test_view_is_enlarged_and_moved(page, browse):
    (stage, whole, near, moved, split, further, again, pinched, last), _ = browse(page, '''
        say([stage.clientWidth, stage.clientHeight])
        say(box(map))
        stage.dispatchEvent(new page.WheelEvent('wheel', {
          clientX: 200, clientY: 300, deltaY: -500}))
        say(box(map))
        drag([600, 300], [550, 320])
        say(box(map))
        say(divider.getAttribute('aria-valuenow'))
        press('ArrowRight', true)
        say(box(map))
        press('0')
        say(box(map))
        point('down', [300, 300], 1)
        point('down', [400, 300], 2)
        point('move', [250, 300], 1)
        point('move', [450, 300], 2)
        point('up', [250, 300], 1)
        point('up', [450, 300], 2)
        say(box(map))
        doc.querySelector('[data-zoom="0"]').click()
        say(box(map))''')
    assert whole[2] / whole[3] == pytest.approx(1.5, rel=1e-3)
    assert max(whole[2] / stage[0], whole[3] / stage[1]) == pytest.approx(1, abs=1e-3)
    assert near[2] > 1.5 * whole[2]
    # What lay under the pointer still does.
    assert (200 - near[0]) / near[2] == pytest.approx((200 - whole[0]) / whole[2], abs=1e-3)
    assert moved[0] == pytest.approx(near[0] - 50, abs=0.1) and split == '50'
    assert further[0] == pytest.approx(near[0] - 110, abs=0.1)
    assert again == pytest.approx(whole) and last == pytest.approx(whole)
    assert pinched[2] == pytest.approx(2 * whole[2], rel=0.02)


def test_transparent_parts_of_the_image_are_not_seen(tmp_path, browse):
    pixels = np.zeros((4, 20, 30), np.uint8)
    pixels[0], pixels[3, :, 10:] = 255, 255
    image = write_raster(tmp_path / 'image.tif', pixels, colorinterp=(
        ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha))
    labels = write_map(tmp_path / 'labels.tif', np.zeros((20, 30)))
    write_page(image, labels, tmp_path / 'page.html', 'x')
    _, seen = browse(tmp_path / 'page.html', "divider.focus(); press('End')")
    red = (255, 0, 0)
    assert looks(seen(0.7, 0.5), red, IMAGE_TOLERANCE) and not looks(seen(0.1, 0.5), red, 100)
