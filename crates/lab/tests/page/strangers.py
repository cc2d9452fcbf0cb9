"""Who may do what, and what strangers have written."""

import pathlib

from kazoo.client import KazooClient
from playwright.sync_api import expect

from consoles import talk
from person import DEFINITION, PATIENCE, TOKEN, URL, ZOOKEEPER, Visitor, go, log_in, make_token, row

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
STRANGER = "66666666-0000-4000-8000-000000000001"


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
