"""VMs: defined, started, migrated, undefined."""

import pathlib
import re

from playwright.sync_api import expect

from consoles import answers, monitor, talk
from person import DEFINITION, NODE, PATIENCE, confirm, go, row, shot


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


def stop(page):
    go(page, "vms", "VMs")
    page.get_by_role("button", name="Stop page").click()
    confirm(page, "Stop")
    expect(row(page, "page")).to_contain_text("off", timeout=PATIENCE)


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
