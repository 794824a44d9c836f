"""The page in a real browser, from disk: phone and desktop, light and dark, and on paper."""

import pytest
from support.browser import running_chromium

OTHERS = ["eval", "eval-minimal", "compare-minimal", "compare-hostile"]
SCREENS = [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")]

# Every element with text of its own: the contrast of the text to what is behind it (WCAG 2), and where it is.
CONTRAST = """() => {
  const channels = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own) continue;
    const style = getComputedStyle(element), svg = element.namespaceURI.endsWith('svg');
    const text = luminance(channels(svg ? style.fill : style.color)), ground = luminance(behind(element));
    found.push({
      text: element.textContent.trim().slice(0, 60),
      ratio: (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05),
    });
  }
  return found;
}"""

# Every label of every picture: its box, relative to the picture's.
LABELS = """() => [...document.querySelectorAll('svg.picture')].map(svg => {
  const frame = svg.getBoundingClientRect();
  return {
    name: svg.getAttribute('aria-labelledby'), width: frame.width, height: frame.height,
    labels: [...svg.querySelectorAll('text')].map(t => {
      const box = t.getBoundingClientRect();
      return {
        text: t.textContent, left: box.left - frame.left, top: box.top - frame.top,
        right: box.right - frame.left, bottom: box.bottom - frame.top,
        size: parseFloat(getComputedStyle(t).fontSize) * frame.width / svg.viewBox.baseVal.width,
      };
    }),
  };
})"""


@pytest.fixture(scope="module")
def browser():
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, html in pages.items():
        (folder / f"{name}.html").write_bytes(html.encode("utf-8"))
    return folder


@pytest.fixture
def opened(browser, folder):
    """Opens a page from disk; at the end, whatever the console said or could not be loaded is a failure."""
    complaints, contexts = [], []

    def open_page(name, width, scheme):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto((folder / f"{name}.html").as_uri())
        assert [url for url in requests if not url.startswith("data:")] == [
            (folder / f"{name}.html").as_uri()
        ]
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("compare", *screen) for screen in SCREENS]
    + [(name, *screen) for name in OTHERS for screen in (SCREENS[0], SCREENS[3])],
)
def test_renders(opened, name, width, scheme):
    page = opened(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    for picture in page.evaluate(LABELS):
        assert picture["width"] > 250 and picture["height"] > 150, picture["name"]
    assert page.locator(".verdict").bounding_box()["height"] > 20
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 600) == (scheme == "light")


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_every_text_can_be_read(opened, width, scheme):
    page = opened("compare", width, scheme)
    measured = page.evaluate(CONTRAST)
    assert len(measured) > 400
    faint = [one for one in measured if one["ratio"] < 4.5]
    assert faint == []


@pytest.mark.parametrize("name", ["eval", "compare"])
@pytest.mark.parametrize("width", [360, 1280])
def test_labels_of_pictures_are_whole_and_apart(opened, name, width):
    page = opened(name, width, "light")
    pictures = page.evaluate(LABELS)
    assert len(pictures) == {"eval": 3, "compare": 10}[name]
    for picture in pictures:
        labels = picture["labels"]
        assert len(labels) > 5
        for label in labels:
            assert label["size"] >= 9.5, (picture["name"], label)
            assert label["left"] >= -1 and label["top"] >= -1, (picture["name"], label)
            assert label["right"] <= picture["width"] + 1, (picture["name"], label)
            assert label["bottom"] <= picture["height"] + 1, (picture["name"], label)
        for index, a in enumerate(labels):
            for b in labels[index + 1 :]:
                apart = (
                    a["right"] <= b["left"] + 1 or b["right"] <= a["left"] + 1
                    or a["bottom"] <= b["top"] + 2 or b["bottom"] <= a["top"] + 2
                )  # fmt: skip
                assert apart, (picture["name"], a["text"], b["text"])


def test_before_and_after_are_side_by_side_on_a_desktop(opened):
    page = opened("compare", 1280, "light")
    before, after = (
        page.locator(f"figure:has(#reliability-{role}-about)").bounding_box() for role in ("before", "after")
    )
    assert before["y"] == after["y"] and before["x"] + before["width"] <= after["x"]


def test_wide_tables_scroll_in_their_own_box(opened):
    page = opened("compare", 360, "light")
    box = page.locator(".scroll").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto'")
    assert box.get_attribute("tabindex") == "0"  # so that a keyboard can scroll it


def test_prints_on_white_paper(opened):
    page = opened("compare", 1280, "dark")
    content = page.pdf(prefer_css_page_size=True)
    assert content.startswith(b"%PDF-") and len(content) > 50_000
    page.emulate_media(media="print", color_scheme="dark")
    grounds = page.evaluate(
        "[...document.querySelectorAll('body, section')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert set(grounds) <= {"rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"}
    faint = [one for one in page.evaluate(CONTRAST) if one["ratio"] < 4.5]
    assert faint == []


def test_attacks_do_nothing(opened):
    page = opened("compare-hostile", 1280, "light")
    assert page.evaluate("document.querySelectorAll('script, img, iframe, object, embed, form').length") == 0
    handlers = "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on')))"
    assert page.evaluate(f"{handlers}.length") == 0
    assert opened.complaints == []
    # What an attacker got in by a way that nobody thought of would still not run.
    page.evaluate(
        "document.body.insertAdjacentHTML('afterbegin', '<b onclick=\"document.title = 1\" id=evil>x</b>')"
    )
    page.locator("#evil").click()
    assert page.title().startswith("Calibration of")
    assert opened.complaints and all("Content Security Policy" in one for one in opened.complaints)
    opened.complaints.clear()
