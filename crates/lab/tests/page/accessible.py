"""Every view in both themes, on a desk and on a phone, by axe-core."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from consoles import talk
from person import NODE, Visitor, go, log_in, shot


def accessible(browser, uuid):
    places = ["", "nodes", f"nodes/{NODE}", "vms", f"vms/{uuid}", "networks", "storage", "tasks", "events", "audit", "nowhere"]
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        # axe is a script of another place.
        visitor = Visitor(browser, color_scheme=scheme, viewport={"width": width, "height": 860}, bypass_csp=True)
        page = visitor.tab()
        expect(page.get_by_label("Token")).to_be_visible()
        judge(page, scheme, "login")
        log_in(page)
        expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
        for place in places:
            page.evaluate(f"location.hash = '#/{place}'")
            expect(page.locator("main .loading")).to_have_count(0)
            judge(page, scheme, place)
            too_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not too_wide, f"{place} is wider than {width}"
            shot(page, f"{scheme}-{width}-{place.split('/')[0]}{'-one' if '/' in place else ''}")
        go(page, f"vms/{uuid}", "page")
        talk(page)
        judge(page, scheme, "console")
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), f"the console is wider than {width}"
        page.locator("iframe.screen").scroll_into_view_if_needed()
        shot(page, f"{scheme}-{width}-console")
        page.get_by_role("button", name="Close the serial console of page").click()
        visitor.leave()


def judge(page, scheme, place):
    found = Axe().run(page).response["violations"]
    told = [(violation["id"], violation["nodes"][0]["target"]) for violation in found]
    assert not told, f"{place}, {scheme}: {told}"
