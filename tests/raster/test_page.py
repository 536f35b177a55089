from __future__ import annotations

import io
import math
import re
import sys
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('rasterio', reason="rasters need rasterio: pip install -e '.[raster]'")

from raster.browser import CHROMIUM, Browser  # noqa: E402
from raster.rasters import NODATA, PALETTE, write_map, write_raster  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

from bhvit_seg.raster.opening import open_raster  # noqa: E402
from bhvit_seg.raster.page import (  # noqa: E402
    facts,
    north_arrow,
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
        degrees = re.search(r'rotate\((.*?)deg', north_arrow(dataset))
        return (dict(facts(dataset)), pixel_size(dataset), proportions(dataset),
                float(degrees[1]) if degrees else None)


def test_facts_of_a_map_projection(tmp_path):
    said, ground, shown, north = place_of(tmp_path, **UTM)
    assert said == {
        'Size': '60 × 40 pixels', 'Coordinate system': 'WGS 84 / UTM zone 31N · EPSG:32631',
        'Pixel': '0.5 × 0.5 m', 'West–east': '500000.00 to 500030.00',
        'South–north': '4999980.00 to 5000000.00', 'Centre': '45.15339° N, 3.00019° E'}
    # the scale on the zone's central meridian
    assert ground == pytest.approx((0.5 / 0.9996, 0.5 / 0.9996), rel=1e-6)
    assert shown == pytest.approx((60, 40), rel=1e-6) and north == 0


def test_geographic_pixels_are_shown_as_they_lie(tmp_path):
    said, ground, shown, _ = place_of(tmp_path, crs='EPSG:4326',
                                      transform=Affine(1e-5, 0, 179.9997, 0, -1e-5, 60.0002))
    assert said['Pixel'] == '1e-05 × 1e-05 °'
    assert said['West–east'] == '179.999700 to 180.000300'
    assert shown[0] / shown[1] == pytest.approx(60 / 40 * 0.5, rel=0.01)
    assert ground[0] == pytest.approx(0.558, rel=0.002)


@pytest.mark.parametrize('crs, middle, expected', [
    # In polar projections meridians are straight, and this is their angle on the map.
    ('EPSG:3031', (1e6, 0), 90), ('EPSG:3031', (-1e6, -1e6), 225), ('EPSG:3413', (1e6, 1e6), 225),
    ('EPSG:3995', (0, -2e6), 0), ('EPSG:3857', (1e6, 7e6), 0)])
def test_the_arrow_points_to_the_north(tmp_path, crs, middle, expected):
    _, _, _, north = place_of(tmp_path, crs=crs, transform=Affine(
        5, 0, middle[0] - 150, 0, -5, middle[1] + 100))
    assert math.remainder(north - expected, 360) == pytest.approx(0, abs=0.1)


def test_without_pyproj_there_is_no_scale(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyproj', None)
    _, ground, shown, _ = place_of(tmp_path, **UTM)
    assert ground is None and shown == (60, 40)


@pytest.mark.parametrize('degrees', [20, -110])
def test_rotated_raster(tmp_path, degrees):
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    transform = Affine(2 * cosine, sine, 500_000, 2 * sine, -cosine, 5_000_000)
    said, _, shown, north = place_of(tmp_path, crs='EPSG:32631', transform=transform)
    assert said['Rotation'] == f'{abs(degrees)}.0° {"anti" * (degrees > 0)}clockwise'
    assert said['Pixel'] == '2 × 1 m'
    # what is turned anticlockwise on the map has its north turned clockwise on the picture
    assert north == pytest.approx(degrees, abs=0.01)
    assert shown == pytest.approx((120, 40), rel=1e-6)


def test_places_that_are_not_on_earth_s_maps(tmp_path):
    assert place_of(tmp_path) == (
        {'Size': '60 × 40 pixels', 'Coordinates': 'none'}, None, (60, 40), None)
    said, ground, shown, north = place_of(tmp_path, transform=Affine(2, 0, 7, 0, -1, 9))
    assert said['Coordinate system'] == 'not declared' and said['Pixel'] == '2 × 1 units'
    assert (ground, shown, north) == (None, (120, 40), None)
    said, ground, shown, _ = place_of(tmp_path, crs='LOCAL_CS["site",UNIT["metre",1]]',
                                      transform=Affine(2, 0, 7, 0, -1, 9))
    assert 'Centre' not in said and (ground, shown) == (None, (120, 40))
    # The Moon has a scale, though no place on Earth.
    said, ground, shown, _ = place_of(tmp_path, crs='+proj=eqc +R=1737400 +lat_ts=60 +units=m',
                                      transform=Affine(2, 0, 7, 0, -1, 9))
    assert 'Centre' not in said
    assert ground == pytest.approx((4, 1), rel=1e-6) and shown == pytest.approx((240, 40))
    points = [GroundControlPoint(row, column, column, -row)
              for row, column in ((0, 0), (0, 60), (40, 0))]
    said, *_ = place_of(tmp_path, gcps=points, crs='EPSG:4326')
    assert said['Coordinates'] == '3 ground control points'


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip('there is no Chromium to open the page with')
    with Browser(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


def divider(browser):
    """Where the divider says it is and where it is seen, in percent."""
    return browser.evaluate('''(() => {
        const box = divider.getBoundingClientRect(), around = stage.getBoundingClientRect()
        return [Number(divider.getAttribute('aria-valuenow')),
                100 * ((box.left + box.right) / 2 - around.left) / around.width]
    })()''')


def frame(browser):
    """Left, top, width and height of the map, in pixels of the window."""
    return browser.evaluate('''(() => {
        const box = map.getBoundingClientRect()
        return [box.left, box.top, box.width, box.height]
    })()''')


def assert_quiet(browser):
    """See that nothing was asked of a network and nothing went wrong."""
    requests = [event['params']['request']['url'] for event in browser.events
                if event['method'] == 'Network.requestWillBeSent']
    assert requests[0].startswith('file:') and all(
        address.startswith('data:') for address in requests[1:])
    assert not [event for event in browser.events
                if event['method'] in ('Log.entryAdded', 'Runtime.exceptionThrown')]


def colour(browser, across, down):
    """What is seen at a point of the raster (0..1 of its width and height)."""
    left, top, width, height = frame(browser)
    seen = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert('RGB')).astype(int)
    return seen[int(top + down * height), int(left + across * width)]


def looks(seen, expected, tolerance=MAP_TOLERANCE):
    return np.abs(seen - expected).max() <= tolerance


GREEN = (0, 160, 0)


@pytest.fixture
def show(scene, browser):
    """A function that opens the page of the scene."""

    def show_page(**options):
        write_page(*scene, 'Fields')
        browser.open(scene[2], **options)

    return show_page


def test_keys_move_the_divider(show, browser):
    show()
    assert divider(browser) == [50, pytest.approx(50, abs=0.2)]
    browser.press('Tab')
    assert browser.evaluate('document.activeElement.getAttribute("role")') == 'slider'
    for key, expected in (('ArrowRight', 52), ('ArrowUp', 54), ('ArrowLeft', 52),
                          ('ArrowDown', 50), ('PageUp', 60), ('PageDown', 50), ('End', 100),
                          ('ArrowRight', 100), ('Home', 0), ('ArrowLeft', 0)):
        browser.press(key)
        assert divider(browser) == [expected, pytest.approx(expected, abs=0.2)], key
    assert 'left of 0 %' in browser.evaluate('divider.getAttribute("aria-valuetext")')
    assert_quiet(browser)


def test_image_is_left_and_map_right_of_the_divider(show, browser):
    show()
    assert looks(colour(browser, 0.25, 0.2), GREEN, IMAGE_TOLERANCE)
    assert looks(colour(browser, 0.75, 0.2), PALETTE[2])
    browser.press('Tab')
    browser.press('Home')
    assert looks(colour(browser, 0.25, 0.2), PALETTE[0])
    # the image is not seen through the map, not even where that has no data
    assert not looks(colour(browser, 0.25, 0.9), GREEN, 60)
    browser.press('End')
    assert looks(colour(browser, 0.75, 0.2), GREEN, IMAGE_TOLERANCE)
    browser.press('Home')
    browser.evaluate('document.getElementById("opacity").focus()')
    for _ in range(10):
        browser.press('ArrowLeft')
    assert browser.evaluate('document.querySelector("output").textContent') == '50 %'
    assert looks(colour(browser, 0.25, 0.2), (np.array(GREEN) + PALETTE[0]) / 2, IMAGE_TOLERANCE)


@pytest.mark.parametrize('width', [1200, 390])
def test_pointers_move_the_divider(show, browser, width):
    show(width=width)
    stage = browser.evaluate('stage.clientWidth')
    assert browser.evaluate('document.documentElement.scrollWidth <= innerWidth')
    browser.drag((0.5 * stage, 250), (0.8 * stage, 240))
    assert divider(browser)[0] == pytest.approx(80, abs=1)
    # away from the divider, too; it moves as far as the pointer, and keys go on from there
    browser.drag((0.6 * stage, 100), (0.2 * stage, 100))
    assert divider(browser)[0] == pytest.approx(40, abs=1)
    browser.press('ArrowLeft')
    assert divider(browser)[0] == pytest.approx(38, abs=1)
    browser.drag((0.5 * stage, 250), (2 * stage, 250))
    assert divider(browser)[0] == 100
    browser.touch([(0.9 * stage, 250)], [(0.7 * stage, 250)], [(0.4 * stage, 250)])
    assert divider(browser)[0] == pytest.approx(50, abs=3)
    assert_quiet(browser)


def test_view_is_enlarged_and_moved(show, browser):
    show()
    whole = frame(browser)
    stage = browser.evaluate('[stage.clientWidth, stage.clientHeight]')
    assert whole[2] / whole[3] == pytest.approx(1.5, rel=1e-3)
    assert max(whole[2] / stage[0], whole[3] / stage[1]) == pytest.approx(1, abs=1e-3)
    browser.send('Input.dispatchMouseEvent', type='mouseWheel', x=200, y=300, deltaX=0,
                 deltaY=-500)
    browser.evaluate('new Promise(requestAnimationFrame)')
    near = frame(browser)
    assert near[2] > 1.5 * whole[2]
    # what lay under the pointer still does
    assert (200 - near[0]) / near[2] == pytest.approx((200 - whole[0]) / whole[2], abs=1e-3)
    browser.drag((600, 300), (550, 320))
    assert frame(browser)[0] == pytest.approx(near[0] - 50, abs=0.1)
    assert divider(browser)[0] == 50
    browser.press('ArrowRight', modifiers=8)
    assert frame(browser)[0] == pytest.approx(near[0] - 110, abs=0.1)
    browser.press('0')
    assert frame(browser) == pytest.approx(whole)
    browser.touch([(300, 300), (400, 300)], [(250, 300), (450, 300)])
    assert frame(browser)[2] == pytest.approx(2 * whole[2], rel=0.02)
    browser.evaluate('document.querySelector("[data-zoom=\'0\']").click()')
    assert frame(browser) == pytest.approx(whole)
    assert_quiet(browser)


def test_transparent_parts_of_the_image_are_not_seen(tmp_path, browser):
    pixels = np.full((4, 20, 30), 255, np.uint8)
    pixels[3, :, :10] = 0
    image = write_raster(tmp_path / 'image.tif', pixels, colorinterp=(
        ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha))
    labels = write_map(tmp_path / 'labels.tif', np.zeros((20, 30)))
    write_page(image, labels, tmp_path / 'page.html', 'x')
    browser.open(tmp_path / 'page.html', dark=True)
    browser.press('Tab')
    browser.press('End')
    assert looks(colour(browser, 0.7, 0.5), (255, 255, 255))
    assert colour(browser, 0.1, 0.5).max() < 60


def test_odd_shapes_open(tmp_path, browser):
    for number, shape in enumerate([(1, 1, 300), (3, 300, 1), (4, 1, 1)]):
        image = write_raster(tmp_path / f'{number}.tif', np.full(shape, 50, np.uint8), **UTM)
        labels = write_map(tmp_path / f'{number}_labels.tif', np.ones(shape[1:]))
        out = tmp_path / f'{number}.html'
        write_page(image, labels, out, 'odd', max_side=200)
        browser.open(out)
        browser.press('Tab')
        browser.press('Home')
        for _ in range(3):
            browser.press('+')
        assert divider(browser)[0] == 0 and all(np.isfinite(frame(browser)))
        assert looks(colour(browser, 0.5, 0.5), PALETTE[1])
        assert_quiet(browser)
