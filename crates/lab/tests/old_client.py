#!/usr/bin/python3
"""A client of the 0.5 generation, written from docs/state-schema.md alone.

It exists so that the end-to-end tests can prove the promise made to such clients: it reads and writes exactly the keys of
the contract, as they do, and knows nothing of our additions. It is as unforgiving as they are: a key that is missing or
does not read as the contract says ends it with a traceback and a non-zero exit.

Usage: old_client.py [-z HOSTS] COMMAND [ARGUMENT]
  define FILE NODE | undefine VM | start VM | stop VM | shutdown VM | restart VM | log VM [LINES] | list | init
  ask domains|ceph LINE
VM is a UUID or a name.
"""

import json
import sys
import time
import uuid
from xml.etree import ElementTree

from kazoo.client import KazooClient

ROOT_KEYS = {
    "/nodes": "", "/primary_node": "none", "/domains": "", "/networks": "", "/ceph": "", "/ceph/osds": "",
    "/ceph/pools": "", "/ceph/volumes": "", "/ceph/snapshots": "", "/cmd": "", "/cmd/domains": "", "/cmd/ceph": "",
}

# Every key of a node, with how it is read. All must exist, all must convert.
NODE_KEYS = {
    "daemonmode": str, "daemonstate": str, "routerstate": str, "domainstate": str,
    "memtotal": int, "memused": int, "memfree": int, "memalloc": int, "vcpualloc": int, "cpuload": float,
    "networkscount": int, "domainscount": int, "runningdomains": str.split, "keepalive": int,
    "ipmihostname": str, "ipmiusername": str, "ipmipassword": str,
}

VM_KEYS = ("state", "node", "lastnode", "failedreason", "consolelog", "rbdlist", "xml")


class Client:
    """The key habits: text in UTF-8, several keys in one transaction, each set followed by a check of version + 1."""

    def __init__(self, hosts):
        self.zk = KazooClient(hosts=hosts)
        self.zk.start(timeout=15)

    def read(self, path):
        return self.zk.get(path)[0].decode("utf-8")

    def write(self, values):
        transaction = self.zk.transaction()
        for path in sorted(values):
            data = str(values[path]).encode("utf-8")
            stat = self.zk.exists(path)
            if stat is None:
                transaction.create(path, data)
            else:
                transaction.set_data(path, data)
                transaction.check(path, stat.version + 1)
        refusals = [result for result in transaction.commit() if isinstance(result, Exception)]
        if refusals:
            raise SystemExit(f"transaction refused: {refusals!r}")

    def find(self, vm):
        try:
            wanted = str(uuid.UUID(vm))
        except ValueError:
            wanted = None
        for vm_id in self.zk.get_children("/domains"):
            if vm_id == wanted or self.read(f"/domains/{vm_id}") == vm:
                return vm_id
        raise SystemExit(f"no VM {vm}")

    def node(self, name):
        base = f"/nodes/{name}"
        seen = {key: convert(self.read(f"{base}/{key}")) for key, convert in NODE_KEYS.items()}
        cpus, kernel, system, arch = self.read(f"{base}/staticdata").split()
        assert self.read(base) == seen["daemonmode"], "the node's own value is its mode"
        for vm_id in seen["runningdomains"]:
            uuid.UUID(vm_id)
        return {"name": name, "cpus": int(cpus), "kernel": kernel, "os": system, "arch": arch, **seen}

    def vm(self, vm_id):
        base = f"/domains/{vm_id}"
        seen = {key: self.read(f"{base}/{key}") for key in VM_KEYS}
        domain = ElementTree.fromstring(seen.pop("xml"))
        seen["consolelog"] = len(seen["consolelog"].splitlines())
        seen["memory"] = int(domain.findtext("memory"))
        seen["vcpus"] = int(domain.findtext("vcpu"))
        return {"uuid": vm_id, "name": self.read(base), **seen}

    def init(self):
        self.write(ROOT_KEYS)

    def define(self, file, node):
        with open(file, encoding="utf-8") as source:
            xml = source.read()
        domain = ElementTree.fromstring(xml)
        vm_id = str(uuid.UUID(domain.findtext("uuid")))
        if not self.zk.exists(f"/nodes/{node}"):
            raise SystemExit(f"no node {node}")
        disks = [disk.get("name") for disk in domain.iterfind("./devices/disk/source[@protocol='rbd']")]
        base = f"/domains/{vm_id}"
        self.write({
            base: domain.findtext("name"), f"{base}/state": "stop", f"{base}/node": node, f"{base}/lastnode": "",
            f"{base}/failedreason": "", f"{base}/consolelog": "", f"{base}/rbdlist": ",".join(disks), f"{base}/xml": xml,
        })
        return {"uuid": vm_id}

    def undefine(self, vm):
        base = f"/domains/{self.find(vm)}"
        # The daemon acknowledges neither step; these clients give it two seconds each.
        for state in ("stop", "delete"):
            self.write({f"{base}/state": state})
            time.sleep(2)
        self.zk.delete(base, recursive=True)

    def ask_for(self, vm, state):
        self.write({f"/domains/{self.find(vm)}/state": state})

    def log(self, vm, lines="1000"):
        text = self.read(f"/domains/{self.find(vm)}/consolelog")
        print("\n".join(text.split("\n")[-int(lines):]))

    def ask(self, pipeline, line):
        key = f"/cmd/{pipeline}"
        self.write({key: line})
        time.sleep(0.5)
        with self.zk.ReadLock(key):
            answer = self.read(key)
        with self.zk.WriteLock(key):
            self.write({key: ""})
        return {"answer": answer}

    def list(self):
        return {
            "primary": self.read("/primary_node"),
            "nodes": [self.node(name) for name in sorted(self.zk.get_children("/nodes"))],
            "vms": [self.vm(vm_id) for vm_id in sorted(self.zk.get_children("/domains"))],
        }


def main(arguments):
    hosts = "127.0.0.1:2181"
    if arguments[:1] == ["-z"]:
        hosts, arguments = arguments[1], arguments[2:]
    if not arguments:
        raise SystemExit(__doc__)
    command, *rest = arguments
    client = Client(hosts)
    if command in ("start", "stop", "shutdown", "restart"):
        answer = client.ask_for(*rest, command)
    elif command in ("init", "define", "undefine", "log", "list", "ask"):
        answer = getattr(client, command)(*rest)
    else:
        raise SystemExit(f"no command {command}")
    if answer is not None:
        print(json.dumps(answer, indent=1))
    client.zk.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
