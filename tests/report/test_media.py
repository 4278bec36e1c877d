"""The page on paper and on a phone: nothing is cut off."""

from __future__ import annotations

import pytest

A4_PX = 717
"""Width of a sheet of A4 between a browser's margins, CSS pixels."""

CUT = """
const limit = document.documentElement.clientWidth, found = [];
for (const e of document.querySelectorAll('main *, header *')) {
  const box = e.getBoundingClientRect();
  if (e.closest('svg, dialog, .hidden') || !box.width || !box.height) continue;
  if (box.right > limit + 1) found.push([e.tagName, e.className, e.textContent.trim().slice(0, 50), box.right]);
  const clips = getComputedStyle(e).overflowX;
  if (['auto', 'scroll', 'hidden'].includes(clips) && e.scrollWidth > e.clientWidth + 1)
    found.push([e.tagName, e.className, 'scrolls', e.scrollWidth - e.clientWidth]);
}
return found;
"""


BROKEN = """
const found = [];
for (const head of document.querySelectorAll('main thead th')) {
  if (!head.getBoundingClientRect().width || head.closest('.hidden')) continue;
  for (const text of head.childNodes) {
    if (text.nodeType !== Node.TEXT_NODE) continue;
    for (const word of text.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (!word[0].includes('-') && range.getClientRects().length > 1) found.push(word[0]);
    }
  }
}
return found;
"""


def open_at(browser, page, width: int, media: str) -> None:
    """The page at a width, for a medium, everything unfolded."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('#unfold').forEach(b => b.click())")
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.fixture
def paper(browser, page):
    """The page as it is printed."""
    open_at(browser, page, A4_PX, "print")
    yield browser
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.fixture
def phone(browser, page):
    """The page on a small screen."""
    open_at(browser, page, 390, "screen")
    yield browser
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_paper_cuts_no_column_of_any_table_and_no_figure(paper):
    tables = paper.execute_script(
        "return [...document.querySelectorAll('main table')].filter(t => t.getBoundingClientRect().width).length"
    )
    assert tables >= 6, "Table 1, its parts, claims and definitions among them"
    assert paper.execute_script(CUT) == []
    assert paper.execute_script(BROKEN) == [], "no word of a head is broken"


def test_a_phone_shows_whole_figures_that_can_be_read(phone):
    figures = phone.execute_script("""
        return [...document.querySelectorAll('figure')].map(f => {
          const shown = [...f.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width);
          const svg = shown[0], box = svg.getBoundingClientRect(), frame = svg.parentElement;
          const sizes = [...svg.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize));
          return [f.id, shown.length, box.right <= document.documentElement.clientWidth + 1,
                  frame.scrollWidth <= frame.clientWidth + 1,
                  box.width / svg.viewBox.baseVal.width * Math.min(...sizes)] })""")
    assert len(figures) >= 7
    for name, shown, inside, whole, smallest in figures:
        assert (shown, inside, whole) == (1, True, True), f"{name} is cut off"
        assert smallest >= 8, f"{name}: smallest label, CSS pixels"
