"""The page in a real browser, opened from file://."""

import shutil

import pytest

pytestmark = pytest.mark.browser

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=600_000)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_file(synthetic, tmp_path_factory):
    from bench.report import main
    root = tmp_path_factory.mktemp("browser")
    synthetic.write_demo(root / "runs", seeds=(0, 1, 2))
    synthetic.write_demo(root / "runs", protocol="small", media=False)
    synthetic.write_troubled(root / "runs")
    assert main([f"results_dir={root / 'runs'}", f"out={root / 'report'}", "figures=false"]) == 0
    return root / "report" / "index.html"


@pytest.fixture
def page(browser, page_file):
    """At 1440 px; fails on any console message, page error or request that leaves the file."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(300_000)   # a loaded machine is slow, not wrong
    opened = context.new_page()
    problems = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url)
              if not request.url.startswith(("file:", "data:")) else None)
    opened.goto(page_file.as_uri())
    yield opened
    assert problems == []
    context.close()


def labels(page):
    return page.locator("#summary .on tbody tr:visible > th").all_inner_texts()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_at_either_width(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


WITHOUT_A_HINT = """() => [...document.querySelectorAll('.scroll')].filter(node => node.checkVisibility()
    && node.scrollWidth - node.clientWidth - node.scrollLeft > 1
    && !(node.classList.contains('clipped') && node.previousElementSibling.checkVisibility()))
    .map(node => node.getAttribute('aria-label'))"""
SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"   # resizes are observed


def overflow(page, selector):
    page.evaluate(SETTLED)
    return page.locator(selector).first.evaluate("node => node.scrollWidth - node.clientWidth")


def headings(page):
    return page.locator("#summary .on thead tr:last-child th:visible").all_inner_texts()


def test_a_phone_shows_the_essential_columns_and_no_others_until_asked(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert [text.split()[0] for text in headings(page)] == ["row", "FID@500", "Bits", "s"]
    assert overflow(page, "#summary .on .scroll") <= 1
    page.locator("#summary .on input[type=checkbox]").check()
    assert len(headings(page)) > 10


def test_the_headline_columns_fit_a_desk_s_screen(page):
    assert overflow(page, "#summary .on .scroll") <= 1


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_clipped_without_a_hint(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    page.locator("#summary .on input[type=checkbox]").check()
    page.evaluate(SETTLED)
    assert page.locator(".scroll.clipped:visible").count() > 0 and page.evaluate(WITHOUT_A_HINT) == []


def test_the_hint_goes_once_the_end_is_in_sight(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#summary .on input[type=checkbox]").check()
    scroller = page.locator("#summary .on .scroll").first
    page.evaluate(SETTLED)
    assert page.locator("#summary .on .hint").first.is_visible()
    scroller.evaluate("node => { node.scrollLeft = node.scrollWidth; }")
    page.evaluate(SETTLED)
    assert not page.locator("#summary .on .hint").first.is_visible()


def test_every_section_of_the_page_can_be_seen_in_the_bar_of_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.locator(".top nav").evaluate("node => node.scrollWidth - node.clientWidth") <= 1


def test_sorting_by_fid_puts_the_lowest_first_and_holes_last(page):
    page.get_by_role("button", name="FID@500").first.click()
    first, last = labels(page)[0], labels(page)[-1]
    assert first == "real against real" and last.startswith(("vq_diffusion", "unigram, temperature"))
    page.get_by_role("button", name="FID@500").first.click()
    assert labels(page)[0] == "unigram"
    assert page.locator("#summary .on th[aria-sort=descending]").count() == 1


def test_filtering_keeps_the_rows_that_hold_every_word(page):
    page.locator("#summary .on input[type=search]").fill("absorbing 64")
    assert labels(page) == ["absorbing, 64 steps", "absorbing, 64 steps, temperature 0.9"]
    assert "2 of" in page.locator("#summary .on .count").inner_text()


def test_all_metrics_can_be_shown(page):
    assert page.get_by_role("columnheader", name="Token-forwards").count() == 0
    page.locator("#summary .on input[type=checkbox]").check()
    assert page.get_by_role("columnheader", name="Token-forwards").count() == 1


def test_a_number_opens_its_provenance_and_escape_closes_it(page):
    page.locator("#summary .on tbody [data-cell]").first.click()
    dialog = page.locator("dialog")
    assert "FID@500, real against real" in dialog.inner_text()
    assert "records/" in dialog.inner_text() and "commit" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_a_number_over_three_seeds_shows_all_three_runs_and_leads_to_their_records(page):
    page.locator("#summary .on tbody tr", has_text="autoregressive").first.locator("[data-cell]").first.click()
    dialog = page.locator("dialog")
    assert "Run 3 of 3" in dialog.inner_text()
    dialog.locator("[data-record]").first.click()
    assert "Complete configuration" in dialog.inner_text()


def test_a_published_number_says_where_it_is_printed(page):
    page.locator("#tables .on td.published [data-cell]").first.click()
    assert "Table 1, row DCT [51], Churches, as printed" in page.locator("dialog").inner_text()


def test_the_slider_walks_over_the_steps(page):
    pane = page.locator("#samples .on .browser figure").first
    seen = [(pane.locator("output").inner_text(), pane.locator("img").get_attribute("src"))]
    pane.locator("input[type=range]").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
        seen.append((pane.locator("output").inner_text(), pane.locator("img").get_attribute("src")))
    assert [steps for steps, _ in seen] == ["64", "32", "16", "8"]
    assert len({source for _, source in seen}) == 4
    assert pane.locator("figcaption").inner_text().startswith("absorbing, 8 steps: FID")


def test_choosing_another_protocol_shows_its_numbers_alone(page):
    page.locator("#group").select_option(index=1)
    assert page.locator("#summary .group:visible").count() == 1
    assert "protocol small" in page.locator("#summary .group:visible").inner_text()


def test_the_claims_show_a_verdict_and_the_records_behind_it(page):
    claims = page.locator("#claims .on li")
    assert claims.count() == 11
    claims.first.locator("summary").click()
    claims.first.locator("[data-record]").first.click()
    assert page.locator("dialog").is_visible()


def test_the_theme_button_turns_light_into_dark(page):
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_every_control_can_be_reached_and_used_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    number = page.locator("#summary .on tbody [data-cell]").first
    number.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()


def test_text_stands_out_from_its_background_in_both_schemes(page):
    script = """() => ['--ink', '--soft', '--accent', '--good', '--bad', '--unsure'].map(name => {
        const luminance = text => { const c = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
        const probe = document.body.appendChild(document.createElement('i'));
        probe.style.color = `var(${name})`;
        const [a, b] = [luminance(getComputedStyle(probe).color),
                        luminance(getComputedStyle(document.body).backgroundColor)];
        probe.remove();
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })"""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert min(page.evaluate(script)) >= 4.5


def test_it_prints_to_a_few_pages(page, tmp_path):
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
