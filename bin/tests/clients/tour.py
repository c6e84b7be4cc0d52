"""A tour of an agent with py-consul, unmodified, and with a loop that renders templates: tour.py PORT."""
import base64
import hashlib
import json
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

import consul
import consul.exceptions

PORT = int(sys.argv[1])


def wait_for(what, condition):
    """Waits for a condition; the limit is only reached when something is broken."""
    deadline = time.monotonic() + 30
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.02)


def blocked(ask):
    """Starts a question that blocks; the answer comes from what is returned."""
    box = []

    def run():
        try:
            box.append((ask(), None))
        except Exception as error:
            box.append((None, error))
    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def answer():
        thread.join(30)
        assert box, "the blocked question was not answered"
        if box[0][1]:
            raise box[0][1]
        return box[0][0]
    return answer


def changed(ask, index):
    """Asks from an index on until there is something, as watchers do: an answer may come early."""
    def watch():
        at, found = index, None
        while not found:
            after, found = ask(at)
            assert int(after) >= int(at)
            at = after
        return at, found
    return blocked(watch)


def keys(c):
    assert c.kv.put("tour/a", "one", flags=42)
    index, found = c.kv.get("tour/a")
    assert (found["Value"], found["Flags"], found["Key"]) == (b"one", 42, "tour/a"), found
    assert int(index) >= found["ModifyIndex"] >= found["CreateIndex"] > 0
    assert c.kv.put("tour/bytes", bytes(range(256)))
    assert c.kv.get("tour/bytes")[1]["Value"] == bytes(range(256))
    assert c.kv.put("tour/a", "two", cas=found["ModifyIndex"]) is True
    assert c.kv.put("tour/a", "three", cas=found["ModifyIndex"]) is False
    assert c.kv.put("tour/new", "x", cas=0) is True and c.kv.put("tour/new", "y", cas=0) is False
    assert c.kv.put("tour/dir/b", "b") and c.kv.put("tour/empty", None)
    assert [pair["Key"] for pair in c.kv.get("tour/", recurse=True)[1]] == \
        ["tour/a", "tour/bytes", "tour/dir/b", "tour/empty", "tour/new"]
    assert c.kv.get("tour/", keys=True, separator="/")[1] == \
        ["tour/a", "tour/bytes", "tour/dir/", "tour/empty", "tour/new"]
    assert c.kv.get("tour/none")[1] is None
    assert c.kv.delete("tour/new") and c.kv.get("tour/new")[1] is None
    assert c.kv.get("tour/a", consistency="consistent")[1]["Value"] == b"two"
    assert c.kv.get("tour/a", consistency="stale")[1]["Value"] == b"two"
    key = "tour/ä & b/%41+?"
    assert c.kv.put(key, "odd") and c.kv.get(key)[1]["Value"] == b"odd"
    assert c.kv.get("tour/", keys=True)[1].count(key) == 1
    assert c.kv.delete("tour/", recurse=True) and c.kv.get("tour/", recurse=True)[1] is None


def watches(c):
    index, found = c.kv.get("watched")
    assert found is None
    answer = changed(lambda at: c.kv.get("watched", index=at, wait="25s"), index)
    c.kv.put("elsewhere", "x")
    c.kv.put("watched", "there")
    after, found = answer()
    assert found["Value"] == b"there" and int(after) > int(index)
    index, nobody = c.health.service("late", passing=True)
    assert nobody == []
    answer = changed(lambda at: c.health.service("late", passing=True, index=at, wait="25s"), index)
    c.agent.service.register("late", port=1)
    after, found = answer()
    assert found[0]["Service"]["Port"] == 1 and int(after) > int(index)
    c.agent.service.deregister("late")


def services(c):
    check = consul.Check.ttl("10m")
    c.agent.service.register("web", service_id="web-1", address="10.1.2.3", port=8080, tags=["v1"], check=check)
    assert c.agent.services()["web-1"]["Port"] == 8080
    entry = wait_for("the catalog has it", lambda: c.catalog.service("web")[1])[0]
    assert (entry["ServiceAddress"], entry["ServiceTags"]) == ("10.1.2.3", ["v1"]), entry
    assert c.health.service("web", passing=True)[1] == [], "its check has not passed"
    assert c.agent.check.ttl_pass("service:web-1", "fine")
    found = wait_for("it passes", lambda: c.health.service("web", passing=True)[1])[0]
    assert any(check["Output"] == "fine" for check in found["Checks"]), found
    assert c.agent.check.ttl_fail("service:web-1")
    wait_for("it is critical", lambda: [
        check for check in c.health.state("critical")[1] if check["ServiceID"] == "web-1"])
    assert c.agent.check.ttl_warn("service:web-1")
    wait_for("it warns", lambda: c.health.checks("web")[1][0]["Status"] == "warning")
    assert c.agent.maintenance("true", "tour") and c.agent.maintenance("false")
    assert "web" in c.catalog.services()[1]
    c.agent.check.register("alone", check=consul.Check.ttl("10m"), check_id="alone")
    assert c.agent.checks()["alone"]["Status"] == "critical"
    assert c.agent.check.deregister("alone") and "alone" not in c.agent.checks()
    assert c.agent.service.deregister("web-1")
    wait_for("the catalog has it no more", lambda: not c.catalog.service("web")[1])
    assert c.catalog.register("outside", "10.9.9.9", service={"Service": "db", "Port": 5432})
    assert c.catalog.service("db")[1][0]["Node"] == "outside"
    assert c.catalog.deregister("outside")
    assert c.catalog.service("db")[1] == []


def locks(c):
    mine, other = (c.session.create(name, ttl=60, lock_delay=0) for name in ("mine", "other"))
    assert c.kv.put("lock", "me", acquire=mine) is True
    assert c.kv.put("lock", "you", acquire=other) is False
    index, held = c.kv.get("lock")
    assert (held["Session"], held["Value"], held["LockIndex"]) == (mine, b"me", 1), held
    assert c.session.renew(mine)["TTL"] == "60s"
    answer = blocked(lambda: c.kv.get("lock", index=index, wait="25s"))
    assert c.kv.put("lock", "", release=other) is False
    assert c.session.destroy(mine)
    assert "Session" not in answer()[1]
    assert c.kv.put("lock", "you", acquire=other) is True
    assert c.kv.put("lock", "", release=other) is True
    assert c.session.info(other)[1]["Name"] == "other" and c.session.info(mine)[1] is None
    c.session.destroy(other)
    try:
        c.session.renew(str(uuid.uuid4()))
    except consul.NotFound:
        return
    raise AssertionError("an unknown session was renewed")


def transactions(c):
    def text(value):
        return base64.b64encode(value.encode()).decode()
    done = c.txn.put([
        {"KV": {"Verb": "set", "Key": "txn/a", "Value": text("1")}},
        {"KV": {"Verb": "cas", "Key": "txn/b", "Value": text("2"), "Index": 0}},
        {"KV": {"Verb": "get", "Key": "txn/a"}},
    ])
    assert not done["Errors"] and done["Results"][2]["KV"]["Value"] == text("1"), done
    try:
        c.txn.put([
            {"KV": {"Verb": "set", "Key": "txn/a", "Value": text("3")}},
            {"KV": {"Verb": "cas", "Key": "txn/b", "Value": text("4"), "Index": 1}},
        ])
    except consul.exceptions.ClientError as error:
        assert "409" in str(error), error
    else:
        raise AssertionError("a transaction that had to fail did not")
    assert c.kv.get("txn/a")[1]["Value"] == b"1"
    c.kv.delete("txn/", recurse=True)


def others(c):
    assert c.status.leader() and c.status.peers()
    assert c.agent.self()["Config"]["NodeName"] == c.catalog.nodes()[1][0]["Node"]
    assert c.agent.members()[0]["Status"] == 1
    assert c.catalog.datacenters() == ["dc1"]
    c.event.fire("deploy", "now")
    wait_for("the event", lambda: [event for event in c.event.list("deploy")[1] if event["Payload"] == b"now"])


def ask(method, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        # Nothing is there yet, which has an index, too.
        if error.code != 404:
            raise
        return error.headers, b"[]"


class Template:
    """What programs that render templates do: a blocking query over and over, rendered when its result changes."""

    def __init__(self, path):
        self.path, self.index, self.seen = path, 0, None
        self.rendered, self.resets, self.answers, self.error, self.ended = [], 0, 0, None, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.ended:
                self.once()
        except (OSError, ValueError) as error:
            self.error = error

    def once(self):
        separator = "&" if "?" in self.path else "?"
        headers, body = ask("GET", f"{self.path}{separator}index={self.index}&wait=1s&stale")
        index = int(headers["X-Consul-Index"])
        assert index > 0, "an index of 0 would make a busy loop"
        self.answers += 1
        if index < self.index:
            # It begins anew, as the documentation of blocking queries asks for.
            self.index, self.resets = 0, self.resets + 1
            return
        self.index = index
        seen = hashlib.sha256(body).digest()
        if seen != self.seen:
            self.seen = seen
            self.rendered.append(json.loads(body))

    def shows(self, what, condition):
        def look():
            assert self.error is None, self.error
            return self.rendered and condition(self.rendered[-1])
        wait_for(what, look)

    def end(self):
        self.ended = True
        self.thread.join(30)
        assert not self.thread.is_alive() and self.error is None, self.error


def templates(c):
    health = Template("/v1/health/service/app?passing")
    settings = Template("/v1/kv/settings/?recurse")
    services = Template("/v1/catalog/services")
    try:
        c.kv.put("settings/a", "1")
        settings.shows("a key", lambda pairs: [pair["Key"] for pair in pairs] == ["settings/a"])
        c.agent.service.register("app", service_id="app-1", port=1)
        c.agent.service.register("app", service_id="app-2", port=2, check=consul.Check.ttl("10m"))
        health.shows("one instance", lambda found: [one["Service"]["ID"] for one in found] == ["app-1"])
        c.agent.check.ttl_pass("service:app-2")
        health.shows("two instances", lambda found: len(found) == 2)
        services.shows("the service", lambda found: "app" in found)
        _, saved = ask("GET", "/v1/snapshot")
        renderings, answers = len(settings.rendered), settings.answers
        for number in range(50):
            c.kv.put(f"other/{number}", "x")
        wait_for("a full wait", lambda: settings.answers > answers)
        assert len(settings.rendered) == renderings, "rendered again for other keys"
        c.kv.put("settings/a", "2")
        settings.shows("the new value", lambda pairs: pairs[0]["Value"] == "Mg==")
        ask("PUT", "/v1/snapshot", saved)
        settings.shows("the restored value", lambda pairs: pairs[0]["Value"] == "MQ==")
        c.kv.put("settings/b", "3")
        settings.shows("a key after the restore", lambda pairs: len(pairs) == 2)
        c.agent.service.deregister("app-1")
        health.shows("one instance again", lambda found: [one["Service"]["ID"] for one in found] == ["app-2"])
        c.agent.service.deregister("app-2")
        health.shows("none", lambda found: found == [])
        services.shows("no service", lambda found: "app" not in found)
        assert settings.resets == health.resets == services.resets == 0, "an index went back"
    finally:
        for template in (health, settings, services):
            template.end()


def main():
    c = consul.Consul(host="127.0.0.1", port=PORT)
    for part in (keys, watches, services, locks, transactions, others, templates):
        part(c)
        print(part.__name__, flush=True)


main()
