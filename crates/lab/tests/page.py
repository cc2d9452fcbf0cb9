#!/usr/bin/python3
"""A person with a browser: Chromium on the page that pvc-api serves, driven by Playwright.

Usage: page.py URL TOKEN ZOOKEEPER DEFINITION NODE [SCREENSHOTS]
DEFINITION is a file with the libvirt XML of a VM called `page`; it migrates to NODE. Ends with a traceback and a
non-zero exit at the first thing that is not as it shall be.
"""

import pathlib
import re
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from kazoo.client import KazooClient
from playwright.sync_api import expect, sync_playwright

URL, TOKEN, ZOOKEEPER, DEFINITION, NODE = sys.argv[1:6]
SHOTS = pathlib.Path(sys.argv[6]) if len(sys.argv) > 6 else None
# A browser, three nodes and their guests share two processors with other tests.
SOON, PATIENCE = 60_000, 120_000
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
STRANGER = "66666666-0000-4000-8000-000000000001"

expect.set_options(timeout=SOON)


class Visitor:
    """A browser profile whose pages must not break a rule of their own."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(**options)
        self.complaints = []
        # Something that is forbidden is tried.
        self.quiet = False

    def tab(self):
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(error.stack))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda line: self.listen(line.text))
        page.on("request", lambda request: self.check(request.url))
        page.goto(URL)
        return page

    def listen(self, line):
        if not self.quiet and ("Content Security Policy" in line or "Trusted" in line):
            self.complaints.append(line)

    def check(self, url):
        if not url.startswith(URL) and not self.quiet:
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


def talk(page):
    """The screen of the console that is open on the page `page` of VMs; it is opened if it is not. One who has just left it may still have it."""
    begin = page.get_by_role("button", name="Open the serial console of page")
    again = page.get_by_role("button", name="Open again the serial console of page")
    end = time.monotonic() + SOON / 1000
    while time.monotonic() < end:
        expect(page.locator(".talk.open, .talk.ended").or_(begin).first).to_be_visible()
        if page.locator(".talk.open").count():
            return page.frame_locator("iframe.screen").locator(".xterm-rows")
        (begin if begin.count() else again).click()
        expect(page.locator(".talk.open, .talk.ended")).to_be_visible()
    raise AssertionError("the console does not open")


def answers(page, screen, number):
    """Whoever types there is answered by the guest's system."""
    page.frame_locator("iframe.screen").locator("textarea").focus()
    page.keyboard.type(f"\necho sum=$(({number} + 1))\n")
    expect(screen).to_contain_text(f"sum={number + 1}", timeout=PATIENCE)


def monitor(page):
    """The screen of the VM `page`, when there is something on it."""
    canvas = page.frame_locator("iframe.of-screen").locator("canvas").first
    expect(canvas).to_be_visible(timeout=PATIENCE)
    colours = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let at = 0; at < data.length; at += 4) seen.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
        return seen.size;
    }"""
    end = time.monotonic() + PATIENCE / 1000
    while canvas.evaluate(colours) < 2:
        assert time.monotonic() < end, "there is nothing on the screen"
        time.sleep(0.2)
    return canvas


def screen(page):
    """Seen, in both sizes; its document can do nothing to the page. Nothing is typed: any key is the power button to the lab's guest."""
    page.get_by_role("button", name="Open the screen of page").click()
    expect(page.locator(".talk.open")).to_contain_text("Open.")
    monitor(page)
    page.locator("iframe.of-screen").scroll_into_view_if_needed()
    shot(page, "screen")
    page.get_by_role("button", name="Actual size of the screen of page").click()
    page.get_by_role("button", name="Fit the screen of page").click()
    expect(page.get_by_role("button", name="Send Ctrl-Alt-Del to page")).to_be_visible()
    frame = next(frame for frame in page.frames if "monitor.html" in frame.url)
    assert frame.evaluate("self.origin") == "null"
    page.get_by_role("button", name="Close the screen of page").click()
    expect(page.locator(".talk")).to_have_count(0)


def keys(page, uuid):
    """What is typed on the screen reaches the guest, whose system takes any key for its power button; one leads back to the page."""
    page.bring_to_front()
    go(page, f"vms/{uuid}", "page")
    page.get_by_role("button", name="Open the screen of page").click()
    monitor(page).click()
    page.keyboard.press("Control+]")
    expect(page.get_by_role("button", name="Close the screen of page")).to_be_focused()
    expect(page.get_by_role("log")).to_contain_text("LABGUEST power button", timeout=PATIENCE)
    page.get_by_role("button", name="Close the screen of page").click()


def serial_console(page, other, visitor, uuid):
    """Typed, pasted, printed by a guest that means harm, left, taken by another tab."""
    screen = talk(page)
    expect(page.locator(".talk")).to_contain_text(re.compile("VM page on node[123]"))
    answers(page, screen, 41)
    page.locator("iframe.screen").scroll_into_view_if_needed()
    shot(page, "console")
    # Pasted: as the browser's own event, which takes no permission.
    screen.locator("xpath=ancestor::main").locator("textarea").evaluate("""field => {
        const data = new DataTransfer();
        data.setData("text/plain", "echo pasted=$((5 * 5))\\n");
        field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
    }""")
    expect(screen).to_contain_text("pasted=25")
    # A title, something for the clipboard, a link, HTML, a report of the title.
    evil = r"\033]0;owned\007\033]52;c;b3duZWQ=\007\033]8;;http://evil.example/\007press\055me\033]8;;\007\033[21t"
    page.keyboard.type(f"printf '{evil}\\n<img src=x onerror=window.hacked=1>\\n'\n")
    expect(screen.get_by_text(re.compile("^press-me"))).to_be_visible()
    screen.get_by_text(re.compile("^press-me")).click(force=True)
    inside = page.frame(url=re.compile("terminal.html"))
    assert "owned" not in page.title() + inside.title() and len(visitor.context.pages) == 2
    assert page.evaluate("window.hacked") is None and inside.evaluate("window.hacked") is None
    assert screen.locator("img, a").count() == 0
    # It is a document of nobody, which reaches nothing.
    assert inside.evaluate("window.origin") == "null"
    asked = "path => fetch(path).then(() => 'answered', () => 'refused')"
    visitor.quiet = True
    assert inside.evaluate(asked, f"{URL}api/v2/status") == "refused"
    visitor.quiet = False
    # What is printed faster than it is shown; Ctrl-C and Tab are the guest's. Chromium may have given that press to the page around the frame.
    page.frame_locator("iframe.screen").locator("textarea").focus()
    page.keyboard.type("seq 1 20000; echo last=$((20000 + 1))\n")
    expect(screen).to_contain_text("last=20001", timeout=PATIENCE)
    page.keyboard.type("sleep 1000\n")
    expect(screen).to_contain_text("sleep 1000")
    page.keyboard.press("Control+c")
    # What is typed before the prompt is thrown away by the guest.
    expect(screen).to_contain_text(re.compile(r"sleep 1000(\^C)?\s*/ # "))
    page.keyboard.type("ls -d /pro")
    page.keyboard.press("Tab")
    page.keyboard.type("$((3 * 5))/../1\n")
    expect(screen).to_contain_text("/proc/15/../1")
    # This leaves it.
    page.keyboard.press("Control+]")
    expect(page.get_by_role("button", name="Close the serial console of page")).to_be_focused()

    go(other, f"vms/{uuid}", "page")
    other.get_by_role("button", name="Open the serial console of page").click()
    expect(other.get_by_role("alert")).to_contain_text("somebody has this console open")
    other.get_by_role("button", name="Take the serial console of page").click()
    answers(other, talk(other), 20)
    expect(page.locator(".talk.ended")).to_contain_text("somebody else has taken the console", timeout=PATIENCE)
    other.get_by_role("button", name="Close the serial console of page").click()
    expect(other.locator("iframe.screen")).to_have_count(0)
    go(other, "vms", "VMs")
    answers(page, talk(page), 30)
    # No title was typed as an answer.
    expect(screen).not_to_contain_text("not found")


def another_version(page):
    """The service has become another since this page was loaded: its files are gone."""
    page.route("**/terminal.html", lambda route: route.fulfill(status=404, body="none", content_type="text/plain"))
    page.reload()
    talk(page)
    expect(page.locator(".talk")).to_contain_text("Load the page again")
    page.get_by_role("button", name="Close the serial console of page").click()
    page.unroute("**/terminal.html")


def foreign_page(visitor):
    """A page of another port of the same machine, to whose WebSocket the browser gives the session's cookie, too."""
    elsewhere = URL.replace(":7370", ":7371")
    page = visitor.context.new_page()
    page.route(f"{elsewhere}**", lambda route: route.fulfill(body="<p>Nothing bad</p>", content_type="text/html"))
    page.goto(elsewhere)
    socket = URL.replace("http", "ws") + "api/v2/vms/page/console?inside=true"
    opened = """path => new Promise((done) => {
        const socket = new WebSocket(path);
        socket.onopen = () => {
            socket.close();
            done("opened");
        };
        socket.onerror = () => done("refused");
    })"""
    assert page.evaluate(opened, socket) == "refused"
    page.close()
    # The service's own page does.
    assert visitor.context.pages[0].evaluate(opened, socket) == "opened"


def migrate(page, other):
    talk(page)
    go(other, "vms/page", "page")
    other.get_by_role("button", name="Open the screen of page").click()
    monitor(other)
    other.evaluate("""new MutationObserver(() => {
        if (document.querySelector(".talk.again")) document.documentElement.dataset.moved = "once";
    }).observe(document.body, { childList: true, subtree: true, attributes: true })""")
    page.get_by_role("button", name="Migrate page").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("To node").select_option(NODE)
    dialog.get_by_role("button", name="Migrate").click()
    expect(page.locator(".outcome.good").filter(has_text="Migrate page")).to_contain_text(f"running on {NODE}", timeout=PATIENCE)
    # A screen that somebody looks at is opened again, and drawn anew.
    expect(other.locator("html[data-moved]")).to_have_count(1, timeout=PATIENCE)
    expect(other.locator(".talk.open")).to_contain_text("Open.", timeout=PATIENCE)
    monitor(other)
    go(other, "vms", "VMs")
    expect(row(other, "page")).to_contain_text(NODE)
    expect(page.get_by_role("button", name="Migrate back page")).to_be_visible()
    # Its console has followed it.
    expect(page.locator(".talk")).to_contain_text(f"to {NODE}")
    answers(page, talk(page), 50)
    shot(page, "console-moved")


def hostile_texts(page, uuid):
    """What a stranger, a guest and another client have written is shown as it is, and does nothing."""
    store = KazooClient(hosts=ZOOKEEPER)
    store.start(timeout=15)
    store.create(f"/domains/{STRANGER}", HOSTILE.encode())
    go(page, "vms", "VMs")
    # What cannot be a name is a problem of the VM, which is called by its UUID.
    stranger = page.get_by_role("row").filter(has=page.get_by_role("link", name=STRANGER, exact=True))
    expect(stranger).to_contain_text("<img src=x onerror=")
    stranger.get_by_role("link", name=STRANGER, exact=True).click()
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


def session_ends(page, visitor, uuid):
    go(page, f"vms/{uuid}", "page")
    talk(page)
    cookie = next(cookie for cookie in visitor.context.cookies() if cookie["name"] == "pvc_session")
    visitor.context.add_cookies([{**cookie, "value": "1" + cookie["value"]}])
    expect(page.get_by_text("The session is over")).to_be_visible(timeout=PATIENCE)
    log_in(page)
    expect(page.get_by_role("heading", level=1, name="page")).to_be_visible()
    # What was open is not left open for whoever logs in next.
    expect(page.get_by_role("button", name="Open the serial console of page")).to_be_visible()
    expect(page.locator("iframe.screen")).to_have_count(0)


def primary_moves(page, other, uuid):
    go(other, f"vms/{uuid}", "page")
    answers(other, talk(other), 60)
    other.evaluate("""() => new MutationObserver(() => {
        if (document.querySelector(".talk.again")) document.documentElement.dataset.again = "once";
    }).observe(document.body, { childList: true, subtree: true, attributes: true })""")
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
    # So has a console, by itself.
    expect(other.locator("html[data-again]")).to_have_count(1)
    expect(other.locator(".talk.open")).to_be_visible(timeout=PATIENCE)
    answers(other, talk(other), 70)


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


def make_token(page, name, role):
    """A token of the state tree."""
    answer = page.request.post(
        f"{URL}api/v2/tokens", headers={"X-Api-Key": TOKEN}, data={"name": name, "role": role}
    )
    assert answer.status == 201, answer.text()
    return answer.json()["token"]


def roles(browser, page, uuid):
    """Who may not do something is not offered it; who looks sees all the same."""
    go(page, "audit", "Audit")
    entry = page.get_by_role("row").filter(has_text="/api/v2/vms").filter(has_text="lab").first
    expect(entry).to_be_visible()
    offers = {
        "read": [],
        "operate": ["Shut down page", "Migrate page", "Restart page", "Move page", "Stop page", "Open the serial console of page", "Open the screen of page"],
    }
    for role, offered in offers.items():
        token = make_token(page, f"page-{role}", role)
        visitor = Visitor(browser)
        other = visitor.tab()
        log_in(other, token)
        expect(other.get_by_role("heading", level=1, name="Overview")).to_be_visible()
        expect(other.get_by_role("status")).to_have_text("live")
        go(other, f"vms/{uuid}", "page")
        for name in offered:
            expect(other.get_by_role("button", name=name, exact=True)).to_be_visible()
        for name in {*offers["operate"], "Undefine page"} - {*offered}:
            expect(other.get_by_role("button", name=name, exact=True)).to_have_count(0)
        expect(other.get_by_role("link", name="Audit")).to_have_count(0)
        expect(other.get_by_role("button", name="Maintenance")).to_have_count(0)
        go(other, "nodes", "Nodes")
        expect(row(other, "node1")).to_contain_text("run")
        go(other, "networks", "Networks")
        expect(other.get_by_role("button", name="Add a network")).to_have_count(0)
        # Its token is taken away: the tab is told, and asks for another.
        answer = page.request.delete(f"{URL}api/v2/tokens/page-{role}", headers={"X-Api-Key": TOKEN})
        assert answer.status == 200, answer.text()
        expect(other.get_by_label("Token")).to_be_visible()
        visitor.leave()


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
        screen(page)
        say("its screen is seen")
        serial_console(page, other, visitor, uuid)
        say("its system answers what is typed, and can do nothing to the page")
        another_version(page)
        say("a page that is older than the service says so")
        foreign_page(visitor)
        say("a page of another site opens no console")
        migrate(page, other)
        say("migrated")
        node(page)
        say("a node was flushed and is ready")
        network(page)
        say("a network came and went")
        roles(browser, page, uuid)
        say("each is offered what it may do")
        hostile_texts(page, uuid)
        say("hostile texts do nothing")
        session_ends(page, visitor, uuid)
        say("an ended session is followed by a login")
        accessible(browser, uuid)
        say("every view is accessible")
        primary_moves(page, other, uuid)
        say("the page and a console have followed the primary")
        keys(page, uuid)
        say("what is typed on its screen reaches it")
        undefine(page, uuid)
        say("undefined")
        visitor.leave()
        browser.close()


main()
