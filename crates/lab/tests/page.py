#!/usr/bin/python3
"""A person with a browser: Chromium on the page that pvc-api serves, driven by Playwright.

Usage: page.py URL TOKEN ZOOKEEPER DEFINITION NODE [SCREENSHOTS]
DEFINITION is a file with the libvirt XML of a VM called `page`; it migrates to NODE. Ends with a traceback and a
non-zero exit at the first thing that is not as it shall be.
"""

import pathlib
import re
import sys

from axe_playwright_python.sync_playwright import Axe
from kazoo.client import KazooClient
from playwright.sync_api import expect, sync_playwright

URL, TOKEN, ZOOKEEPER, DEFINITION, NODE = sys.argv[1:6]
SHOTS = pathlib.Path(sys.argv[6]) if len(sys.argv) > 6 else None
SOON, PATIENCE = 20_000, 120_000
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
STRANGER = "66666666-0000-4000-8000-000000000001"

expect.set_options(timeout=SOON)


class Visitor:
    """A browser profile whose pages must not break a rule of their own."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(**options)
        self.complaints = []

    def tab(self):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(error.stack))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda line: self.listen(line.text))
        page.on("request", lambda request: self.check(request.url))
        page.goto(URL)
        return page

    def listen(self, line):
        if "Content Security Policy" in line or "Trusted" in line:
            self.complaints.append(line)

    def check(self, url):
        if not url.startswith(URL):
            self.complaints.append(f"a request to {url}")

    def leave(self):
        assert not self.complaints, self.complaints
        self.context.close()


def say(what):
    print(what, flush=True)


def log_in(page, token=TOKEN):
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def go(page, place, heading):
    page.evaluate(f"location.hash = '#/{place}'")
    expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def shot(page, name):
    if SHOTS:
        page.screenshot(path=SHOTS / f"{name}.png")


def login(visitor):
    page = visitor.tab()
    log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("not one of the cluster's")
    page.goto(f"{URL}#/nodes")
    log_in(page)
    expect(page.get_by_role("heading", level=1, name="Nodes")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("live")
    for node in ("node1", "node2", "node3"):
        expect(row(page, node)).to_contain_text("run")
    return page


def define(page):
    go(page, "vms", "VMs")
    expect(page.get_by_text("There is no VM yet.")).to_be_visible()
    page.get_by_role("button", name="Define a VM").click()
    dialog = page.get_by_role("dialog")
    text = dialog.get_by_label("Definition")
    text.fill("<domain><name>page</name></domain>")
    dialog.get_by_role("button", name="Define").click()
    expect(dialog.get_by_role("alert")).to_contain_text("refused")
    expect(text).to_have_value("<domain><name>page</name></domain>")
    text.fill(pathlib.Path(DEFINITION).read_text())
    dialog.get_by_role("button", name="Define").click()
    expect(dialog).to_be_hidden()
    expect(row(page, "page")).to_contain_text("off")


def copy(page):
    """A copy has disks of its own, or none until somebody names them."""
    original = pathlib.Path(DEFINITION).read_text()
    disks = (
        '<disk type="file" device="disk"><source file="/var/page-root.img"/><target dev="vda"/></disk>'
        "<disk type='network' device='disk'><source protocol='rbd' name='vms/data'/><target dev='vdb'/></disk>"
        "<disk type='file' device='cdrom'><source file='/iso/page.iso'/><target dev='sda'/><readonly/></disk>"
    )
    served = original.replace("<devices>", f"<devices>{disks}")
    page.route("**/definition", lambda route: route.fulfill(body=served, content_type="application/xml"))
    page.get_by_role("button", name="Define a VM").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("must exist and be its own")
    dialog.get_by_label("Begin with").select_option(label="a copy of page")
    text = dialog.get_by_label("Definition")
    expect(text).to_have_value(re.compile("<name>page-2</name>"))
    copied = text.input_value()
    assert "/var/page-2-root.img" in copied and "/iso/page.iso" in copied, copied
    assert "/var/page-root.img" not in copied and "vms/data" not in copied, copied
    assert "fill in" in text.evaluate("field => field.validationMessage")
    text.fill(copied.replace('name=""', 'name="vms/data-2"'))
    assert text.evaluate("field => field.validationMessage") == ""
    dialog.get_by_role("button", name="Cancel").click()
    page.unroute("**/definition")


def late_answer(page):
    """What is answered to a dialog that was closed does not change the one that is open."""
    held = []
    page.route("**/api/v2/maintenance", lambda route: held.append(route))
    page.get_by_role("button", name="Maintenance").click()
    dialog = page.get_by_role("dialog")
    with page.expect_request("**/api/v2/maintenance"):
        dialog.get_by_role("button", name="Begin maintenance").click()
    dialog.get_by_role("button", name="Close (it goes on)").click()
    page.get_by_role("button", name="Define a VM").click()
    held[0].fulfill(status=403, json={"detail": "this takes a token with the role admin"})
    expect(page.locator(".outcome.bad")).to_contain_text("a token with the role admin")
    expect(dialog.get_by_role("heading")).to_have_text("Define a VM")
    expect(dialog.get_by_role("alert")).to_have_count(0)
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Dismiss: Begin maintenance?").click()
    page.unroute("**/api/v2/maintenance")


def run(page, other):
    """Started in one tab, seen in the other."""
    go(other, "vms", "VMs")
    page.get_by_role("button", name="Start page").click()
    for tab in (page, other):
        expect(row(tab, "page")).to_contain_text("running", timeout=PATIENCE)
    expect(page.locator(".outcome.good").filter(has_text="Start page")).to_contain_text("running on")
    shot(page, "vms")


def console(page):
    row(page, "page").get_by_role("link", name="page", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="page")).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text("LABGUEST ready", timeout=PATIENCE)
    expect(page.locator(".conclusion")).not_to_be_empty()
    shot(page, "vm")


def migrate(page, other):
    page.get_by_role("button", name="Migrate page").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("To node").select_option(NODE)
    dialog.get_by_role("button", name="Migrate").click()
    expect(page.locator(".outcome.good").filter(has_text="Migrate page")).to_contain_text(f"running on {NODE}", timeout=PATIENCE)
    expect(row(other, "page")).to_contain_text(NODE)
    expect(page.get_by_role("button", name="Migrate back page")).to_be_visible()


def hostile_texts(page, uuid):
    """What a stranger, a guest and another client have written is shown as it is, and does nothing."""
    store = KazooClient(hosts=ZOOKEEPER)
    store.start(timeout=15)
    store.create(f"/domains/{STRANGER}", HOSTILE.encode())
    go(page, "vms", "VMs")
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    copied = pathlib.Path(DEFINITION).read_text()
    escaped = HOSTILE.replace("<", "&lt;")
    copied = copied.replace("<name>page</name>", f"<name>quiet</name><description>{escaped}</description>")
    copied = copied.replace(uuid, f"{uuid[:-2]}ff")
    answer = page.request.post(f"{URL}api/v2/vms", data={"xml": copied}, headers={"X-Api-Key": TOKEN})
    assert answer.status == 201, answer.text()
    store.set(f"/domains/{uuid[:-2]}ff/consolelog", f"{HOSTILE}\x1b[31m\x07\n".encode())
    go(page, f"vms/{uuid[:-2]}ff", "quiet")
    expect(page.locator(".description")).to_have_text(HOSTILE)
    expect(page.get_by_role("log")).to_contain_text(HOSTILE)
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script").count() == 0
    store.delete(f"/domains/{STRANGER}", recursive=True)
    store.stop()


def confirm(page, button, **fields):
    dialog = page.get_by_role("dialog")
    for label, value in fields.items():
        dialog.get_by_label(label.replace("_", " "), exact=False).first.fill(value)
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_be_hidden()


def network(page):
    """Added, ruled, refused, removed."""
    go(page, "networks", "Networks")
    page.get_by_role("button", name="Add a network").click()
    fields = {"Number": "100", "Description": "shop", "Domain": "shop.lab", "IPv4_network": "10.100.0.0/24", "IPv4_gateway": "10.100.0.1"}
    confirm(page, "Add", **fields)
    row(page, "100").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1, name="Network 100")).to_be_visible()
    page.get_by_role("button", name="Add a rule").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Description").fill("ssh")
    dialog.get_by_label("Rule").fill("tcp dport 22; flush ruleset")
    dialog.get_by_role("button", name="Add").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    confirm(page, "Add", Rule="tcp dport 22 accept")
    expect(page.get_by_role("row").filter(has_text="ssh")).to_contain_text("tcp dport 22 accept")
    page.get_by_role("button", name="Reserve").click()
    confirm(page, "Reserve", Address="10.100.0.9", MAC="52:54:00:00:00:09", Name="till")
    expect(page.get_by_role("row").filter(has_text="10.100.0.9")).to_contain_text("till")
    shot(page, "network")
    page.get_by_role("button", name="Remove network 100").click()
    confirm(page, "Remove", Type="100")
    expect(page.get_by_text("There is no client network yet.")).to_be_visible()


def node(page):
    """Flushed and made ready again, while maintenance lasts."""
    page.get_by_role("button", name="Maintenance").click()
    confirm(page, "Begin maintenance")
    expect(page.get_by_role("button", name="End maintenance")).to_be_visible()
    go(page, f"nodes/{NODE}", NODE)
    page.get_by_role("button", name=f"Flush {NODE}").click()
    confirm(page, "Flush")
    expect(page.locator(".outcome.good").filter(has_text=f"{NODE} is flushed")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(f"No VM belongs to {NODE}.")).to_be_visible()
    page.get_by_role("button", name=f"Ready: {NODE}").click()
    expect(page.locator(".outcome.good").filter(has_text=f"{NODE} is ready")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="End maintenance").click()
    confirm(page, "End maintenance")
    expect(page.get_by_role("button", name="Maintenance", exact=True)).to_be_visible()


def session_ends(page, visitor):
    go(page, f"nodes/{NODE}", NODE)
    cookie = next(cookie for cookie in visitor.context.cookies() if cookie["name"] == "pvc_session")
    visitor.context.add_cookies([{**cookie, "value": "1" + cookie["value"]}])
    expect(page.get_by_text("The session is over")).to_be_visible(timeout=PATIENCE)
    log_in(page)
    expect(page.get_by_role("heading", level=1, name=NODE)).to_be_visible()


def primary_moves(page):
    go(page, "nodes", "Nodes")
    candidate = page.get_by_role("button", name=re.compile("^Make node. primary$")).first
    node = candidate.get_attribute("aria-label").split()[1]
    page.evaluate("""() => new MutationObserver(() => {
        if (document.querySelector(".lost")) document.documentElement.dataset.lost = "once";
    }).observe(document.body, { childList: true, subtree: true })""")
    candidate.click()
    confirm(page, "Make it primary")
    expect(page.locator("html[data-lost]")).to_have_count(1, timeout=PATIENCE)
    expect(page.locator(".primary")).to_contain_text(node, timeout=PATIENCE)
    expect(page.get_by_role("status")).to_have_text("live", timeout=PATIENCE)
    expect(page.locator(".lost")).to_have_count(0)


def undefine(page, uuid):
    go(page, f"vms/{uuid}", "page")
    page.get_by_role("button", name="Undefine page").click()
    dialog = page.get_by_role("dialog")
    confirm = dialog.get_by_role("button", name="Undefine")
    dialog.get_by_label("Type page to confirm").fill("pag")
    confirm.click()
    expect(dialog).to_be_visible()
    dialog.get_by_label("Type page to confirm").fill("page")
    confirm.click()
    expect(page.get_by_role("heading", level=1, name="VMs")).to_be_visible(timeout=PATIENCE)
    expect(row(page, "page")).to_have_count(0)


def accessible(browser, uuid):
    """Every view in both themes, on a desk and on a phone, by axe-core."""
    places = ["", "nodes", f"nodes/{NODE}", "vms", f"vms/{uuid}", "networks", "storage", "tasks", "events", "nowhere"]
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
        visitor.leave()


def judge(page, scheme, place):
    found = Axe().run(page).response["violations"]
    told = [(violation["id"], violation["nodes"][0]["target"]) for violation in found]
    assert not told, f"{place}, {scheme}: {told}"


def main():
    uuid = re.search("<uuid>(.*)</uuid>", pathlib.Path(DEFINITION).read_text()).group(1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        visitor = Visitor(browser)
        page = login(visitor)
        say("logged in")
        define(page)
        say("defined")
        copy(page)
        late_answer(page)
        say("a copy has disks of its own, and a late answer changes no other dialog")
        other = visitor.tab()
        run(page, other)
        say("runs")
        console(page)
        say("its console is seen")
        migrate(page, other)
        say("migrated")
        node(page)
        say("a node was flushed and is ready")
        network(page)
        say("a network came and went")
        hostile_texts(page, uuid)
        say("hostile texts do nothing")
        session_ends(page, visitor)
        say("an ended session is followed by a login")
        accessible(browser, uuid)
        say("every view is accessible")
        primary_moves(page)
        say("the page has followed the primary")
        undefine(page, uuid)
        say("undefined")
        visitor.leave()
        browser.close()


main()
