"""Nodes and networks: a flush, maintenance, another primary, a node that dies."""

import pathlib
import re

from playwright.sync_api import expect

from consoles import answers, talk
from person import DEFINITION, NODE, PATIENCE, TOKEN, URL, confirm, go, row, shot


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


def node_dies(page):
    """The page is told, shows how the VM came back elsewhere, and that the node is back."""
    headers = {"X-Api-Key": TOKEN}
    status = page.request.get(f"{URL}api/v2/status", headers=headers).json()
    home = page.request.get(f"{URL}api/v2/vms/page", headers=headers).json()["node"]
    if home == status["primary"]:
        # The service that is to tell of it is not to die with it.
        home = next(name for name in ("node1", "node2", "node3") if name != home)
        answer = page.request.post(f"{URL}api/v2/vms/page/move", headers=headers, data={"node": home})
        assert answer.ok, answer.text()
    go(page, "vms", "VMs")
    state, place = (row(page, "page").locator(f"td[data-head={head}]") for head in ("State", "Node"))
    expect(place).to_have_text(home, timeout=PATIENCE)
    expect(state).to_have_text("running", timeout=PATIENCE)
    # Whoever runs this cuts the power of the node that is named there.
    pathlib.Path(DEFINITION).with_name("cut").write_text(home)
    expect(place).to_have_text(re.compile(f"^(?!{home})node[123]$"), timeout=PATIENCE)
    expect(state).to_have_text("running", timeout=PATIENCE)
    go(page, "", "Overview")
    course = page.locator(".course").first
    for step in ("its last keepalive was heard", "declares it dead", "its BMC reports power off", "1 of 1 VMs that have new homes run"):
        expect(course).to_contain_text(step, timeout=PATIENCE)
    expect(course).to_contain_text("it is back", timeout=3 * PATIENCE)
    course.scroll_into_view_if_needed()
    shot(page, "failover")
    # It may be dead for a second only; what has changed is kept.
    go(page, "events", "Events")
    expect(page.locator(".changes")).to_contain_text("daemon: run → dead")
    go(page, f"nodes/{home}", home)
    expect(page.get_by_role("img", name=re.compile("^Load, now "))).to_be_visible()
